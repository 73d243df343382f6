"""A plan is valid once built, and says in one sentence what is not."""

import dataclasses
import importlib.util
import json
from typing import Any

import pytest

from strop.anatomy import MatrixType, Stack
from strop.errors import UsageError
from strop.interventions import Positions
from strop.training import TrainPlan


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "dora"}, "'dora' is not a method of training"),
        ({"rank": 0}, "The rank of an edit is 1 or more, not 0"),
        ({"layers": ()}, "layers names no layer; leave it out for all"),
        ({"train_subspaces": ()}, "train_subspaces names no subspace; leave it out for all"),
        ({"subspaces": (("a", 3),)}, r"\(a 3\) do not add up to the rank, 8"),
        ({"epochs": 0}, "epochs is 1 or more, not 0"),
        ({"batch_size": 0}, "batch_size is 1 or more, not 0"),
        ({"accumulate": -1}, "accumulate is 1 or more, not -1"),
        ({"prefix_budget_bytes": -1}, "prefix_budget_bytes is 0 or more, not -1"),
        ({"patience": 0}, "patience is 1 or more, not 0"),
        ({"train_limit": 0}, "train_limit is 1 or more, not 0"),
        ({"learning_rate": 0.0}, "learning_rate is above 0, not 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is above 0, not nan"),
        ({"dropout": 1.0}, r"dropout lies in \[0, 1\), not 1.0"),
        ({"warmup": -0.1}, r"warmup lies in \[0, 1\), not -0.1"),
        ({"weight_decay": -1.0}, "weight_decay is 0 or more, not -1.0"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm is 0 or more, not inf"),
        ({"dropout_on": "all"}, "dropout_on is one of edit, state, not 'all'"),
        ({"precision": "int8"}, "precision is one of float32, bfloat16, float16, not 'int8'"),
        ({"schedule": "steps"}, "schedule is one of linear, cosine, constant, not 'steps'"),
        ({"init": "zero"}, "init is one of paper, identity, not 'zero'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_sentence(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as refusal:
        TrainPlan(**changes)
    assert str(refusal.value).endswith(".")


def test_a_plan_as_json_names_every_setting() -> None:
    plan = TrainPlan(positions=Positions(3, 2), subspaces=(("a", 5), ("b", 3)), layers=(4,))
    content = json.loads(json.dumps(plan.to_json()))
    assert content["positions"] == "f3+l2"
    assert content["subspaces"] == {"a": 5, "b": 3}
    assert content["layers"] == [4]
    left_out = {
        "edits",
        "objective",
        "matrix_types",
        "alpha",
        "top",
        "band",
        "sparsity",
        "stack",
    }  # said only where they are given
    assert set(content) == set(vars(plan)) - left_out
    without = dataclasses.replace(plan, keep_base=0).to_json()
    assert set(content) - set(without) == {"keep_base", "keep_texts", "keep_text"}
    weights = TrainPlan(method="spectrum", matrix_types=(MatrixType.UP,), top=4, band=1, stack=Stack.DECODER).to_json()
    assert left_out - set(weights) == {"edits", "objective", "sparsity", "alpha"}
    assert TrainPlan(method="spectrum", sparsity=0.9).to_json()["sparsity"] == 0.9


def test_untied_edits_are_one_for_each_end() -> None:
    tied, untied = TrainPlan(), TrainPlan(tied=False)
    assert [str(edit.positions) for edit in tied.edits_at(0)] == ["f7+l7"]
    assert [str(edit.positions) for edit in untied.edits_at(0)] == ["f7(+l7)", "(f7+)l7"]
    assert len(TrainPlan(tied=False, positions=Positions(0, 1)).edits_at(0)) == 1


@pytest.mark.parametrize("method", ["consreft", "lobireft"])
def test_methods_that_cannot_begin_as_the_identity_say_so(training: Any, plan: TrainPlan, method: str) -> None:
    found = training(dataclasses.replace(plan, method=method, epochs=1))
    assert found.result.edited["select"].loss < found.result.base["select"].loss
    if method == "consreft":
        with pytest.raises(UsageError, match="consreft cannot begin as the identity"):
            training(dataclasses.replace(plan, method=method, init="identity"))


def test_a_reporter_that_is_not_there_is_refused_before_anything_is_written(
    training: Any, plan: TrainPlan, tmp_path: Any
) -> None:
    names = ["nonsense", *(name for name in ("tensorboard", "wandb") if importlib.util.find_spec(name) is None)]
    for name in names:
        with pytest.raises(UsageError, match=f"Losses cannot be reported to {name}: "):
            training(dataclasses.replace(plan, report_to=(name,)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_losses_are_reported_where_the_plan_says(
    training: Any, plan: TrainPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    told: list[float] = []

    class Telling(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
            told.extend(value for name, value in logs.items() if name == "loss")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "telling", Telling)
    training(dataclasses.replace(plan, report_to=("telling",)))
    assert len(told) == 4
    assert told == sorted(told, reverse=True)
