"""`strop export`: write a recipe in a form of another library's."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from strop.cli.console import (
    DeviceOption,
    DtypeOption,
    FamilyOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    RevisionOption,
    anatomy_for_command,
    load_for_command,
    print_json,
    print_line,
)
from strop.cli.progress import showing_progress


def export(
    model_name: ModelArgument,
    recipe: Annotated[Path, typer.Option("--recipe", metavar="DIR", help="The recipe to export.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the adapter.", show_default=False)
    ],
    file_format: Annotated[
        Literal["peft"], typer.Option("--format", help="peft: a LoRA adapter that PEFT loads.")
    ] = "peft",
    force: Annotated[
        bool, typer.Option("--force", help="Export although the recipe was made for another base.")
    ] = False,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    family_file: FamilyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a recipe of LoRAs, or of other changes of low rank, as an adapter that PEFT loads.

    Example: [bold]strop export smollm2-135m --recipe RUN/recipe --out smollm2-facts-lora[/bold]
    """
    from strop.export import export_peft, refuse_unadaptable
    from strop.files import refuse_occupied
    from strop.recipe import Recipe

    document = Recipe.load(recipe)
    refuse_unadaptable(document)  # before a model is loaded
    refuse_occupied(out, remedy="choose another --out")
    with showing_progress(quiet=quiet) as progress:
        labels = document.head.labels if document.head is not None else None
        model, _ = load_for_command(model_name, progress, revision=revision, device=device, dtype=dtype, labels=labels)
        progress.note("writing the adapter")
        export_peft(model, document, out, force=force, family=anatomy_for_command(model, family_file).family)
    size = sum(file.stat().st_size for file in out.iterdir())
    count = len(document.interventions)
    if as_json:
        print_json({"folder": str(out), "bytes": size, "format": file_format, "interventions": document.describe()})
        return
    print_line(f"{out}: {size / 1e6:.1f} MB, with {count} intervention{'' if count == 1 else 's'} as a LoRA adapter")
    print_line(f'PEFT loads it on the base: PeftModel.from_pretrained(model, "{out}")')
