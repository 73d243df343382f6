"""The methods a recipe may name: nothing a recipe says is ever imported, so a method stands here or was registered."""

from typing import Any

from strop.errors import RecipeError, StropError, UsageError
from strop.interventions.interfaces import Entry, Intervention, StateIntervention, WeightIntervention
from strop.interventions.low_rank_edit import LowRankEdit
from strop.interventions.low_rank_update import LowRankUpdate
from strop.interventions.output_bias import OutputBias
from strop.interventions.rank_reduction import RankReduction
from strop.interventions.singular_value_pruning import SingularValuePruning
from strop.interventions.spectrum_scaling import SpectrumScaling

Method = type[WeightIntervention] | type[StateIntervention]

METHODS: tuple[Method, ...] = (
    RankReduction,
    SingularValuePruning,
    SpectrumScaling,
    OutputBias,
    LowRankUpdate,
    LowRankEdit,
)
"""The library's own."""

_INTERFACES = {"weight": WeightIntervention, "state": StateIntervention}


def _names_of(method: Any) -> tuple[str, ...]:
    names = getattr(method, "names", None) or (getattr(method, "method", None),)
    if not all(isinstance(name, str) and name for name in names):
        raise UsageError(
            f"{method.__name__} has no name that a recipe could write; give the class an attribute `method`, or `names` "
            "where it stands for several."
        )
    return tuple(names)


_BY_NAME: dict[str, Any] = {name: method for method in METHODS for name in _names_of(method)}


def method_names() -> tuple[str, ...]:
    """Return the names of all methods a recipe may name, those that were registered last."""
    return tuple(_BY_NAME)


def register_method(method: Any) -> Any:
    """Let recipes name a method of your own; it can be used as a decorator of the class.

    A recipe with such a method is read only where the method was registered before.

    Args:
        method: a class with the interface `WeightIntervention` or `StateIntervention`. Its attribute `method` is its name;
            where one class stands for several methods, its attribute `names` lists them.

    Returns:
        The class.

    Raises:
        UsageError: a name is taken, or the class lacks a part of the interface.
    """
    if getattr(method, "kind", None) not in _INTERFACES:
        raise UsageError(
            f"{method.__name__} says not what it edits; give the class an attribute `kind`, 'weight' or 'state'."
        )
    names = _names_of(method)
    annotated = {name for base in method.__mro__ for name in vars(base).get("__annotations__", {})}
    wanted = {name for name in dir(_INTERFACES[method.kind]) if not name.startswith("_")}
    missing = sorted(name for name in wanted - annotated if not hasattr(method, name))
    if missing:
        raise UsageError(
            f"{method.__name__} lacks {', '.join(missing)} of the interface {_INTERFACES[method.kind].__name__}; add what "
            "is missing."
        )
    for name in names:
        if _BY_NAME.get(name, method) is not method:
            raise UsageError(f"There is a method '{name}' already, {_BY_NAME[name].__name__}; choose another name.")
    _BY_NAME.update(dict.fromkeys(names, method))
    return method


def class_of(name: object) -> Any:
    """Return the class of the method with a name.

    Raises:
        RecipeError: there is no such method.
    """
    if not isinstance(name, str) or name not in _BY_NAME:
        raise RecipeError(f"'{name}' is not a method this version knows ({', '.join(_BY_NAME)}).")
    return _BY_NAME[name]


def intervention_from_json(entry: Entry) -> Intervention:
    """Return the intervention an entry of a recipe describes.

    Raises:
        RecipeError: the entry names no known method, or its fields do not make one.
    """
    method = entry.get("method")
    described = class_of(method)
    try:
        found: Intervention = described.from_json(entry)
    except (KeyError, TypeError, ValueError, StropError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise RecipeError(f"An entry of method {method} cannot be read: {missing}") from None
    return found
