"""Where tokens stand in their sequences: from masks, caches, labels and declared lengths, and never from token ids."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, DynamicCache

from strop.anatomy import StreamSite
from strop.errors import InterventionError, UsageError
from strop.interventions import LowRankEdit, Positions, applied_interventions, prompt_lengths
from strop.interventions.prompts import Layout, Prompts, arguments_of, layout_of, tokens_of

Tiny = Callable[..., nn.Module]
IDS = torch.zeros(2, 6, dtype=torch.long)  # ids are never looked at: these are all the padding token's
LEFT = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
RIGHT = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
COUNTED = [[-1, -1, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]


def cache_of(tokens: int) -> DynamicCache:
    cache = DynamicCache()
    if tokens:
        cache.update(torch.zeros(2, 1, tokens, 4), torch.zeros(2, 1, tokens, 4), 0)
    return cache


def placed(prompt_mask: Tensor | None = None, whole_input: bool = False, **arguments: Any) -> Layout:
    return layout_of({"input_ids": IDS, **arguments}, prompt_mask=prompt_mask, whole_input=whole_input)


def lengths(layout: Layout) -> "list[int] | None":
    return None if layout.prompt_length is None else layout.prompt_length.tolist()


def labels(*firsts: "int | None") -> Tensor:
    """Labels that begin at a column of each row."""
    found = torch.full((len(firsts), 6), -100)
    for row, first in enumerate(firsts):
        if first is not None:
            found[row, first:] = 7
    return found


def test_tokens_are_counted_without_padding_on_either_side_or_between() -> None:
    assert placed(attention_mask=LEFT, labels=labels(4, 4)).index.tolist() == COUNTED
    right = placed(attention_mask=RIGHT, labels=labels(3, 4))
    assert right.index.tolist() == [[0, 1, 2, 3, -1, -1], COUNTED[1]]
    assert right.padded
    between = placed(attention_mask=torch.tensor([[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1]]), labels=labels(3, 3))
    assert between.index.tolist() == [[0, -1, 1, 2, -1, 3], COUNTED[1]]
    assert lengths(between) == [2, 3]
    assert not placed(attention_mask=torch.ones_like(IDS), labels=labels(3, 3)).padded


@pytest.mark.parametrize("dtype", [torch.long, torch.int32, torch.bool, torch.float32])
def test_a_mask_of_any_dtype_is_read(dtype: torch.dtype) -> None:
    assert placed(attention_mask=LEFT.to(dtype), labels=labels(4, 4)).index.tolist() == COUNTED


def test_a_prompt_is_what_comes_before_the_first_label() -> None:
    assert lengths(placed(attention_mask=LEFT, labels=labels(4, 1))) == [2, 1]
    assert lengths(placed(attention_mask=RIGHT, labels=labels(2, 5))) == [2, 5]
    assert lengths(placed(attention_mask=LEFT, labels=labels(None, 0))) == [4, 0]  # nothing but a prompt; none at all
    gaps = labels(2, 2)
    gaps[:, 4] = -100  # a turn of the user's in the midst of answers is no prompt's end
    assert lengths(placed(attention_mask=RIGHT, labels=gaps)) == [2, 2]


def test_labels_on_padding_do_not_make_the_prompt_longer() -> None:
    everything = labels(0, 0)
    assert lengths(placed(attention_mask=LEFT, labels=everything)) == [0, 0]


def test_declared_lengths_go_before_labels_and_generation() -> None:
    with prompt_lengths([1, 3]):
        assert lengths(placed(attention_mask=LEFT, labels=labels(4, 4))) == [1, 3]
        assert lengths(placed(prompt_mask=LEFT, attention_mask=LEFT)) == [1, 3]
        assert lengths(placed()) == [1, 3]  # without a mask, from the first column on
        assert placed().index.tolist() == [COUNTED[1], COUNTED[1]]


@pytest.mark.parametrize("cached", [0, 2, 5])
def test_a_step_is_placed_by_the_length_of_the_cache(cached: int) -> None:
    step = {"input_ids": IDS[:, cached:], "past_key_values": cache_of(cached)}
    with prompt_lengths([3, 3]):
        found = layout_of({**step, "attention_mask": LEFT}, prompt_mask=None, whole_input=False)
        assert found.index.tolist() == [row[cached:] for row in COUNTED]
        unmasked = layout_of(step, prompt_mask=None, whole_input=False)
        assert unmasked.index.tolist() == [list(range(cached, 6))] * 2


@pytest.mark.parametrize("cached", [0, 2, 5])
def test_while_generating_the_prompt_is_what_generate_was_given(cached: int) -> None:
    prompt = LEFT[:, :4]  # two tokens have been generated since, whatever the mask of the step says
    step = {"input_ids": IDS[:, cached:], "past_key_values": cache_of(cached)}
    for mask in (None, LEFT[:, cached:], torch.zeros(2, 1, 6 - cached, 6)):
        found = layout_of({**step, "attention_mask": mask}, prompt_mask=prompt, whole_input=False)
        assert found.index.tolist() == [row[cached:] for row in COUNTED]
        assert lengths(found) == [2, 4]


@pytest.mark.parametrize("copies", [2, 3])
def test_beams_repeat_their_prompts_row(copies: int) -> None:
    ids = torch.zeros(2 * copies, 1, dtype=torch.long)
    found = layout_of({"input_ids": ids, "past_key_values": cache_of(5)}, prompt_mask=LEFT[:, :4], whole_input=False)
    assert found.index.tolist() == [[3]] * copies + [[5]] * copies
    assert lengths(found) == [2] * copies + [4] * copies


def test_rows_that_cannot_come_from_the_prompts_are_not_placed() -> None:
    found = layout_of({"input_ids": torch.zeros(3, 6)}, prompt_mask=LEFT, whole_input=False)
    assert found.prompt_length is None
    assert found.reason == "2 prompts cannot have become 3 rows"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"attention_mask": LEFT}, "neither labels nor generate says where they do"),
        ({"labels": labels(3, 3)}, "no two-dimensional attention_mask says which tokens are padding"),
        ({"labels": labels(3, 3), "attention_mask": torch.zeros(2, 1, 6, 6)}, "no two-dimensional attention_mask"),
        ({"labels": torch.tensor([1, 2]), "attention_mask": LEFT}, "neither labels nor generate"),
        (
            {"attention_mask": LEFT, "labels": labels(3, 3), "past_key_values": cache_of(6)},
            "neither labels nor generate",
        ),
        ({"position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)}, "several sequences are packed into one row"),
        (
            {
                "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5]]),
                "attention_mask": torch.ones(2, 6),
            },
            "several sequences are packed into one row",
        ),
        ({"cu_seq_lens_q": torch.tensor([0, 6]), "attention_mask": LEFT}, "several sequences are packed into one row"),
    ],
)
def test_what_cannot_be_known_says_why(arguments: dict[str, Any], reason: str) -> None:
    for whole_input in (False, True) if reason.startswith(("no", "several")) else (False,):
        found = placed(whole_input=whole_input, **arguments)
        assert found.prompt_length is None
        assert reason in found.reason


@pytest.mark.parametrize("of_padding", [0, 1, 5])
def test_positions_of_padding_are_not_taken_for_those_of_a_second_sequence(of_padding: int) -> None:
    positions = torch.tensor([[of_padding, of_padding, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]])
    found = placed(attention_mask=LEFT, position_ids=positions, labels=labels(3, 3))
    assert lengths(found) == lengths(placed(attention_mask=LEFT, labels=labels(3, 3)))


def test_a_model_without_a_head_reads_nothing_but_prompts() -> None:
    assert lengths(placed(whole_input=True, attention_mask=LEFT)) == [4, 6]
    assert lengths(placed(whole_input=True, attention_mask=RIGHT, labels=torch.tensor([0, 1]))) == [4, 6]


@pytest.mark.parametrize("given", [[-1, 2], [[1, 2]], 3, torch.tensor([[1], [2]])])
def test_lengths_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(UsageError, match="one length for each sequence, 0 or more tokens"), prompt_lengths(given):
        raise AssertionError("the block was entered")


def test_lengths_for_another_number_of_rows_are_refused_with_both_numbers() -> None:
    with pytest.raises(InterventionError, match="given for 1 sequences, and there are 2"), prompt_lengths([4]):
        placed(attention_mask=LEFT)


def test_declared_lengths_are_those_of_their_thread_and_their_task() -> None:
    found: dict[str, Any] = {}

    def elsewhere() -> None:
        found["thread"] = lengths(placed(attention_mask=LEFT))

    async def task(name: str, declared: list[int]) -> None:
        with prompt_lengths(declared):
            await asyncio.sleep(0)
            found[name] = lengths(placed(attention_mask=LEFT))

    async def both() -> None:
        await asyncio.gather(task("one", [1, 1]), task("other", [2, 2]))

    with prompt_lengths([3, 3]):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        asyncio.run(both())
        found["here"] = lengths(placed(attention_mask=LEFT))
    assert found == {"thread": None, "one": [1, 1], "other": [2, 2], "here": [3, 3]}


def test_the_mask_of_a_prompt_is_the_one_generate_is_given() -> None:
    assert Prompts({"attention_mask": LEFT}, (IDS,)).mask is LEFT
    for named, positional in (({"input_ids": IDS[:1]}, ()), ({"inputs": IDS[:1]}, ()), ({}, (IDS[:1],))):
        found = Prompts(named, positional).mask
        assert found is not None
        assert found.tolist() == [[1] * 6]
    embedded = Prompts({"inputs_embeds": torch.zeros(1, 4, 8)}, ()).mask
    assert embedded is not None
    assert embedded.tolist() == [[1] * 4]
    assert Prompts({}, ()).mask is None
    with pytest.raises(InterventionError, match="cannot be read off their ids; pass generate the attention_mask"):
        Prompts({}, (IDS,))


TEXTS = torch.arange(1, 13).view(2, 6)


def prompts() -> Prompts:
    return Prompts({"input_ids": TEXTS, "attention_mask": LEFT}, ())


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("generated", [0, 2])
def test_a_step_without_a_cache_is_known_by_its_tokens_and_its_mask(copies: int, generated: int) -> None:
    new = torch.full((2 * copies, generated), 50)
    ids = torch.cat([TEXTS.repeat_interleave(copies, 0), new], 1)
    mask = torch.cat([LEFT.repeat_interleave(copies, 0), torch.ones_like(new)], 1)
    for shown in (mask, mask.bool(), None, torch.zeros(2 * copies, 1, 6 + generated, 6 + generated)):
        assert prompts().are_read_by({"input_ids": ids, "attention_mask": shown})
    masked = mask.clone()
    masked[0, -1] = 0
    other = ids.clone()
    other[-1, 3] = 60
    for arguments in (
        {"input_ids": ids, "attention_mask": masked},
        {"input_ids": ids, "attention_mask": torch.ones_like(mask)},
        {"input_ids": other, "attention_mask": mask},
        {"input_ids": ids, "attention_mask": mask, "labels": ids},
        {"input_ids": ids[:, :4], "attention_mask": mask[:, :4]},
        {"input_ids": ids[:1], "attention_mask": mask[:1]} if copies == 1 else {"input_ids": ids[:3]},
    ):
        assert not prompts().are_read_by(arguments)


def test_a_step_is_known_by_the_cache_it_goes_on_from() -> None:
    generation, cache = prompts(), cache_of(0)
    chunk = {"input_ids": TEXTS[:, :4], "attention_mask": LEFT[:, :4]}
    assert generation.are_read_by({**chunk, "past_key_values": cache})  # the prompts may be read in parts
    cache.update(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), 0)
    assert generation.are_read_by({"input_ids": TEXTS[:, :1], "past_key_values": cache})
    assert not generation.are_read_by({"input_ids": TEXTS[:, :1], "past_key_values": cache_of(4)})
    assert not generation.are_read_by({**chunk, "past_key_values": cache_of(0)})
    given = Prompts({"input_ids": TEXTS[:, 4:], "attention_mask": LEFT, "past_key_values": cache}, ())
    assert given.are_read_by({"input_ids": TEXTS[:, 4:], "past_key_values": cache})


def test_arguments_by_place_get_their_names(tiny: Tiny) -> None:
    model = tiny("llama")
    assert arguments_of(model, (IDS, LEFT), {"use_cache": False}) == {
        "input_ids": IDS, "attention_mask": LEFT, "use_cache": False,
    }  # fmt: skip
    assert tokens_of({"input_ids": None, "inputs_embeds": IDS}) is IDS
    with pytest.raises(InterventionError, match="needs input_ids or inputs_embeds"):
        tokens_of({"attention_mask": LEFT})


@pytest.mark.parametrize("text", ["f2+l2", "l1", "prompt", "all"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox"])
def test_a_classifier_edits_each_row_of_a_batch_as_if_it_were_alone(model_type: str, text: str, tiny: Tiny) -> None:
    config = AutoConfig.for_model(**{**tiny(model_type).config.to_dict(), "num_labels": 3, "pad_token_id": 0})
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).double().eval()
    edit = LowRankEdit(StreamSite(1), "loreft", rank=4, positions=Positions.parse(text))
    tensors = {"basis": torch.randn(4, 32), "source": torch.randn(4, 32), "bias": torch.randn(4)}
    rows = [torch.arange(1, 5), torch.arange(10, 17), torch.arange(30, 33)]
    ids, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
    labels = torch.tensor([0, 2, 1])
    with torch.no_grad():
        plain = model(input_ids=ids, attention_mask=mask, labels=labels).logits
        with applied_interventions(model, [edit], tensors=[tensors]):
            together = model(input_ids=ids, attention_mask=mask, labels=labels).logits
            alone = torch.cat(
                [model(input_ids=row[None], attention_mask=torch.ones_like(row[None])).logits for row in rows]
            )
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(together, plain, atol=1e-3)
