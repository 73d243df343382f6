"""Train a Decision Transformer on Sokoban boards, reduce one matrix, and measure both on boards nobody has looked at.

python -m examples.sokoban            # some minutes
python -m examples.sokoban --small    # some seconds, for a look at how it goes
"""

import argparse
import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import DecisionTransformerModel

import strop
from examples.exhaustive import best_reduction
from examples.sokoban.episodes import LONGEST, Episode, Sequences, draw_episodes
from examples.sokoban.player import build_player, play, train_player
from examples.sokoban.scores import DECISION_TRANSFORMER, ActionScores
from examples.tables import gain_of_answers, gain_of_numbers, gains_table
from strop.tables import to_markdown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How large a run is."""

    train_rooms: int = 1000
    select_rooms: int = 80
    test_rooms: int = 300
    starts: int = 4
    """Boards of each room."""
    size: int = 5
    boxes: int = 1
    walls: int = 3
    hidden_size: int = 64
    layers: int = 3
    steps: int = 500
    batch: int = 64
    rate: float = 2e-3
    seed: int = 0


SMALL = Settings(
    train_rooms=12, select_rooms=4, test_rooms=6, starts=2, size=4, hidden_size=16, layers=2, steps=30, batch=16
)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What one model does on the same boards."""

    actions: ActionScores
    solved: NDArray[np.bool_]
    """(boards,): whether it solved each."""
    returns: NDArray[np.float64]
    """(boards,): the rewards of each, added up."""

    @classmethod
    def of(cls, model: DecisionTransformerModel, episodes: Sequence[Episode], *, wanted: float) -> "Scores":
        """Score a model beside the solver, and let it play."""
        solved, returns = play(model, [episode.board for episode in episodes], wanted=wanted)
        return cls(ActionScores.of(model, episodes, Sequences.of(episodes)), solved, returns)


def run(settings: Settings, *, out: Path) -> dict[str, Any]:
    """Train, choose on the select boards, measure on the test boards, and return the figures.

    Args:
        settings: how large it is.
        out: folder for the model, the recipe and figures.json.
    """
    started = time.process_time()
    rooms = (settings.train_rooms, settings.select_rooms, settings.test_rooms)
    episodes = draw_episodes(
        rooms=sum(rooms), starts=settings.starts, size=settings.size, boxes=settings.boxes, walls=settings.walls,
        seed=settings.seed,
    )  # fmt: skip
    first, second = settings.starts * rooms[0], settings.starts * (rooms[0] + rooms[1])
    train, select, test = episodes[:first], episodes[first:second], episodes[second:]
    model = build_player(
        size=settings.size, hidden_size=settings.hidden_size, layers=settings.layers, seed=settings.seed
    )
    loss = train_player(
        model, train, steps=settings.steps, batch=settings.batch, rate=settings.rate, seed=settings.seed
    )
    print(f"{len(train)} boards learned in {settings.steps} steps; loss {loss:.3f} nats an action", flush=True)
    model.save_pretrained(out / "model")
    sequences = Sequences.of(select)
    anatomy = strop.Anatomy.of(model, family=DECISION_TRANSFORMER)
    reduction, tried = best_reduction(model, anatomy, lambda: ActionScores.of(model, select, sequences).merit)
    wanted = float(np.mean([sum(episode.rewards) for episode in train]))
    base = edited = Scores.of(model, test, wanted=wanted)
    if reduction is not None:
        recipe = strop.Recipe.of(model, [reduction], family=DECISION_TRANSFORMER)
        recipe.save(out / "recipe")
        with strop.applied(model, recipe, family=DECISION_TRANSFORMER):
            edited = Scores.of(model, test, wanted=wanted)
    figures = {
        "settings": dataclasses.asdict(settings),
        "train_loss": loss,
        "boards": {"train": len(train), "select": len(select), "test": len(test)},
        "choice": str(reduction) if reduction is not None else None,
        "tried": len(tried),
        "select": {
            "base": ActionScores.of(model, select, sequences).merit[0],
            "best": max(m for _, m in tried)[0],
        },
        "test": measures_of(base, edited, test),
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def measures_of(base: Scores, edited: Scores, episodes: Sequence[Episode]) -> dict[str, dict[str, Any]]:
    """Return each measure before and after with its gain, paired, whose interval counts rooms.

    Args:
        base: of the model as it was.
        edited: of the edited one.
        episodes: what both played.
    """
    rooms = np.array([episode.room for episode in episodes])
    first, second = base.actions, edited.actions
    return {
        "accuracy of the next action": gain_of_answers(first.correct, second.correct, first.rooms),
        "loss, nats an action": gain_of_numbers(first.loss, second.loss, first.rooms, loss=True),
        f"boards solved in {LONGEST} steps": gain_of_answers(base.solved, edited.solved, rooms),
        "return": gain_of_numbers(base.returns, edited.returns, rooms),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m examples.sokoban", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a few boards and steps: seconds, and a poor player")
    parser.add_argument(
        "--out", type=Path, default=Path("sokoban"), help="folder for the model, the recipe and figures.json"
    )
    given = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    given.out.mkdir(parents=True, exist_ok=True)
    figures = run(SMALL if given.small else Settings(), out=given.out)
    print(f"chosen of {figures['tried']} on the select boards: {figures['choice'] or 'no edit'}")
    print(to_markdown(gains_table("on the test boards", figures["test"])))
    print(f"figures: {given.out / 'figures.json'}")


if __name__ == "__main__":
    main()
