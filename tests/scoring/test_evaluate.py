"""Evaluating a task: the split asked for, its paraphrases, and what the model writes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import strop
from strop.errors import TaskError, UsageError
from strop.progress import Progress
from strop.scoring import Evaluation, Scorer, evaluate_paraphrases, greedy_continuations
from strop.tasks import Example, load_task

WriteTask = Callable[..., Path]


class Counting(Progress):
    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, stage: str, total: int) -> None:
        self.total += total

    def advance(self, steps: int = 1) -> None:
        self.done += steps


@pytest.mark.parametrize("split", ["train", "select", "test"])
def test_the_split_asked_for_is_scored_in_its_order(
    tiny: Callable[..., Any], small_tokenizer: Any, facts: Path, by_hand: Any, split: str
) -> None:
    model, task, progress = tiny("llama"), load_task(facts), Counting()
    found = strop.evaluate(model, small_tokenizer, task, split=split, progress=progress)
    losses, _, _ = by_hand(model, small_tokenizer, task.examples(split))
    np.testing.assert_allclose(found.loss, losses, rtol=1e-4)
    assert progress.done == progress.total > 0


def test_a_limit_scores_the_sample_the_task_gives(
    tiny: Callable[..., Any], small_tokenizer: Any, facts: Path, by_hand: Any
) -> None:
    model, task = tiny("gpt2"), load_task(facts)
    found = strop.evaluate(model, small_tokenizer, task, limit=5)
    losses, _, _ = by_hand(model, small_tokenizer, task.examples("test", limit=5))
    np.testing.assert_allclose(found.loss, losses, rtol=1e-4)


def test_paraphrases_are_counted_as_by_hand(
    tiny: Callable[..., Any], small_tokenizer: Any, write_task: WriteTask, by_hand: Any
) -> None:
    model = tiny("gpt_neox")
    rows = []
    for number in range(12):  # each answer is what the model itself says after one of the wordings
        wordings = [f"{number} + 1 =", f"The city of {number}", f"12 x {number} and"]
        ids = small_tokenizer(wordings[number % 3], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            order = model(ids).logits[0, -1].argsort(descending=True).tolist()
        texts = [small_tokenizer.decode([token]) for token in order]
        answer = next(text for text in texts if text.isascii() and text.startswith(" ") and text.strip())
        rows.append({"prompt": wordings[0], "answer": answer, "others": wordings[1 : 1 + number % 3]})
    task = load_task(write_task(rows, paraphrases="others"))
    found = evaluate_paraphrases(model, small_tokenizer, task, split="test")
    asked, right, all_right = 0, 0, 0
    for example in task.examples("test"):
        own = by_hand(model, small_tokenizer, [example])[1][0]
        others = [
            by_hand(model, small_tokenizer, [dataclasses.replace(example, prompt=prompt)])[1][0]
            for prompt in example.paraphrases
        ]
        asked, right, all_right = asked + len(others), right + sum(others), all_right + (own and all(others))
    assert (found.count, found.accuracy) == (asked, right / asked)
    assert found.consistent == all_right / len(task.examples("test"))


def test_a_task_without_paraphrases_is_refused(tiny: Callable[..., Any], small_tokenizer: Any, facts: Path) -> None:
    with pytest.raises(TaskError, match="small-facts has no paraphrases; name their column under paraphrases"):
        evaluate_paraphrases(tiny("llama"), small_tokenizer, load_task(facts))


def test_paraphrases_of_a_task_scored_by_loss_are_refused(
    tiny: Callable[..., Any], small_tokenizer: Any, write_task: WriteTask
) -> None:
    rows = [{"prompt": f"p{i}", "answer": " a", "others": ["q"]} for i in range(6)]
    task = load_task(write_task(rows, paraphrases="others", score="perplexity"))
    with pytest.raises(TaskError, match="made is scored by loss alone"):
        evaluate_paraphrases(tiny("llama"), small_tokenizer, task)


def test_greedy_continuations_take_the_likeliest_token_again_and_again(
    tiny: Callable[..., Any], small_tokenizer: Any, facts: Path
) -> None:
    model = tiny("llama").train()
    examples = load_task(facts).examples("test", limit=3)
    written = greedy_continuations(model, small_tokenizer, examples, tokens=4)
    assert model.training
    model.eval()
    for example, text in zip(examples, written, strict=True):
        ids = small_tokenizer(example.prompt, return_tensors="pt")["input_ids"]
        for _ in range(4):
            with torch.no_grad():
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        assert text == small_tokenizer.decode(ids[0, -4:], skip_special_tokens=True)


@pytest.mark.real
def test_the_real_model_knows_some_facts_and_scores_them_as_by_hand(real: Any, by_hand: Any) -> None:
    model, tokenizer = real
    task = load_task("world-facts")
    found = strop.evaluate(model, tokenizer, task, limit=20)
    assert found.accuracy is not None
    assert 0.0 < found.accuracy < 0.4
    examples = task.examples("test", limit=20)[:5]
    losses, rights, _ = by_hand(model, tokenizer, examples)
    np.testing.assert_allclose(found.loss[:5], losses, rtol=5e-3)
    assert found.correct is not None
    assert found.correct[:5].tolist() == rights
    assert json.dumps(found.figures.to_json())


@pytest.mark.parametrize(
    "lines",
    [
        "",
        'score: choice\nchoices: [" France", " Brazil"]\n',
        "score: first_token\n",
        "score: generate\ngenerate: {max_new_tokens: 2}\n",
        "score: perplexity\n",
    ],
    ids=["exact", "choice", "first_token", "generate", "perplexity"],
)
def test_every_score_tells_each_examples_category(
    answering: Callable[..., Any], small_tokenizer: Any, facts: Path, lines: str
) -> None:
    model = answering()
    assert strop.evaluate(model, small_tokenizer, load_task(facts), limit=3).categories is None
    facts.write_text(facts.read_text() + f"category: answer\n{lines}")
    task = load_task(facts)
    found = strop.evaluate(model, small_tokenizer, task)
    assert found.categories == tuple(example.answer for example in task.examples("test"))
    if found.correct is None:
        assert found.macro is None
    else:
        of_each = [
            np.mean([right for right, own in zip(found.correct, found.categories, strict=True) if own == name])
            for name in (" France", " Brazil")
        ]
        assert found.macro == pytest.approx(np.mean(of_each))
        assert found.figures.macro == found.macro


def test_an_example_without_a_category_counts_among_the_others(
    answering: Callable[..., Any], small_tokenizer: Any
) -> None:
    examples = [Example(f"The city of {n}", " France", category=own) for n, own in enumerate(("x", None, "other"))]
    found = Scorer(answering(), small_tokenizer, examples, "exact").evaluate()
    assert found.categories == ("x", "other", "other")


def test_an_evaluation_has_as_many_categories_as_examples() -> None:
    with pytest.raises(UsageError, match="with 2 losses has 1 values of categories"):
        Evaluation("exact", np.ones(2), np.ones(2, dtype=np.int64), categories=("x",))


def test_equal_shares_in_other_categories_make_the_same_macro_average_to_the_last_bit() -> None:
    def macro(*right: int) -> float | None:
        correct = np.concatenate([np.arange(10) < count for count in right])
        names = tuple(f"kind {number}" for number in range(len(right)) for _ in range(10))
        return Evaluation(
            "exact", np.ones(len(names)), np.ones(len(names), dtype=np.int64), correct, categories=names
        ).macro

    assert macro(1, 2, 3) == macro(3, 2, 1)
    assert macro(1, 2, 3) != macro(1, 2, 4)
