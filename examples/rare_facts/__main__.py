"""Train small models on a world of frequent and rare facts, edit them by three methods, and show what each gains.

python -m examples.rare_facts                   # GPT-2-, NeoX- and Mixtral-shaped: some minutes
python -m examples.rare_facts --shapes gpt2     # one of them
python -m examples.rare_facts --small           # some seconds, for a look at how it goes
"""

import argparse
import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import strop
from examples.rare_facts.models import SHAPES, build, learn, save, word_tokenizer
from examples.rare_facts.study import Effort, figures_of, frequency_table, gains_table, prove_methods
from examples.rare_facts.world import World, names_of_bins, write_task
from strop.runs import RunResult
from strop.tables import to_markdown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How large a run is."""

    world: World = dataclasses.field(default_factory=lambda: World(people=150, exponent=1.0, generic=0.45))
    sentences: int = 64_000
    window: int = 4
    """Sentences a model reads in one row."""
    batch: int = 32
    hidden: int = 64
    layers: int = 2
    rate: float = 4e-3
    bins: tuple[int, ...] = (0, 20, 40, 100)
    """The least count of statements of each category of facts."""
    effort: Effort = dataclasses.field(default_factory=Effort)
    seed: int = 0


SMALL = Settings(
    world=World(people=16, exponent=1.0, generic=0.45),
    sentences=800,
    batch=16,
    hidden=16,
    rate=1e-2,
    bins=(0, 10),
    effort=Effort(rank_fractions=(0.1,), rounds=1, epochs=1),
)


def run(shape: str, settings: Settings, *, out: Path) -> dict[str, RunResult]:
    """Train one model on the world, and return what each method found in it.

    Args:
        shape: of the model.
        settings: how large it is.
        out: folder for the model, the task and the runs.
    """
    started = time.process_time()
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = word_tokenizer(settings.world.words)
    model = build(shape, vocabulary=len(tokenizer), hidden=settings.hidden, layers=settings.layers, seed=settings.seed)
    sentences, counts = settings.world.text(sentences=settings.sentences, seed=settings.seed)
    reading = {name: getattr(settings, name) for name in ("window", "batch", "rate", "seed")}
    loss = learn(model, tokenizer, sentences, **reading)
    save(model, tokenizer, out / "model")
    seconds = time.process_time() - started
    print(
        f"{shape}: {len(sentences)} sentences learned in {seconds:.0f} CPU seconds; loss {loss:.3f} nats a token",
        flush=True,
    )
    task = strop.load_task(write_task(out, counts, bins=settings.bins))
    unread, _ = settings.world.text(sentences=400, seed=settings.seed + 1)
    model, tokenizer = strop.load(out / "model")
    return prove_methods(shape, model, tokenizer, task, settings.effort, text=" ".join(unread), out=out)


def report(results: dict[str, dict[str, RunResult]], settings: Settings, *, out: Path) -> str:
    """Write figures.json, and return both tables as Markdown.

    Args:
        results: shape → method → result.
        settings: of the run.
        out: folder for the file.
    """
    content: dict[str, Any] = {"settings": dataclasses.asdict(settings), "results": figures_of(results)}
    (out / "figures.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    bins = list(names_of_bins(settings.bins))
    return f"{to_markdown(gains_table(results))}\n\n{to_markdown(frequency_table(results, bins))}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m examples.rare_facts", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="of the models")
    parser.add_argument(
        "--small", action="store_true", help="a small world and little effort: seconds, and little to find"
    )
    parser.add_argument("--out", type=Path, default=Path("rare-facts"), help="folder for models, runs and figures.json")
    given = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    settings = SMALL if given.small else Settings()
    results = {shape: run(shape, settings, out=given.out / shape) for shape in given.shapes}
    print(report(results, settings, out=given.out))
    print(f"figures: {given.out / 'figures.json'}")


if __name__ == "__main__":
    main()
