"""Where an edit would have to guess which tokens are meant it refuses, and what went wrong leaves nothing behind."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.fixtures.layouts import (
    POSITIONS,
    Maker,
    every_model,
)
from torch import Tensor

from strop.anatomy import Anatomy
from strop.errors import InterventionError
from strop.interventions import prompt_lengths


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.set_grad_enabled(False):
        yield


@pytest.mark.parametrize("text", [text for text in POSITIONS if text != "all"])
def test_a_call_that_does_not_say_where_prompts_end_is_refused(
    text: str, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model, batch = exact("llama"), rows.batch(rows=[1])
    put_on(model, text)
    del batch["labels"]
    with pytest.raises(
        InterventionError, match="needs to know where prompts end, and neither labels nor generate says"
    ):
        model(**batch)
    with pytest.raises(InterventionError, match="needs to know where prompts end"):
        model(batch["input_ids"])
    with pytest.raises(InterventionError, match="needs to know where prompts end"):
        model.base_model(**batch)


def test_a_batch_without_a_mask_is_refused(exact: Maker, put_on: Maker, rows: Any) -> None:
    model, batch = exact("llama"), rows.batch()
    put_on(model, "l1")
    with pytest.raises(InterventionError, match="no two-dimensional attention_mask says which tokens are padding"):
        model(input_ids=batch["input_ids"], labels=batch["labels"])


def test_a_mask_of_four_dimensions_is_refused(exact: Maker, put_on: Maker, rows: Any) -> None:
    model, batch = exact("llama"), rows.batch(rows=[1])
    put_on(model, "l1")
    batch["attention_mask"] = torch.zeros(1, 1, 13, 13, dtype=torch.float64).masked_fill(
        torch.ones(13, 13).triu(1).bool(), -torch.inf
    )
    with pytest.raises(InterventionError, match="needs to know where prompts end"):
        model(**batch)
    with pytest.raises(InterventionError, match="its mask is no plain one"), prompt_lengths([9]):
        model(**batch)


@pytest.mark.parametrize("extra", [{}, {"cu_seq_lens_q": torch.tensor([0, 5, 13], dtype=torch.int32)}])
def test_sequences_packed_into_one_row_are_refused(
    extra: dict[str, Tensor], exact: Maker, put_on: Maker, rows: Any
) -> None:
    model, batch = exact("llama"), rows.batch(rows=[1])
    put_on(model, "l1")
    del batch["attention_mask"]
    batch["position_ids"] = torch.tensor([[*range(5), *range(8)]])
    with pytest.raises(InterventionError, match="several sequences are packed into one row"):
        model(**batch, **extra)


def test_labels_beside_a_cache_are_refused(exact: Maker, put_on: Maker, rows: Any) -> None:
    """The prompt's end may lie in what was read before."""
    model, batch = exact("llama"), rows.batch(rows=[1])
    put_on(model, "l1")
    with prompt_lengths([9]):
        past = model(input_ids=batch["input_ids"][:, :4], use_cache=True).past_key_values
    with pytest.raises(InterventionError, match="needs to know where prompts end"):
        model(
            input_ids=batch["input_ids"][:, 4:],
            attention_mask=batch["attention_mask"],
            labels=batch["labels"][:, 4:],
            past_key_values=past,
        )


def test_a_block_called_alone_is_refused(exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("gpt2")
    put_on(model, "all")
    block = model.transformer.h[0]
    for _ in range(2):
        with pytest.raises(InterventionError, match="A block was called by itself.*; call the model"):
            block(torch.zeros(1, 3, 32, dtype=torch.float64))
        model(**rows.batch())


def test_lengths_for_another_number_of_rows_are_refused(exact: Maker, put_on: Maker, rows: Any) -> None:
    model = exact("llama")
    put_on(model, "l1")
    with pytest.raises(InterventionError, match="given for 3 sequences, and there are 4"), prompt_lengths([1, 2, 3]):
        model(**rows.batch())


def test_declared_lengths_end_with_their_block(exact: Maker, put_on: Maker, rows: Any) -> None:
    model, batch = exact("llama"), rows.batch(rows=[1])
    put_on(model, "l1")
    del batch["labels"]
    with prompt_lengths([9]):
        outer = model(**batch).logits
        with prompt_lengths([2]):
            assert not torch.allclose(model(**batch).logits, outer, atol=1e-3)
        assert torch.equal(model(**batch).logits, outer)
    with contextlib.suppress(ValueError), prompt_lengths([9]):
        raise ValueError
    with pytest.raises(InterventionError, match="needs to know where prompts end"):
        model(**batch)


# After something went wrong


@every_model
@pytest.mark.parametrize("failure", [ValueError("half-way"), KeyboardInterrupt()])
def test_the_call_after_one_that_failed_half_way_is_right(
    model_type: str, failure: BaseException, exact: Maker, put_on: Maker, rows: Any
) -> None:
    model, batch = exact(model_type), rows.batch("left")
    other = {**batch, "labels": batch["labels"].clone()}
    other["labels"][:, :-1] = -100  # the very same ids, with prompts of other lengths
    put_on(model, "f2+l3")
    first, second = model(**batch).logits, model(**other).logits
    assert not torch.allclose(first, second, atol=1e-3)

    def fail(*_: Any) -> None:
        raise failure

    handle = Anatomy.of(model).blocks(model)[1].register_forward_pre_hook(fail)
    with pytest.raises(type(failure)):
        model(**batch)
    handle.remove()
    assert torch.equal(model(**other).logits, second)
    assert torch.equal(model(**batch).logits, first)


def test_a_call_refused_leaves_the_model_as_it_was(exact: Maker, put_on: Maker, rows: Any) -> None:
    model, batch = exact("llama"), rows.batch("left")
    attachment = put_on(model, "f2+l3")
    expected = model(**batch).logits
    with pytest.raises(InterventionError):
        model(input_ids=batch["input_ids"])
    assert torch.equal(model(**batch).logits, expected)
    attachment.detach()
    assert model(input_ids=batch["input_ids"]).logits.shape == expected.shape
