"""A task made of a text: passages that are read once, and never on two sides."""

import itertools

import pytest

from strop.errors import UsageError
from strop.tasks import text_task
from strop.tasks.passages import passages_of

DIARY = "\n".join(f"On day {day} it rained again, and nobody went out." for day in range(300))
CHINESE = "".join(chr(0x4E00 + 7 * number % 2000) for number in range(5000))


@pytest.mark.parametrize("text", [DIARY, CHINESE, "é" * 3000, DIARY.replace("again,", "again,\n\n\n \n")])
def test_passages_are_the_text_in_its_order_and_none_is_above_500_bytes(text: str) -> None:
    passages = passages_of(text)
    assert len(passages) >= len(text.encode()) / 520 - 2
    assert max(len(passage.encode()) for passage in passages) <= 500
    begin = 0
    for passage in passages:
        assert passage == passage.strip()
        begin = text.index(passage, begin) + len(passage)  # never the same letter twice
    kept = sum(len("".join(passage.split())) for passage in passages)
    assert kept >= len("".join(text.split())) - 250


def test_passages_end_at_blanks_and_halves_are_parted_before_one() -> None:
    words = set(DIARY.split())
    for passage in passages_of(DIARY):
        assert set(passage.split()) <= words
    for example in itertools.chain(*text_task(DIARY).splits.values()):
        assert example.answer[0].isspace()
        assert abs(len(example.prompt) - len(example.answer)) < 20
        assert example.prompt + example.answer in DIARY


def test_its_splits_share_no_passage_and_are_the_same_every_time() -> None:
    task = text_task(DIARY, name="diary.txt")
    assert (task.name, task.score, task.counts) == ("diary.txt", "perplexity", {"train": 11, "select": 9, "test": 9})
    identities = [example.identity for members in task.splits.values() for example in members]
    assert len(set(identities)) == len(identities) == len(passages_of(DIARY))
    assert text_task(DIARY).fingerprint == task.fingerprint
    assert text_task(DIARY.replace("rained", "snowed")).fingerprint != task.fingerprint


def test_a_repeated_passage_counts_once() -> None:
    page = " ".join(f"word{number}" for number in range(1000))
    again = text_task(page + "\n" + page)
    assert len({example.prompt for members in again.splits.values() for example in members}) == sum(
        again.counts.values()
    )
    with pytest.raises(UsageError, match="has 1 different passages of about 500 bytes"):
        text_task("a" * 20000)


def test_a_long_text_is_read_evenly() -> None:
    text = " ".join(f"{number:07d}" for number in range(60000))
    task = text_task(text)
    assert task.counts == {"train": 160, "select": 120, "test": 120}
    firsts = sorted(int(example.prompt[:7]) for members in task.splits.values() for example in members)
    gaps = [after - before for before, after in itertools.pairwise(firsts)]
    assert firsts[0] == 0
    assert max(gaps) - min(gaps) <= 70  # passages are of about 62 numbers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" \n\t ", r"^The text notes\.txt is empty; give a file with some pages of plain text\.$"),
        (
            "A line of words. " * 100,
            r"^The text notes\.txt has \d different passages of about 500 bytes, and train, select and test share 10 or more; "
            r"give some pages of text\.$",
        ),
    ],
)
def test_a_text_that_says_too_little_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        text_task(text, name="notes.txt")
