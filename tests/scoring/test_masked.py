"""Answers that an encoder fills in at masks, against raw transformers calls."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.masked import FAMILIES, make_tiny_masked, masked_tokenizer, saying_words

import strop
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.errors import TaskError, UsageError
from strop.interventions import RankReduction, applied_interventions
from strop.scoring import Scorer, evaluate
from strop.scoring.encoding import encode
from strop.scoring.forms import MaskedForm
from strop.tasks import Example, Task

TOKENIZER = masked_tokenizer()
SAME = {"rtol": 1e-4, "atol": 1e-4}
FORM = MaskedForm(mask=3, pad=1)
EXAMPLES = [
    Example("The city of Lyon is in", " France", after="."),
    Example("Paris is", " Paris", after=" in France."),
    Example("The city of Curitiba, which is large, is in", " Brazil", after="."),
    Example("The sky is", " red", after=""),
    Example("Lyon is", " a city", after="."),  # of several tokens
]


def by_hand(model: Any, example: Example, masks: int | None = None) -> tuple[float, list[bool], int]:
    """Return −log p per token, which masks are filled right, and the first one's rank: one text alone, nothing of ours."""
    answer = TOKENIZER(example.answer, add_special_tokens=False)["input_ids"][:masks]
    text = example.prompt + "<mask>" * len(answer) + example.after
    ids = torch.tensor([TOKENIZER(text)["input_ids"]])
    places = (ids[0] == TOKENIZER.mask_token_id).nonzero()[:, 0]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, places].double()
    own = logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
    rank = int((logits[0] > logits[0, answer[0]]).sum())
    return -float(own.mean()), (logits.argmax(-1) == torch.tensor(answer)).tolist(), rank


def answered(model: Any, prompt: str) -> Example:
    """Return an example whose mask the model fills right."""
    ids = torch.tensor([TOKENIZER(f"{prompt}<mask>.")["input_ids"]])
    with torch.no_grad():
        likeliest = int(model(input_ids=ids).logits[0].argmax(-1)[(ids[0] == 3).nonzero()[0, 0]])
    return Example(prompt, TOKENIZER.decode([likeliest]), after=".")


@pytest.mark.parametrize("model_type", ["roberta", "bert", *FAMILIES])
@pytest.mark.parametrize("score", ["exact", "first_token"])
def test_masks_are_filled_as_by_hand(model_type: str, score: Any) -> None:
    model = saying_words(make_tiny_masked(model_type), TOKENIZER)
    anatomy = Anatomy.of(model, family=FAMILIES.get(model_type))
    examples = [*EXAMPLES, answered(model, "The city of Paris is")]
    scorer = Scorer(model, TOKENIZER, examples, score, anatomy=anatomy)
    assert len(scorer.batches) == 1  # padded
    assert not bool(scorer.batches[0].real.all())
    found = scorer.evaluate()
    expected = [by_hand(model, example, 1 if score == "first_token" else None) for example in examples]
    np.testing.assert_allclose(found.loss, [loss for loss, _, _ in expected], **SAME)
    assert found.correct is not None
    assert found.correct.tolist() == [all(right) for _, right, _ in expected]
    assert found.correct[-1]
    if score == "first_token":
        assert found.rank is not None
        assert found.rank.tolist() == [rank for _, _, rank in expected]
        assert found.top(10) == sum(rank < 10 for _, _, rank in expected) / len(examples)
    else:
        assert found.tokens.tolist() == [len(right) for _, right, _ in expected]
    alone = [Scorer(model, TOKENIZER, [one], score, anatomy=anatomy).evaluate() for one in examples]
    np.testing.assert_allclose(found.loss, [float(one.loss[0]) for one in alone], **SAME)


def test_choices_have_masks_of_their_own() -> None:
    model = make_tiny_masked()
    choices = (" France", " Brazil", " a city", " red")
    examples = [Example(one.prompt, choice, choices, after=one.after) for one in EXAMPLES for choice in choices]
    scorer = Scorer(model, TOKENIZER, examples, "choice")
    assert sum(len(batch.input_ids) for batch in scorer.batches) == 2 * len(
        examples
    )  # one text for each number of masks
    found = scorer.evaluate()
    for index, example in enumerate(examples):
        losses = [by_hand(model, Example(example.prompt, choice, after=example.after)) for choice in choices]
        sums = [-loss * len(right) for loss, right, _ in losses]
        own = choices.index(example.answer)
        assert found.loss[index] == pytest.approx(losses[own][0], rel=1e-4)
        assert found.correct is not None
        assert bool(found.correct[index]) == (sums.index(max(sums)) == own)


