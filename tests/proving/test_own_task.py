"""A task of what the base writes itself: other texts than all else reads, split for good, and of the base alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

import strop
from strop.anatomy import MatrixType, WeightSite
from strop.checkpoints import identify
from strop.errors import InterventionError, UsageError
from strop.interventions import RankReduction
from strop.proving import own_text_task, texts_beside_drift
from strop.proving.own_task import _read
from strop.recipe import Recipe
from strop.scoring import evaluate, own_text, own_texts


def test_it_is_of_texts_that_nothing_else_reads_and_they_stand_in_one_split_each(
    tiny: Callable[..., Any], small_tokenizer: Any
) -> None:
    model = tiny("llama", max_position_embeddings=512)
    task = own_text_task(model, small_tokenizer)
    assert (task.name, task.score, task.counts) == ("own-text", "perplexity", {"select": 4, "test": 4})
    written = [example.prompt + example.answer for members in task.splits.values() for example in members]
    assert len(set(written)) == 8
    fingerprint = identify(model).fingerprint
    of_drift = own_texts(model, small_tokenizer, fingerprint=fingerprint, count=4)
    kept_to = texts_beside_drift(model, small_tokenizer, fingerprint=fingerprint, count=4)
    others = {small_tokenizer.decode(row) for part in (*of_drift, *kept_to) for row in part.ids}
    assert not others & set(written)
    assert own_text_task(model, small_tokenizer).fingerprint == task.fingerprint
    assert evaluate(model, small_tokenizer, task).perplexity > 1


@pytest.fixture
def by_letters() -> Any:
    """A tokenizer of single letters: whatever is written with it is read as the same tokens."""
    vocabulary = {"<|end|>": 0} | {chr(32 + number): number for number in range(1, 95)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


def test_nothing_gains_on_what_the_base_writes_but_by_chance(tiny: Callable[..., Any], by_letters: Any) -> None:
    """E log p(x) − E log q(x) = KL(p ‖ q): whatever is cut, the base predicts its own text better."""
    model = tiny("llama", vocab_size=95)
    task = own_text_task(model, by_letters)
    written = evaluate(model, by_letters, task)
    assert set(written.tokens.tolist()) == {own_text.TEXT_TOKENS // 2}
    for layer in range(3):
        cut = Recipe.of(model, [RankReduction(WeightSite(layer, MatrixType.DOWN), 0.2)])
        with strop.applied(model, cut):
            assert evaluate(model, by_letters, task).perplexity > written.perplexity


@pytest.mark.parametrize(("prompt_tokens", "border"), [(3, 3), (4, 3)])
def test_words_are_parted_at_a_letter_and_never_inside_one(
    small_tokenizer: Any, prompt_tokens: int, border: int
) -> None:
    ids = torch.tensor(small_tokenizer("1 €x")["input_ids"])
    assert len(ids) == 6  # the sign is three bytes
    prompt, answer = _read(small_tokenizer, ids, prompt_tokens)
    assert prompt + answer == "1 €x"
    assert len(prompt) <= border
    assert small_tokenizer.decode(ids[:prompt_tokens]).startswith(prompt)


def test_a_model_with_something_attached_is_no_base(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    model = tiny("llama")
    with (
        strop.applied(model, Recipe.of(model, [RankReduction(WeightSite(0, MatrixType.UP), 0.5)])),
        pytest.raises(InterventionError, match="Something is attached to this model already; detach it first"),
    ):
        own_text_task(model, small_tokenizer)


def test_a_model_that_writes_nothing_is_told_what_to_give(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    with pytest.raises(
        UsageError,
        match=r"^BertForSequenceClassification writes no text of its own to search by; give a task \(task, --task\), or a text",
    ):
        own_text_task(tiny("bert"), small_tokenizer)
