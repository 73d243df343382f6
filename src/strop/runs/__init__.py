"""What an execution leaves on disk, readable without its author."""

from strop.runs.answers import ANSWERS_FILE, KeptAnswer, capped, numbered_groups, read_answers, write_answers
from strop.runs.compare import compare_runs
from strop.runs.environment import Stopwatch, describe_environment, peak_rss_bytes, versions, without_password
from strop.runs.find import finished_run, recipe_folder
from strop.runs.folder import RunFolder, moment_of
from strop.runs.leaderboard import Leaderboard, Standing, State
from strop.runs.lock import LOCK_FILE, is_unused, locked
from strop.runs.pairing import pair_answers, same_examples
from strop.runs.price import Continuation, Price
from strop.runs.result import (
    BaseModel,
    BudgetUse,
    Cost,
    GuardReading,
    PromptUsed,
    RunResult,
    TaskUsed,
    TrainedHead,
    can_be_baked,
)
from strop.runs.sides import Change, Side, SideBySide
from strop.runs.spectra import SPECTRA_FILE, EditedMatrix, read_spectra, thinned, write_spectra
from strop.runs.trials import STUDY_FILE, KeptTrial, read_trials

__all__ = [
    "ANSWERS_FILE",
    "LOCK_FILE",
    "SPECTRA_FILE",
    "STUDY_FILE",
    "BaseModel",
    "BudgetUse",
    "Change",
    "Continuation",
    "Cost",
    "EditedMatrix",
    "GuardReading",
    "KeptAnswer",
    "KeptTrial",
    "Leaderboard",
    "Price",
    "PromptUsed",
    "RunFolder",
    "RunResult",
    "Side",
    "SideBySide",
    "Standing",
    "State",
    "Stopwatch",
    "TaskUsed",
    "TrainedHead",
    "can_be_baked",
    "capped",
    "compare_runs",
    "describe_environment",
    "finished_run",
    "is_unused",
    "locked",
    "moment_of",
    "numbered_groups",
    "pair_answers",
    "peak_rss_bytes",
    "read_answers",
    "read_spectra",
    "read_trials",
    "recipe_folder",
    "same_examples",
    "thinned",
    "versions",
    "without_password",
    "write_answers",
    "write_spectra",
]
