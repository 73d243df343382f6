"""A task: examples in their splits, and how their answers are scored."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from strop.errors import TaskError, UsageError
from strop.tasks.examples import Example, Shot
from strop.tasks.few_shot import with_shots_before
from strop.tasks.labels import Labels
from strop.tasks.splits import SPLITS
from strop.tasks.task_file import GenerateSettings, Score, ShotSettings


@dataclasses.dataclass(frozen=True)
class Task:
    """Examples, dealt into splits, and the score they are judged by; see `strop.load_task`."""

    name: str
    score: Score
    splits: Mapping[str, tuple[Example, ...]]
    generate: GenerateSettings | None = None
    labels: Labels | None = None
    """What a classifier is to say; None for a language model's task."""
    shots: ShotSettings | None = None
    """Which train rows stand before each prompt; None for none."""

    def examples(self, split: str, *, limit: int | None = None) -> tuple[Example, ...]:
        """Return a split's examples, or a random sample of them that every call with the same limit repeats.

        A sample of n holds every smaller sample.

        Args:
            split: train, select or test.
            limit: most examples to return.

        Raises:
            UsageError: there is no such split, or the limit is not positive.
            TaskError: the task leaves the split empty.
        """
        if split not in SPLITS:
            raise UsageError(f"'{split}' is not a split; a task has {', '.join(SPLITS)}.")
        if limit is not None and limit < 1:
            raise UsageError(f"A limit is 1 or more examples, not {limit}.")
        members = self.splits.get(split, ())
        if not members:
            raise TaskError(f"Task {self.name} has no {split} split; give it a share under splits: in the task file.")
        if limit is None or limit >= len(members):
            return members
        order = np.random.default_rng(0).permutation(len(members))[:limit]
        return tuple(members[index] for index in order)

    @property
    def shows_images(self) -> bool:
        """Whether its examples are images, and not texts."""
        return any(example.image is not None for members in self.splits.values() for example in members[:1])

    def with_shots(self, count: int, *, seed: int | None = None) -> "Task":
        """Return the task with solved train rows before each prompt, in the place of those it has.

        They are drawn once and are the same for every prompt, as a deployed prompt's would be; those of a smaller count
        come first among those of a larger. A train row is never shown to itself or to its group.

        Args:
            count: how many; 0 for none.
            seed: of the draw; that of the task's own shots by default, or 0.

        Raises:
            UsageError: the count is negative, or the task asks for no written answers.
            TaskError: there is no train split, or it has too few rows.

        >>> from strop.tasks import load_task
        >>> task = load_task("int-sum").with_shots(2)
        >>> example = task.examples("test")[0]
        >>> len(example.shots), example.prompt == load_task("int-sum").examples("test")[0].prompt
        (2, True)
        """
        if count < 0:
            raise UsageError(f"A prompt has 0 shots or more, not {count}.")
        if count == 0:
            splits = {
                name: tuple(dataclasses.replace(example, shots=()) for example in members)
                for name, members in self.splits.items()
            }
            return dataclasses.replace(self, splits=splits, shots=None)
        if self.score in ("perplexity", "label"):
            raise UsageError(
                f"Task {self.name} has score: {self.score}, and shots go with answers that are written; leave them out."
            )
        own = self.shots.seed if self.shots is not None else 0
        settings = ShotSettings(count=count, seed=own if seed is None else seed)
        splits = with_shots_before(self.splits, settings, task=self.name)
        return dataclasses.replace(self, splits=splits, shots=settings)

    @property
    def counts(self) -> dict[str, int]:
        """How many examples each split that is not empty has."""
        return {name: len(self.splits[name]) for name in SPLITS if self.splits.get(name)}

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over all splits' examples, counterfactuals and categories included, and how they are scored."""
        digest = hashlib.sha256(self.score.encode())
        if self.generate is not None:
            digest.update(self.generate.model_dump_json(exclude={"gold"}).encode())
        if self.labels is not None:
            digest.update(json.dumps(dataclasses.astuple(self.labels)).encode())
        for name in SPLITS:
            for example in self.splits.get(name, ()):
                own: list[Any] = [example.counterfactual] if example.counterfactual is not None else []
                own += [{"gold": example.gold}] if example.gold is not None else []
                own += [{"system": example.chat.system}] if example.chat is not None else []
                own += [{"chat": example.chat.arguments}] if example.chat is not None and example.chat.arguments else []
                own += [{"pair": example.pair}] if example.pair is not None else []
                own += [{"category": example.category}] if example.category is not None else []
                own += [{"shots": _digest_of(example.shots)}] if example.shots else []
                own += [{"after": example.after}] if example.after else []
                own += [{"image": example.image.digest}] if example.image is not None else []
                prompt = example.prompt if example.image is None else ""  # its name is no part of what is asked
                digest.update(json.dumps([name, prompt, example.answer, example.choices, *own]).encode())
        return digest.hexdigest()[:32]


@functools.lru_cache(maxsize=64)  # most examples have the same ones
def _digest_of(shots: tuple[Shot, ...]) -> str:
    return hashlib.sha256(json.dumps([dataclasses.astuple(shot) for shot in shots]).encode()).hexdigest()


def refuse_objective(task: Task, objective: str) -> None:
    """Raise UsageError if a task has not what an objective averages over: `macro` needs categories, and right answers.

    Args:
        task: that is to be improved.
        objective: `average` or `macro`.
    """
    if objective != "macro":
        return
    if task.score == "perplexity" or (task.labels is not None and not task.labels.names):
        raise UsageError(
            f"Task {task.name} is scored by loss alone, and objective 'macro' (--objective macro) averages accuracies; leave "
            "it out."
        )
    if all(example.category is None for example in task.splits.get("select", ())):
        raise UsageError(
            f"Task {task.name} has no categories in its select split, which objective 'macro' (--objective macro) averages "
            "over; name their column under category: in the task file."
        )
