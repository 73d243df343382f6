"""A prompt with one continuation as tokens, and the row of a batch it becomes."""

import dataclasses

from strop.tasks.task_file import Score


@dataclasses.dataclass(frozen=True)
class TokenSequence:
    """A prompt with one continuation, as tokens."""

    ids: tuple[int, ...]
    first_scored: int
    """Index of the continuation's first token."""
    owner: int
    """Index of its example."""
    choice: int
    """Which of the example's continuations it is."""
    counterfactual_ids: tuple[int, ...] | None = None
    """As many tokens to swap activations with, where the example has a counterfactual."""
    after: tuple[int, ...] = ()
    """Tokens behind the continuation, for a model that reads in both directions."""
    begun: tuple[int, ...] = ()
    """Tokens a decoder has read before the continuation, for a model that reads the prompt in an encoder."""

    def scored(self, score: Score) -> int:
        """Return how many of the continuation's tokens are scored: the first only, or all."""
        return 1 if score == "first_token" else len(self.ids) - self.first_scored

    def fed(self, score: Score) -> int:
        """Return how many tokens a model that reads on must read: all before the last scored one."""
        return self.first_scored + self.scored(score) - 1


@dataclasses.dataclass(frozen=True)
class Row:
    """What a model reads of a sequence."""

    ids: tuple[int, ...]
    columns: tuple[int, ...]
    """For each scored token, where the logits stand that predict it."""
    prompt_length: int
    """How many of the tokens are the prompt's: all of them where the answer is not there."""
    decoder_ids: tuple[int, ...] = ()
    """What the decoder reads, of a model that has one beside an encoder."""

    @property
    def width(self) -> int:
        """Tokens it takes in a batch."""
        return len(self.ids) + len(self.decoder_ids)