def test_text_stands_around_the_masks_with_special_tokens_at_both_ends() -> None:
    (found,) = encode([EXAMPLES[1]], TOKENIZER, "exact", longest=128, form=FORM)
    row = FORM.row(found, "exact")
    assert TOKENIZER.decode(row.ids) == "<s>Paris is<mask> in France.</s>"
    assert [TOKENIZER.decode([found.ids[found.first_scored]])] == [" Paris"]
    assert (row.columns, row.prompt_length) == ((row.ids.index(3),), len(row.ids))
    (several,) = encode([EXAMPLES[4]], TOKENIZER, "exact", longest=128, form=FORM)
    assert FORM.row(several, "exact").ids.count(3) == len(several.ids) - several.first_scored > 1
    assert FORM.row(several, "first_token").ids.count(3) == 1


def test_an_answer_that_melts_into_what_follows_is_refused() -> None:
    melting = Example("The", " ci", after="ty of", row=4)
    with pytest.raises(TaskError) as refused:
        encode([melting], TOKENIZER, "exact", longest=128, form=FORM)
    assert str(refused.value) == (
        "row 4 (prompt 'The'): the answer ' ci' melts into what stands after it; begin after: with a space or a full stop."
    )


def test_a_text_counts_whole_against_the_context() -> None:
    model = make_tiny_masked(max_position_embeddings=12)  # two of which RoBERTa leaves unused
    with pytest.raises(TaskError, match="do not fit the model's context of 10"):
        Scorer(model, TOKENIZER, [EXAMPLES[0]], "exact")


def test_an_edit_is_scored_from_its_block_on_as_on_the_whole() -> None:
    model = make_tiny_masked()
    scorer = Scorer(model, TOKENIZER, EXAMPLES, "exact")
    site = WeightSite(1, MatrixType.UP)
    states = scorer.states_entering(1)
    with applied_interventions(model, [RankReduction(site, 0.2)], anatomy=scorer.anatomy):
        whole, part = scorer.evaluate(), scorer.evaluate(start=1, states=states)
    np.testing.assert_array_equal(whole.loss, part.loss)
    assert not np.allclose(whole.loss, scorer.evaluate().loss)


@pytest.mark.parametrize("score", ["perplexity", "generate"])
def test_what_asks_for_writing_is_refused_by_name(score: Any) -> None:
    with pytest.raises(UsageError) as refused:
        Scorer(make_tiny_masked(), TOKENIZER, EXAMPLES, score)
    assert str(refused.value) == (
        f"RobertaForMaskedLM fills masks and writes no text, which score: {score} needs; give the task score: exact or "
        "first_token, or load a causal language model."
    )


def test_a_tokenizer_without_a_mask_is_refused(small_tokenizer: Any) -> None:
    with pytest.raises(UsageError) as refused:
        Scorer(make_tiny_masked(), small_tokenizer, EXAMPLES, "exact")
    assert str(refused.value) == (
        "RobertaForMaskedLM fills masks, and its tokenizer has no mask token; load the tokenizer it came with."
    )


def saved(folder: Path, model_type: str = "roberta") -> Path:
    make_tiny_masked(model_type).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def test_a_checkpoint_that_fills_masks_is_loaded_as_such(tmp_path: Path) -> None:
    model, tokenizer = strop.load(saved(tmp_path / "model"))
    assert type(model).__name__ == "RobertaForMaskedLM"
    task = Task("made", "first_token", {"test": tuple(EXAMPLES)})
    found = evaluate(model, tokenizer, task)
    np.testing.assert_array_equal(found.loss, evaluate(make_tiny_masked(), TOKENIZER, task).loss)


def test_a_task_file_says_what_stands_after_the_answer(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text(
        "".join(f'{{"prompt": "{n} is in", "answer": " France", "end": "!"}}\n' for n in range(8))
    )
    text = "name: facts\ndata: facts.jsonl\nscore: {score}\nafter: ' now{{{{ end }}}}'\n"
    (tmp_path / "facts.yaml").write_text(text.format(score="first_token"))
    task = strop.load_task(tmp_path / "facts.yaml")
    assert {example.after for example in task.examples("test")} == {" now!"}
    (tmp_path / "plain.yaml").write_text(text.format(score="first_token").replace("after", "category"))
    assert strop.load_task(tmp_path / "plain.yaml").fingerprint != task.fingerprint
    (tmp_path / "facts.yaml").write_text(text.format(score="perplexity"))
    with pytest.raises(
        TaskError, match="after goes with score: exact, first_token or choice, not with score: perplexity"
    ):
        strop.load_task(tmp_path / "facts.yaml")


def test_a_causal_model_does_not_read_what_stands_after_an_answer(tiny: Any, small_tokenizer: Any) -> None:
    model = tiny("llama")

    def losses(examples: Sequence[Example]) -> Any:
        return Scorer(model, small_tokenizer, examples, "exact").evaluate().loss

    np.testing.assert_array_equal(losses(EXAMPLES), losses([Example(one.prompt, one.answer) for one in EXAMPLES]))
