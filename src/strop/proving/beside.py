"""What a run leaves beside its figures, for reports and analyses: each held-out answer, and what each edited matrix was."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from strop.errors import StropError
from strop.interventions import ScalesSpectrum, WeightIntervention
from strop.proving.assignment import Assignment
from strop.proving.choice import Choice
from strop.proving.prove import Measurement
from strop.runs import SPECTRA_FILE, EditedMatrix, KeptAnswer, capped, thinned, write_answers, write_spectra
from strop.scoring import Evaluation, spelt_answer
from strop.tasks import Example
from strop.tasks.examples import group_key

MOST_SPECTRA = 12
"""Matrices whose singular values are kept, those that change most; of the others it is said how much they change."""


def write_beside(
    folder: Path, given: Assignment, choice: Choice, measured: Measurement, examples: Sequence[Example]
) -> None:
    """Write answers.jsonl and, where matrices were edited along their singular vectors, spectra.json.

    Nothing is asked of the model again; decompositions are those the choice was made with.

    Args:
        folder: of the run.
        given: what it is about.
        choice: what it chose.
        measured: what test says of that.
        examples: of test, in the order they were measured in.
    """
    write_answers(folder, kept_answers(examples, measured.base, measured.edited))
    matrices: list[EditedMatrix] = []
    with contextlib.suppress(StropError):  # a choice that is made and measured is not lost for want of a picture
        matrices = edited_matrices(given, choice)
    if matrices:
        write_spectra(folder, matrices)
    else:
        (folder / SPECTRA_FILE).unlink(missing_ok=True)  # of a smaller budget's choice


def kept_answers(examples: Sequence[Example], base: Evaluation, edited: Evaluation) -> list[KeptAnswer]:
    """Return what base and edited model answered, as far as their evaluations hold it.

    Args:
        examples: that were asked.
        base: the evaluation of the model as it was.
        edited: of the choice.
    """
    return [
        KeptAnswer(
            row=example.row,
            score=base.score,
            prompt=capped(example.prompt, keep_end=True),
            wanted=capped((example.gold or example.answer).strip()),
            before=_said(example, base, index),
            after=_said(example, edited, index),
            right_before=None if base.correct is None else bool(base.correct[index]),
            right_after=None if edited.correct is None else bool(edited.correct[index]),
            loss_before=_finite(base.loss[index]),
            loss_after=_finite(edited.loss[index]),
            category=example.category,
            group=None if example.group is None else group_key(example.group),
            frequency=example.frequency,
        )
        for index, example in enumerate(examples)
    ]


def _said(example: Example, evaluation: Evaluation, index: int) -> str | None:
    said = spelt_answer(example, evaluation, index)
    return None if said is None else capped(said.strip())


def _finite(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def edited_matrices(given: Assignment, choice: Choice) -> list[EditedMatrix]:
    """Return the matrices whose singular values a choice scales or removes, those that change most first.

    Args:
        given: what the run is about.
        choice: what it chose.
    """
    found = []
    for entry, own in zip(choice.edits.interventions, choice.edits.tensors, strict=True):
        if entry.kind == "weight" and isinstance(entry, ScalesSpectrum):
            shape = given.anatomy.read_weight(given.model, entry.site).shape
            scales = entry.spectrum_scales(own, (shape[0], shape[1]))
            if scales is None:
                continue
            alone = sum(other.site == entry.site for other in choice.edits.interventions) == 1
            found.append((entry, scales.cpu(), alone and "left" not in own))  # else what it scales is not at hand
    found.sort(key=lambda each: -_change(each[1]))
    return [
        _edited(given, entry, scales, values=place < MOST_SPECTRA and at_hand)
        for place, (entry, scales, at_hand) in enumerate(found)
    ]


def _change(scales: Tensor) -> float:
    return float((scales - 1).abs().mean())


def _edited(given: Assignment, entry: WeightIntervention, scales: Tensor, *, values: bool) -> EditedMatrix:
    bare = EditedMatrix(
        site=entry.site.to_json(),
        method=entry.method,
        count=len(scales),
        removed=int((scales == 0).sum()),
        mean_change=_change(scales),
    )
    if not values:
        return bare
    found = given.decompose(given.anatomy.read_weight(given.model, entry.site)).singular_values.detach().cpu().double()
    energy = float(found.square().sum())
    places = thinned(len(scales))
    return dataclasses.replace(
        bare,
        energy_kept=float((found * scales).square().sum()) / energy if energy else 1.0,
        indices=tuple(places),
        values=tuple(float(f"{value:.6g}") for value in found[places].tolist()),
        scales=tuple(float(f"{value:.6g}") for value in scales[places].tolist()),
    )
