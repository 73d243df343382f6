# The one list of public names: `lazy_loader` reads it at run time, type checkers and editors read it too.
from .anatomy import Anatomy as Anatomy
from .anatomy import Family as Family
from .anatomy import MatrixType as MatrixType
from .anatomy import Spelling as Spelling
from .anatomy import Stack as Stack
from .anatomy import Stream as Stream
from .anatomy import StreamSite as StreamSite
from .anatomy import WeightSite as WeightSite
from .checkpoints import ZOO as ZOO
from .checkpoints import load as load
from .checkpoints import load_classifier as load_classifier
from .checkpoints import pull as pull
from .errors import StropError as StropError
from .export import bake as bake
from .interventions import Head as Head
from .interventions import LowRankEdit as LowRankEdit
from .interventions import Positions as Positions
from .interventions import RankReduction as RankReduction
from .interventions import SingularValuePruning as SingularValuePruning
from .interventions import explain_positions as explain_positions
from .interventions import prompt_lengths as prompt_lengths
from .proving import Budget as Budget
from .proving import Guard as Guard
from .proving import RunOptions as RunOptions
from .proving import RunOutcome as RunOutcome
from .recipe import Recipe as Recipe
from .recipe import applied as applied
from .recipe import attach as attach
from .recipe import detach as detach
from .scoring import Evaluation as Evaluation
from .scoring import Resources as Resources
from .scoring import compare as compare
from .scoring import evaluate as evaluate
from .searching import PrunePlan as PrunePlan
from .searching import SearchPlan as SearchPlan
from .searching import prune as prune
from .searching import search as search
from .statistics import Comparison as Comparison
from .tasks import Example as Example
from .tasks import Task as Task
from .tasks import builtin_tasks as builtin_tasks
from .tasks import load_task as load_task
from .training import TrainPlan as TrainPlan
from .training import train as train

__version__: str
__all__: list[str]
