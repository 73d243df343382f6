"""Drift on text the base writes itself beside drift on real text, over twenty recipes; and what measuring it takes.

Real text is what installed packages say of themselves. The recipes are rank reductions and prunings of one to eight random
matrices of the upper two thirds, mild to severe, and those of finished runs named on the command line.
"""

import argparse
import importlib.metadata
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scipy.stats
from transformers import PreTrainedModel

import strop
from common import write_result
from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.proving import DriftText
from strop.scoring import DriftScorer, Texts

MODEL = "smollm2-135m"
RECIPES = 20


def real_text() -> str:
    """Return what installed packages say of themselves, the longest descriptions first."""
    found = {
        dist.metadata["Name"]: dist.metadata.json.get("description") for dist in importlib.metadata.distributions()
    }
    return "\n\n".join(sorted((str(text) for text in found.values() if text), key=lambda text: (-len(text), text)))


def random_recipe(model: PreTrainedModel, anatomy: Anatomy, seed: int) -> strop.Recipe:
    """Return edits of a few random matrices."""
    draw = random.Random(seed)
    sites = draw.sample(
        [
            WeightSite(layer, kind)
            for layer in range(anatomy.layer_count // 3, anatomy.layer_count)
            for kind in MatrixType
        ],
        draw.choice([1, 2, 8]),
    )
    edits: list[Any] = []
    for site in sites:
        if draw.random() < 0.5:
            edits.append(strop.RankReduction(site, draw.choice([0.1, 0.3, 0.6, 0.9])))
        else:
            largest = range(min(anatomy.read_weight(model, site).shape) // 4)
            removed = draw.sample(largest, draw.choice([1, 5, 30]))
            edits.append(strop.SingularValuePruning(site, tuple(sorted(removed))))
    return strop.Recipe.of(model, edits)


def main(runs: Sequence[Path]) -> None:
    """Measure each recipe on both texts."""
    model, tokenizer = strop.load(MODEL)
    anatomy = Anatomy.of(model)
    recipes = [strop.Recipe.load(folder / "recipe") for folder in runs]
    recipes += [random_recipe(model, anatomy, seed) for seed in range(RECIPES - len(recipes))]
    lowest = min(edit.site.layer for recipe in recipes for edit in recipe.interventions)
    texts: dict[str, tuple[Texts, ...]] = {}
    seconds: dict[str, float] = {}
    for name, source in (("own", DriftText()), ("real", DriftText("packages", real_text()))):
        started = time.perf_counter()
        texts[name] = source.texts(model, tokenizer, anatomy=anatomy)
        seconds[f"texts, {name}"] = time.perf_counter() - started
    scorers: dict[str, DriftScorer] = {}
    for name, own in texts.items():
        started = time.perf_counter()
        scorers[name] = DriftScorer(model, own, anatomy=anatomy, lowest=lowest)
        seconds[f"base, {name}"] = time.perf_counter() - started
    rows = []
    for index, recipe in enumerate(recipes):
        row: dict[str, Any] = {"edits": list(recipe.summary)[:3]}
        with strop.applied(model, recipe):
            for name, scorer in scorers.items():
                started = time.perf_counter()
                row[name] = scorer.read().to_json()
                row[f"seconds, {name}"] = time.perf_counter() - started
        rows.append(row)
        print(index, {name: round(row[name]["kl"], 4) for name in scorers}, flush=True)
    kl = {name: [row[name]["kl"] for row in rows] for name in scorers}
    agreement = float(scipy.stats.spearmanr(kl["own"], kl["real"]).statistic)
    print(agreement)
    write_result("drift", {"model": MODEL, "rank_correlation": agreement, "seconds": seconds, "recipes": rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs whose recipes are measured too")
    main(parser.parse_args().runs)
