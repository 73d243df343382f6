"""What an improvement leaves on disk at every moment, so that nothing is lost and nothing is done twice."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

from strop.files import replacing_folder
from strop.improving.contenders import Contender, Share
from strop.improving.entry import Entry, Found
from strop.proving import Journal, TrialKey
from strop.recipe import Recipe
from strop.runs import GuardReading, Leaderboard
from strop.statistics import Comparison, Drift

TRIED, BEST, LEADERBOARD = "tried", "best", "leaderboard.json"


class Kept:
    """The proposals and entries of a run, by contender and round: in its folder and study, or in memory without one.

    Args:
        journal: of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._found: dict[str, Found] = {}
        self._shown: Recipe | None = None
        """What leads, as it was last written."""

    def folder(self, name: str, number: int) -> Path | None:
        """Return where a contender's own files of a round go; None for a run without a folder."""
        folder = self._journal.folder
        return folder / TRIED / f"{_slug(name)}-{number}" if folder is not None else None

    def found(self, name: str, number: int) -> Found | None:
        """Return what a contender proposed in a round, where it has come to an end."""
        known = self._journal.recall(f"{name} {number} found")
        if known is None:
            return None
        if (held := self._found.get(f"{name} {number}")) is not None:
            return held
        folder = self.folder(name, number)
        if folder is None or (known["edits"] and not (folder / "recipe" / "recipe.json").is_file()):
            return None
        recipe = Recipe.load(folder / "recipe") if known["edits"] else None
        drift = Drift.from_json(known["drift"]) if known.get("drift") else None  # of an older version
        return Found(recipe, known["shots"], known["tried"], known["tokens"], drift)

    def keep_found(self, name: str, number: int, found: Found) -> None:
        """Write down what a contender proposed in a round: the recipe first, then that it is there."""
        self._found[f"{name} {number}"] = found
        folder = self.folder(name, number)
        if folder is not None and found.recipe is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing_folder(folder / "recipe") as temporary:
                found.recipe.write_files(temporary)
        content = {
            "edits": found.recipe is not None,
            "shots": found.shots,
            "tried": found.tried,
            "tokens": found.tokens,
            "drift": found.drift.to_json() if found.drift is not None else None,
        }
        self._journal.remember(f"{name} {number} found", content)

    def entry(self, contender: Contender, key: TrialKey, found: Found) -> Entry | None:
        """Return a proposal as it was judged, where it was."""
        known, trial = self._journal.recall(f"judged {key.text}"), self._journal.find(key)
        if known is None or trial is None:
            return None
        return Entry(
            contender=contender,
            share=Share(**known["share"]),
            found=found,
            trial=trial,
            gain=Comparison.from_json(known["gain"]),
            constant=Comparison.from_json(known["constant"]) if known["constant"] else None,
            drift=Drift.from_json(known["drift"]) if known["drift"] else None,
            guards=tuple(GuardReading.from_json(own) for own in known["guards"]),
            tokens_per_request=known["tokens_per_request"],
            seconds=known["seconds"],
        )

    def keep_entry(self, entry: Entry) -> None:
        """Write down how a proposal was judged."""
        content: dict[str, Any] = {
            "share": entry.share.to_json(),
            "gain": entry.gain.to_json(),
            "constant": entry.constant.to_json() if entry.constant is not None else None,
            "drift": entry.drift.to_json() if entry.drift is not None else None,
            "guards": [dataclasses.asdict(own) for own in entry.guards],
            "tokens_per_request": entry.tokens_per_request,
            "seconds": entry.seconds,
        }
        self._journal.remember(f"judged {entry.trial.key.text}", content)

    def show(self, board: Leaderboard, best: Entry | None) -> None:
        """Write the leaderboard as it stands, and the recipe that leads it."""
        folder = self._journal.folder
        if folder is None:
            return
        board.save(folder / LEADERBOARD)
        recipe = best.found.recipe if best is not None else None
        if recipe is None:  # nothing leads, or a prompt
            shutil.rmtree(folder / BEST, ignore_errors=True)
            self._shown = None
        if recipe is not None and recipe is not self._shown:
            with replacing_folder(folder / BEST) as temporary:
                recipe.write_files(temporary)
            self._shown = recipe


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
