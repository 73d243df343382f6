"""Keeping to the base: what drifting costs while edits learn is the KL divergence, on texts that measure nothing else."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.kept_texts import texts
from tests.fixtures.runs import Notes

from strop.anatomy import Anatomy, MatrixType, StreamSite, WeightSite
from strop.errors import UsageError
from strop.interventions import LowRankEdit, Positions, RankReduction, attach_interventions, prompt_lengths
from strop.progress import SILENT
from strop.proving import DriftText, Guard, RunOptions
from strop.recipe import Recipe
from strop.scoring import own_texts
from strop.training import TrainPlan, train
from strop.training.keep import KeepToBase
from strop.training.trainer import EditTrainer

LAYER = 1


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What drifting cost in each pass of a test's trainings."""
    found: list[float] = []
    cost = KeepToBase.cost

    def noting(self: KeepToBase) -> Any:
        own = cost(self)
        found.append(float(own.detach()))
        return own

    monkeypatch.setattr(KeepToBase, "cost", noting)
    return found


def edited(model: Any, positions: str = "all") -> Any:
    """Attach an edit that changes something, and learns."""
    edit = LowRankEdit(StreamSite(LAYER), "direft", rank=2, positions=Positions.parse(positions))
    generator = torch.Generator().manual_seed(1)
    size = Anatomy.of(model).hidden_size
    tensors = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in
               (("basis", (2, size)), ("source", (2, size)), ("bias", (2,)))}  # fmt: skip
    attachment = attach_interventions(model, [edit], tensors=[tensors], trainable=True)
    for module in attachment.modules:
        assert module is not None
        module.requires_grad_(True)
    return attachment


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3"])
@pytest.mark.parametrize("positions", ["all", "f3+l3"])
@pytest.mark.parametrize("shares_prefix", [False, True])
def test_the_cost_is_the_divergence_of_the_drawn_texts(
    tiny: Callable[..., Any], family: str, positions: str, shares_prefix: bool
) -> None:
    model = tiny(family)
    anatomy = Anatomy.of(model)
    held = texts()
    keeper = KeepToBase(model, anatomy, held, weight=2.5, per_pass=5)
    rows = [(row, part.prompt_tokens) for part in held for row in part.ids]
    with torch.no_grad():
        base = [model(row[None, :-1]).logits[0, prompt - 1 :].double().log_softmax(-1) for row, prompt in rows]
    attachment = edited(model, positions)
    if shares_prefix:
        keeper.keep_below(StreamSite(LAYER), budget_bytes=10**9, progress=SILENT)
    torch.manual_seed(3)
    cost = keeper.cost()
    divergences = []
    for (row, prompt), own in zip(rows, base, strict=True):
        with prompt_lengths([prompt]):
            found = model(row[None, :-1]).logits[0, prompt - 1 :].double().log_softmax(-1)
        divergences.append((own.exp() * (own - found)).sum(-1))
    expected = 2.5 * torch.cat(divergences).mean()
    torch.testing.assert_close(cost.double(), expected, rtol=1e-3, atol=1e-6)
    assert float(cost.detach()) > 1e-3
    cost.backward()
    parameters = [p for module in attachment.modules for p in module.parameters()]  # type: ignore[union-attr]
    ours = [p.grad.clone() for p in parameters if p.grad is not None]
    assert len(ours) == len(parameters)
    model.zero_grad()
    expected.backward()
    for mine, parameter in zip(ours, parameters, strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=2e-2, atol=1e-4)


def test_a_model_that_nothing_changed_costs_nothing(tiny: Callable[..., Any]) -> None:
    model = tiny("llama")
    keeper = KeepToBase(model, Anatomy.of(model), texts(), weight=10.0, per_pass=2)
    assert abs(float(keeper.cost().detach())) < 1e-5


def test_nothing_is_dropped_where_drift_is_priced(tiny: Callable[..., Any]) -> None:
    model = tiny("gpt2", attn_pdrop=0.3, resid_pdrop=0.3, embd_pdrop=0.3)
    keeper = KeepToBase(model, Anatomy.of(model), texts(), weight=10.0, per_pass=2)
    model.train()
    assert abs(float(keeper.cost().detach())) < 1e-5
    assert model.training


def test_under_autocast_an_edit_that_changes_nothing_costs_next_to_nothing(
    training: Any, plan: TrainPlan, costs: list[float]
) -> None:
    training(dataclasses.replace(
        plan, epochs=1, keep_base=1.0, init="identity", method="direft", precision="bfloat16", prefix_budget_bytes=0,
    ))  # fmt: skip
    assert costs[0] < 1e-6


