"""What an execution leaves on disk, readable without its author."""

from strop.runs.environment import Stopwatch, describe_environment, peak_rss_bytes, versions, without_password
from strop.runs.folder import RunFolder
from strop.runs.lock import LOCK_FILE, is_unused, locked
from strop.runs.price import Continuation, Price
from strop.runs.result import BaseModel, BudgetUse, Cost, GuardReading, RunResult, TaskUsed, TrainedHead

__all__ = [
    "LOCK_FILE",
    "BaseModel",
    "BudgetUse",
    "Continuation",
    "Cost",
    "GuardReading",
    "Price",
    "RunFolder",
    "RunResult",
    "Stopwatch",
    "TaskUsed",
    "TrainedHead",
    "describe_environment",
    "is_unused",
    "locked",
    "peak_rss_bytes",
    "versions",
    "without_password",
]
