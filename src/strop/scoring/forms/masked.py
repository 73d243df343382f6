"""How a model that fills masks reads: the prompt, a mask for each token of the answer, and what stands after it."""

import dataclasses
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from strop.errors import TaskError, quoted
from strop.scoring.chat_template import Asked
from strop.scoring.forms.causal import first_of_answer
from strop.scoring.forms.sequence import Row, TokenSequence
from strop.scoring.place import place_of
from strop.scoring.tokens import Tokens, adds_special_tokens, tokens_of
from strop.tasks.examples import Example, all_continuations
from strop.tasks.task_file import Score


@dataclasses.dataclass(frozen=True)
class MaskedForm:
    """A text with masks in the place of the answer, all filled in one pass (LASER's RoBERTa, arXiv 2312.13558, appendix E).

    The tokenizer's special tokens stand around the whole, and each token of the answer is predicted at its own mask, from
    the other masks and not from the answer's other tokens. `first_token` has one mask, however long the answer is.
    """

    mask: int
    """The tokenizer's mask token."""
    pad: int
    masks_padding: bool = True

    def sequences(
        self,
        examples: Sequence[Example],
        asked: Sequence[Asked],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[TokenSequence]:
        """Return each example's continuations, each tokenised together with the prompt and what stands after it.

        Raises:
            TaskError: a continuation has no token of its own, or its last one melts into what stands after it.
        """
        parts = [
            (owner, index, asked[owner].answered_by(continuation), examples[owner].after)
            for owner, index, continuation in all_continuations(examples)
        ]
        texts = [asked[owner].prompt + continuation + after for owner, _, continuation, after in parts]
        together = tokens_of(texts, tokenizer, adds_special=adds_special_tokens(examples), keeps_last=True)
        found = []
        for (owner, index, continuation, _), text, tokens in zip(parts, texts, together, strict=True):
            first = first_of_answer(examples[owner], tokens, asked[owner], continuation)
            end = len(asked[owner].prompt) + len(continuation)
            last = _first_after(tokens, first, end)
            if last == first or text[tokens.ends[last - 1] : end].strip():
                raise TaskError(
                    f"{place_of(examples[owner])}: the answer {quoted(continuation)} melts into what stands after it; begin "
                    "after: with a space or a full stop."
                )
            found.append(TokenSequence(tokens.ids[:last], first, owner, index, after=tokens.ids[last:]))
        return found

    def row(self, sequence: TokenSequence, score: Score) -> Row:
        """Return what is read of a sequence: each scored token is predicted where its mask stands."""
        first, count = sequence.first_scored, sequence.scored(score)
        ids = (*sequence.ids[:first], *(self.mask,) * count, *sequence.after)
        return Row(ids, tuple(range(first, first + count)), len(ids))

    def covers(self, longer: Row, shorter: Row) -> bool:
        """Return whether two rows are the same: another number of masks is another text."""
        return longer.ids == shorter.ids


def _first_after(tokens: Tokens, first: int, end: int) -> int:
    """Return the first token behind an answer that ends at a character: one that reaches past it, or a special one."""
    return next((i for i in range(first, len(tokens.ends)) if not 0 < tokens.ends[i] <= end), len(tokens.ends))
