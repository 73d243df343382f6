"""What an execution leaves on disk, readable without its author."""

from strop.runs.compare import compare_runs
from strop.runs.environment import Stopwatch, describe_environment, peak_rss_bytes, versions, without_password
from strop.runs.find import finished_run, recipe_folder
from strop.runs.folder import RunFolder, moment_of
from strop.runs.leaderboard import Leaderboard, Standing
from strop.runs.lock import LOCK_FILE, is_unused, locked
from strop.runs.price import Continuation, Price
from strop.runs.result import BaseModel, BudgetUse, Cost, GuardReading, PromptUsed, RunResult, TaskUsed, TrainedHead
from strop.runs.sides import Change, Side, SideBySide

__all__ = [
    "LOCK_FILE",
    "BaseModel",
    "BudgetUse",
    "Change",
    "Continuation",
    "Cost",
    "GuardReading",
    "Leaderboard",
    "Price",
    "PromptUsed",
    "RunFolder",
    "RunResult",
    "Side",
    "SideBySide",
    "Standing",
    "Stopwatch",
    "TaskUsed",
    "TrainedHead",
    "compare_runs",
    "describe_environment",
    "finished_run",
    "is_unused",
    "locked",
    "moment_of",
    "peak_rss_bytes",
    "recipe_folder",
    "versions",
    "without_password",
]