def test_a_start_that_holds_for_one_length_is_not_kept(
    tiny: Callable[..., Any], small_tokenizer: Any, planted: Any, plan: TrainPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.training.fitter.Start.holds_for_one_length", True)
    notes = Notes()
    kept = dataclasses.replace(plan, epochs=1, keep_base=1.0)
    found = train(tiny("llama"), small_tokenizer, planted, kept, RunOptions(progress=notes))
    assert any("holds for one length of text: the edits are not kept to the base" in line for line in notes.lines)
    free = train(tiny("llama"), small_tokenizer, planted, dataclasses.replace(kept, keep_base=0))
    assert found.result.cost.tokens == free.result.cost.tokens
    assert all(
        torch.equal(mine[name], theirs[name])
        for mine, theirs in zip(found.recipe.tensors, free.recipe.tensors, strict=True)
        for name in mine
    )


def test_each_pass_draws_as_many_as_it_should_and_another_draw_comes_next(tiny: Callable[..., Any]) -> None:
    model = tiny("llama")
    keeper = KeepToBase(model, Anatomy.of(model), texts(), weight=1.0, per_pass=2)
    assert keeper.tokens_per_pass == 40
    edited(model)
    torch.manual_seed(0)
    costs = [float(keeper.cost().detach()) for _ in range(6)]
    torch.manual_seed(0)
    assert [float(keeper.cost().detach()) for _ in range(6)] == costs
    assert len(set(costs)) > 1


def test_a_nat_costs_as_much_however_many_passes_make_a_step(
    training: Any, plan: TrainPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeepToBase, "cost", lambda self: torch.tensor(100.0))
    totals: list[dict[int, float]] = []
    compute = EditTrainer.compute_loss

    def computing(self: EditTrainer, *rest: Any, **named: Any) -> Any:
        loss = compute(self, *rest, **named)
        totals[-1][self.state.global_step] = totals[-1].get(self.state.global_step, 0.0) + loss.item()
        return loss

    monkeypatch.setattr(EditTrainer, "compute_loss", computing)
    for batch, accumulate in ((4, 1), (2, 2), (1, 4)):
        totals.append({})
        training(dataclasses.replace(plan, keep_base=1.0, epochs=1, batch_size=batch, accumulate=accumulate))
    for found in totals:
        assert all(100 < total < 110 for total in found.values())
        assert found[0] == pytest.approx(totals[0][0], rel=1e-5)


def test_an_edit_that_is_kept_to_the_base_drifts_less_and_learns_all_the_same(
    training: Any, plan: TrainPlan, tmp_path: Path
) -> None:
    plan = dataclasses.replace(plan, positions=Positions.parse("all"), init="identity", method="direft", keep_texts=4)
    free, kept = (
        training(dataclasses.replace(plan, keep_base=weight), out=tmp_path / str(weight)) for weight in (0.0, 30.0)
    )
    drifts = [found.result.price.drift.kl for found in (free, kept)]
    assert drifts[1] < 0.5 * drifts[0]
    for found in (free, kept):
        assert found.result.edited["select"].loss < 0.8 * found.result.base["select"].loss


def test_what_it_is_kept_to_is_never_what_drift_is_measured_on(
    tiny: Callable[..., Any], small_tokenizer: Any, training: Any, plan: TrainPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[tuple[int, ...]]] = []
    init = KeepToBase.__init__

    def watching(self: KeepToBase, model: Any, anatomy: Any, held: Any, **named: Any) -> None:
        seen.append({tuple(row.tolist()) for part in held for row in part.ids})
        init(self, model, anatomy, held, **named)

    monkeypatch.setattr(KeepToBase, "__init__", watching)
    model = tiny("llama")
    found = training(dataclasses.replace(plan, epochs=1, keep_base=10.0), model=model)
    measured = own_texts(model, small_tokenizer, fingerprint=found.recipe.base.fingerprint, count=4)
    assert len(seen[0]) == 4
    assert not seen[0] & {tuple(row.tolist()) for part in measured for row in part.ids}


def test_a_users_text_is_kept_to_as_well(training: Any, plan: TrainPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    init = KeepToBase.__init__

    def counting(self: KeepToBase, model: Any, anatomy: Any, held: Any, **named: Any) -> None:
        counts.append(sum(len(part.ids) for part in held))
        init(self, model, anatomy, held, **named)

    monkeypatch.setattr(KeepToBase, "__init__", counting)
    notes = DriftText("notes.txt", "The city of Lyon is in France. " * 60)
    training(dataclasses.replace(plan, epochs=1, keep_base=10.0, keep_text=notes))
    assert counts[0] > 4


def test_drift_is_not_measured_on_the_text_that_is_kept_to(
    tiny: Callable[..., Any], small_tokenizer: Any, planted: Any, plan: TrainPlan
) -> None:
    notes = DriftText("notes.txt", "The city of Lyon is in France. " * 60)
    plan = dataclasses.replace(plan, keep_base=10.0, keep_text=notes)
    with pytest.raises(
        UsageError, match=r"notes\.txt is what the edits keep to, and drift or a guard would be measured on it"
    ):
        train(tiny("llama"), small_tokenizer, planted, plan, RunOptions(drift_text=notes))


def test_no_guard_is_read_on_the_text_that_is_kept_to(
    tiny: Callable[..., Any], small_tokenizer: Any, planted: Any, plan: TrainPlan, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("The city of Lyon is in France. " * 60)
    plan = dataclasses.replace(plan, keep_base=10.0, keep_text=DriftText.read(path))
    with pytest.raises(UsageError, match="drift or a guard would be measured on it"):
        train(tiny("llama"), small_tokenizer, planted, plan, RunOptions(guards=(Guard.parse(f"{path}:2%"),)))
    with pytest.raises(UsageError, match="keep_base is 0; leave out one of them"):
        dataclasses.replace(plan, keep_base=0.0)


def test_the_base_is_the_model_before_any_edit_also_where_a_recipe_comes_first(
    tiny: Callable[..., Any], small_tokenizer: Any, planted: Any, plan: TrainPlan, costs: list[float]
) -> None:
    model = tiny("llama")
    cut = Recipe.of(model, [RankReduction(WeightSite(0, MatrixType.UP), rank_fraction=0.1)])
    for after in (None, cut):
        costs.append(-1.0)
        train(
            model, small_tokenizer, planted, dataclasses.replace(plan, epochs=1, keep_base=1.0, init="identity", method="direft"),
            RunOptions(after=after),
        )  # fmt: skip
    second = costs.index(-1.0, 1)
    assert costs[1] < 1e-5  # the edit begins as the identity
    assert costs[second + 1] > 1e-4  # and the cut has drifted already
