"""Train a Vision Transformer on some of scikit-learn's digits, and improve it on others by five methods.

python -m examples.digits            # some minutes
python -m examples.digits --small    # some seconds, for a look at how it goes
"""

import argparse
import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import strop
from examples.digits.images import deal_images, write_task
from examples.digits.reader import save_reader, train_reader
from strop.runs import RunResult
from strop.statistics import Comparison, spell_p_value
from strop.tables import Table, to_markdown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How large a run is."""

    read: int = 300
    """Images the reader learns from; the others are the task's."""
    hidden_size: int = 32
    layers: int = 2
    reading_epochs: int = 40
    batch: int = 50
    rate: float = 3e-3
    rank_fractions: tuple[float, ...] = (0.8, 0.6, 0.4, 0.2, 0.1, 0.05)
    """Of LASER."""
    rounds: int = 6
    """Of eigenpruning, and steps of sharpening."""
    epochs: int = 20
    """Of what is learned."""
    limit: int | None = None
    """Most images of the task's to learn from, to choose by and to measure on."""
    seed: int = 0


SMALL = Settings(read=100, hidden_size=16, reading_epochs=3, rank_fractions=(0.4,), rounds=1, epochs=1, limit=30)


def methods_of(settings: Settings) -> dict[str, tuple[Callable[..., strop.RunOutcome], Any]]:
    """Return each method with its plan.

    Args:
        settings: how much each may try.
    """
    limits: dict[str, Any] = {"select_limit": settings.limit, "test_limit": settings.limit, "seed": settings.seed}
    learning: dict[str, Any] = {**limits, "epochs": settings.epochs, "accumulate": 1, "train_limit": settings.limit}
    asked = settings.limit or 400
    loreft = strop.TrainPlan(
        method="loreft", rank=4, positions=strop.Positions(reach="all"), learning_rate=4e-3, **learning
    )
    return {
        "LASER": (
            strop.search,
            strop.SearchPlan(strategy="exhaustive", rank_fractions=settings.rank_fractions, **limits),
        ),
        "eigenpruning": (strop.prune, strop.PrunePlan(iterate=settings.rounds, effect_examples=asked, **limits)),
        "sharpening": (strop.sharpen, strop.SharpenPlan(steps=settings.rounds, examples=asked, **limits)),
        "learned spectrum": (strop.train, strop.TrainPlan(method="spectrum", **learning)),
        "LoReFT": (strop.train, loreft),
    }


def run(settings: Settings, methods: Sequence[str], *, out: Path) -> dict[str, RunResult]:
    """Train a reader, and return what each method found: chosen on select, proved once on test.

    Args:
        settings: how large it is.
        methods: by their names.
        out: folder for the model, the task and the runs.
    """
    read, others = deal_images(read=settings.read, seed=settings.seed)
    names = ("hidden_size", "layers", "batch", "rate", "seed")
    sizes = {name: getattr(settings, name) for name in names}
    save_reader(train_reader(read, epochs=settings.reading_epochs, **sizes), out / "model")
    task = strop.load_task(write_task(out, others, seed=settings.seed))
    model, processor = strop.load_image_classifier(out / "model")
    results = {}
    known = methods_of(settings)
    for name in methods:
        method, plan = known[name]
        options = strop.RunOptions(out=out / name.replace(" ", "-"))
        results[name] = method(model, processor, task, plan, options).result
        print(f"{name}: {results[name].comparison['test'].gain:+.3f} on test", flush=True)
    return results


def gains_table(results: Mapping[str, RunResult]) -> Table:
    """Return what each method gained on the test images.

    Args:
        results: by method.
    """
    rows = []
    for name, result in results.items():
        gain: Comparison = result.comparison["test"]
        before, after = (100 * (side["test"].accuracy or 0) for side in (result.base, result.edited))
        low, high = (100 * bound for bound in gain.ci95)
        interval = f"{low:+.1f} to {high:+.1f}"
        rows.append(
            (name, f"{before:.1f}", f"{after:.1f}", f"{100 * gain.gain:+.1f}", interval, spell_p_value(gain.p_value))
        )
    columns = ("method", "right before, %", "after, %", "gain", "95 % interval", "p")
    return Table("", columns, tuple(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=list(methods_of(SMALL)), default=list(methods_of(SMALL)))
    parser.add_argument("--small", action="store_true", help="few images and epochs: seconds, and a poor reader")
    parser.add_argument(
        "--out", type=Path, default=Path("digits"), help="folder for the model, the task, runs and figures.json"
    )
    given = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    given.out.mkdir(parents=True, exist_ok=True)
    settings = SMALL if given.small else Settings()
    results = run(settings, given.methods, out=given.out)
    content = {
        "settings": dataclasses.asdict(settings),
        "results": {name: result.to_json() for name, result in results.items()},
    }
    (given.out / "figures.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(to_markdown(gains_table(results)))
    print(f"figures: {given.out / 'figures.json'}")


if __name__ == "__main__":
    main()
