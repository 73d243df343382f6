"""Choosing apart from proving: the study, its journal and budget, guards, and the one look at test."""

from strop.proving.assignment import Assignment
from strop.proving.board import Batch, Board
from strop.proving.budget import Budget, BudgetSpentError
from strop.proving.choice import Choice, Start
from strop.proving.claim import Claim
from strop.proving.compare import RecipePair, compare_recipes
from strop.proving.conduct import Chooser, RunSettings, conduct
from strop.proving.drift import DriftFromBase, DriftReader, DriftText, texts_beside_drift
from strop.proving.guards import Guard
from strop.proving.journal import Journal, describe_trial
from strop.proving.measures import Measure, Reader, TaskAccuracy, TextPerplexity
from strop.proving.options import RunOptions
from strop.proving.outcome import RunOutcome
from strop.proving.price import price_of
from strop.proving.prove import Measurement, prove, states_below, unproved_recipe
from strop.proving.rivals import free_rivals, measure_rivals
from strop.proving.study import Study
from strop.proving.together import Together, change_of
from strop.proving.trials import CandidateSpace, Trial, TrialKey
from strop.proving.turns import Turns

__all__ = [
    "Assignment",
    "Batch",
    "Board",
    "Budget",
    "BudgetSpentError",
    "CandidateSpace",
    "Choice",
    "Chooser",
    "Claim",
    "DriftFromBase",
    "DriftReader",
    "DriftText",
    "Guard",
    "Journal",
    "Measure",
    "Measurement",
    "Reader",
    "RecipePair",
    "RunOptions",
    "RunOutcome",
    "RunSettings",
    "Start",
    "Study",
    "TaskAccuracy",
    "TextPerplexity",
    "Together",
    "Trial",
    "TrialKey",
    "Turns",
    "change_of",
    "compare_recipes",
    "conduct",
    "describe_trial",
    "free_rivals",
    "measure_rivals",
    "price_of",
    "prove",
    "states_below",
    "texts_beside_drift",
    "unproved_recipe",
]
