"""What every method must do when it is put on a model; a new method joins by one line in `EDITS` or `STATE_EDITS`."""

import contextlib
import copy
import dataclasses
import gc
import pickle
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from strop.anatomy import Anatomy, MatrixType, Stream, StreamSite, WeightSite
from strop.errors import DecompositionError, InterventionError, RecipeError, SiteError, UneditableWeightError
from strop.interventions import (
    FORMULAS,
    Attachment,
    Intervention,
    LowRankEdit,
    OutputBias,
    Positions,
    RankReduction,
    SingularValuePruning,
    SpectrumScaling,
    WeightIntervention,
    applied_interventions,
    attach_interventions,
    attachments_of,
    intervention_from_json,
    method_names,
    prompt_lengths,
)
from strop.linalg import SingularValueDecomposition, decompose

T = MatrixType
Tiny = Callable[..., nn.Module]
Edit = Callable[[WeightSite], WeightIntervention]
AnyEdit = Callable[[WeightSite], Intervention]

EDITS: dict[str, Edit] = {
    "rank_reduction": lambda site: RankReduction(site, rank_fraction=0.25),
    "rank_reduction to zero": lambda site: RankReduction(site, rank_fraction=0.0),
    "pruning": lambda site: SingularValuePruning(site, (0, 2, 5)),
    "pruning with a mean bias": lambda site: SingularValuePruning(site, (0, 2, 5), bias="mean"),
    "pruning with a bias by position": lambda site: SingularValuePruning(site, (0, 2, 5), bias="position"),
    "spectrum": lambda site: SpectrumScaling(site),
    "spectrum with a band": lambda site: SpectrumScaling(site, top=8, band=2),
    "spectrum in steps": lambda site: SpectrumScaling(site, 0.1),
}
"""Those that decompose what they edit."""
ADDITIONS: dict[str, Edit] = {"bias": lambda site: OutputBias(site)}
"""Those that leave the matrix as it is."""
STREAMS = {T.QUERY: Stream.BLOCK, T.UP: Stream.ATTENTION, T.DOWN: Stream.MLP}


def state_edit(method: str) -> Callable[[WeightSite], LowRankEdit]:
    """An edit of hidden states in the layer of a matrix: of another stream for each of `SITES`."""

    def edit(site: WeightSite) -> LowRankEdit:
        stream = StreamSite(site.layer, STREAMS.get(site.matrix_type, Stream.BLOCK))
        return LowRankEdit(stream, method, rank=3, positions=Positions.parse("f2+l3"))

    return edit


STATE_EDITS: dict[str, Callable[[WeightSite], LowRankEdit]] = {method: state_edit(method) for method in FORMULAS}
NEAR_IDENTITIES: dict[str, Edit] = {
    "rank_reduction": lambda site: RankReduction(site, rank_fraction=0.97),  # 31 of 32
    "pruning": lambda site: SingularValuePruning(site, (31,)),
    "spectrum": lambda site: SpectrumScaling(site, 1e-6),
}
MODELS = ["llama", "phi3", "gpt2", "gpt_neox"]
every_method = pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
every_state_method = pytest.mark.parametrize("edit", STATE_EDITS.values(), ids=STATE_EDITS)
any_method = pytest.mark.parametrize(
    "edit", [*EDITS.values(), *ADDITIONS.values(), *STATE_EDITS.values()], ids=[*EDITS, *ADDITIONS, *STATE_EDITS]
)
every_model = pytest.mark.parametrize("model_type", MODELS)

SITES = (WeightSite(0, T.QUERY), WeightSite(1, T.UP), WeightSite(2, T.DOWN))
IDS = torch.arange(1, 9)[None]


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad(), prompt_lengths([6]):
        return model(input_ids=IDS, use_cache=False).logits


