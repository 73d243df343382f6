"""Reduction in several subspaces against plain reduction, at factors of one size, on a task and the real SmolLM2-135M.

The three matrices the gradient ranks highest are reduced to four rank fractions, plainly and in 2, 4 and 8 subspaces, of rows
and of columns, of neighbours and of what lies near one subspace; each is scored on the same select examples. The best by
select of each kind is then scored on the same held-out examples, and compared with the best plain reduction pair by pair.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

import strop
from common import add_dtype, write_result
from strop.anatomy import Anatomy, editable_shapes
from strop.interventions import RankReduction, applied_interventions
from strop.linalg import Axis, DecompositionCache, Partition
from strop.scoring import Evaluation, Scorer, compare
from strop.searching import measure_effects
from strop.searching.laser import sweep
from strop.searching.laser.candidates import Shapes, in_subspaces, predicted_candidates

RANK_FRACTIONS = (0.01, 0.05, 0.2, 0.5)
SUBSPACES = (2, 4, 8)
Kind = tuple[int, str, str]
"""Subspaces, axis and partition."""
PLAIN: Kind = (1, "output", "block")


def kind_of(edit: RankReduction) -> Kind:
    return edit.subspaces, edit.axis, edit.partition


def all_kinds(plain: list[RankReduction], shapes: Shapes) -> list[RankReduction]:
    """Return plain reductions, and after them what is as large in several subspaces."""
    return plain + [
        edit
        for axis in get_args(Axis)
        for partition in get_args(Partition)
        for edit in in_subspaces(plain, shapes, subspaces=SUBSPACES, axis=axis, partition=partition)
    ]


def merit(evaluation: Evaluation) -> tuple[float, float]:
    return evaluation.figures.accuracy or 0.0, -evaluation.figures.loss


def error_share(model: Any, anatomy: Anatomy, edit: RankReduction, cache: DecompositionCache) -> float:
    """Return how much of a matrix's squared norm an edit takes away."""
    matrix = anatomy.read_weight(model, edit.site)
    return float((matrix - edit.edit(matrix, decompose=cache, tensors={})).square().sum() / matrix.square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--select", type=int, default=100, help="examples to choose by")
    parser.add_argument("--test", type=int, default=200, help="held-out examples to measure on")
    parser.add_argument("--matrices", type=int, default=3, help="how many matrices to try")
    parser.add_argument("--task", default="world-facts", help="a built-in task, or a task file")
    add_dtype(parser)
    options = parser.parse_args()
    started = time.perf_counter()
    model, tokenizer = strop.load("smollm2-135m", dtype=options.dtype)
    task = strop.load_task(options.task)
    anatomy, cache = Anatomy.of(model), DecompositionCache()
    shapes = editable_shapes(model, anatomy, layers=None, matrix_types=None)
    select, test = (
        Scorer(model, tokenizer, task.examples(split, limit=limit), task.score, anatomy=anatomy)
        for split, limit in (("select", options.select), ("test", options.test))
    )
    effects = measure_effects(select, list(shapes), decompose=cache)
    plain = predicted_candidates(effects, shapes, top_matrices=options.matrices, rank_fractions=RANK_FRACTIONS)
    on_select, seconds = {}, defaultdict(list)
    for edit, score in sweep(select, all_kinds(plain, shapes), decompose=cache):
        begun = time.perf_counter()
        on_select[edit] = score()
        seconds[kind_of(edit)].append(time.perf_counter() - begun)
        print(f"{edit}: {merit(on_select[edit])} in {seconds[kind_of(edit)][-1]:.1f} s", flush=True)

    best = {
        kind: max((edit for edit in on_select if kind_of(edit) == kind), key=lambda edit: merit(on_select[edit]))
        for kind in seconds
    }
    base, held_out = test.evaluate(), {}
    for kind, edit in best.items():
        with applied_interventions(model, [edit], anatomy=anatomy, decompose=cache):
            held_out[kind] = test.evaluate()
    beside = {(edit.site, edit.rank_fraction): edit for edit in plain}
    rows = []
    for kind, edit in best.items():
        own = [other for other in on_select if kind_of(other) == kind]
        pairs = [(on_select[other], on_select[beside[other.site, other.rank_fraction]]) for other in own]
        errors = [
            (error_share(model, anatomy, other, cache), error_share(model, anatomy, twin, cache))
            for other in own
            for twin in [beside[other.site, other.rank_fraction]]
        ]
        shape = shapes[edit.site]
        rows.append(
            {
                "subspaces": kind[0], "axis": kind[1], "partition": kind[2], "tried": len(own),
                "better_than_plain_on_select": sum(merit(one) > merit(other) for one, other in pairs),
                "lower_loss_than_plain_on_select": sum(o.figures.loss < p.figures.loss for o, p in pairs),
                "nearer_to_the_matrix_than_plain": sum(one < other for one, other in errors),
                "mean_error_share": sum(one for one, _ in errors) / len(errors),
                "mean_error_share_of_plain": sum(other for _, other in errors) / len(errors),
                "median_seconds": sorted(seconds[kind])[len(own) // 2],
                "best": edit.to_json(shape), "numbers": edit.numbers_kept(shape),
                "partition_bits": edit.partition_bits(shape),
                "select": on_select[edit].figures.to_json(), "test": held_out[kind].figures.to_json(),
                "test_gain": compare(base, held_out[kind]).to_json(),
                "test_gain_over_best_plain": compare(held_out[PLAIN], held_out[kind]).to_json(),
            }
        )  # fmt: skip
    write_result(
        f"subspaces_{Path(options.task).stem}",
        {
            "dtype": str(model.dtype),
            "rank_fractions": RANK_FRACTIONS,
            "matrices": list(dict.fromkeys(str(edit.site) for edit in plain)),
            "base_test": base.figures.to_json(),
            "kinds": rows,
            "seconds": time.perf_counter() - started,
        },
    )


if __name__ == "__main__":
    main()
