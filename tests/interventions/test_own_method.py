"""A method of one's own, in one file: what has the interface is attached, learned, saved, baked and told like the others."""

import copy
import dataclasses
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.toy_methods import Flip, Nudge, Nudging, Rescale
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import strop
from strop.anatomy import Anatomy, MatrixType, Stream, StreamSite, WeightSite
from strop.errors import InterventionError, RecipeError, UsageError
from strop.export import bake
from strop.interventions import (
    Intervention,
    Positions,
    RankReduction,
    SingularValuePruning,
    StateIntervention,
    WeightIntervention,
    attach_interventions,
    attachments_of,
    brief,
    method_names,
    methods,
    prompt_lengths,
    register_method,
    summarize,
)
from strop.recipe import Recipe, applied, attach

Tiny = Callable[..., nn.Module]
T = MatrixType
IDS = torch.arange(1, 9)[None]
MODELS = ["llama", "phi3", "gpt2", "gpt_neox"]


@pytest.fixture(autouse=True)
def only_for_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "_BY_NAME", dict(methods._BY_NAME))
    for method in (Flip, Rescale, Nudge):
        register_method(method)


UP, QUERY = WeightSite(1, T.UP), WeightSite(0, T.QUERY, head=1)
STATES = StreamSite(1, Stream.MLP)
ENTRIES: dict[str, Callable[[], list[Intervention]]] = {
    "found weight": lambda: [Flip(UP), Flip(QUERY)],
    "learned weight": lambda: [Rescale(UP), Rescale(QUERY), Rescale(WeightSite(2, T.DOWN))],
    "states": lambda: [Nudge(STATES), Nudge(StreamSite(2))],
}
any_method = pytest.mark.parametrize("entries", ENTRIES.values(), ids=ENTRIES)
learned = pytest.mark.parametrize("entries", [ENTRIES["learned weight"], ENTRIES["states"]], ids=["weight", "states"])
every_model = pytest.mark.parametrize("model_type", MODELS)


def shape_at(model: Any, site: Any) -> tuple[int, int]:
    rows, columns = Anatomy.of(model).read_weight(model, site.writer).shape
    return rows, columns


def drawn(model: Any, entries: Sequence[Intervention], *, size: float = 0.5) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    empty = [entry.initial_tensors(shape_at(model, entry.site)) for entry in entries]
    return [{name: torch.randn(own.shape, generator=generator) * size for name, own in each.items()} for each in empty]


def logits(model: Any) -> Tensor:
    with torch.no_grad(), prompt_lengths([6]):
        found: Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def loss_of(model: Any) -> Tensor:
    labels = torch.cat([torch.full((1, 6), -100), IDS[:, 6:]], 1)
    with torch.enable_grad():
        found: Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=labels, use_cache=False).loss
    return found


def test_the_toys_have_the_interfaces() -> None:
    for found in (Flip(UP), Rescale(UP)):
        weight: WeightIntervention = found
        assert weight.kind == "weight"
    state: StateIntervention = Nudge(STATES)
    assert state.kind == "state"
    assert {"flip", "rescale", "nudge"} < set(method_names())


@every_model
@any_method
def test_it_edits_while_it_is_on_and_leaves_every_bit_as_it_was(
    model_type: str, entries: Callable[[], list[Intervention]], tiny: Tiny
) -> None:
    model: Any = tiny(model_type)
    before = {name: own.clone() for name, own in model.state_dict().items()}
    places = {name: own.data_ptr() for name, own in model.named_parameters()}
    plain, own = logits(model), entries()
    for trainable in {False, bool(own[0].learned_tensors)}:
        attachment = attach_interventions(model, own, tensors=drawn(model, own), trainable=trainable)
        assert not torch.allclose(logits(model), plain, atol=1e-3)
        attachment.detach()
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert {name: own.data_ptr() for name, own in model.named_parameters()} == places
        assert torch.equal(logits(model), plain)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert all(parameter.requires_grad for parameter in model.parameters())


