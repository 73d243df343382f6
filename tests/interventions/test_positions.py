"""Positions: the grammar, the paper's rule for short prompts, and what is never counted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strop.errors import UsageError
from strop.interventions import Positions

law = settings(deadline=None, max_examples=100, database=None)
counts = st.integers(0, 12)
ENDS = [(p, s) for p in range(8) for s in range(8) if p + s]


def by_the_paper(first: int, last: int, length: int) -> tuple[set[int], set[int]]:
    """Section 4 and appendix C of arXiv 2404.03592, positions counted from 0: those of the prefix and of the suffix."""
    if length < first + last:
        first, last = min(first, length // 2), min(last, length - length // 2)
    return set(range(first)), set(range(length - last, length))


def chosen(positions: Positions, length: int, *, answer: int = 3, left: int = 0, right: int = 0) -> list[int]:
    """The columns edited in a row of padding, a prompt, an answer and padding."""
    real = length + answer
    index = torch.cat([torch.full((left,), -1), torch.arange(real), torch.full((right,), -1)])
    found = positions.chosen(index[None], torch.tensor([length]))
    assert found.dtype == torch.bool
    assert found.shape == (1, left + real + right)
    return [int(column) for column in found[0].nonzero().flatten()]


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("f7+l7", Positions(7, 7)),
        ("f5", Positions(5, 0)),
        ("l1", Positions(0, 1)),
        ("f0+l2", Positions(0, 2)),
        ("f12+l3", Positions(12, 3)),
        ("prompt", Positions(reach="prompt")),
        ("all", Positions(reach="all")),
        ("f7(+l7)", Positions(7, 7, share="first")),
        ("(f7+)l7", Positions(7, 7, share="last")),
        (" F7+L7 ", Positions(7, 7)),
        ("ALL", Positions(reach="all")),
    ],
)
def test_the_grammar(text: str, positions: Positions) -> None:
    assert Positions.parse(text) == positions


@law
@given(counts, counts, st.sampled_from(["both", "first", "last"]))
def test_what_is_written_is_read_back(first: int, last: int, share: str) -> None:
    if not first + last:
        return
    positions = Positions(first, last, share=share if first and last else "both")  # type: ignore[arg-type]
    assert Positions.parse(str(positions)) == positions
    assert str(Positions.parse(str(positions))) == str(positions)


@pytest.mark.parametrize("text", ["prompt", "all"])
def test_words_are_read_back(text: str) -> None:
    assert str(Positions.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "f", "l", "f+l", "7", "f7+", "+l7", "f7l7", "l7+f7", "f-1", "f1.5", "f7 + l7", "f7+l7+f7", "first 7",
        "f7+f7", "f٣", "f7,l7", "(f7+l7)", "f7(+l7", "f7+)l7", "(f7)+l7", "f(+l7)", "f7(l7)", "everything", "none",
    ],
)  # fmt: skip
def test_what_names_no_positions_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Positions.parse(text)
    assert str(caught.value) == f"'{text}' does not name positions; write them as f7+l7, f5, l1, prompt or all."


@pytest.mark.parametrize("text", ["f0", "l0", "f0+l0"])
def test_no_token_at_all_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="name at least one token"):
        Positions.parse(text)


@pytest.mark.parametrize("text", ["f0(+l3)", "(f3+)l0"])
def test_a_share_of_one_end_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"Only positions with a first and a last count have shares"):
        Positions.parse(text)


def test_counts_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="from 0 up, not -1"):
        Positions(first=3, last=-1)
    for reach in ("prompt", "all"):
        with pytest.raises(UsageError, match="name at least one token"):
            Positions(first=3, reach=reach)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="shares"):
            Positions(reach=reach, share="first")  # type: ignore[arg-type]


@pytest.mark.parametrize(("first", "last"), ENDS)
def test_short_prompts_follow_the_papers_rule(first: int, last: int) -> None:
    positions = Positions(first, last)
    for length in range(first + last + 3):
        prefix, suffix = by_the_paper(first, last, length)
        assert chosen(positions, length) == sorted(prefix | suffix), length
        if length < first + last:
            assert not prefix & suffix


@pytest.mark.parametrize(("first", "last"), [ends for ends in ENDS if all(ends)])
def test_the_untied_shares_are_the_two_ends_never_overlap_and_make_up_the_whole(first: int, last: int) -> None:
    positions = Positions(first, last)
    front, back = positions.untied
    for length in range(first + last + 3):
        prefix, suffix = by_the_paper(first, last, length)
        assert (chosen(front, length), chosen(back, length)) == (sorted(prefix), sorted(suffix))
        assert not set(chosen(front, length)) & set(chosen(back, length))
        assert sorted(chosen(front, length) + chosen(back, length)) == chosen(positions, length)


@pytest.mark.parametrize("text", ["f5", "l1", "prompt", "all", "f7(+l7)", "(f7+)l7"])
def test_positions_without_two_ends_are_not_split(text: str) -> None:
    assert Positions.parse(text).untied == (Positions.parse(text),)


EVERY = ["f2+l3", "f5", "l1", "l4", "f7(+l7)", "(f7+)l7", "prompt", "all"]


@pytest.mark.parametrize("text", EVERY)
@law
@given(length=st.integers(0, 20), answer=st.integers(0, 4), left=st.integers(0, 5), right=st.integers(0, 5))
def test_padding_is_neither_counted_nor_edited(text: str, length: int, answer: int, left: int, right: int) -> None:
    positions = Positions.parse(text)
    expected = [left + column for column in chosen(positions, length, answer=answer)]
    assert chosen(positions, length, answer=answer, left=left, right=right) == expected


@pytest.mark.parametrize("text", EVERY)
def test_padding_between_tokens_is_skipped(text: str) -> None:
    positions = Positions.parse(text)
    index = torch.tensor([[0, -1, 1, 2, -1, -1, 3, 4, -1, 5]])
    real = [column for column, place in enumerate(index[0].tolist()) if place >= 0]
    found = positions.chosen(index, torch.tensor([5]))[0].nonzero().flatten().tolist()
    assert found == [real[place] for place in chosen(positions, 5, answer=1)]


@pytest.mark.parametrize("length", range(6))
def test_prompt_is_every_prompt_token_and_all_is_every_token(length: int) -> None:
    assert chosen(Positions.parse("prompt"), length, left=2, right=1) == list(range(2, 2 + length))
    assert chosen(Positions.parse("all"), length, left=2, right=1) == list(range(2, 2 + length + 3))


@pytest.mark.parametrize("text", [text for text in EVERY if text != "all"])
def test_answers_are_left_alone(text: str) -> None:
    assert all(column < 4 for column in chosen(Positions.parse(text), 4, answer=9))


@pytest.mark.parametrize("text", EVERY)
@law
@given(lengths=st.lists(st.integers(0, 15), min_size=1, max_size=5))
def test_each_row_is_treated_as_if_it_were_alone(text: str, lengths: list[int]) -> None:
    positions = Positions.parse(text)
    index = torch.arange(20).expand(len(lengths), 20)
    found = positions.chosen(index, torch.tensor(lengths))
    for row, length in zip(found, lengths, strict=True):
        assert row.nonzero().flatten().tolist() == chosen(positions, length, answer=20 - length)


@pytest.mark.parametrize("text", EVERY)
def test_the_tokens_of_a_step_are_those_of_the_whole(text: str) -> None:
    positions = Positions.parse(text)
    whole: Tensor = positions.chosen(torch.arange(12)[None], torch.tensor([9]))
    for start in range(12):
        step = positions.chosen(torch.arange(start, 12)[None], torch.tensor([9]))
        assert torch.equal(step, whole[:, start:])
