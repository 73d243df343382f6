"""A family that a person described, held to what running the model shows."""

import threading
import weakref

from transformers import PreTrainedModel

from strop.anatomy.families import Family
from strop.anatomy.reading.inputs import short_inputs
from strop.anatomy.reading.read import Reading, read_already
from strop.anatomy.reading.verify import AllSizes, Findings, verify
from strop.errors import AnatomyError

_CHECKED: "weakref.WeakKeyDictionary[PreTrainedModel, list[Reading]]" = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def check_given(model: PreTrainedModel, family: Family, sizes: AllSizes) -> Reading:
    """Return a family that was given, with what forward passes showed of the model; each is checked once.

    Args:
        model: a model of transformers; it stays as it is.
        family: how its parts are said to be spelled.
        sizes: of each of its stacks.

    Raises:
        AnatomyError: something does not hold; the message says what, and what to correct.
    """
    read = read_already(model)
    if read is not None and read.family is family:  # what was read is handed on from room to room, and was checked then
        return read
    with _LOCK:
        checked = _CHECKED.setdefault(model, [])
        known = next((reading for reading in checked if reading.family == family), None)
        if known is None:
            known = _check(model, family, sizes)
            checked.append(known)
        return known


def _check(model: PreTrainedModel, family: Family, sizes: AllSizes) -> Reading:
    try:
        found = verify(model, family, sizes)
        _refuse_resuming(model, family, found)
    except AnatomyError as error:
        raise AnatomyError(f"The family {family.name} does not describe this {type(model).__name__}: {error}") from None
    return Reading(family, found.seen.obstacle, found=found, given=True)


def _refuse_resuming(model: PreTrainedModel, family: Family, found: Findings) -> None:
    """Raise AnatomyError if blocks are said to go on from hidden states alone and cannot; of images nothing was seen."""
    if not family.resumes or found.reuses_prefix or found.seen.calls_per_block != 1:
        return
    if model.config.is_encoder_decoder or short_inputs(model).keys() == {"input_ids"}:
        raise AnatomyError(
            "its upper blocks are said to go on from hidden states alone, and do not give what the whole pass gives; describe "
            "the family with resumes: false."
        )
