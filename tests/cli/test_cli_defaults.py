"""The defaults the help shows are those of the plans; and this guard can fail."""

import dataclasses
from typing import Any

import pytest
import typer

from strop import ImprovePlan, PrunePlan, SearchPlan, SharpenPlan, TrainPlan
from strop.cli import app
from strop.cli.method import MethodCall
from strop.proving import Budget, RunOptions

PLANS: dict[str, Any] = {
    "improve": ImprovePlan(), "search": SearchPlan(), "prune": PrunePlan(), "sharpen": SharpenPlan(), "train": TrainPlan(),
}  # fmt: skip
FIELDS = {"fraction": "fractions", "scope": "scopes", "untied": "tied", "prefix_budget_mb": "prefix_budget_bytes"}
"""Options that are called otherwise than the setting."""
WORDS: dict[str, Any] = {
    "patience": "never",
    "rank_fractions": "around the prediction, what the spectrum says, or LASER's grid",
    "learning_rate": "0.0009 for hidden states, 0.01 for weights, 0.002 for lora",
    "alpha": "twice the rank",
    "keep_text": False,
    "stack": "the main one",
    "sparsity": "scale all",
    "select_limit": "the preset's",
    "step": "0.006 for fisher-sign, 0.004 for sign, else 0.002",
}
"""What is shown where the plan has None, and it is not `all`."""
NO_SETTINGS = {"compat", "workers", "executor"}
WITHOUT_OPTION = {"max_grad_norm", "edits"}
OF_GUARDS = {"improve": {"drift"}}
"""Settings that `--guard` says."""
RUN_OPTIONS = {field.name for field in dataclasses.fields(MethodCall)} - {
    "layers", "stack", "select_limit", "test_limit", "objective", "seed", "began",
}  # fmt: skip
NOT_TAKEN = {"improve": {"after", "with_factors"}}
"""Options of a run that a command does not take."""


def options_of(command: str) -> dict[str, Any]:
    """Return a command's own options by name, those of the run left out."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {own.name: own for own in commands[command].params if own.name not in RUN_OPTIONS | NO_SETTINGS}


def spelled(option: str, plan: Any) -> str | bool:
    """Return how the help should show a plan's default: False where it shows none."""
    value = getattr(plan, FIELDS.get(option, option))
    if option == "prefix_budget_mb":
        return str(round(value / 1e6))
    if option == "max_edits":
        limits = [dataclasses.replace(plan, compose=name).edit_limit for name in ("greedy", "beam", "ordered")]
        assert limits[0] == limits[1]
        return f"{plan.edit_limit}; {limits[0]} with greedy and beam; {limits[2] or 'any'} with ordered"
    if option == "beam":
        return f"{plan.beam_width} with beam"
    if option == "fraction":
        return f"a ladder, {min(value):.5f} to {max(value):g}"
    if option == "test_limit" and isinstance(plan, ImprovePlan):
        return "all, or a sample that fits"
    if value is None:
        return WORDS.get(option, "all")
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or False
    return f"{value:g}" if isinstance(value, float) else str(value)


def wrong_defaults(command: str, plan: Any) -> list[str]:
    """Return the options whose shown default is not the plan's."""
    wrong = []
    for name, option in options_of(command).items():
        if option.is_flag:
            right = not option.default and getattr(plan, FIELDS.get(name, name)) is (name in FIELDS)
        else:
            right = option.default is None and option.show_default == spelled(name, plan)
        wrong += [] if right else [name]
    return wrong


@pytest.mark.parametrize("command", PLANS)
def test_the_help_shows_the_plans_defaults(command: str) -> None:
    assert wrong_defaults(command, PLANS[command]) == []


@pytest.mark.parametrize("command", PLANS)
def test_every_setting_of_a_plan_has_an_option(command: str) -> None:
    settings = {field.name for field in dataclasses.fields(PLANS[command])}
    assert {FIELDS.get(name, name) for name in options_of(command)} == settings - WITHOUT_OPTION - OF_GUARDS.get(
        command, set()
    )


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        ("search", {"finalists": 9, "strategy": "exhaustive"}),
        ("search", {"rank_fractions": (0.1,)}),
        ("prune", {"search_types": True, "patience": 4}),
        ("sharpen", {"step": 0.002, "precondition": "fisher"}),
        ("train", {"keep_base": 1.0, "learning_rate": 0.001, "tied": False, "prefix_budget_bytes": 0}),
        ("train", {"subspaces": (("a", 8),), "patience": 3}),
    ],
)
def test_the_guard_of_defaults_can_fail(command: str, changes: dict[str, Any]) -> None:
    other = dataclasses.replace(PLANS[command], **changes)
    assert {FIELDS.get(name, name) for name in wrong_defaults(command, other)} == set(changes)


@pytest.mark.parametrize("command", PLANS)
def test_the_options_of_the_run_show_what_the_run_does(command: str) -> None:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = {own.name: own for own in commands[command].params}
    taken = RUN_OPTIONS - NOT_TAKEN.get(command, set())
    assert set(shown) | {"plan"} >= taken
    assert not set(shown) & (RUN_OPTIONS - taken)
    assert shown["time_limit"].show_default == ("the preset's" if command == "improve" else str(Budget()))
    assert shown["max_evaluations"].show_default == str(Budget())
    assert shown["storage"].show_default == "RUN/study.db"
    assert "with_factors" not in taken or shown["with_factors"].default is RunOptions().with_factors is False
    assert shown["resume"].default is RunOptions().resume is False
    if command == "search":
        own = RunOptions()
        assert [shown[name].show_default for name in ("workers", "executor")] == [str(own.workers), own.executor]
