"""Which rows and columns of a stored tensor are one site's matrix; what does not add up is refused, never cut."""

from torch import Tensor

from strop.anatomy.families import Spelling
from strop.anatomy.sites import HEADED, MatrixType, WeightSite
from strop.anatomy.sizes import StackSizes
from strop.errors import UneditableWeightError


def matrix_view(parameter: Tensor, site: WeightSite, spelling: Spelling, sizes: StackSizes) -> Tensor:
    """Return a view of the site's matrix inside a tensor laid out as its parameter is.

    Returns:
        (out, in), or (units, heads of a unit, rows of a head, in) where heads are interleaved.

    Raises:
        UneditableWeightError: the tensor's sizes are not those of what it is said to hold.
    """
    own = parameter[site.expert] if spelling.experts == "stacked" else parameter
    rows = rows_view(own.T if spelling.transposed else own, site, spelling, sizes)
    return columns_view(rows, site, sizes)


def rows_view(stored: Tensor, site: WeightSite, spelling: Spelling, sizes: StackSizes) -> Tensor:
    """Return a view of the rows (features, …) that the site's matrix makes.

    Returns:
        (out, …), or (units, heads of a unit, rows of a head, …) where heads are interleaved.

    Raises:
        UneditableWeightError: there are more or fewer features than the parts make.
    """
    if spelling.packing == "interleaved":
        return _interleaved(stored, site, spelling, sizes)
    counts = _row_counts(stored.shape[0], site, spelling, sizes)
    index = spelling.packed.index(site.matrix_type) if spelling.packed else 0
    rows = stored[sum(counts[:index]) : sum(counts[: index + 1])]
    if site.head is None or site.matrix_type is MatrixType.OUTPUT:
        return rows
    return rows[_share_of_head(rows.shape[0], site, sizes)]


def columns_view(states: Tensor, site: WeightSite, sizes: StackSizes) -> Tensor:
    """Return a view of the last axis (…, in) that the site's matrix reads: one head's share, or all.

    Raises:
        UneditableWeightError: the heads do not make up that axis.
    """
    if site.head is None or site.matrix_type is not MatrixType.OUTPUT:
        return states
    return states[..., _share_of_head(states.shape[-1], site, sizes)]


def _share_of_head(found: int, site: WeightSite, sizes: StackSizes) -> slice:
    heads = sizes.heads_of(site.matrix_type)
    if site.head is None or found != heads * sizes.head_size:
        raise UneditableWeightError(
            f"{site}: {heads} heads of {sizes.head_size} make {heads * sizes.head_size}, and the matrix has {found}; edit it "
            "as a whole."
        )
    return slice(site.head * sizes.head_size, (site.head + 1) * sizes.head_size)


def _row_counts(found: int, site: WeightSite, spelling: Spelling, sizes: StackSizes) -> list[int]:
    """Return how many rows each part has: its heads', or an even share of what heads leave."""
    if spelling.packing == "whole":
        return [found]
    others = sum(part not in HEADED for part in spelling.packed)
    headed = sum(sizes.heads_of(part) * sizes.head_size for part in spelling.packed if part in HEADED)
    left = found - headed
    if left < 0 or (left % others if others else left):
        parts = [
            f"{part} {sizes.heads_of(part)} heads of {sizes.head_size}" if part in HEADED else f"{part} an even share"
            for part in spelling.packed
        ]
        raise UneditableWeightError(
            f"{site}: {spelling.path} has {found} rows, which its parts do not make up ({', '.join(parts)}); describe them as "
            "they are."
        )
    return [sizes.heads_of(part) * sizes.head_size if part in HEADED else left // others for part in spelling.packed]


def _interleaved(stored: Tensor, site: WeightSite, spelling: Spelling, sizes: StackSizes) -> Tensor:
    """Return a view of the rows of one part, or of one head of it: units, one after another, of some rows of each part.

    A unit is a key/value head with the query heads that share it; in an MLP one row of each part.
    """
    found = stored.shape[0]
    if site.matrix_type in HEADED:
        units, size = sizes.key_value_head_count, sizes.head_size
        counts = [sizes.heads_of(part) // units for part in spelling.packed]
        adds_up = sizes.head_count % units == 0 and found == units * sum(counts) * size
        grouped = "" if units == sizes.head_count else f" and {units} key/value heads"
        what = f"{sizes.head_count} heads{grouped} of {size}"
    else:
        units, size, counts = found // len(spelling.packed), 1, [1] * len(spelling.packed)
        adds_up, what = found % len(spelling.packed) == 0, "as many rows of each"
    if not adds_up:
        raise UneditableWeightError(
            f"{site}: {spelling.path} has {found} rows, which cannot be {', '.join(spelling.packed)} interleaved for {what}; "
            "describe them as they are."
        )
    index = spelling.packed.index(site.matrix_type)
    first, count = sum(counts[:index]), counts[index]
    parts = stored.view(units, sum(counts), size, *stored.shape[1:])[:, first : first + count]
    return parts if site.head is None else parts[divmod(site.head, count)]
