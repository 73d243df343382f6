"""A task made of nothing but text: passages that a model is to predict, half of each given."""

from collections.abc import Sequence

from strop.errors import UsageError
from strop.tasks.examples import Example
from strop.tasks.plain_text import refuse_blank
from strop.tasks.splits import deal, without_repeats
from strop.tasks.task import Task
from strop.tasks.task_file import SplitSettings

PASSAGE_BYTES = 500
"""Most bytes of a passage in UTF-8, and so most tokens, in whatever language and by whatever tokenizer."""

MOST_PASSAGES = 400
"""Passages that are taken of a long text, spread evenly over it."""

FEWEST_PASSAGES = 10
"""Of fewer no split has enough to tell anything."""

SHARES = SplitSettings(train=0.4, select=0.3, test=0.3)


def text_task(text: str, *, name: str = "text") -> Task:
    r"""Return a task of a text: its passages, dealt into train, select and test, each judged by the perplexity of its second half.

    A passage is about 500 bytes of text and begins where the one before ends; of a long text 400 are taken, spread evenly over
    it. A repeated passage counts once, so none stands in two splits.

    Args:
        text: some pages.
        name: what results call it.

    Raises:
        UsageError: the text is blank, or has too few passages.

    >>> task = text_task("\n".join(f"On day {day} it rained again, and nobody went out." for day in range(200)), name="diary")
    >>> task.score, task.counts
    ('perplexity', {'train': 7, 'select': 6, 'test': 6})
    >>> task.examples("select")[0].answer[:20]
    '\nOn day 109 it raine'
    """
    refuse_blank(text, called=f"The text {name}")
    examples = without_repeats(
        [Example(*_halves(passage), row=number + 1) for number, passage in enumerate(passages_of(text))]
    )
    if len(examples) < FEWEST_PASSAGES:
        raise UsageError(
            f"The text {name} has {len(examples)} different passages of about {PASSAGE_BYTES} bytes, and train, select and test "
            f"share {FEWEST_PASSAGES} or more; give some pages of text."
        )
    return Task(name, "perplexity", deal(evenly(examples, MOST_PASSAGES), SHARES))


def passages_of(text: str) -> list[str]:
    """Return a text in passages of at most 500 bytes that end at a blank, where there is one; a short rest is left out.

    >>> [len(passage) for passage in passages_of("word " * 300)]
    [499, 499, 499]
    """
    passages, begin = [], 0
    while begin < len(text):
        piece = text[begin : begin + PASSAGE_BYTES].encode()[:PASSAGE_BYTES].decode(errors="ignore")
        end = begin + len(piece)
        if end < len(text) and not text[end].isspace():
            last = max((index for index, letter in enumerate(piece) if letter.isspace()), default=0)
            end = begin + last if last > len(piece) // 2 else end
        passage = text[begin:end].strip()
        if 2 * len(passage.encode()) >= PASSAGE_BYTES:
            passages.append(passage)
        begin = end
    return passages


def evenly(examples: Sequence[Example], most: int) -> Sequence[Example]:
    """Return at most so many examples, spread evenly over all.

    Args:
        examples: in the order of their text.
        most: how many.
    """
    if len(examples) <= most:
        return examples
    return [examples[index * len(examples) // most] for index in range(most)]


def _halves(passage: str) -> tuple[str, str]:
    """Return a passage as a prompt and what follows it, parted before the blank that is nearest to the middle."""
    middle = len(passage) // 2
    blanks = (
        index for index in range(1, len(passage) - 1) if passage[index].isspace() and not passage[index - 1].isspace()
    )
    border = min(blanks, key=lambda index: abs(index - middle), default=middle)
    return passage[:border], passage[border:]
