"""Choosing apart from proving: the study, its journal and budget, guards, and the one look at test."""

from strop.proving.assignment import Assignment
from strop.proving.board import ASSIGNMENT, Batch, Board, batch_of
from strop.proving.budget import Budget, BudgetSpentError
from strop.proving.choice import Choice, Start
from strop.proving.claim import Claim
from strop.proving.compare import RecipePair, compare_recipes
from strop.proving.conduct import Chooser, RunSettings, conduct
from strop.proving.deadline import Deadline, Foresight
from strop.proving.drift import DriftFromBase, DriftReader, DriftText, texts_beside_drift
from strop.proving.find_study import find_study
from strop.proving.guards import Guard, Guards
from strop.proving.helping import help_with
from strop.proving.journal import Journal, describe_trial
from strop.proving.measures import Measure, Reader, TaskAccuracy, TextPerplexity
from strop.proving.notice import Notice
from strop.proving.options import Executor, RunOptions
from strop.proving.outcome import RunOutcome
from strop.proving.own_task import own_text_task
from strop.proving.price import price_of, seconds_of_continuations
from strop.proving.prompted import prompted_scorer
from strop.proving.prove import Measurement, prove, states_below, unproved_recipe
from strop.proving.rivals import free_rivals, measure_rivals
from strop.proving.study import Study
from strop.proving.together import Together, change_of
from strop.proving.trials import CandidateSpace, Trial, TrialKey
from strop.proving.turns import Turns
from strop.proving.workers import helper_name

__all__ = [
    "ASSIGNMENT",
    "Assignment",
    "Batch",
    "Board",
    "Budget",
    "BudgetSpentError",
    "CandidateSpace",
    "Choice",
    "Chooser",
    "Claim",
    "Deadline",
    "DriftFromBase",
    "DriftReader",
    "DriftText",
    "Executor",
    "Foresight",
    "Guard",
    "Guards",
    "Journal",
    "Measure",
    "Measurement",
    "Notice",
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
    "batch_of",
    "change_of",
    "compare_recipes",
    "conduct",
    "describe_trial",
    "find_study",
    "free_rivals",
    "help_with",
    "helper_name",
    "measure_rivals",
    "own_text_task",
    "price_of",
    "prompted_scorer",
    "prove",
    "seconds_of_continuations",
    "states_below",
    "texts_beside_drift",
    "unproved_recipe",
]
