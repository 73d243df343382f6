"""What is shown of an edit's positions is what a forward pass edits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

import strop
from strop.errors import InterventionError, UsageError
from strop.interventions import LowRankEdit, Positions, applied_interventions, explain_positions, prompt_lengths

Tiny = Callable[..., nn.Module]


def batch_of(rows: list[tuple[int, int, int, int]]) -> dict[str, Tensor]:
    """Rows of left padding, prompt, answer and right padding, by their lengths."""
    ids = torch.arange(1, sum(rows[0]) + 1).repeat(len(rows), 1) + 10 * torch.arange(len(rows))[:, None]
    mask, labels = torch.ones_like(ids), torch.full_like(ids, -100)
    for row, (left, prompt, answer, right) in enumerate(rows):
        mask[row, :left] = 0
        mask[row, len(mask[row]) - right :] = 0
        labels[row, left + prompt : left + prompt + answer] = 5
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


ROWS = [(2, 3, 2, 0), (0, 5, 1, 1), (0, 2, 5, 0)]


def test_each_sequence_shows_its_tokens_its_edits_its_padding_and_the_count() -> None:
    assert explain_positions(batch_of(ROWS), "f1+l2") == (
        "sequence 0: 3 of 3 prompt tokens edited\n"
        "· · [3] [4] [5] 6 7\n"
        "sequence 1: 3 of 5 prompt tokens edited\n"
        "[11] 12 13 [14] [15] 16 ·\n"
        "sequence 2: 2 of 2 prompt tokens edited\n"
        "[21] [22] 23 24 25 26 27"
    )


def test_all_counts_every_token() -> None:
    assert explain_positions(batch_of(ROWS[1:2]), Positions.parse("all")) == (
        "sequence 0: 6 of 6 tokens edited\n[1] [2] [3] [4] [5] [6] ·"
    )


def test_declared_prompt_lengths_are_followed_with_and_without_a_mask() -> None:
    batch = batch_of(ROWS[:2])
    del batch["labels"]
    with prompt_lengths([1, 4]):
        assert explain_positions(batch, "l1") == (
            "sequence 0: 1 of 1 prompt tokens edited\n· · [3] 4 5 6 7\n"
            "sequence 1: 1 of 4 prompt tokens edited\n11 12 13 [14] 15 16 ·"
        )
        assert explain_positions({"input_ids": batch["input_ids"][:, :3]}, "l1") == (
            "sequence 0: 1 of 1 prompt tokens edited\n[1] 2 3\nsequence 1: 0 of 3 prompt tokens edited\n11 12 13"
        )


def test_tokens_are_shown_as_text(small_tokenizer: PreTrainedTokenizerFast) -> None:
    batch = small_tokenizer("The city of Lyon\n  is", return_tensors="pt")
    words = [small_tokenizer.decode([token]) for token in batch["input_ids"][0]]
    with strop.prompt_lengths([3]):
        shown = strop.explain_positions(batch, "f1", tokenizer=small_tokenizer)
    count, line = shown.split("\n")
    assert count == "sequence 0: 1 of 3 prompt tokens edited"
    assert line.startswith(f"[{words[0].strip()}] {words[1].strip()} ")
    assert "\\n" in line
    assert len(line.split(" ")) >= len(words)


def test_embeddings_are_shown_by_their_places() -> None:
    with prompt_lengths([2]):
        shown = explain_positions({"inputs_embeds": torch.zeros(1, 4, 8)}, "f1")
    assert shown == "sequence 0: 1 of 2 prompt tokens edited\n[0] 1 2 3"


def test_where_prompts_end_is_never_guessed() -> None:
    batch = batch_of(ROWS)
    del batch["labels"]
    with pytest.raises(InterventionError, match=r"f1\+l1 needs to know where prompts end, and neither labels nor"):
        explain_positions(batch, "f1+l1")
    with pytest.raises(InterventionError, match="no two-dimensional attention_mask"):
        explain_positions({"input_ids": batch["input_ids"]}, "l1")
    with pytest.raises(InterventionError, match="needs input_ids or inputs_embeds"):
        explain_positions({}, "all")
    with pytest.raises(UsageError, match="'first' does not name positions"):
        explain_positions(batch, "first")


@pytest.mark.parametrize("text", ["f1+l2", "f3", "l2", "f2(+l2)", "(f2+)l2", "prompt", "all"])
def test_what_is_shown_is_what_the_model_edits(text: str, tiny: Tiny) -> None:
    model, batch = tiny("llama"), batch_of(ROWS)
    edit = LowRankEdit(strop.StreamSite(1), "lobireft", rank=2, positions=Positions.parse(text))
    tensors = edit.initial_tensors((32, 32), init="paper", generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = model(**batch, output_hidden_states=True).hidden_states[2]
        with applied_interventions(model, [edit], tensors=[tensors]):
            changed = (model(**batch, output_hidden_states=True).hidden_states[2] != plain).any(-1)
    shown = [line.split(" ") for line in explain_positions(batch, text).splitlines()[1::2]]
    assert changed.tolist() == [[word.startswith("[") for word in row] for row in shown]
    assert changed.any()
