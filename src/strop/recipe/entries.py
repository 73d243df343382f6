"""The entries of a recipe on disk: each means what it says, and is given the tensors it needs and no others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from strop.errors import InterventionError, RecipeError, StropError, reason_in, shortened
from strop.interventions import Intervention, intervention_from_json
from strop.recipe.identity import MatrixIdentity

FACTORS = {"left", "right"}
"""What factors of a matrix are called; what is learned beside them may be of another dtype."""

MOST_LISTED = 2**22
"""Components that the prunings of one recipe may list between them."""


def read_entries(
    entries: Sequence[Mapping[str, Any]], matrices: Sequence[MatrixIdentity], path: Path
) -> tuple[Intervention, ...]:
    """Return the interventions that a recipe.json describes.

    Args:
        entries: as it holds them.
        matrices: for each, the matrix it edits.
        path: of the recipe.json, for messages.

    Raises:
        RecipeError: there is not one matrix for each entry, or an entry names no known method, cannot be read, has a key its
            method knows nothing of, or gives a figure that is not what its decision means for its matrix.
    """
    if len(entries) != len(matrices):
        raise RecipeError(
            f"{path} holds {len(entries)} interventions and {len(matrices)} matrices, and each intervention needs one: copy "
            "the recipe again."
        )
    found: list[Intervention] = []
    listed = 0
    for index, (entry, matrix) in enumerate(zip(entries, matrices, strict=True)):
        where = f"{path}, entry {index}"
        try:
            intervention = intervention_from_json(entry)
            meant = intervention.to_json(matrix.shape)
        except StropError as error:
            raise RecipeError(f"{where}: {reason_in(error)}; copy the recipe again.") from None
        _refuse_otherwise(entry, meant, where)
        listed += len(getattr(intervention, "removed", ()))
        if listed > MOST_LISTED:
            raise RecipeError(
                f"{where}: with it more than {MOST_LISTED:,} components are removed; no recipe needs as many."
            )
        found.append(intervention)
    return tuple(found)


def _refuse_otherwise(entry: Mapping[str, Any], meant: Mapping[str, Any], where: str) -> None:
    """Raise RecipeError if an entry holds what its decision does not say; how a text is spelled is the method's affair."""
    for key, value in entry.items():
        if value is None or (isinstance(value, str) and isinstance(meant.get(key), str)):
            continue
        if key not in meant:
            knows = ", ".join(meant)
            raise RecipeError(
                f"{where}: {entry['method']} knows no '{shortened(key, most=40)}' ({knows}); take it out, or upgrade Strop."
            )
        if isinstance(value, bool) or value != meant[key]:
            raise RecipeError(
                f"{where}: its {key} is {shortened(repr(value), most=40)}, and what it decides makes it {meant[key]!r}; "
                "write the recipe anew."
            )


def refuse_unfit_tensors(
    interventions: Sequence[Intervention],
    matrices: Sequence[MatrixIdentity],
    tensors: Sequence[Mapping[str, Tensor]],
    path: Path,
) -> None:
    """Raise RecipeError if an intervention lacks a tensor, or is given one that is none of its own or does not fit.

    Args:
        interventions: of the recipe.
        matrices: for each, the matrix it edits.
        tensors: for each, what tensors.safetensors holds.
        path: of that file, for messages.
    """
    for index, (entry, matrix, own) in enumerate(zip(interventions, matrices, tensors, strict=True)):
        try:
            entry.check(own, matrix.shape)
        except InterventionError as error:
            raise RecipeError(f"{path}, entry {index}: {error}") from None
        for names in (own.keys() & FACTORS, own.keys() - FACTORS):
            dtypes = sorted({str(own[name].dtype).removeprefix("torch.") for name in names})
            if len(dtypes) > 1:
                raise RecipeError(
                    f"{path}, entry {index}: {entry.site}: its {', '.join(sorted(names))} are of {' and '.join(dtypes)}, and "
                    "belong together in one dtype; copy the recipe again."
                )