@every_model
@learned
def test_while_it_learns_it_edits_as_it_does_afterwards(
    model_type: str, entries: Callable[[], list[Intervention]], tiny: Tiny
) -> None:
    model: Any = tiny(model_type)
    own = entries()
    tensors = drawn(model, own)
    found = []
    for trainable in (False, True):
        attachment = attach_interventions(model, own, tensors=tensors, trainable=trainable)
        found.append(logits(model))
        attachment.detach()
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@every_model
@learned
def test_it_learns_and_nothing_else_does_and_what_it_learned_is_saved(
    model_type: str, entries: Callable[[], list[Intervention]], tiny: Tiny, tmp_path: Path
) -> None:
    model: Any = tiny(model_type)
    own = entries()
    recipe = Recipe.of(model, own, tensors=drawn(model, own, size=0.0))
    plain = logits(model)
    attachment = attach(model, recipe, trainable=True)
    assert torch.allclose(logits(model), plain, atol=1e-5)
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    count = sum(entry.parameter_count(shape_at(model, entry.site)) for entry in own)
    assert sum(parameter.numel() for parameter in asking) == count
    before = loss_of(model)
    before.backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in asking)
    torch.optim.SGD(asking, lr=0.05).step()
    assert bool(loss_of(model).detach() < before.detach())
    edited, after = logits(model), recipe.learned_by(attachment)
    assert after != recipe
    kept = attachment.tensors
    attachment.load(drawn(model, own))
    assert not torch.allclose(logits(model), edited, atol=1e-3)
    attachment.load(kept)
    assert torch.equal(logits(model), edited)
    attachment.detach()
    assert torch.equal(logits(model), plain)
    after.save(tmp_path / "recipe")
    loaded = Recipe.load(tmp_path / "recipe")
    assert loaded == after
    with applied(model, loaded):
        torch.testing.assert_close(logits(model), edited, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@learned
def test_its_numbers_are_learned_in_float32_whatever_the_model_is_in(
    dtype: torch.dtype, entries: Callable[[], list[Intervention]], tiny: Tiny
) -> None:
    model: Any = tiny("llama").to(dtype)
    own = entries()
    attachment = attach_interventions(model, own, tensors=drawn(model, own), trainable=True)
    loss_of(model).backward()
    for parameter in model.parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None
            assert bool(parameter.grad.abs().sum() > 0)
    model.to(torch.float32).to(dtype)
    weights = [module for module in attachment.modules if hasattr(module, "learned")]
    assert all(parameter.dtype == torch.float32 for module in weights for parameter in module.parameters())


def test_gradients_go_on_below_a_learned_weight(tiny: Tiny) -> None:
    model: Any = tiny("llama")
    own = [Rescale(WeightSite(0, T.UP)), Rescale(WeightSite(2, T.UP))]
    lower = []
    for size in (0.0, 0.5):
        attachment = attach_interventions(
            model, own, tensors=[drawn(model, own)[0], drawn(model, own, size=size)[1]], trainable=True
        )
        loss_of(model).backward()
        lower.append(attachment.modules[0].learned["scale"].grad.clone())
        attachment.detach()
    assert bool(lower[0].abs().sum() > 0)
    assert not torch.allclose(lower[0], lower[1])


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox"])
def test_gradients_of_a_learned_weight_are_those_of_the_edited_weight(model_type: str, tiny: Tiny) -> None:
    model: Any = tiny(model_type).double()
    anatomy, entry = Anatomy.of(model), Rescale(QUERY)
    tensors = {name: own.double() for name, own in drawn(model, [entry])[0].items()}
    weight = torch.randn(320, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def exact_loss() -> Tensor:  # transformers' own is computed in float32
        with torch.enable_grad():
            found: Tensor = (model(input_ids=IDS, use_cache=False).logits @ weight).square().mean()
        return found

    attachment = attach_interventions(model, [entry], tensors=[tensors], trainable=True)
    exact_loss().backward()
    found = {name: own.grad for name, own in attachment.modules[0].learned.items()}
    attachment.detach()

    def loss_at(name: str, index: int, by: float) -> float:
        moved = {own: tensor.clone() for own, tensor in tensors.items()}
        moved[name][index] += by
        with strop.interventions.applied_interventions(model, [entry], anatomy=anatomy, tensors=[moved]):
            return float(exact_loss().detach())

    for name, index in (("scale", 0), ("scale", 3), ("shift", 2)):
        slope = (loss_at(name, index, 1e-3) - loss_at(name, index, -1e-3)) / 2e-3
        assert float(found[name][index]) == pytest.approx(slope, rel=1e-2)


def test_two_that_learn_on_one_matrix_edit_in_order(tiny: Tiny) -> None:
    model: Any = tiny("llama")
    own = [RankReduction(UP, rank_fraction=0.5), Rescale(UP), Rescale(UP, count=2)]
    tensors = drawn(model, own)
    with strop.interventions.applied_interventions(model, own, tensors=tensors):
        expected = logits(model)
    attachment = attach_interventions(model, own, tensors=tensors, trainable=True)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    attachment.detach()


def test_an_order_that_cannot_be_kept_is_refused(tiny: Tiny) -> None:
    model: Any = tiny("llama")
    head = WeightSite(0, T.QUERY, head=0)
    for own, message in (
        ([Rescale(UP), Flip(UP)], "an edit before it on the same matrix learns; put the one that is found first"),
        ([Rescale(WeightSite(0, T.QUERY)), Rescale(head)], "is a part of the same matrix or holds it"),
    ):
        with pytest.raises(InterventionError, match=message):
            attach_interventions(model, own, tensors=drawn(model, own), trainable=True)
        assert attachments_of(model) == ()
        assert not any(module._forward_hooks for module in model.modules())


def test_a_weight_edited_in_place_takes_no_other_numbers(tiny: Tiny) -> None:
    model: Any = tiny("llama")
    attachment = attach_interventions(model, [Rescale(UP)], tensors=drawn(model, [Rescale(UP)]))
    with pytest.raises(InterventionError, match="layer 1 up: the weight was edited in place.*trainable=True"):
        attachment.load([{name: own + 1 for name, own in drawn(model, [Rescale(UP)])[0].items()}])
    attachment.load(drawn(model, [Rescale(UP)]))  # these are its own
    attachment.detach()


@pytest.mark.parametrize("wrong", [torch.zeros(3), torch.full((4,), torch.nan)])
def test_numbers_that_do_not_fit_a_learned_weight_are_refused(wrong: Tensor, tiny: Tiny) -> None:
    model: Any = tiny("llama")
    attachment = attach_interventions(model, [Rescale(UP)], tensors=drawn(model, [Rescale(UP)]), trainable=True)
    with pytest.raises(InterventionError, match=r"layer 1 up: its scale is to be of shape \(4,\) and made of finite"):
        attachment.load([{**drawn(model, [Rescale(UP)])[0], "scale": wrong}])
    attachment.detach()
    for tensors in ({"scale": wrong, "shift": torch.zeros(48)}, {}):
        with pytest.raises(InterventionError, match="its tensors are"):
            attach_interventions(model, [Rescale(UP)], tensors=[tensors])


def test_a_deep_copy_of_a_model_with_a_weight_that_learns_learns_alone(tiny: Tiny) -> None:
    model: Any = tiny("llama")
    attachment = attach_interventions(model, [Rescale(UP)], tensors=drawn(model, [Rescale(UP)]), trainable=True)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), logits(model))
    loss_of(twin).backward()
    assert attachment.modules[0].learned["scale"].grad is None
    attachments_of(twin)[0].detach()
    attachment.detach()
    assert torch.equal(logits(twin), logits(model))
    attachment = attach_interventions(model, [Rescale(UP)], tensors=drawn(model, [Rescale(UP)]), trainable=True)
    with pytest.raises(InterventionError, match="cannot be pickled"):
        pickle.dumps(model)


