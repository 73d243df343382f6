"""The one look at the test split: base, start and choice on the same examples."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from strop.checkpoints import BaseIdentity
from strop.progress import SILENT, Progress
from strop.proving.assignment import Assignment
from strop.proving.choice import Choice, Start
from strop.proving.deadline import UNHURRIED, Foresight
from strop.proving.gpus import gpu_cost
from strop.proving.price import Priced
from strop.proving.prompted import prompted_scorer
from strop.recipe import Recipe
from strop.runs import (
    BaseModel,
    Cost,
    PromptUsed,
    RunResult,
    Stopwatch,
    TaskUsed,
    TrainedHead,
    peak_rss_bytes,
    versions,
)
from strop.scoring import ClassScorer, Evaluation, Resources, Scorer, compare, spread
from strop.tasks import Task


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """What the test split says of a choice."""

    base: Evaluation
    """Of the model as it was."""
    edited: Evaluation
    """Of the choice."""
    started: Evaluation | None
    """Of the model with what the run began with; None where it began with nothing."""
    tokens: int
    """Tokens read."""
    prompt: PromptUsed | None = None
    """What the choice puts before each prompt."""

    @property
    def passes(self) -> int:
        """How often the split was read."""
        return len({id(found) for found in (self.base, self.edited, self.started) if found is not None})


def prove(
    given: Assignment,
    choice: Choice,
    test: Scorer | ClassScorer,
    *,
    progress: Progress = SILENT,
    foresight: Foresight = UNHURRIED,
) -> Measurement:
    """Measure a choice on the test split: base, start and edited model on the same examples, once.

    What lies below the lowest edit is computed once for all of them.

    Args:
        given: what the choice is about.
        choice: made without a look at test.
        test: the held-out examples.
        progress: told of each batch.
        foresight: told how long the model as it is took, where it was run whole.
    """
    stages = {"started": choice.start, "edited": choice.edits}
    if choice.best is choice.started:
        del stages["edited"]  # nothing was added to the start, so it is the same model
    stages = {name: edits for name, edits in stages.items() if edits}
    if choice.shots is not None:
        return _asked_otherwise(given, choice, test, progress, foresight)
    lowest = min((edit.site.layer for edit in choice.edits.interventions), default=0)
    progress.start("measuring on held-out examples", (1 + len(stages)) * test.steps)
    states = states_below(test, lowest)
    first = lowest if states is not None else 0
    watch = Stopwatch()
    found = {"base": test.evaluate(start=first, states=states, progress=progress)}
    if not first:
        foresight.took_to_prove(test.example_count, watch.seconds)
    for name, edits in stages.items():
        with edits.applied(given.model, anatomy=given.anatomy, decompose=given.decompose):
            found[name] = test.evaluate(start=first, states=states, progress=progress)
    base, started = found["base"], found.get("started")
    return Measurement(base, found.get("edited", started or base), started, len(found) * test.tokens)


def _asked_otherwise(
    given: Assignment, choice: Choice, test: Scorer | ClassScorer, progress: Progress, foresight: Foresight
) -> Measurement:
    """Measure a choice that puts solved rows before each prompt: the same examples, asked in other words."""
    assert choice.shots is not None  # who calls has seen to it
    examples = given.task.with_shots(choice.shots).examples("test", limit=test.example_count)
    asked = prompted_scorer(given, examples, edited=bool(choice.edits))
    progress.start("measuring on held-out examples", test.steps + asked.steps)
    watch = Stopwatch()
    base = test.evaluate(progress=progress)
    foresight.took_to_prove(test.example_count, watch.seconds)
    with choice.edits.applied(given.model, anatomy=given.anatomy, decompose=given.decompose):
        edited = asked.evaluate(progress=progress)
    edited = dataclasses.replace(edited, tokens=base.tokens)  # an answer may be cut into other tokens
    assert isinstance(test, Scorer)  # a classifier reads no examples in a prompt
    used = PromptUsed(choice.shots, asked.tokens_per_request, test.tokens_per_request)
    return Measurement(base, edited, None, test.tokens + asked.tokens, used)


def states_below(scorer: Scorer | ClassScorer, layer: int) -> list[Tensor] | None:
    """Return what enters a layer for each batch of a scorer, where it may be kept and reused, or None.

    Args:
        scorer: of a language model; a classifier is always run whole, and so is a model whose blocks do not resume.
        layer: the lowest that anything edits.
    """
    if layer == 0 or isinstance(scorer, ClassScorer) or not scorer.anatomy.family.resumes:
        return None
    if scorer.state_bytes > Resources.of(scorer.model).state_bytes:
        return None
    return scorer.states_entering(layer)


def unproved_recipe(given: Assignment, choice: Choice, *, base: BaseIdentity) -> Recipe:
    """Return a choice as a recipe that does not say yet how it was found.

    Args:
        given: what the run is about.
        choice: what it chose.
        base: the model's identity.
    """
    edits: Start = choice.edits
    return Recipe.of(
        given.model,
        edits.interventions,
        tensors=edits.tensors or None,
        base=base,
        family=given.anatomy.family,
        head=edits.head,
    )


def result_of(
    recipe: Recipe,
    choice: Choice,
    measured: Measurement,
    priced: Priced,
    *,
    command: str,
    task: Task,
    seed: int,
    wall_seconds: float,
    evaluations: int,
) -> RunResult:
    """Return a run's figures.

    Args:
        recipe: of the choice.
        choice: what was chosen.
        measured: what test says of that.
        priced: what other text says of it.
        command: search, prune, sharpen or train.
        task: what was chosen for.
        seed: of the tests and intervals too.
        wall_seconds: spent, sittings added up.
        evaluations: trials finished.
    """
    comparison = {"test": compare(measured.base, measured.edited, seed=seed)}
    start = {}
    if choice.started is not None and measured.started is not None:
        start = {"select": choice.started.figures, "test": measured.started.figures}
        comparison["test_over_start"] = compare(measured.started, measured.edited, seed=seed)
    head = choice.edits.head
    return RunResult(
        command=command,
        seed=seed,
        base_model=BaseModel(recipe.base.name, recipe.base.fingerprint),
        task=TaskUsed(
            task.name,
            {"select": choice.unedited.key.examples, "test": measured.base.count},
            task.shots.count if task.shots is not None else 0,
        ),
        base={"select": choice.unedited.figures, "test": measured.base.figures},
        edited={"select": choice.best.figures, "test": measured.edited.figures},
        start=start,
        comparison=comparison,
        interventions=tuple(recipe.describe()),
        edits=tuple(recipe.summary),
        guards=choice.guards,
        price=priced.price,
        cost=Cost(
            wall_seconds=round(wall_seconds, 3),
            evaluations=evaluations + measured.passes,
            tokens=choice.tokens + measured.tokens + priced.tokens,
            peak_rss_bytes=peak_rss_bytes(),
            **gpu_cost(wall_seconds),
        ),
        versions=versions(),
        metric=measured.base.metric[0] if measured.base.metric is not None else None,
        head=TrainedHead(head.labels, head.parameter_count) if head is not None else None,
        categories=spread(measured.base, measured.edited, seed=seed),
        prompt=measured.prompt,
    )


def provenance_of(given: Assignment, result: RunResult, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recipe says of how it was found.

    Args:
        given: what the run was about.
        result: its figures.
        settings: all that the answer depends on.
    """
    spread_over = result.categories.macro_to_json() if result.categories is not None else None
    return {
        "command": result.command,
        "task": given.task.name,
        "task_fingerprint": given.task.fingerprint,
        "seed": result.seed,
        "plan": dict(settings),
        "base": result.base["test"].to_json(),
        "edited": result.edited["test"].to_json(),
        "comparison": result.comparison["test"].to_json(),
        **({"categories": spread_over} if spread_over is not None else {}),
        **({"price": result.price.to_json()} if result.price is not None else {}),
        "versions": dict(result.versions),
        **({"shots": given.task.shots.model_dump()} if given.task.shots is not None else {}),
        **({"rivals": result.rivals.to_json()} if result.rivals is not None else {}),
        **({"prompt": dataclasses.asdict(result.prompt)} if result.prompt is not None else {}),
    }
