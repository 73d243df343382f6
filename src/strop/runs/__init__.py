"""What an execution leaves on disk, readable without its author."""

from strop.runs.environment import Stopwatch, describe_environment, peak_rss_bytes, versions, without_password
from strop.runs.folder import RunFolder
from strop.runs.proof import Assignment, Choice, Journal, RunOutcome, conduct
from strop.runs.result import RunResult
from strop.runs.trials import CandidateSpace, Trial, TrialBook

__all__ = [
    "Assignment",
    "CandidateSpace",
    "Choice",
    "Journal",
    "RunFolder",
    "RunOutcome",
    "RunResult",
    "Stopwatch",
    "Trial",
    "TrialBook",
    "conduct",
    "describe_environment",
    "peak_rss_bytes",
    "versions",
    "without_password",
]
