"""Strop: low-rank interventions on Hugging Face Transformers, found, proved and shipped.

>>> import strop
>>> model, tokenizer = strop.load("smollm2-135m")  # doctest: +SKIP
>>> result = strop.search(model, tokenizer, strop.load_task("world-facts"))  # doctest: +SKIP
>>> print(result)  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from strop.errors import StropError

if TYPE_CHECKING:
    from strop.anatomy import Anatomy, Family, MatrixType, Spelling, Stream, StreamSite, WeightSite
    from strop.checkpoints import ZOO, load, load_classifier, pull
    from strop.interventions import (
        Head,
        LowRankEdit,
        Positions,
        RankReduction,
        SingularValuePruning,
        explain_positions,
        prompt_lengths,
    )
    from strop.recipe import Recipe, applied, attach, bake, detach
    from strop.runs import RunOutcome
    from strop.scoring import Evaluation, compare, evaluate
    from strop.searching import PrunePlan, SearchPlan, prune, search
    from strop.statistics import Comparison
    from strop.tasks import Example, Task, builtin_tasks, load_task
    from strop.training import TrainPlan, train

__version__ = "0.1.0"

_ROOM_OF = {
    "Anatomy": "anatomy",
    "Comparison": "statistics",
    "Evaluation": "scoring",
    "Example": "tasks",
    "Family": "anatomy",
    "Head": "interventions",
    "LowRankEdit": "interventions",
    "MatrixType": "anatomy",
    "Positions": "interventions",
    "PrunePlan": "searching",
    "RankReduction": "interventions",
    "Recipe": "recipe",
    "SearchPlan": "searching",
    "RunOutcome": "runs",
    "SingularValuePruning": "interventions",
    "Spelling": "anatomy",
    "Stream": "anatomy",
    "StreamSite": "anatomy",
    "Task": "tasks",
    "TrainPlan": "training",
    "WeightSite": "anatomy",
    "ZOO": "checkpoints",
    "applied": "recipe",
    "attach": "recipe",
    "bake": "recipe",
    "builtin_tasks": "tasks",
    "compare": "scoring",
    "detach": "recipe",
    "evaluate": "scoring",
    "explain_positions": "interventions",
    "load": "checkpoints",
    "load_classifier": "checkpoints",
    "load_task": "tasks",
    "prompt_lengths": "interventions",
    "prune": "searching",
    "pull": "checkpoints",
    "search": "searching",
    "train": "training",
}

__all__ = [
    "ZOO",
    "Anatomy",
    "Comparison",
    "Evaluation",
    "Example",
    "Family",
    "Head",
    "LowRankEdit",
    "MatrixType",
    "Positions",
    "PrunePlan",
    "RankReduction",
    "Recipe",
    "RunOutcome",
    "SearchPlan",
    "SingularValuePruning",
    "Spelling",
    "Stream",
    "StreamSite",
    "StropError",
    "Task",
    "TrainPlan",
    "WeightSite",
    "__version__",
    "applied",
    "attach",
    "bake",
    "builtin_tasks",
    "compare",
    "detach",
    "evaluate",
    "explain_positions",
    "load",
    "load_classifier",
    "load_task",
    "prompt_lengths",
    "prune",
    "pull",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its room on first use, so that importing strop stays light."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'strop' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"strop.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
