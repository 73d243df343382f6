"""What the commands share: options, how a model and a task are loaded, results on standard output."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import rich.console
import typer

from strop.cli.failure import CtrlCError
from strop.plain_json import to_json
from strop.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from strop.anatomy import Anatomy, MatrixType
    from strop.proving import DriftText
    from strop.report import Table
    from strop.runs import RunResult
    from strop.statistics import Spread
    from strop.tasks import Task

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A zoo name (smollm2-135m), a local folder, or a hub id.", show_default=False),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="TASK",
        help="A task file, or a built-in task such as world-facts, int-sum, boolq; a wrong name lists all.",
        show_default=False,
    ),
]
TextOption = Annotated[
    Path | None,
    typer.Option(
        "--text",
        metavar="FILE",
        help="In the place of a task: predict the passages of this text, judged by perplexity.",
        show_default=False,
    ),
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="Revision of a hub id.", show_default=False)]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="Where to run: cpu, cuda, cuda:1, mps.", show_default="a GPU if there is one"),
]
DtypeOption = Annotated[
    str | None, typer.Option("--dtype", help="float32, bfloat16 or float16.", show_default="the checkpoint's own")
]
FamilyOption = Annotated[
    Path | None,
    typer.Option(
        "--family",
        metavar="FILE",
        help="A YAML file describing an architecture Strop does not know.",
        show_default=False,
    ),
]
DriftTextOption = Annotated[
    Path | None,
    typer.Option(
        "--drift-text",
        metavar="FILE",
        help="Measure drift from the base on this text.",
        show_default="text the base writes itself",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output, and nothing else.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
ShotsOption = Annotated[
    int | None,
    typer.Option(
        "--shots", metavar="K", help="Put K solved train rows before each prompt.", show_default="the task's own"
    ),
]
ShowChangesOption = Annotated[
    int | None,
    typer.Option(
        "--show-changes",
        metavar="N",
        help="Show up to N examples whose answers became right, and N that became wrong, with both answers.",
        show_default="none",
    ),
]
LayersOption = Annotated[str | None, typer.Option("--layers", help="Such as 20-29 or 0,4,8.", show_default="all")]
PriceWeightOption = Annotated[
    float | None,
    typer.Option(
        help="Nats of the task's loss that a nat of drift is worth where candidates are ranked.", show_default="0"
    ),
]
StackOption = Annotated[
    Literal["encoder", "decoder", "cross", "vision"] | None,
    typer.Option(
        "--stack", help="Which blocks, of a model that has several lists of them.", show_default="the main one"
    ),
]
MatrixTypesOption = Annotated[str | None, typer.Option("--matrix-types", help="Such as up,down.", show_default="all")]


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, in ASCII where that takes no other characters."""
    text = to_json(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=2) + "\n"
    sys.stdout.write(text)


def print_table(table: "Table") -> None:
    """Print a table on standard output."""
    from strop.report import to_rich

    rich.console.Console().print(to_rich(table))


def print_line(line: str = "") -> None:
    """Print a line of text on standard output."""
    sys.stdout.write(line + "\n")


def load_for_command(
    name: str,
    progress: Progress,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    task: "Task | None" = None,
    labels: "Sequence[str] | None" = None,
    images: bool = False,
    seed: int = 0,
    new_head: bool = True,
    headless: bool = False,
) -> Any:
    """Load a model and its tokenizer for a command: a classifier where the task has labels, or a recipe's head has.

    A new head is drawn by the seed; no labels are those of a number. Where the task shows images it is one of images, and comes
    with its image processor; without a task it is what its checkpoint says.

    A checkpoint without a head is taken where it is only looked at. Where it runs is told first.
    """
    import torch

    from strop.checkpoints import load, load_classifier, load_image_classifier, open_as_saved
    from strop.errors import UsageError

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype is not None and dtype not in dtypes:
        raise UsageError(f"--dtype is one of {', '.join(dtypes)}, not '{dtype}'.")
    target = device_for_command(device)
    progress.note(f"running on {_describe_device(target)}")
    kind = dtypes[dtype] if dtype else None
    if task is not None and task.labels is not None:
        labels = task.labels.names or ()
    how: dict[str, Any] = {"revision": revision, "dtype": kind, "device": target, "announce": progress.note}
    if labels is None:
        return load(name, **how) if task is not None else open_as_saved(name, headless=headless, **how)
    images = images or (task is not None and task.shows_images)
    load_labelled = load_image_classifier if images else load_classifier
    return load_labelled(name, labels=labels or 1, seed=seed, new_head=new_head, **how)


