"""`strop bake`: make a recipe permanent."""

from pathlib import Path
from typing import Annotated

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
from strop.cli.following import print_next
from strop.cli.progress import showing_progress


def bake(
    model_name: ModelArgument,
    recipe: Annotated[Path, typer.Option("--recipe", metavar="DIR", help="The recipe to bake in.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the checkpoint.", show_default=False)
    ],
    force: Annotated[bool, typer.Option("--force", help="Bake although the recipe was made for another base.")] = False,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    family_file: FamilyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write an ordinary checkpoint with a recipe's edits in its weights.

    Example: [bold]strop bake smollm2-135m --recipe RUN/recipe --out smollm2-facts[/bold]
    """
    from strop.checkpoints import of_images
    from strop.export import bake as bake_recipe
    from strop.export import refuse_unbakeable
    from strop.files import refuse_occupied
    from strop.recipe import Recipe

    document = Recipe.load(recipe)
    refuse_unbakeable(document)  # before a model is loaded
    refuse_occupied(out, remedy="choose another --out")
    with showing_progress(quiet=quiet) as progress:
        labels = document.head.labels if document.head is not None else None
        model, tokenizer = load_for_command(
            model_name,
            progress,
            revision=revision,
            device=device,
            dtype=dtype,
            labels=labels,
            images=of_images(document.base.architecture),
        )
        progress.note("writing the checkpoint")
        family = anatomy_for_command(model, family_file).family
        bake_recipe(model, document, out, tokenizer=tokenizer, force=force, family=family)
    size = sum(file.stat().st_size for file in out.iterdir())
    count = len(document.interventions)
    if as_json:
        print_json({"folder": str(out), "bytes": size, "interventions": document.describe()})
        return
    print_line(f"{out}: {size / 1e6:.1f} MB, with {count} intervention{'' if count == 1 else 's'} baked in")
    kind = type(model).__name__
    loader = "AutoModelForCausalLM" if kind.endswith("ForCausalLM") or kind.endswith("LMHeadModel") else kind
    print_line(f'Any other tool can load it: {loader}.from_pretrained("{out}")')
    print_next("eval", out, options={"--task": "TASK", "--device": device, "--family": family_file})
