"""Two recipes of one base, scored on the same examples: each against the base, and one against the other."""

import dataclasses
import functools

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from strop.anatomy import Anatomy, Family
from strop.checkpoints import identify, takes_names
from strop.errors import BaseMismatchError
from strop.progress import Progress, shown_here
from strop.proving.drift import DriftText
from strop.proving.prove import states_below
from strop.proving.together import Together, change_of
from strop.recipe import Recipe
from strop.runs import BaseModel, Change, Side, SideBySide
from strop.scoring import (
    ClassScorer,
    DriftScorer,
    Evaluation,
    Scorer,
    changed_answers,
    compare,
    refuse_changed,
    scorer_of,
    spread,
)
from strop.tasks import TaskSource, load_task


@dataclasses.dataclass(frozen=True, eq=False)
class RecipePair:
    """Two recipes that may be compared: they were made for one base.

    Args:
        a: the first.
        b: the second.
        names: what to call them in a message, such as their folders.
        force: compare them although they, or one of them, were made for another base.

    Raises:
        BaseMismatchError: they were made for different bases, and `force` is not given.
    """

    a: Recipe
    b: Recipe
    names: tuple[str, str] = ("A", "B")
    force: bool = False

    def __post_init__(self) -> None:
        of_a, of_b = self.a.base, self.b.base
        # what a classifier's head begins with is drawn anew, so that its base is known by the matrices that are edited
        by_fingerprint = self.a.head is None and self.b.head is None
        same = of_a.architecture == of_b.architecture
        if self.force or (same and (not by_fingerprint or of_a.fingerprint == of_b.fingerprint)):
            return
        told = (
            f"different weights of {of_a.id}"
            if same and of_a.id == of_b.id
            else f"{of_a.id}, a {of_a.architecture}, and {of_b.id}, a {of_b.architecture}"
        )
        raise BaseMismatchError(
            f"{self.names[0]} and {self.names[1]} were made for different bases ({told}): compare each with its own by strop "
            "eval, or pass force=True (--force) if you know that one base fits both."
        )

    @property
    def each(self) -> tuple[Together, Together]:
        """Both, ready to be applied."""
        return Together((self.a,), self.force), Together((self.b,), self.force)


@takes_names
def compare_recipes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskSource,
    pair: RecipePair,
    *,
    split: str = "test",
    limit: int | None = None,
    text: DriftText | None = None,
    show_changes: int | None = None,
    family: Family | None = None,
    progress: Progress | None = None,
) -> SideBySide:
    """Score a base and two recipes on the same examples, and compare them pair by pair.

    What lies below the lowest edit of both is computed once. An interval that holds 0 shows neither to be better.

    Args:
        model: the base both were made for, with nothing attached.
        tokenizer: its fast tokenizer; of a classifier of images, its image processor.
        task: a task, or what `load_task` takes.
        pair: the two recipes.
        split: train, select or test.
        limit: score a random sample of this size.
        text: what drift is measured on; text the base writes itself by default.
        show_changes: of each kind, how many answers that A and B give differently; none by default.
        family: the spelling of an architecture Strop does not know.
        progress: told of each batch; bars where a person watches, by default.

    Raises:
        BaseMismatchError: the model is not their base, and they are not forced.
        TaskError: the split is empty, or a row does not fit the model.
        UsageError: there is no such split, or a recipe is a classifier's and the task has other labels.
    """
    task = load_task(task)
    progress = progress if progress is not None else shown_here()
    examples = task.examples(split, limit=limit)
    anatomy = Anatomy.of(model, family=family)
    base = identify(model)
    if show_changes is not None:
        refuse_changed(task, show_changes)
    for recipes in pair.each:
        recipes.refuse_task(task)
        recipes.check(model, family=family)
    if text is not None:
        text.check(model, tokenizer, anatomy=anatomy)
    scorer = scorer_of(model, tokenizer, task, examples, anatomy=anatomy)
    progress.start(f"scoring {task.name}/{split}", (1 + sum(map(bool, pair.each))) * scorer.steps)
    lowest = Together((pair.a, pair.b)).lowest
    scored = _scored(scorer, pair, lowest=lowest, family=family, progress=progress)
    text, known = text or DriftText(), base.fingerprint
    prepared = _read_by_base(
        model, tokenizer, text, anatomy=anatomy, lowest=lowest, fingerprint=known, progress=progress
    )
    sides = []
    for recipes, name, found in zip(pair.each, pair.names, scored[1:], strict=True):
        price = recipes.price(
            model, tokenizer, text, anatomy=anatomy, fingerprint=known, prepared=prepared, progress=progress
        )
        sides.append(Side(name, found.figures, change_of(task, examples, scored[0], found, price, tokenizer=tokenizer)))
    changed = None
    if show_changes is not None:
        of_a, of_b = (functools.partial(recipes.applied, model, family=family) for recipes in pair.each)
        both = (scored[1], scored[2])
        changed = changed_answers(model, tokenizer, examples, both, before=of_a, after=of_b, most=show_changes)
    return SideBySide(
        base_model=BaseModel(base.name, base.fingerprint),
        task=task.name,
        split=split,
        base=scored[0].figures,
        a=sides[0],
        b=sides[1],
        b_over_a=Change(compare(scored[1], scored[2]), spread(scored[1], scored[2]), changed=changed),
        score=task.score,
        shots=task.shots.count if task.shots is not None else 0,
    )


def _scored(
    scorer: Scorer | ClassScorer, pair: RecipePair, *, lowest: int, family: Family | None, progress: Progress
) -> list[Evaluation]:
    """Return what the base scores, and the base with either recipe on it; what lies below the lowest edit is run once."""
    states = states_below(scorer, lowest)
    start = lowest if states is not None else 0
    scored = [scorer.evaluate(start=start, states=states, progress=progress)]
    for recipes in pair.each:
        if not recipes:
            scored.append(scored[0])  # the very same model, so that it gains exactly nothing
            continue
        with recipes.applied(scorer.model, family=family):
            scored.append(scorer.evaluate(start=start, states=states, progress=progress))
    return scored


def _read_by_base(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: DriftText,
    *,
    anatomy: Anatomy,
    lowest: int,
    fingerprint: str,
    progress: Progress,
) -> DriftScorer | None:
    """Let the base read the texts once for both recipes; None where it cannot, of which the price then says why."""
    try:
        texts = text.texts(model, tokenizer, anatomy=anatomy, fingerprint=fingerprint, progress=progress)
        return DriftScorer(model, texts, anatomy=anatomy, source=text.name, lowest=lowest)
    except Exception:  # what was scored is not lost for want of a price
        return None