def task_for_command(name: str | None, shots: int | None, *, text: Path | None = None, needed: bool = True) -> "Task":
    """Load a task for a command, or make one of a text, with `shots` examples before each prompt where a number is given.

    Where neither is given and none is needed it is that of text the model has yet to write itself.
    """
    from strop.errors import UsageError
    from strop.proving.own_task import UNWRITTEN
    from strop.tasks import load_task, text_task
    from strop.tasks.plain_text import read_text

    if name is not None and text is not None:
        raise UsageError("--task and --text both say what to be good at: give one of them.")
    if text is not None:
        task = text_task(read_text(text, called=f"The text {text}"), name=text.name)
    elif name is not None:
        task = load_task(name)
    elif needed:
        raise UsageError(
            "Say what to be good at: --task TASK, a task file or a built-in task, or --text FILE, some pages to predict; only "
            "strop search --strategy data-free goes without."
        )
    else:
        task = UNWRITTEN
    return task if shots is None else task.with_shots(shots)


def drift_text_for_command(path: Path | None) -> "DriftText":
    """Return what drift is measured on: a user's text, or what the base writes itself."""
    from strop.proving import DriftText

    return DriftText() if path is None else DriftText.read(path)


def device_for_command(name: str | None) -> "torch.device":
    """Return the device that is named; without a name CUDA, else MPS, where there is one, else the CPU."""
    import torch

    from strop.checkpoints import best_device
    from strop.errors import UsageError, reason_in

    if not name:
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        unknown = "device string" in str(error)  # torch lists a score of kinds
        reason = "there is no such device; it is cpu, cuda, cuda:1 or mps" if unknown else reason_in(error)
        raise UsageError(
            f"--device {name} cannot be used here: {reason}; leave it out to run on {best_device()}."
        ) from None
    return device


def _describe_device(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'' if threads == 1 else 's'})" if device.type == "cpu" else str(device)


def given_only(**settings: Any) -> dict[str, Any]:
    """Return the settings that were given: what is None is left to the plan, where alone defaults are kept."""
    return {name: value for name, value in settings.items() if value is not None}


def parse_numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Return the numbers of a comma-separated option."""
    from strop.errors import UsageError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} is a comma-separated list of numbers, not '{text}'.") from None


def parse_whole_numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Return the whole numbers of a comma-separated option, in order, none twice."""
    from strop.errors import UsageError

    try:
        return None if text is None else tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"{option} is a comma-separated list of whole numbers, not '{text}'.") from None


def parse_matrix_types(text: str | None) -> "tuple[MatrixType, ...] | None":
    """Return the matrix types of a comma-separated option, in order, none twice."""
    from strop.anatomy import MatrixType
    from strop.errors import SiteError, UsageError

    try:
        return None if text is None else tuple(dict.fromkeys(MatrixType.parse(part) for part in text.split(",")))
    except SiteError as error:
        raise UsageError(f"--matrix-types: {error}") from None


def anatomy_for_command(model: "PreTrainedModel", family_file: Path | None) -> "Anatomy":
    """Return a model's anatomy, by a family from a file where one is given."""
    from strop.anatomy import Anatomy, read_family

    family = read_family(family_file) if family_file is not None else None
    return Anatomy.of(model, family=family)


def parse_layers_option(text: str | None, layer_count: int) -> tuple[int, ...] | None:
    """Return the layers an option names."""
    from strop.anatomy import parse_layers
    from strop.errors import SiteError, UsageError

    try:
        return None if text is None else parse_layers(text, layer_count)
    except SiteError as error:
        raise UsageError(f"--layers: {error}") from None


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Turn an interruption into the sentence that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if not (out / "config.json").is_file():
            raise CtrlCError("Interrupted before the run began; nothing was written.") from None
        raise CtrlCError(
            f"Interrupted. Finished trials are kept in {out}; repeat the command with --resume to go on."
        ) from None


def print_spread(spread: "Spread | None", names: tuple[str, str] = ("before", "after")) -> None:
    """Print how a gain is spread over categories, where there are any."""
    from strop.report import category_table, spread_lines

    if spread is not None:
        print_table(category_table(spread, names=names))
        for line in spread_lines(spread):
            print_line(line)


def print_run(result: "RunResult") -> None:
    """Print a finished run for a person."""
    from strop.report import run_parts

    for part in run_parts(result):
        if isinstance(part, str):
            print_line(part)
        else:
            print_table(part)