def scales(edit: Any, rank: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Random changes, where an edit is one of the spectrum; else nothing."""
    if not isinstance(edit, SpectrumScaling):
        return {}
    generator = generator or torch.Generator().manual_seed(0)
    if edit.step is not None:
        return {"levels": torch.randint(-5, 6, (rank,), generator=generator).to(torch.int8)}
    count = edit.top or rank
    found = {"change": torch.randn(count, generator=generator).clamp(-1, 1)}
    return found | ({"band": torch.randn(2 * edit.band, count, generator=generator)} if edit.band else {})


def carried(model: nn.Module, interventions: Sequence[Intervention]) -> list[dict[str, Tensor]]:
    """What a recipe would carry for each intervention: random numbers, or what an edit of states starts with."""
    generator = torch.Generator().manual_seed(0)
    anatomy = Anatomy.of(model)

    def bias(intervention: Intervention) -> dict[str, Tensor]:
        if isinstance(intervention, LowRankEdit):
            return intervention.initial_tensors((anatomy.hidden_size,) * 2, init="paper", generator=generator)
        outputs, inputs = anatomy.read_weight(model, dataclasses.replace(intervention.site, layer=0)).shape
        if isinstance(intervention, SpectrumScaling):
            return scales(intervention, min(outputs, inputs), generator)
        if isinstance(intervention, OutputBias):
            return {"bias": torch.randn(outputs, generator=generator)}
        shapes = {"mean": (outputs,), "position": (IDS.shape[1], outputs)}
        kind = getattr(intervention, "bias", "none")
        return {"bias": torch.randn(shapes[kind], generator=generator)} if kind in shapes else {}

    return [bias(intervention) for intervention in interventions]


def applied(
    model: nn.Module, interventions: Sequence[Intervention], **settings: Any
) -> "contextlib.AbstractContextManager[nn.Module]":
    return applied_interventions(model, interventions, tensors=carried(model, interventions), **settings)


def attached(model: nn.Module, interventions: Sequence[Intervention], **settings: Any) -> Attachment:
    return attach_interventions(model, interventions, tensors=carried(model, interventions), **settings)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def places(model: nn.Module) -> dict[str, tuple[int, int]]:
    """For each name, which parameter object it is and where its numbers lie."""
    return {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}


def learning(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def assert_restored(model: nn.Module, before: Mapping[str, Tensor], where: Mapping[str, tuple[int, int]]) -> None:
    after = model.state_dict()
    assert list(after) == list(before)
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name]), name
    assert places(model) == where
    assert attachments_of(model) == ()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not {"generate", "forward", "_strop_editor"} & set(model.__dict__)


def test_every_method_is_in_the_suite() -> None:
    edits_of_weights = {edit(SITES[0]).method for edit in EDITS.values()}
    assert edits_of_weights | set(ADDITIONS) | set(STATE_EDITS) == set(method_names())
    assert {edit(SITES[0]).method for edit in NEAR_IDENTITIES.values()} == edits_of_weights
    assert {site.stream for site in (STATE_EDITS["loreft"](site).site for site in SITES)} == set(Stream)


@every_model
@any_method
def test_changes_the_model_inside_the_block_and_restores_every_bit_after_it(
    edit: AnyEdit, model_type: str, tiny: Tiny
) -> None:
    model = tiny(model_type)
    before, where, plain = snapshot(model), places(model), logits(model)
    with applied(model, [edit(site) for site in SITES]) as same:
        assert same is model
        assert not torch.allclose(logits(model), plain, atol=1e-3)
    assert_restored(model, before, where)
    assert torch.equal(logits(model), plain)


@every_model
@pytest.mark.parametrize("edit", NEAR_IDENTITIES.values(), ids=NEAR_IDENTITIES)
def test_an_edit_that_takes_almost_nothing_changes_almost_nothing(edit: Edit, model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    u, s, vh = torch.linalg.svd(anatomy.read_weight(model, SITES[0]), full_matrices=False)
    s[-1] = 1e-6
    with torch.no_grad():
        anatomy.write_matrix(anatomy.parameter(model, SITES[0]).data, SITES[0], (u * s) @ vh)
    plain = logits(model)
    with applied(model, [edit(SITES[0])]):
        torch.testing.assert_close(logits(model), plain, atol=1e-3, rtol=1e-3)


@any_method
@pytest.mark.parametrize("failure", [ValueError("half-way"), KeyboardInterrupt()])
def test_restores_every_bit_after_an_exception(edit: AnyEdit, failure: BaseException, tiny: Tiny) -> None:
    model = tiny("gpt2")
    before, where = snapshot(model), places(model)
    with pytest.raises(type(failure)), applied(model, [edit(site) for site in SITES]):
        raise failure
    assert_restored(model, before, where)


@every_model
@every_method
@pytest.mark.parametrize("failure", [DecompositionError("no"), KeyboardInterrupt()])
def test_restores_every_bit_when_the_second_of_three_edits_fails(
    edit: Edit, failure: BaseException, model_type: str, tiny: Tiny
) -> None:
    model = tiny(model_type)
    before, where = snapshot(model), places(model)
    calls = []

    def second_fails(matrix: Tensor) -> SingularValueDecomposition:
        calls.append(1)
        if len(calls) == 2:
            raise failure
        return decompose(matrix)

    with pytest.raises(type(failure)):
        attached(model, [edit(site) for site in SITES], decompose=second_fails)
    assert len(calls) == 2
    assert_restored(model, before, where)


@any_method
def test_restores_every_bit_when_the_last_site_is_not_there(edit: AnyEdit, tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    with pytest.raises(SiteError, match=r"layer 9 \w+: this model has layers 0 to 2"):
        attached(model, [*map(edit, SITES), edit(WeightSite(9, T.UP))])
    assert_restored(model, before, where)


@any_method
@pytest.mark.parametrize(
    ("model_type", "dtype"),
    [("llama", torch.float32), ("phi3", torch.bfloat16), ("gpt2", torch.float16), ("gpt_neox", torch.bfloat16)],
)
def test_dtype_device_names_and_parameter_objects_survive(
    edit: AnyEdit, model_type: str, dtype: torch.dtype, tiny: Tiny
) -> None:
    model = tiny(model_type).to(dtype)
    before, where, its_class = snapshot(model), places(model), type(model)
    with applied(model, [edit(site) for site in SITES]):
        after = model.state_dict()
        new = {f"{name}.bias" for name in attachments_of(model)[-1].new_biases}
        assert [name for name in after if name not in new] == list(before)
        assert {name: id(p) for name, p in model.named_parameters() if name not in new} == {
            name: entry[0] for name, entry in where.items()
        }
        for name in before:
            assert (after[name].shape, after[name].stride()) == (before[name].shape, before[name].stride())
        assert {(tensor.dtype, tensor.device) for tensor in after.values()} == {(dtype, torch.device("cpu"))}
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, nn.Parameter)
            assert parameter.requires_grad == (name not in new)
        assert type(model) is its_class
    assert_restored(model, before, where)


@any_method
def test_an_optimiser_made_before_still_refers_to_the_parameters(edit: AnyEdit, tiny: Tiny) -> None:
    model = tiny("llama")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with applied(model, [edit(site) for site in SITES]):
        pass
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    before = snapshot(model)
    model(input_ids=IDS, labels=IDS).loss.backward()
    optimiser.step()
    edited = Anatomy.of(model).module_path(SITES[1]) + ".weight"
    assert not torch.equal(model.state_dict()[edited], before[edited])


@every_method
def test_only_the_edited_parameters_are_touched(edit: Edit, tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    with applied(model, [edit(SITES[1])]):
        after = model.state_dict()
        changed = {name for name in after if name not in before or not torch.equal(after[name], before[name])}
        moved = {name for name, place in places(model).items() if place != where.get(name)}
    bias = {"model.layers.1.mlp.up_proj.bias"} if getattr(edit(SITES[1]), "bias", "none") == "mean" else set()
    assert changed == moved == {"model.layers.1.mlp.up_proj.weight", *bias}


@every_method
def test_each_edit_sees_the_matrix_as_those_before_it_left_it(edit: Edit, tiny: Tiny) -> None:
    model = tiny("llama")
    seen: list[Tensor] = []

    def noting(matrix: Tensor) -> SingularValueDecomposition:
        seen.append(matrix.clone())
        return decompose(matrix)

    anatomy = Anatomy.of(model)
    original = anatomy.read_weight(model, SITES[1]).clone()
    with applied(model, [RankReduction(SITES[1], rank_fraction=0.5), edit(SITES[1])], decompose=noting):
        pass
    assert torch.equal(seen[0], original)
    torch.testing.assert_close(seen[1], decompose(original).recompose(16), atol=1e-6, rtol=0)


@every_method
def test_the_edit_leaves_the_matrix_it_is_given_alone(edit: Edit) -> None:
    matrix = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    before = matrix.clone()
    intervention = edit(SITES[1])
    edited = intervention.edit(matrix, decompose=decompose, tensors=scales(intervention, 8))
    assert torch.equal(matrix, before)
    assert not torch.equal(edited, before)
    assert edited.data_ptr() != matrix.data_ptr()


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_kept_factors_give_the_same_edit_without_a_decomposition(edit: Edit, dtype: torch.dtype) -> None:
    matrix = torch.randn(12, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    intervention = edit(SITES[1])

    def never(matrix: Tensor) -> SingularValueDecomposition:
        raise AssertionError("a decomposition was made")

    factors = intervention.precomputed(matrix, decompose=decompose)
    own = scales(intervention, 8)
    by_factors = intervention.edit(matrix, decompose=never, tensors={**factors, **own})
    by_decomposition = intervention.edit(matrix, decompose=decompose, tensors=own)
    assert by_factors.dtype == by_decomposition.dtype == dtype
    torch.testing.assert_close(by_factors, by_decomposition)


@any_method
@pytest.mark.parametrize("site", [WeightSite(3, T.UP), WeightSite(0, T.KEY, head=1)])
def test_an_intervention_is_read_back_from_its_json(edit: AnyEdit, site: WeightSite) -> None:
    intervention = edit(site)
    entry = intervention.to_json((48, 32))
    assert entry["method"] in method_names()
    assert intervention_from_json(entry) == intervention


# Edits of hidden states


@every_model
@every_state_method
def test_an_edit_of_states_leaves_every_weight_as_it_is(edit: AnyEdit, model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    before, where = snapshot(model), places(model)
    with applied(model, [edit(site) for site in SITES]):
        assert places(model) == where
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        logits(model)
        assert all(torch.equal(after[name], before[name]) for name in before)


@every_state_method
def test_a_trainable_edit_is_part_of_the_model_until_it_is_taken_off(edit: AnyEdit, tiny: Tiny) -> None:
    model = tiny("llama")
    model.lm_head.weight.requires_grad_(False)
    asking = learning(model)
    before, where = snapshot(model), places(model)
    first = attached(model, [edit(SITES[0])], trainable=True)
    earlier = {name for name in dict(model.named_parameters()) if name not in before}
    assert learning(model) == earlier
    second = attached(model, [edit(SITES[1]), edit(SITES[2])], trainable=True)
    assert learning(model) == dict(model.named_parameters()).keys() - before.keys() - earlier  # the latest learns alone
    own = edit(SITES[0])
    assert isinstance(own, LowRankEdit)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * own.parameter_count((32, 32))
    second.detach()
    assert learning(model) == earlier
    first.detach()
    assert_restored(model, before, where)
    assert learning(model) == asking


@pytest.mark.parametrize("trainable", [False, True])
def test_hooks_of_others_survive_attaching_running_and_detaching(trainable: bool, tiny: Tiny) -> None:
    model = tiny("llama")
    calls: list[str] = []
    hooked = {
        "model": model,
        "inner": model.model,
        "block": model.model.layers[0],
        "down": model.model.layers[2].mlp.down_proj,
    }
    handles = [
        handle
        for name, module in hooked.items()
        for handle in (
            module.register_forward_pre_hook(lambda *_, name=name: calls.append(f"before {name}")),
            module.register_forward_hook(lambda *_, name=name: calls.append(f"after {name}")),
        )
    ]
    logits(model)
    expected = list(calls)
    attachment = attached(model, [STATE_EDITS["loreft"](site) for site in SITES], trainable=trainable)
    for _ in range(2):
        calls.clear()
        logits(model)
        assert calls == expected
    attachment.detach()
    calls.clear()
    logits(model)
    assert calls == expected
    for handle in handles:
        handle.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_hook_of_others_sees_the_edited_states(tiny: Tiny) -> None:
    model = tiny("llama")
    seen: list[Tensor] = []
    model.model.layers[0].register_forward_hook(lambda _, arguments, output: seen.append(output))
    logits(model)
    with applied(model, [STATE_EDITS["loreft"](SITES[0])]):
        logits(model)
    assert (seen[0] != seen[1]).any(-1).nonzero()[:, 1].tolist() == [0, 1, 3, 4, 5]


def test_a_generate_someone_put_on_the_model_runs_and_is_put_back(tiny: Tiny) -> None:
    model = tiny("llama")
    calls: list[str] = []

    def theirs(*arguments: Any, **settings: Any) -> Tensor:
        calls.append("theirs")
        return type(model).generate(model, *arguments, **settings)

    model.generate = theirs
    with applied(model, [STATE_EDITS["loreft"](SITES[0])]):
        assert model.generate is not theirs
        edited = model.generate(IDS, max_new_tokens=4, do_sample=False)
    assert calls == ["theirs"]
    assert model.generate is theirs
    assert edited.shape == (1, 12)


@every_state_method
def test_a_deep_copy_is_edited_as_its_original_and_lives_on_alone(edit: AnyEdit, tiny: Tiny) -> None:
    model = tiny("gpt2")
    plain = logits(model)
    attachment = attached(model, [edit(site) for site in SITES])
    edited = logits(model)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(logits(twin), edited, atol=0, rtol=0)
    attachment.detach()
    assert torch.equal(logits(model), plain)
    assert torch.equal(logits(twin), edited)
    written = twin.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3, do_sample=False)
    assert written.shape == (1, 11)


def test_a_deep_copy_of_a_model_that_learns_learns_alone(tiny: Tiny) -> None:
    model = tiny("gpt2")
    attached(model, [STATE_EDITS["loreft"](site) for site in SITES], trainable=True)
    twin = copy.deepcopy(model)
    with prompt_lengths([6]):
        twin(input_ids=IDS).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters() if parameter.requires_grad)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("trainable", [False, True])
def test_what_is_attached_to_a_deep_copy_comes_off_it_alone(trainable: bool, tiny: Tiny) -> None:
    model = tiny("gpt2")
    plain, before, where = logits(model), snapshot(model), places(model)
    both = [EDITS["rank_reduction"](SITES[1]), STATE_EDITS["loreft"](SITES[1])]
    attachment = attached(model, both, trainable=trainable)
    edited = logits(model)
    twin = copy.deepcopy(model)
    (of_twin,) = attachments_of(twin)
    assert of_twin is not attachment
    of_twin.detach()
    assert attachments_of(twin) == ()
    assert torch.equal(logits(twin), plain)
    assert not {name for name in vars(twin) if "strop" in name}
    assert torch.equal(logits(model), edited)
    attachment.detach()
    assert_restored(model, before, where)


def test_a_model_with_edited_states_is_not_pickled(tiny: Tiny) -> None:
    model = tiny("llama")
    attachment = attached(model, [STATE_EDITS["loreft"](SITES[1])])
    with pytest.raises(InterventionError, match="edits of hidden states, or .* cannot be pickled; detach them"):
        pickle.dumps(model)
    attachment.detach()
    assert torch.equal(logits(pickle.loads(pickle.dumps(model))), logits(model))


def test_a_pickled_model_has_its_edited_weights_for_its_own(tiny: Tiny) -> None:
    model = tiny("llama")
    attached(model, [EDITS["rank_reduction"](SITES[1])])
    loaded = pickle.loads(pickle.dumps(model))
    assert torch.equal(logits(loaded), logits(model))
    assert attachments_of(loaded) == ()
    other = attached(loaded, [EDITS["rank_reduction"](SITES[0])])
    other.detach()
    assert torch.equal(logits(loaded), logits(model))


def test_edits_of_weights_and_of_states_go_on_and_come_off_together(tiny: Tiny) -> None:
    model = tiny("gpt_neox")
    before, where, plain = snapshot(model), places(model), logits(model)
    both = [EDITS["rank_reduction"](SITES[1]), STATE_EDITS["loreft"](SITES[1])]
    with applied(model, both):
        together = logits(model)
    with applied(model, both[:1]), applied(model, both[1:]):
        assert torch.equal(logits(model), together)
    with applied(model, both[:1]):
        assert not torch.allclose(logits(model), together, atol=1e-3)
    assert torch.equal(logits(model), plain)
    assert_restored(model, before, where)


def test_an_edited_model_is_let_go_when_nothing_else_holds_it(tiny: Tiny) -> None:
    model = tiny("llama")
    gone = weakref.ref(model)
    attachment = attached(model, [STATE_EDITS["loreft"](SITES[0])])
    logits(model)
    del model
    gc.collect()
    assert gone() is None
    attachment.detach()


# Attaching for longer


def test_attachments_come_off_in_the_order_opposite_to_the_one_they_were_put_on(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    first = attach_interventions(model, [RankReduction(SITES[1], rank_fraction=0.5)])
    half = snapshot(model)
    second = attach_interventions(model, [RankReduction(SITES[1], rank_fraction=0.1)])
    assert attachments_of(model) == (first, second)
    with pytest.raises(InterventionError, match="attached later; detach that one first"):
        first.detach()
    second.detach()
    assert all(torch.equal(tensor, half[name]) for name, tensor in model.state_dict().items())
    first.detach()
    assert_restored(model, before, where)


def test_detaching_twice_is_detaching_once(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    attachment = attach_interventions(model, [RankReduction(SITES[0], rank_fraction=0.5)])
    attachment.detach()
    attachment.detach()
    assert_restored(model, before, where)
    other = attach_interventions(model, [RankReduction(SITES[0], rank_fraction=0.5)])
    attachment.detach()
    assert attachments_of(model) == (other,)


def test_detaching_inside_a_with_block_is_harmless(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    with applied_interventions(model, [RankReduction(SITES[0], rank_fraction=0.5)]):
        attachments_of(model)[-1].detach()
    assert_restored(model, before, where)


def test_a_failing_attachment_leaves_the_earlier_one_on(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    first = attach_interventions(model, [RankReduction(SITES[1], rank_fraction=0.5)])
    half, half_places = snapshot(model), places(model)
    with pytest.raises(SiteError):
        attach_interventions(
            model, [RankReduction(SITES[1], rank_fraction=0.1), RankReduction(WeightSite(7, T.UP), rank_fraction=0.1)]
        )
    assert attachments_of(model) == (first,)
    assert all(torch.equal(tensor, half[name]) for name, tensor in model.state_dict().items())
    assert places(model) == half_places
    first.detach()
    assert_restored(model, before, where)


def test_an_attachment_does_not_keep_its_model_alive(tiny: Tiny) -> None:
    model = tiny("llama")
    gone = weakref.ref(model)
    attachment = attach_interventions(model, [RankReduction(SITES[0], rank_fraction=0.5)])
    del model
    gc.collect()
    assert gone() is None
    attachment.detach()


def test_tensors_for_another_number_of_interventions_are_refused_and_nothing_stays(tiny: Tiny) -> None:
    model = tiny("llama")
    before, where = snapshot(model), places(model)
    with pytest.raises(ValueError, match="shorter"):
        attach_interventions(model, [RankReduction(site, rank_fraction=0.5) for site in SITES], tensors=[{}, {}])
    assert_restored(model, before, where)


# What cannot be edited


@every_model
@every_method
def test_nan_in_a_matrix_is_refused_with_the_site_and_its_shape(edit: Edit, model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    with torch.no_grad():
        anatomy.matrix_in(anatomy.parameter(model, SITES[1]), SITES[1])[0, 0] = torch.nan
    shape = tuple(anatomy.read_weight(model, SITES[1]).shape)
    with pytest.raises(DecompositionError) as caught:
        attached(model, [edit(site) for site in SITES])
    assert (
        str(caught.value)
        == f"layer 1 up ({shape}): 1 of the matrix's {shape[0] * shape[1]} entries are NaN or infinite."
    )
    assert attachments_of(model) == ()


@every_method
def test_a_tied_weight_is_refused_and_nothing_changes(edit: Edit, tiny: Tiny) -> None:
    model = tiny("llama")
    model.model.layers[2].mlp.up_proj.weight = model.model.layers[1].mlp.up_proj.weight
    before, where = snapshot(model), places(model)
    with pytest.raises(UneditableWeightError, match="is tied to"):
        attached(model, [edit(site) for site in SITES])
    assert_restored(model, before, where)


@every_method
def test_a_quantised_model_is_refused(edit: Edit, tiny: Tiny) -> None:
    model = tiny("llama")
    model.is_quantized = True
    with pytest.raises(UneditableWeightError, match="is quantised"):
        attached(model, [edit(SITES[0])])


# Entries of a recipe that are none


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"method": "prune"}, f"'prune' is not a method this version knows ({', '.join(method_names())})"),
        ({"method": None}, "'None' is not a method this version knows"),
        ({"method": ["rank_reduction"]}, "is not a method this version knows"),
        ({"layer": None}, "layer"),
        ({"layer": "three"}, "layer"),
        ({"layer": 1.5}, "layer"),
        ({"layer": -1}, "A layer is counted from 0; -1 is not one"),
        ({"layer": True}, "layer"),
        ({"matrix_type": "lm_head"}, "'lm_head' cannot be edited"),
        ({"rank_fraction": 1.0}, "lies in [0, 1), not 1.0"),
        ({"rank_fraction": "much"}, "much"),
        ({"head": 0}, "A up matrix has no heads"),
        ({"matrix_type": "key", "head": "0"}, "head"),
        ({"matrix_type": "key", "head": 0.5}, "head"),
    ],
)
def test_an_entry_that_makes_no_intervention_is_refused_with_its_reason(change: dict[str, Any], complaint: str) -> None:
    entry = {"method": "rank_reduction", "layer": 3, "matrix_type": "up", "rank_fraction": 0.1, "rank": 3}
    with pytest.raises(RecipeError) as caught:
        intervention_from_json({**entry, **change})
    assert complaint in str(caught.value)


@pytest.mark.parametrize("missing", ["method", "layer", "matrix_type", "rank_fraction"])
def test_an_entry_that_lacks_a_field_is_refused_by_the_fields_name(missing: str) -> None:
    entry = {"method": "rank_reduction", "layer": 3, "matrix_type": "up", "rank_fraction": 0.1}
    del entry[missing]
    with pytest.raises(RecipeError, match="not a method" if missing == "method" else f"lacks '{missing}'"):
        intervention_from_json(entry)


def test_detaching_follows_a_model_that_was_cast_meanwhile(tiny: Callable[..., nn.Module]) -> None:
    model = tiny("llama")
    expected = tiny("llama").to(torch.bfloat16).state_dict()
    attachment = attach_interventions(model, [RankReduction(WeightSite(1, MatrixType.UP), 0.25)])
    model.to(torch.bfloat16)
    attachment.detach()
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, expected[name]), name