def replica_of(module: nn.Module) -> nn.Module:
    """What DataParallel makes of a model for one of its threads."""
    copied = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        copied._modules[name] = replica_of(child) if child is not None else None
    for name, parameter in module._parameters.items():
        setattr(copied, name, parameter * 1 if parameter is not None else None)
    return copied


@learned
def test_a_replica_is_edited_and_its_gradients_come_back(entries: Callable[[], list[Intervention]], tiny: Tiny) -> None:
    model: Any = tiny("llama")
    own = entries()
    attachment = attach_interventions(model, own, tensors=drawn(model, own), trainable=True)
    parameters = [parameter for module in attachment.modules for parameter in module.parameters()]
    torch.testing.assert_close(logits(replica_of(model)), logits(model), atol=1e-5, rtol=1e-5)
    found = []
    for called in (model, replica_of(model)):
        model.zero_grad()
        loss_of(called).backward()
        found.append([parameter.grad.clone() for parameter in parameters])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@every_model
@pytest.mark.parametrize("entries", [ENTRIES["found weight"], ENTRIES["learned weight"]], ids=["found", "learned"])
def test_a_checkpoint_with_it_baked_in_is_the_edited_model(
    model_type: str, entries: Callable[[], list[Intervention]], tiny: Tiny, tmp_path: Path
) -> None:
    biased = {"llama": {"attention_bias": True, "mlp_bias": True}}.get(model_type, {})
    model: Any = tiny(model_type, **biased)
    own = [Flip(UP)] if model_type == "phi3" else entries()
    recipe = Recipe.of(model, own, tensors=drawn(model, own))
    with applied(model, recipe):
        expected = logits(model)
    bake(model, recipe, tmp_path / "baked")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked").eval()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)


