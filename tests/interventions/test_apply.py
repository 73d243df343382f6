"""What every method must do when it is put on a model and taken off."""

import pytest
import torch
from tests.fixtures.every_method import (
    ADDITIONS,
    EDITS,
    IDS,
    NEAR_IDENTITIES,
    SITES,
    STATE_EDITS,
    AnyEdit,
    Edit,
    T,
    Tiny,
    any_method,
    applied,
    assert_restored,
    attached,
    every_method,
    every_model,
    logits,
    places,
    scales,
    snapshot,
)
from tests.fixtures.stored import hold_in_bytes
from torch import Tensor, nn

from strop.anatomy import Anatomy, Stream, WeightSite
from strop.errors import DecompositionError, SiteError, UneditableWeightError
from strop.interventions import (
    RankReduction,
    attachments_of,
    intervention_from_json,
    method_names,
)
from strop.linalg import SingularValueDecomposition, decompose


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
    hold_in_bytes(model.model.layers[0].self_attn.q_proj)
    with pytest.raises(UneditableWeightError, match="is quantised"):
        attached(model, [edit(SITES[0])])
