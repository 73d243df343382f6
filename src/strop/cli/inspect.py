"""`strop inspect`: what a model is made of."""

import contextlib
import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strop.cli.console import (
    DeviceOption,
    DtypeOption,
    FamilyOption,
    JsonOption,
    LayersOption,
    MatrixTypesOption,
    ModelArgument,
    QuietOption,
    RevisionOption,
    anatomy_for_command,
    load_for_command,
    parse_layers_option,
    parse_matrix_types,
    print_json,
    print_line,
    print_table,
)
from strop.cli.following import print_next
from strop.cli.progress import showing_progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from strop.analysis import MatrixRow
    from strop.anatomy import Anatomy
    from strop.checkpoints import BaseIdentity


def inspect(
    model_name: ModelArgument,
    layers: LayersOption = None,
    matrix_types: MatrixTypesOption = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="DIR", help="A recipe to apply, and show the edits of.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Apply the recipe although it was made for another base.")
    ] = False,
    no_spectra: Annotated[bool, typer.Option("--no-spectra", help="Decompose nothing: no ranks and energies.")] = False,
    revision: RevisionOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    family_file: FamilyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print a model's layers and weight matrices: where they are, how large, and what their spectra say.

    Effective rank is exp of the entropy of the singular values; energy is the share of the squared norm that the
    largest tenth of them holds.

    Examples:
    [bold]strop inspect smollm2-135m --layers 28-29[/bold]

    [bold]strop inspect smollm2-135m --recipe RUN/recipe[/bold]
    """
    from strop.analysis import describe_matrices
    from strop.checkpoints import identify
    from strop.recipe import Recipe, applied

    document = Recipe.load(recipe) if recipe is not None else None
    loading = {"--revision": revision, "--device": device, "--dtype": dtype, "--family": family_file}
    with showing_progress(quiet=quiet) as progress:
        model, _ = load_for_command(model_name, progress, revision=revision, device=device, dtype=dtype, headless=True)
        anatomy = anatomy_for_command(model, family_file)
        base = identify(model)
        with contextlib.ExitStack() as stack:
            if document is not None:
                stack.enter_context(applied(model, document, force=force, family=anatomy.family))
            rows = describe_matrices(
                model,
                anatomy,
                layers=parse_layers_option(layers, anatomy.layer_count),
                matrix_types=parse_matrix_types(matrix_types),
                spectra=not no_spectra,
                edits=document.describe() if document is not None else (),
                progress=progress,
            )
    overview = _overview(model, anatomy, base)
    if as_json:
        print_json({**overview, "matrices": [dataclasses.asdict(row) for row in rows]})
        return
    _print_overview(overview, anatomy)
    _print_rows(rows, anatomy.family.blocks)
    if document is not None:
        for line in document.summary:
            print_line(f"  {line}")
        print_next("eval", model_name, options={"--task": "TASK", "--recipe": recipe, "--force": force, **loading})
        return
    print_next("eval", model_name, options={"--task": "world-facts", "--limit": 500, **loading})


def _overview(model: "PreTrainedModel", anatomy: "Anatomy", base: "BaseIdentity") -> dict[str, Any]:
    return {
        "id": base.id,
        "architecture": base.architecture,
        "family": anatomy.family.name,
        "spelling": anatomy.origin,
        "left_alone": list(anatomy.reading.unnamed),
        "layers_per_block": anatomy.family.calls_per_block,
        "fingerprint": base.fingerprint,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": anatomy.layer_count,
        "hidden_size": anatomy.hidden_size,
        "heads": anatomy.head_count,
        "key_value_heads": anatomy.key_value_head_count,
        "head_size": anatomy.head_size,
        "tied_embeddings": bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False)),
    }


def _print_overview(overview: dict[str, Any], anatomy: "Anatomy") -> None:
    print_line(
        f"{overview['id']}: {overview['architecture']} ({overview['family']}), {overview['parameters']:,} parameters"
    )
    heads = f"{anatomy.head_count} heads of {anatomy.head_size} ({anatomy.key_value_head_count} for keys and values)"
    print_line(
        f"{anatomy.layer_count} layers, hidden size {anatomy.hidden_size}, {heads if anatomy.head_count else 'no heads'}; "
        f"embeddings {'tied to the LM head' if overview['tied_embeddings'] else 'not tied'}"
    )
    print_line(f"spelling {anatomy.origin}")
    if overview["left_alone"]:
        print_line(f"left alone, for what they are could not be told: {', '.join(overview['left_alone'])}")
    if overview["layers_per_block"] > 1:
        print_line(f"{overview['layers_per_block']} layers share each block: an edit of one is an edit of all")


def _print_rows(rows: "list[MatrixRow]", blocks: str) -> None:
    from strop.report import Table, percent

    edited = any(row.edits for row in rows)

    decomposed = any(row.spectrum for row in rows)
    placed, stored = len({row.device for row in rows}) > 1, any(row.stored for row in rows)

    def figures(row: "MatrixRow") -> tuple[str, ...]:
        found = row.spectrum
        if found is None:
            return ("", "") if decomposed else ()
        return (f"{found.effective_rank:.0f}/{found.full_rank}", percent(found.energy_at_tenth))

    body = tuple(
        (
            row.module.removeprefix(f"{blocks}."),
            str(row.matrix_type) if row.expert is None else f"{row.matrix_type} expert {row.expert}",
            f"{row.shape[0]}x{row.shape[1]}",
            *(() if edited else (str(row.heads or ""),)),
            *figures(row),
            *((row.device,) if placed else ()),
            *((row.stored,) if stored else ()),
            *((row.edits,) if edited else ()),
        )
        for row in rows
    )
    spectra = ("effective rank", "top-tenth energy") if decomposed else ()
    where = (*(("device",) if placed else ()), *(("stored",) if stored else ()))
    sizes = () if edited else ("heads",)
    columns = (f"{blocks}.", "type", "shape", *sizes, *spectra, *where, *(("edits",) if edited else ()))
    counts = ", ".join(f"{count} {name}" for name, count in Counter(str(row.matrix_type) for row in rows).items())
    print_table(Table(f"{len(rows)} matrices: {counts}", columns, body, first_on_one_line=True))
