"""How a model that predicts the next token reads: the prompt and, behind it, the answer."""

import dataclasses
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from strop.errors import TaskError, quoted
from strop.scoring.chat_template import Asked
from strop.scoring.forms.sequence import Row, TokenSequence
from strop.scoring.place import place_of
from strop.scoring.tokens import Tokens, adds_special_tokens, tokens_of
from strop.tasks.examples import Example, all_continuations
from strop.tasks.task_file import Score


@dataclasses.dataclass(frozen=True)
class CausalForm:
    """Prompt and answer, up to the last scored token, which is only predicted and not read.

    What stands after an answer is never read.
    """

    pad: int = 0
    masks_padding: bool = False
    """A token never sees the padding on its right."""

    def sequences(
        self,
        examples: Sequence[Example],
        asked: Sequence[Asked],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[TokenSequence]:
        """Return each example's continuations, each tokenised together with the prompt, and parted where the text says.

        Raises:
            TaskError: a continuation has no token of its own.
        """
        pairs = [
            (owner, index, asked[owner].answered_by(continuation))
            for owner, index, continuation in all_continuations(examples)
        ]
        texts = [asked[owner].prompt + continuation for owner, _, continuation in pairs]
        together = tokens_of(texts, tokenizer, adds_special=adds_special_tokens(examples))
        return [
            TokenSequence(
                tokens.ids, first_of_answer(examples[owner], tokens, asked[owner], continuation), owner, index
            )
            for (owner, index, continuation), tokens in zip(pairs, together, strict=True)
        ]

    def row(self, sequence: TokenSequence, score: Score) -> Row:
        """Return what is read of a sequence: each scored token is predicted by the one before it."""
        fed = sequence.fed(score)
        return Row(sequence.ids[:fed], tuple(range(sequence.first_scored - 1, fed)), sequence.first_scored)

    def covers(self, longer: Row, shorter: Row) -> bool:
        """Return whether whoever reads one row has read the other too."""
        return longer.ids[: len(shorter.ids)] == shorter.ids


def first_of_answer(example: Example, tokens: Tokens, asked: Asked, continuation: str) -> int:
    """Return the first token that reaches past the prompt's last character.

    Args:
        example: to name in an error.
        tokens: of prompt and continuation.
        asked: the prompt.
        continuation: the answer, or a choice.

    Raises:
        TaskError: there is none.
    """
    first = next((i for i, end in enumerate(tokens.ends) if end > len(asked.prompt)), None)
    if first is None:
        raise TaskError(
            f"{place_of(example)}: the answer {quoted(continuation)} has no token of its own; drop the row."
        )
    return first


CAUSAL = CausalForm()
