"""Classifiers: edits and head learn together, are saved together, come off together, and prove their gain."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import strop
from strop import Head, Recipe, TrainPlan
from strop.anatomy import StreamSite
from strop.errors import InterventionError, UsageError
from strop.interventions import LowRankEdit, Positions, attachments_of
from strop.progress import Progress
from strop.runs import TrainedHead
from strop.tasks import load_task

pytestmark = pytest.mark.thorough

FAMILIES = ["llama", "gpt2", "bert", "roberta"]
Cities = Callable[..., Path]
Classifier = Callable[..., Any]
QUICK = TrainPlan(
    rank=1, positions=Positions(3, 3), tied=False, epochs=4, batch_size=8, accumulate=1, learning_rate=1e-2, warmup=0
)


def bits(model: Any) -> dict[str, torch.Tensor]:
    return {name: own.clone() for name, own in model.state_dict().items()}


def same_bits(model: Any, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == before.keys() and all(
        torch.equal(own, now[name]) and own.dtype == now[name].dtype for name, own in before.items()
    )


def said(evaluation: Any) -> list[float]:
    assert evaluation.predicted is not None
    return list(evaluation.predicted)


@dataclasses.dataclass(frozen=True)
class Learned:
    """A tiny classifier that was trained, its task, and what training it found."""

    model: Any
    task: Any
    found: Any
    run: Path
    before: dict[str, torch.Tensor]
    flags: dict[str, bool]
    """Which parameters asked for a gradient before."""


@pytest.fixture(scope="module")
def learned(
    write_cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Learned]:
    """Train a tiny classifier of a family, once for all tests."""
    done: dict[str, Learned] = {}

    def find(model_type: str) -> Learned:
        if model_type not in done:
            folder, model = tmp_path_factory.mktemp(model_type), tiny_classifier(model_type)
            task = load_task(write_cities(folder))
            before, flags = bits(model), {name: own.requires_grad for name, own in model.named_parameters()}
            found = strop.train(model, small_tokenizer, task, QUICK, options=strop.RunOptions(out=folder / "run"))
            done[model_type] = Learned(model, task, found, folder / "run", before, flags)
        return done[model_type]

    return find


@pytest.fixture
def trained(learned: Callable[[str], Learned]) -> tuple[Any, Any, Any]:
    """A tiny Llama classifier, its task, and what training it found."""
    llama = learned("llama")
    return copy.deepcopy(llama.model), llama.task, llama.found


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_planted_task_is_learned_saved_and_reloaded_with_the_same_answers(
    learned: Callable[[str], Learned], tiny_classifier: Classifier, small_tokenizer: Any, model_type: str
) -> None:
    once = learned(model_type)
    model, task, found, before = once.model, once.task, once.found, once.before
    assert same_bits(model, before)
    assert {name: own.requires_grad for name, own in model.named_parameters()} == once.flags
    assert not model.training
    assert model.config.problem_type is None
    edited, comparison = found.result.edited["test"], found.result.comparison["test"]
    assert edited.accuracy > 0.9
    assert comparison.ci95[0] > 0.1
    assert comparison.p_value < 0.01

    other = tiny_classifier(model_type)
    loaded = Recipe.load(once.run / "recipe")
    assert loaded == found.recipe
    assert found.test_evaluations is not None
    with strop.applied(other, loaded):
        again = strop.evaluate(other, small_tokenizer, task)
    assert said(again) == said(found.test_evaluations[1])
    assert again.loss.tolist() == pytest.approx(found.test_evaluations[1].loss.tolist(), abs=1e-6)
    assert same_bits(other, before)
    unedited = strop.evaluate(other, small_tokenizer, task)
    assert said(unedited) == said(found.test_evaluations[0])


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_heads_parameters_are_told_apart_from_the_edits(learned: Callable[[str], Learned], model_type: str) -> None:
    names = {
        "llama": {"score.weight"},
        "gpt2": {"score.weight"},
        "bert": {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"},
        "roberta": {
            "classifier.dense.weight", "classifier.dense.bias", "classifier.out_proj.weight", "classifier.out_proj.bias",
        },
    }[model_type]  # fmt: skip
    model, found = learned(model_type).model, learned(model_type).found
    assert found.recipe.head is not None
    assert set(found.recipe.head.tensors) == names
    assert [entry["parameters"] for entry in found.result.interventions] == [2 * 32 + 1] * 6
    count = sum(own.numel() for name, own in model.named_parameters() if name in names)
    assert found.result.head == TrainedHead(("france", "brazil"), count)
    assert all(not torch.equal(own, model.get_parameter(name)) for name, own in found.recipe.head.tensors.items())


@pytest.mark.parametrize("model_type", ["llama", "roberta"])
def test_a_number_is_learned_and_judged_by_its_correlation(
    cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any, model_type: str
) -> None:
    task = load_task(cities(labels="number", answer="{{ 4 if where == 'france' else 1 }}"))
    found = strop.train(tiny_classifier(model_type, 1), small_tokenizer, task, QUICK)
    edited = found.result.to_json()["edited"]["test"]
    assert found.result.metric == edited["metric"] == "pearson"
    assert edited["accuracy"] is None
    assert edited["pearson"] > 0.8
    assert found.test_evaluations is not None
    before, after = found.test_evaluations
    assert edited["loss"] == pytest.approx(np.mean((np.array(said(after)) - after.actual) ** 2))
    gain = found.result.comparison["test"].gain
    assert gain == pytest.approx(edited["pearson"] - found.test_evaluations[0].metric[1])
    assert f"pearson on {before.count} held-out examples: " in str(found)
    assert "a classification head of one number" in str(found.recipe)


def test_the_epoch_is_chosen_by_the_tasks_metric_and_result_json_names_it(
    cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    task = load_task(cities(metric="matthews"))
    found = strop.train(
        tiny_classifier("gpt2"), small_tokenizer, task, QUICK, options=strop.RunOptions(out=tmp_path / "run")
    )
    best = max(found.trials, key=lambda trial: trial.merit)
    assert best.metric is not None
    assert best.metric[0] == "matthews"
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["metric"] == "matthews"
    assert written["edited"]["select"]["matthews"] == best.metric[1]
    assert set(written["comparison"]["test"]) == {"gain", "ci95", "p_value", "fixed", "broken"}
    assert found.recipe.provenance["edited"]["matthews"] == written["edited"]["test"]["matthews"]
    assert "the matthews went from" in (tmp_path / "run" / "recipe" / "README.md").read_text()
    assert "strop.load_classifier(" in (tmp_path / "run" / "recipe" / "README.md").read_text()
    assert "epoch 1: accuracy 0." in (log := (tmp_path / "run" / "log.txt").read_text())
    assert ", matthews " in log


class _Stop(Progress):
    def note(self, line: str) -> None:
        if line.startswith("epoch 2:"):
            raise KeyboardInterrupt


def test_a_training_that_was_cut_off_ends_as_one_that_was_not(
    cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any, tmp_path: Path
) -> None:
    model, task = tiny_classifier("roberta", hidden_dropout_prob=0.1), load_task(cities())
    before = bits(model)
    whole = strop.train(model, small_tokenizer, task, QUICK, options=strop.RunOptions(out=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        strop.train(
            model, small_tokenizer, task, QUICK, options=strop.RunOptions(out=tmp_path / "cut", progress=_Stop())
        )
    assert same_bits(model, before)
    (checkpoint,) = (tmp_path / "cut" / "checkpoints").glob("checkpoint-*")
    kept = Recipe.load(checkpoint)
    assert kept.head is not None
    assert not kept.head.same_as(whole.recipe.head)  # type: ignore[arg-type]
    rest = strop.train(model, small_tokenizer, task, QUICK, options=strop.RunOptions(out=tmp_path / "cut", resume=True))
    assert rest.recipe == whole.recipe
    assert [trial.loss for trial in rest.trials] == [trial.loss for trial in whole.trials]


def test_training_goes_on_from_a_recipe_with_its_head(trained: tuple[Any, Any, Any], small_tokenizer: Any) -> None:
    model, task, first = trained
    slow = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-7)
    second = strop.train(model, small_tokenizer, task, slow, options=strop.RunOptions(after=first.recipe))
    assert second.result.start["test"].accuracy == first.result.edited["test"].accuracy
    assert second.recipe.interventions[: len(first.recipe.interventions)] == first.recipe.interventions
    assert second.recipe.head is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_learns_in_float32_and_the_models_own_comes_back_in_its_dtype(
    cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any, dtype: torch.dtype
) -> None:
    model, task = tiny_classifier("roberta").to(dtype), load_task(cities())
    before = bits(model)
    found = strop.train(model, small_tokenizer, task, QUICK)
    assert same_bits(model, before)
    assert found.recipe.head is not None
    assert {own.dtype for own in found.recipe.head.tensors.values()} == {torch.float32}
    assert found.result.edited["test"].accuracy > 0.9
    attachment = strop.attach(model, found.recipe)
    assert model.classifier.out_proj.weight.dtype == torch.float32
    attachment.detach()
    assert same_bits(model, before)


def test_the_head_comes_off_after_an_exception_and_with_its_gradient_as_it_was(trained: tuple[Any, Any, Any]) -> None:
    model, _, found = trained
    model.score.weight.grad = torch.ones_like(model.score.weight)
    storage, gradient = model.score.weight.data_ptr(), model.score.weight.grad

    def fail_inside() -> None:
        with strop.applied(model, found.recipe):
            assert model.score.weight.data_ptr() != storage
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert model.score.weight.data_ptr() == storage
    assert model.score.weight.grad is gradient
    assert attachments_of(model) == ()


def test_a_head_learns_under_any_loop_and_only_where_the_recipe_has_one(
    tiny_classifier: Classifier, small_tokenizer: Any
) -> None:
    model = tiny_classifier("bert")
    before = bits(model)
    edit = LowRankEdit(StreamSite(2), "loreft", rank=2, positions=Positions(1, 1))
    drawn = edit.initial_tensors((32, 32), generator=torch.Generator().manual_seed(0))
    for head in (None, Head.of(model, ("no", "yes"))):
        recipe = Recipe.of(model, [edit], tensors=[drawn], head=head)
        attachment = strop.attach(model, recipe, trainable=True)
        learning = [name for name, own in model.named_parameters() if own.requires_grad]
        assert any("classifier" in name for name in learning) == (head is not None)
        assert any("pooler" in name for name in learning) == (head is not None)
        assert all("strop_edits" in name or "classifier" in name or "pooler" in name for name in learning)
        optimiser = torch.optim.AdamW([own for own in model.parameters() if own.requires_grad], lr=0.1)
        batch = small_tokenizer(["The city", "12 x 12 ="], padding=True, return_tensors="pt")
        model(**batch, labels=torch.tensor([0, 1])).loss.backward()
        optimiser.step()
        learned = recipe.learned_by(attachment)
        attachment.detach()
        assert same_bits(model, before)
        assert learned != recipe
        assert (learned.head is None) == (head is None)
        if head is not None and learned.head is not None:
            assert not learned.head.same_as(head)


def test_a_recipe_on_a_model_without_such_a_head_is_refused_in_one_sentence(
    trained: tuple[Any, Any, Any], tiny: Classifier, tiny_classifier: Classifier
) -> None:
    _, _, found = trained
    for other, message in (
        (
            tiny("llama"),
            r"^A head of 2 labels \(france, brazil\) needs a classifier, and LlamaForCausalLM is none; load",
        ),
        (
            tiny_classifier("llama", 3),
            r"^This Llama\w+ has 3 labels, and 2 labels \(france, brazil\) are needed; load it",
        ),
        (tiny_classifier("roberta"), r"^The recipe's head does not fit this RobertaForSequenceClassification: its "),
    ):
        for force in (False, True):
            with pytest.raises(InterventionError, match=message) as raised:
                strop.attach(other, found.recipe, force=force)
            assert "\n" not in str(raised.value)
            assert attachments_of(other) == ()


def test_a_model_of_the_wrong_kind_is_not_trained(
    cities: Cities, facts: Path, tiny: Classifier, tiny_classifier: Classifier, small_tokenizer: Any
) -> None:
    with pytest.raises(UsageError, match="needs a classifier"):
        strop.train(tiny("llama"), small_tokenizer, load_task(cities()), QUICK)
    with pytest.raises(UsageError, match="does not predict the next token"):
        strop.train(tiny_classifier("bert"), small_tokenizer, load_task(facts), QUICK)


@pytest.mark.real
def test_the_real_model_learns_to_tell_sums_from_cities(tmp_path: Path) -> None:
    rows = [{"text": f"{a} + {b} = {a + b}", "kind": "sum"} for a in range(2, 7) for b in range(3, 7)]
    rows += [
        {"text": f"The city of {city} is {word} in {land}", "kind": "place"}
        for city, land in (("Lyon", "France"), ("Osaka", "Japan"), ("Graz", "Austria"), ("Cusco", "Peru"))
        for word in "not surely indeed found still".split()
    ]
    (tmp_path / "kinds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "kinds.yaml").write_text(
        'name: kinds\ndata: kinds.jsonl\nprompt: "{{ text }}"\nanswer: "{{ kind }}"\nlabels: [sum, place]\nscore: label\n'
        "splits: {train: 0.4, select: 0.2, test: 0.4}\n"
    )
    model, tokenizer = strop.load_classifier("smollm2-135m", labels=["sum", "place"])
    task = load_task(tmp_path / "kinds.yaml")
    plan = TrainPlan(layers=(28,), rank=1, positions=Positions(last=1), epochs=2, batch_size=8, accumulate=1)
    own = model.score.weight.clone()
    found = strop.train(model, tokenizer, task, plan, options=strop.RunOptions(out=tmp_path / "run"))
    assert torch.equal(model.score.weight, own)
    assert found.result.edited["test"].accuracy == 1
    again, _ = strop.load_classifier("smollm2-135m", labels=["sum", "place"])
    with strop.applied(again, Recipe.load(tmp_path / "run" / "recipe")):
        evaluation = strop.evaluate(again, tokenizer, task)
    assert found.test_evaluations is not None
    assert said(evaluation) == said(found.test_evaluations[1])


@pytest.mark.parametrize(
    ("family", "method"),
    [("bert", "spectrum"), ("bert", "bias"), ("gpt2", "spectrum"), ("gpt2", "bias"), ("gpt2", "lora")],
)
def test_a_classifiers_weights_learn_beside_its_head(
    write_cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any, tmp_path: Path, family: str, method: str
) -> None:
    model = tiny_classifier(family)
    before = bits(model)
    plan = TrainPlan(method=method, epochs=3, batch_size=8, accumulate=1, learning_rate=2e-2)
    found = strop.train(model, small_tokenizer, load_task(write_cities(tmp_path)), plan)
    assert same_bits(model, before)
    assert found.result.edited["select"].loss < found.result.base["select"].loss
    assert {entry.method for entry in found.recipe.interventions} == {method}
    assert found.recipe.head is not None


def test_a_classifier_writes_no_text_that_it_could_be_kept_to(
    write_cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any, tmp_path: Path
) -> None:
    task = load_task(write_cities(tmp_path))
    kept, free = (
        strop.train(
            tiny_classifier("gpt2"), small_tokenizer, task, dataclasses.replace(QUICK, epochs=1, keep_base=weight)
        )
        for weight in (10.0, 0.0)
    )
    assert kept.result.cost.tokens == free.result.cost.tokens
    assert kept.result.edited == free.result.edited
