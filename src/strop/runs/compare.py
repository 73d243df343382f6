"""Two finished runs side by side, by what they measured on the same test examples."""

from pathlib import Path

from strop.errors import UsageError
from strop.runs.answers import read_answers
from strop.runs.find import finished_run
from strop.runs.pairing import pair_answers
from strop.runs.result import RunResult
from strop.runs.sides import Change, Side, SideBySide

FRESH = "--task T scores both afresh on the same examples"
SAME_LOSS, SAME_ACCURACY = 0.01, 0.01
"""By what share two figures of one base's loss, and by how much two of its accuracy, may differ on the same examples: devices
and dtypes make as much of it."""


def compare_runs(a: Path, b: Path) -> SideBySide:
    """Return what two finished runs measured, side by side, and pair by pair where both kept their answers to the same examples.

    Runs of older versions kept none, and of metrics that no single answer has, such as F1, only figures are compared.

    Args:
        a: the folder of the first.
        b: of the second.

    Raises:
        RunError: one is no finished run.
        UsageError: they are not of the same base, task and test examples.
    """
    first, second = finished_run(a), finished_run(b)
    _refuse_other_base(first, second, (a, b))
    _refuse_other_examples(first, second, (a, b))
    return SideBySide(
        base_model=first.base_model,
        task=first.task.name,
        split="test",
        base=first.base["test"],
        a=_side(first, a),
        b=_side(second, b),
        b_over_a=pair_answers(*map(read_answers, (a, b))) if first.metric in (None, "accuracy") else None,
        shots=first.task.shots,
    )


def _side(result: RunResult, folder: Path) -> Side:
    change = Change(result.comparison["test"], result.categories, result.price, result.rivals)
    return Side(str(folder), result.edited["test"], change, result.cost)


def _refuse_other_base(first: RunResult, second: RunResult, folders: tuple[Path, Path]) -> None:
    if first.base_model.fingerprint == second.base_model.fingerprint:
        return
    of_a, of_b = first.base_model, second.base_model
    head = ", the head a classifier begins with included" if first.metric is not None else ""
    if of_a.id == of_b.id:
        what = f"{folders[0]} and {folders[1]} both name {of_a.id}, and its weights were not the same{head}"
    else:
        what = f"{folders[0]} was made for {of_a.id}, and {folders[1]} for {of_b.id}, which has other weights{head}"
    raise UsageError(f"{what}; {FRESH} of one base (with --force where a recipe was made for another).")


def _refuse_other_examples(first: RunResult, second: RunResult, folders: tuple[Path, Path]) -> None:
    for what, of_a, of_b in (
        ("task", first.task.name, second.task.name),
        ("number of test examples", first.task.counts.get("test"), second.task.counts.get("test")),
        ("number of examples in the prompt", first.task.shots, second.task.shots),
        ("metric", _measured_in(first), _measured_in(second)),
    ):
        if of_a != of_b:
            raise UsageError(f"The {what} differs: {of_a} in {folders[0]}, and {of_b} in {folders[1]}; {FRESH}.")
    mine, theirs = first.base["test"].loss, second.base["test"].loss
    if first.metric is None and abs(mine - theirs) > SAME_LOSS * max(abs(mine), abs(theirs)):
        raise UsageError(
            f"The test examples differ: the loss of the same base is {mine:.3f} in {folders[0]}, and {theirs:.3f} in "
            f"{folders[1]}; {FRESH}."
        )
    told = first.base["test"].accuracy, second.base["test"].accuracy
    if first.metric is None and told[0] is not None and told[1] is not None and abs(told[0] - told[1]) > SAME_ACCURACY:
        raise UsageError(
            f"Answers are scored otherwise: the accuracy of the same base is {100 * told[0]:.1f} % in {folders[0]}, and "
            f"{100 * told[1]:.1f} % in {folders[1]}; {FRESH}."
        )


def _measured_in(result: RunResult) -> str:
    return result.metric or ("loss" if result.base["test"].accuracy is None else "accuracy")
