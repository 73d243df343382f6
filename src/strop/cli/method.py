"""What `improve`, `search`, `prune`, `sharpen` and `train` have in common on the command line: one set of options, one way through.

A command of this kind says what its plan is; everything else — the model, the run folder, where to begin, what to spend,
what to guard — is taken, checked and printed here.
"""

import copy
import dataclasses
import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from strop.cli.console import (
    DeviceOption,
    DriftTextOption,
    DtypeOption,
    FamilyOption,
    JsonOption,
    LayersOption,
    ModelArgument,
    QuietOption,
    RevisionOption,
    ShotsOption,
    ShowChangesOption,
    StackOption,
    TaskOption,
    TextOption,
    anatomy_for_command,
    drift_text_for_command,
    load_for_command,
    parse_layers_option,
    print_json,
    print_line,
    print_run,
    print_table,
    resumable,
    task_for_command,
)
from strop.cli.duration import parse_seconds
from strop.cli.following import free_name, other_method, print_next, spelt
from strop.cli.progress import showing_progress

if TYPE_CHECKING:
    from strop.anatomy import Anatomy
    from strop.proving import RunOptions, RunOutcome
    from strop.runs import RunResult
    from strop.statistics import ChangedAnswers
    from strop.tasks import Task


SHOWN = 5
"""Examples in the prompt that are tried where no method helped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodCall:
    """The options every method takes, as they were given; `run` does the rest."""

    model_name: str
    task_name: str | None
    text: Path | None
    out: Path
    after: Path | None
    guard: list[str] | None
    drift_text: Path | None
    time_limit: str | None
    max_evaluations: int | None
    layers: str | None
    stack: str | None
    select_limit: int | None
    test_limit: int | None
    objective: str | None
    seed: int | None
    storage: str | None
    with_factors: bool
    resume: bool
    revision: str | None
    device: str | None
    dtype: str | None
    family_file: Path | None
    as_json: bool
    quiet: bool
    shots: int | None
    no_rivals: bool
    show_changes: int | None
    began: float | None = None
    """When the command did, by `time.monotonic`, where all it takes counts: loading the model too."""

    def run(self, method: Callable[..., "RunOutcome"], plan: Any, *, new_head: bool = True, **more: Any) -> None:
        """Run a method and print what it found.

        Args:
            method: `search`, `prune` or `train`.
            plan: its settings; the shared ones that were given replace its defaults.
            new_head: let a classifier's head be drawn where the checkpoint has none, and the recipe to begin with has none either.
            more: options of the run that only some commands take, where they were given.
        """
        from strop.anatomy import Stack
        from strop.scoring import refuse_changed
        from strop.tasks import refuse_objective

        given = {name: getattr(self, name) for name in ("select_limit", "test_limit", "objective", "seed")}
        plan = dataclasses.replace(plan, **{name: value for name, value in given.items() if value is not None})
        task = task_for_command(self.task_name, self.shots, text=self.text, needed=getattr(plan, "needs_task", True))
        refuse_objective(task, plan.objective)
        if self.show_changes is not None:
            refuse_changed(task, self.show_changes)
        options = self._options(**more)
        with showing_progress(quiet=self.quiet) as progress, resumable(self.out):
            model, tokenizer = load_for_command(
                self.model_name,
                progress,
                revision=self.revision,
                device=self.device,
                dtype=self.dtype,
                task=task,
                seed=plan.seed,
                new_head=new_head or (options.after is not None and options.after.head is not None),
            )
            anatomy = anatomy_for_command(model, self.family_file)
            if hasattr(plan, "layers"):
                stack = Stack.parse(self.stack) if self.stack is not None else None
                layers = parse_layers_option(self.layers, anatomy.layers_of(stack))
                plan = dataclasses.replace(plan, layers=layers, stack=stack)
            spent = time.monotonic() - self.began if self.began is not None else 0.0
            options = dataclasses.replace(options, family=anatomy.family, progress=progress, spent_seconds=spent)
            found = method(model, tokenizer, task if task.counts else None, plan, options)
            changed = self._changed(found, model, tokenizer, task, anatomy)
        self._print(found, task, changed, plan)

    def _changed(
        self, found: "RunOutcome", model: Any, tokenizer: Any, task: "Task", anatomy: "Anatomy"
    ) -> "ChangedAnswers | None":
        """Return answers that the recipe changed, where they are asked for; a finished run that is read back has none."""
        from strop.recipe import applied
        from strop.scoring import changed_answers

        if self.show_changes is None or found.test_evaluations is None:
            return None
        examples = task.examples("test", limit=found.test_evaluations[0].count)  # a race may have measured a sample
        on = functools.partial(applied, model, found.recipe, family=anatomy.family)
        return changed_answers(model, tokenizer, examples, found.test_evaluations, after=on, most=self.show_changes)

    def _options(self, **more: Any) -> "RunOptions":
        from strop.proving import Budget, Guard, RunOptions
        from strop.recipe import Recipe

        seconds = parse_seconds(self.time_limit, "--time-limit") if self.time_limit is not None else None
        drift_text = drift_text_for_command(self.drift_text)
        return RunOptions(
            out=self.out,
            after=Recipe.load(self.after) if self.after is not None else None,
            guards=tuple(Guard.parse(text, drift_text=drift_text) for text in self.guard or ()),
            drift_text=drift_text,
            budget=Budget(seconds=seconds, evaluations=self.max_evaluations),
            storage=self.storage,
            resume=self.resume,
            with_factors=self.with_factors,
            rivals=not self.no_rivals,
            **more,
        )

    def _print(self, found: "RunOutcome", task: "Task", changed: "ChangedAnswers | None", plan: Any) -> None:
        """Print a finished run, as JSON or for a person with the next command to try."""
        from strop.report import changed_lines

        result, board = found.result, found.leaderboard
        if self.as_json:
            more = {"changed": changed.to_json()} if changed is not None else {}
            more |= {"leaderboard": board.to_json()} if board is not None else {}
            print_json({**result.to_json(), **more})
            return
        if board is not None:
            print_table(board.table())
            print_line(board.decision)
        print_run(result)
        for line in changed_lines(changed):
            print_line(line)
        if self.show_changes is not None and changed is None:
            print_line(
                "A finished run asks nothing again: strop report shows the answers it kept, strop eval --show-changes new ones."
            )
        print_line(f"As a page: {spelt('report', self.out, options={'--out': self.out / 'report.html'})}")
        words, options = self._next(result, task, plan)
        loading = {
            "--revision": self.revision, "--device": self.device, "--dtype": self.dtype, "--family": self.family_file,
        }  # fmt: skip
        print_next(*words, options={**options, **loading})

    def _next(self, result: "RunResult", task: "Task", plan: Any) -> tuple[tuple[object, ...], dict[str, object]]:
        """Return what to try after a run: another method where nothing was gained, else to make its recipe permanent.

        What depends on a token's place, and what a classifier learned, cannot be baked, and is evaluated instead.
        """
        from strop.runs import can_be_baked

        asked = {
            "--task": self.task_name, "--text": self.text, "--shots": self.shots, "--drift-text": self.drift_text,
        }  # fmt: skip
        if result.comparison["test"].ci95[0] <= 0:
            trainable = bool(task.counts.get("train"))
            other = other_method(result.command, plan=plan, trainable=trainable, classifier=task.labels is not None)
            if other is None:
                return self._without_a_method(task, asked)
            command, more = other
            wanted = {
                "--guard": self.guard, "--objective": self.objective, "--after": self.after,
                "--select-limit": self.select_limit, "--test-limit": self.test_limit,
            }  # fmt: skip
            if not task.counts:  # of what it writes itself a model knows all: what others write may be learned
                command, more = result.command, {"--text": "FILE", "--strategy": plan.strategy}
            out = free_name(self.out.with_name(f"{self.out.name}-{command}"))
            return (command, self.model_name), {**asked, "--out": out, **more, **wanted}
        recipe = self.out / "recipe"
        if result.prompt is not None:
            asked["--shots"] = result.prompt.shots
            return ("eval", self.model_name), {**asked, "--recipe": recipe if result.interventions else None}
        if can_be_baked(result.interventions, head=result.head):
            return ("bake", self.model_name), {"--recipe": recipe, "--out": free_name(self.out / "model")}
        return ("eval", self.model_name), {**asked, "--recipe": recipe}

    def _without_a_method(
        self, task: "Task", asked: Mapping[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """Return what to try where no method helped: more examples in the prompt, or a look at the task without any."""
        if self.text is not None:
            return ("inspect", self.model_name), {}
        shots = min(max(SHOWN, 2 * (self.shots or 0)), task.counts.get("train", 0))
        if not shots or task.score == "perplexity":
            return ("task", "check", self.task_name), {"--model": self.model_name}
        return ("eval", self.model_name), {**asked, "--shots": shots}


def _shared(
    model_name: ModelArgument,
    *,
    task_name: TaskOption = None,
    text: TextOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Folder for the run.", show_default=False)],
    layers: LayersOption = None,
    stack: StackOption = None,
    after: Annotated[
        Path | None,
        typer.Option("--after", metavar="DIR", help="A recipe to begin with, such as a search's.", show_default=False),
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(
            "--guard",
            metavar="WHAT:BOUND",
            help="What the choice may not harm: drift:0.05 (nats per token away from the base), notes.txt:2% (perplexity of a "
            "text), boolq:1 (points of accuracy on another task); may be repeated.",
            show_default=False,
        ),
    ] = None,
    drift_text: DriftTextOption = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            "--time-limit", metavar="TIME", help="Choose for this long: 90s, 30m, 1h.", show_default="no limit"
        ),
    ] = None,
    max_evaluations: Annotated[
        int | None, typer.Option("--max-evaluations", help="Most trials the choice may take.", show_default="no limit")
    ] = None,
    select_limit: Annotated[int | None, typer.Option(help="Most examples to choose by.", show_default="1000")] = None,
    test_limit: Annotated[int | None, typer.Option(help="Most examples to measure on.", show_default="all")] = None,
    objective: Annotated[
        Literal["average", "macro"] | None,
        typer.Option(
            help="Choose by accuracy over all examples, or by its mean over the task's categories.",
            show_default="average",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of samples, initial edits and the bootstrap.", show_default="0")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="URL", help="Keep the trials in this database.", show_default="RUN/study.db"),
    ] = None,
    with_factors: Annotated[
        bool,
        typer.Option("--with-factors", help="Put low-rank factors into the recipe, so that nothing is decomposed."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    family_file: FamilyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    shots: ShotsOption = None,
    show_changes: ShowChangesOption = None,
    no_rivals: Annotated[
        bool,
        typer.Option(
            "--no-rivals", help="Do not measure what a constant answer and examples in the prompt would give."
        ),
    ] = False,
) -> None:
    """Hold the shared options; its signature is all that is used."""


def method_command(
    command: Callable[..., None],
    *,
    without: Sequence[str] = (),
    says: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Callable[..., None]:
    """Return a command that takes the shared options beside its own, and is handed them as its first argument `call`.

    Args:
        command: takes a `MethodCall` and options of its own.
        without: shared options that it does not take.
        says: shared option → what of its help is another for this command: `help`, or the default that is shown.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = list(inspect.signature(_shared, eval_str=True).parameters.values())
    arguments = shared[:4]
    options = [_saying(option, says.get(option.name, {})) for option in shared[4:] if option.name not in without]
    left = {option.name: option.default for option in shared[4:] if option.name in without}

    def taking_all(**given: Any) -> None:
        names = {field.name for field in dataclasses.fields(MethodCall)}
        call = MethodCall(**left, **{name: value for name, value in given.items() if name in names})
        command(call, **{name: value for name, value in given.items() if name not in names})

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*arguments, *own, *options)]
    taking_all.__name__, taking_all.__doc__ = command.__name__, command.__doc__
    taking_all.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    taking_all.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return taking_all


def _saying(option: inspect.Parameter, other: Mapping[str, str]) -> inspect.Parameter:
    """Return a shared option with other words in its help; the option itself where there are none."""
    if not other:
        return option
    kind, settings = get_args(option.annotation)
    reworded = copy.copy(settings)
    for name, text in other.items():
        setattr(reworded, name, text)
    return option.replace(annotation=Annotated[kind, reworded])
