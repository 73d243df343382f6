"""A model on a task: encoding, scorers, generation, evaluation."""

from strop.scoring.changed import changed_answers, refuse_changed
from strop.scoring.class_scorer import ClassScorer
from strop.scoring.compare import compare, spread
from strop.scoring.drift import DriftScorer, head_in_float32, log_probabilities
from strop.scoring.encoding import Batch
from strop.scoring.evaluate import (
    ParaphraseRobustness,
    evaluate,
    evaluate_paraphrases,
    greedy_continuations,
    scorer_of,
)
from strop.scoring.evaluation import Evaluation
from strop.scoring.generation import generating_by
from strop.scoring.own_text import Texts, own_texts, texts_in
from strop.scoring.resources import Resources, using
from strop.scoring.scorer import Scorer
from strop.scoring.text import text_scorer

__all__ = [
    "Batch",
    "ClassScorer",
    "DriftScorer",
    "Evaluation",
    "ParaphraseRobustness",
    "Resources",
    "Scorer",
    "Texts",
    "changed_answers",
    "compare",
    "evaluate",
    "evaluate_paraphrases",
    "generating_by",
    "greedy_continuations",
    "head_in_float32",
    "log_probabilities",
    "own_texts",
    "refuse_changed",
    "scorer_of",
    "spread",
    "text_scorer",
    "texts_in",
    "using",
]
