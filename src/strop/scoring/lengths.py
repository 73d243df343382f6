"""How long sequences may be where something on a model holds for one length alone."""

from collections.abc import Collection

from transformers import PreTrainedModel

from strop.errors import InterventionError
from strop.interventions import attachments_of


def one_length_of(model: PreTrainedModel) -> set[int]:
    """Return the lengths that biases by position on a model hold for; empty where there is none."""
    return {attached.positions for attached in attachments_of(model) if attached.positions is not None}


def refuse_other_lengths(model: PreTrainedModel, lengths: Collection[int]) -> None:
    """Raise InterventionError where padding would hide from a bias by position that a sequence is shorter.

    Args:
        model: with whatever is attached to it.
        lengths: of all sequences.
    """
    wanted = one_length_of(model)
    if wanted and set(lengths) != wanted:
        raise InterventionError(
            f"A bias on this model holds for sequences of {max(wanted)} tokens, and these examples have "
            f"{min(lengths)} to {max(lengths)}; prune with --bias mean for one that holds for any length."
        )
