"""A model on a task: encoding, scorers, generation, evaluation."""

from strop.scoring.changed import changed_answers, refuse_changed, spelt_answer
from strop.scoring.chat_template import asks_for_the_time
from strop.scoring.class_scorer import ClassScorer
from strop.scoring.compare import compare, spread
from strop.scoring.drift import DriftScorer, head_in_float32, log_probabilities
from strop.scoring.encoding import Batch
from strop.scoring.evaluate import (
    ParaphraseRobustness,
    evaluate,
    evaluate_paraphrases,
    scorer_of,
    wordings_of,
)
from strop.scoring.evaluation import Evaluation
from strop.scoring.forms import writes
from strop.scoring.generation import generating_by, greedy_continuations
from strop.scoring.own_text import Texts, own_texts, texts_in
from strop.scoring.resources import Resources, using
from strop.scoring.scorer import Scorer
from strop.scoring.seams import telling_once
from strop.scoring.text import text_scorer
from strop.scoring.today import dated, now

__all__ = [
    "Batch",
    "ClassScorer",
    "DriftScorer",
    "Evaluation",
    "ParaphraseRobustness",
    "Resources",
    "Scorer",
    "Texts",
    "asks_for_the_time",
    "changed_answers",
    "compare",
    "dated",
    "evaluate",
    "evaluate_paraphrases",
    "generating_by",
    "greedy_continuations",
    "head_in_float32",
    "log_probabilities",
    "now",
    "own_texts",
    "refuse_changed",
    "scorer_of",
    "spelt_answer",
    "spread",
    "telling_once",
    "text_scorer",
    "texts_in",
    "using",
    "wordings_of",
    "writes",
]