def test_what_no_weight_holds_is_not_baked_and_says_so(tiny: Tiny, tmp_path: Path) -> None:
    model: Any = tiny("llama")
    recipe = Recipe.of(model, [Nudge(STATES)], tensors=drawn(model, [Nudge(STATES)]))
    with pytest.raises(InterventionError, match="layer 1 mlp: no weight holds a nudge"):
        bake(model, recipe, tmp_path / "baked")


def test_it_says_in_words_what_it_does() -> None:
    entries = [Rescale(UP).to_json((1, 1)), Flip(UP).to_json((1, 1)), Rescale(UP).to_json((1, 1))]
    assert summarize(entries) == ["2 matrices rescaled", "layer 1: flipped"]
    assert brief(entries) == "rescaled 2 times, flipped"


def test_an_edit_of_states_comes_after_what_stands_for_the_weight_that_writes_them(tiny: Tiny) -> None:
    """Whichever was attached first: a bias by position and a learned weight are the weight's own."""
    down, generator = WeightSite(1, T.DOWN), torch.Generator().manual_seed(1)
    pruning = SingularValuePruning(down, removed=(0,), bias="position")
    bias = {"bias": torch.randn(IDS.shape[1], 32, generator=generator)}

    @dataclasses.dataclass(frozen=True)
    class Double(Nudge):
        def module(self, tensors: Mapping[str, Tensor], hidden_size: int) -> nn.Module:
            return Doubling(tensors["direction"])

    class Doubling(Nudging):
        def forward(self, states: Tensor) -> Tensor:
            return 2 * states

    double = (Double(STATES, Positions(reach="all")), {"direction": torch.zeros(32)})
    for weight in ((pruning, bias), (Rescale(down), drawn(tiny("llama"), [Rescale(down)])[0])):
        found = []
        for order in ([weight, double], [double, weight]):
            model: Any = tiny("llama")
            learns = [bool(entry.learned_tensors) and entry.kind == "weight" for entry, _ in order]
            for (entry, tensors), trainable in zip(order, learns, strict=True):
                attach_interventions(model, [entry], tensors=[tensors], trainable=trainable)
            found.append(logits(model))
        model = tiny("llama")
        attach_interventions(
            model, [weight[0], double[0]], tensors=[weight[1], double[1]], trainable=bool(weight[0].learned_tensors)
        )
        found.append(logits(model))
        edited: Any = tiny("llama")
        attach_interventions(edited, [weight[0]], tensors=[weight[1]])
        edited.model.layers[1].mlp.down_proj.register_forward_hook(lambda _, __, output: 2 * output)
        found.append(logits(edited))
        for one in found[1:]:
            torch.testing.assert_close(one, found[0], atol=1e-4, rtol=1e-4)


# Registering


def test_a_recipe_with_a_method_nobody_registered_is_not_read(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recipe.of(tiny("llama"), [Flip(UP)]).save(tmp_path / "recipe")
    monkeypatch.setattr(methods, "_BY_NAME", {name: own for name, own in methods._BY_NAME.items() if name != "flip"})
    with pytest.raises(RecipeError, match="'flip' is not a method this version knows"):
        Recipe.load(tmp_path / "recipe")


def test_a_name_that_is_taken_is_refused_and_the_same_class_twice_is_not() -> None:
    register_method(Flip)
    for name in ("flip", "rank_reduction", "loreft"):
        other = type("Other", (Flip,), {"method": name})
        with pytest.raises(UsageError, match=f"There is a method '{name}' already, .*; choose another name"):
            register_method(other)


@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        ({"kind": "weight", "method": "none"}, "Other lacks .*edit, .*summarize.* of the interface WeightIntervention"),
        ({"kind": "state", "method": "none"}, "Other lacks .*module.*positions.* of the interface StateIntervention"),
        ({"method": "none"}, "Other says not what it edits"),
        ({"kind": "weight"}, "Other has no name that a recipe could write"),
        ({"kind": "state", "names": ("a", "")}, "Other has no name that a recipe could write"),
    ],
)
def test_a_class_that_lacks_a_part_of_the_interface_is_refused(namespace: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        register_method(type("Other", (), namespace))
    assert "none" not in method_names()
