"""Examples, prompts, splits, scoring, evaluation, comparison."""

from strop.tasks.class_scorer import ClassScorer
from strop.tasks.compare import Comparison, compare
from strop.tasks.encoding import Batch
from strop.tasks.evaluate import ParaphraseRobustness, evaluate, evaluate_paraphrases, greedy_continuations, scorer_of
from strop.tasks.evaluation import Evaluation, merit_of
from strop.tasks.examples import Example
from strop.tasks.labels import Labels
from strop.tasks.metrics import METRICS
from strop.tasks.scorer import Scorer
from strop.tasks.task import Task, builtin_tasks, load_task, refuse_labels
from strop.tasks.task_file import GenerateSettings, Score, SplitSettings, TaskFile, read_task_file

__all__ = [
    "METRICS",
    "Batch",
    "ClassScorer",
    "Comparison",
    "Evaluation",
    "Example",
    "GenerateSettings",
    "Labels",
    "ParaphraseRobustness",
    "Score",
    "Scorer",
    "SplitSettings",
    "Task",
    "TaskFile",
    "builtin_tasks",
    "compare",
    "evaluate",
    "evaluate_paraphrases",
    "greedy_continuations",
    "load_task",
    "merit_of",
    "read_task_file",
    "refuse_labels",
    "scorer_of",
]
