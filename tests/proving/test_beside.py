"""What a run leaves beside its figures: each held-out answer, its trials, and the spectra of what it edited."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.findings import gain_by_category
from strop.interventions import RankReduction, SingularValuePruning, SpectrumScaling
from strop.proving import RunOptions
from strop.proving.beside import kept_answers
from strop.recipe import Recipe
from strop.runs import read_answers, read_spectra, read_trials
from strop.scoring import Evaluation
from strop.searching import SearchPlan, search
from strop.tasks import Example, Task, load_task

PLAN = SearchPlan(strategy="exhaustive", layers=(0,), rank_fractions=(0.1, 0.5), matrix_types=(MatrixType.UP,))


@pytest.fixture
def counted(facts: Path) -> Task:
    """The small facts, with how often the training data held each."""
    rows = [json.loads(line) for line in (facts.parent / "facts.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {"seen": None if number % 5 == 0 else number * 10, "kind": "ab"[number % 2], "pair": f"Éa {number // 2}"}
    (facts.parent / "counted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = facts.read_text().replace("facts.jsonl", "counted.jsonl") + "frequency: seen\ncategory: kind\ngroup: pair\n"
    facts.with_name("counted.yaml").write_text(text)
    return load_task(facts.with_name("counted.yaml"))


def test_a_run_keeps_each_answer_and_its_trials_are_read_without_the_study(
    answering: Callable[..., Any], small_tokenizer: Any, counted: Task, tmp_path: Path
) -> None:
    model = answering()
    gone = [WeightSite(layer, kind) for layer in (1, 2) for kind in (MatrixType.DOWN, MatrixType.OUTPUT)]
    start = Recipe.of(model, [RankReduction(site, 0.0) for site in gone])
    options = RunOptions(out=tmp_path / "run", after=start, rivals=False)
    found = search(model, small_tokenizer, counted, PLAN, options)
    assert found.result.comparison["test"].fixed + found.result.comparison["test"].broken > 3
    kept, examples = read_answers(tmp_path / "run"), counted.examples("test")
    base = strop.evaluate(model, small_tokenizer, counted)
    with strop.applied(model, found.recipe):
        edited = strop.evaluate(model, small_tokenizer, counted)
    assert base.correct is not None
    assert edited.correct is not None
    assert [own.row for own in kept] == [example.row for example in examples]
    assert [own.wanted for own in kept] == [example.answer.strip() for example in examples]
    assert [own.right_before for own in kept] == base.correct.tolist()
    assert [own.right_after for own in kept] == edited.correct.tolist()
    assert [own.before for own in kept] == [str(said).strip() for said in base.said or ()]
    np.testing.assert_allclose([own.loss_before for own in kept], base.loss, rtol=1e-4)
    np.testing.assert_allclose([own.loss_after for own in kept], edited.loss, rtol=1e-4)
    assert [own.frequency for own in kept] == [example.columns["seen"] for example in examples]
    assert sum(own.fixed for own in kept) == found.result.comparison["test"].fixed
    assert sum(own.broken for own in kept) == found.result.comparison["test"].broken
    assert gain_by_category(kept) == found.result.categories
    trials = read_trials(tmp_path / "run")
    assert [(own.method, own.loss, own.accuracy, own.examples) for own in trials] == [
        (trial.key.method, trial.loss, trial.accuracy, trial.key.examples) for trial in found.trials
    ]
    assert [dict(own.candidate) for own in trials] == [json.loads(t.key.text)["candidate"] for t in found.trials]


def test_the_spectra_of_edited_matrices_are_those_of_the_base_and_of_the_edited_model(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    """Against the singular values of the raw weights, before and after."""
    model = answering()
    sites = [WeightSite(1, MatrixType.KEY), WeightSite(1, MatrixType.DOWN), WeightSite(0, MatrixType.UP)]
    change = torch.linspace(-0.5, 0.5, 32)
    start = Recipe.of(
        model,
        [
            RankReduction(sites[0], 0.5),
            SingularValuePruning(sites[1], (0, 3)),
            SpectrumScaling(sites[2]),
            RankReduction(WeightSite(0, MatrixType.KEY), 0.5, subspaces=2),  # scales no singular values
        ],
        tensors=[{}, {}, {"change": change}, {}],
    )
    plan = SearchPlan(strategy="exhaustive", layers=(2,), rank_fractions=(0.99,), matrix_types=(MatrixType.UP,))
    search(model, small_tokenizer, task, plan, RunOptions(out=tmp_path / "run", after=start, rivals=False))
    kept = {(own.site["layer"], own.site["matrix_type"]): own for own in read_spectra(tmp_path / "run")}
    layer = model.model.layers
    for key, weight in {
        (1, "key"): layer[1].self_attn.k_proj.weight,
        (1, "down"): layer[1].mlp.down_proj.weight,
        (0, "up"): layer[0].mlp.up_proj.weight,
    }.items():
        before = torch.linalg.svdvals(weight.detach().double())
        with strop.applied(model, start):
            after = torch.linalg.svdvals(weight.detach().double())
        own = kept[key]
        np.testing.assert_allclose(own.values, before, rtol=1e-4)
        made = sorted((value * scale for value, scale in zip(own.values, own.scales, strict=True)), reverse=True)
        np.testing.assert_allclose(made, after, atol=1e-4)
        assert own.energy_kept == pytest.approx(float(after.square().sum() / before.square().sum()), rel=1e-4)
    assert (kept[1, "key"].removed, kept[1, "down"].removed, kept[0, "up"].removed) == (8, 2, 0)
    assert kept[0, "up"].mean_change == pytest.approx(float(change.abs().mean()), rel=1e-4)
    assert kept[1, "key"].name == "layer 1 key"


def test_where_nothing_is_edited_no_spectra_are_left(
    answering: Callable[..., Any], small_tokenizer: Any, task: Task, tmp_path: Path
) -> None:
    model = answering()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.zero_()
    search(model, small_tokenizer, task, PLAN, RunOptions(out=tmp_path / "run", rivals=False))
    assert read_spectra(tmp_path / "run") == ()
    assert not (tmp_path / "run" / "spectra.json").exists()
    kept = read_answers(tmp_path / "run")
    assert [own.after for own in kept] == [own.before for own in kept]


@pytest.mark.parametrize(
    ("evaluation", "example", "said"),
    [
        (
            {"score": "choice", "said": (2,), "wanted": (1,)},
            Example("Which?", " red", choices=(" red", " blue")),
            ("red", "blue"),
        ),
        ({"score": "choice", "said": (" no",), "wanted": (" yes",)}, Example("Is it?", " yes"), ("yes", "no")),
        (
            {"score": "generate", "said": (None,), "wanted": ("4",), "generated": (" I do not know.",)},
            Example("2 + 2 =", " so it is 4", gold="4"),
            ("4", "I do not know."),
        ),
        ({"score": "perplexity"}, Example("", "A text."), ("A text.", None)),
        (
            {"score": "label", "said": ("brazil",), "wanted": ("france",)},
            Example("Lyon", "france"),
            ("france", "brazil"),
        ),
    ],
)
def test_answers_of_every_kind_are_kept_in_words(
    evaluation: dict[str, Any], example: Example, said: tuple[str, str | None]
) -> None:
    right = None if evaluation["score"] == "perplexity" else np.array([False])
    found = Evaluation(loss=np.array([np.nan]), tokens=np.array([1]), correct=right, **evaluation)
    (kept,) = kept_answers([example], found, found)
    assert (kept.wanted, kept.before) == said
    assert (kept.score, kept.right_after, kept.loss_after) == (
        evaluation["score"],
        None if right is None else False,
        None,
    )
