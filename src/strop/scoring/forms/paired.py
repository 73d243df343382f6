"""How an encoder-decoder reads: the prompt into the encoder, the answer into the decoder."""

import dataclasses
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.errors import TaskError, UsageError, quoted
from strop.scoring.chat_template import Asked
from strop.scoring.forms.sequence import Row, TokenSequence
from strop.scoring.place import place_of
from strop.scoring.tokens import adds_special_tokens, tokens_of
from strop.tasks.examples import Example, all_continuations
from strop.tasks.task_file import Score


@dataclasses.dataclass(frozen=True)
class PairedForm:
    """The whole prompt for the encoder, and for the decoder what it starts with and the answer up to its last token.

    The two are tokenised apart. The decoder writes a text of its own, so an answer goes without the space it begins with; what
    the tokenizer puts before a text stands behind the start token, as models of BART's kind are trained.
    """

    start: int
    """What the decoder starts with."""
    pad: int
    masks_padding: bool = True

    @classmethod
    def of(cls, model: PreTrainedModel) -> "PairedForm":
        """Return the form of one model.

        Raises:
            UsageError: it does not say what its decoder starts with.
        """
        named = (getattr(model.generation_config, "decoder_start_token_id", None), model.config.decoder_start_token_id)
        start = next((token for token in named if token is not None), None)
        if start is None:
            raise UsageError(
                f"This {type(model).__name__} does not say what its decoder starts with; set "
                "model.config.decoder_start_token_id."
            )
        pad = model.config.pad_token_id
        return cls(int(start), int(pad) if pad is not None else 0)

    def sequences(
        self,
        examples: Sequence[Example],
        asked: Sequence[Asked],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[TokenSequence]:
        """Return each example's continuations behind its prompt.

        Raises:
            TaskError: a continuation has no token of its own.
        """
        prompts = tokens_of(
            [one.prompt for one in asked], tokenizer, adds_special=adds_special_tokens(examples), keeps_last=True
        )
        pairs = all_continuations(examples)
        answers = tokens_of([answer.lstrip() for _, _, answer in pairs], tokenizer, adds_special=False)
        begun = self.begun(tokenizer)
        found = []
        for (owner, index, continuation), answer in zip(pairs, answers, strict=True):
            if not answer.ids:
                raise TaskError(
                    f"{place_of(examples[owner])}: the answer {quoted(continuation)} has no token of its own; drop the row."
                )
            prompt = prompts[owner].ids
            found.append(TokenSequence(prompt + answer.ids, len(prompt), owner, index, begun=begun))
        return found

    def row(self, sequence: TokenSequence, score: Score) -> Row:
        """Return what is read of a sequence: each scored token is predicted by the one before it in the decoder."""
        first, count, before = sequence.first_scored, sequence.scored(score), len(sequence.begun)
        read = sequence.begun + sequence.ids[first : first + count - 1]
        return Row(sequence.ids[:first], tuple(range(before - 1, before - 1 + count)), first, read)

    def covers(self, longer: Row, shorter: Row) -> bool:
        """Return whether whoever reads one row has read the other too."""
        same = longer.ids == shorter.ids
        return same and longer.decoder_ids[: len(shorter.decoder_ids)] == shorter.decoder_ids

    def begun(self, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
        """Return what stands before an answer in the decoder."""
        (alone,) = tokens_of(["a"], tokenizer, adds_special=True)
        before = tuple(token for token, end in zip(alone.ids, alone.ends, strict=True) if end == 0)
        return before if before[:1] == (self.start,) else (self.start, *before)
