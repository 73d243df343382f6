"""What an edit leaves behind in a matrix's output: a bias for any length, or one for each position of one length."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from strop.anatomy import Anatomy, Family, MatrixType, Spelling, WeightSite, hidden_states_entering, logits_at
from strop.errors import InterventionError
from strop.interventions import (
    Bias,
    RankReduction,
    SingularValuePruning,
    applied_interventions,
    attach_interventions,
    attachments_of,
)

T = MatrixType
Tiny = Callable[..., nn.Module]
IDS = torch.arange(1, 9)[None]
POSITIONS = IDS.shape[1]
MODELS = ["llama", "qwen2", "qwen3", "phi3", "gpt2", "gptj", "gpt_neox"]
every_model = pytest.mark.parametrize("model_type", MODELS)
every_bias = pytest.mark.parametrize("bias", ["mean", "position"])


def logits(model: nn.Module, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def sites_with_heads(anatomy: Anatomy) -> list[WeightSite]:
    counts = {
        matrix_type: anatomy.key_value_head_count if matrix_type in (T.KEY, T.VALUE) else anatomy.head_count
        for matrix_type in (T.QUERY, T.KEY, T.VALUE, T.OUTPUT)
    }
    heads = (WeightSite(1, matrix_type, head=head) for matrix_type in counts for head in range(counts[matrix_type]))
    return [*anatomy.sites(layers=[1]), *heads]


def inputs_of(anatomy: Anatomy, model: nn.Module, site: WeightSite) -> int:
    weight = anatomy.parameter(model, site)
    return weight.shape[0 if anatomy.spelling(site).transposed else 1]


def random_bias(anatomy: Anatomy, model: nn.Module, site: WeightSite, bias: Bias) -> dict[str, Tensor]:
    outputs = anatomy.read_weight(model, site).shape[0]
    generator = torch.Generator().manual_seed(outputs + site.layer)
    return {"bias": torch.randn((outputs,) if bias == "mean" else (POSITIONS, outputs), generator=generator)}


def places(model: nn.Module) -> dict[str, tuple[int, int, Tensor]]:
    return {name: (id(p), p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}


def assert_restored(model: nn.Module, before: dict[str, tuple[int, int, Tensor]]) -> None:
    after = places(model)
    assert list(after) == list(before)
    for name, (identity, pointer, tensor) in after.items():
        assert (identity, pointer) == before[name][:2], name
        assert torch.equal(tensor, before[name][2]), name
    assert attachments_of(model) == ()


@every_model
@every_bias
def test_the_sites_share_of_the_modules_output_is_shifted_and_nothing_else(
    bias: Bias, model_type: str, tiny: Tiny
) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    generator = torch.Generator().manual_seed(1)
    for site in sites_with_heads(anatomy):
        module, before = anatomy.module(model, site), places(model)
        inputs = torch.randn(2, POSITIONS, inputs_of(anatomy, model, site), generator=generator)
        tensors = random_bias(anatomy, model, site, bias)
        with torch.no_grad(), applied_interventions(model, [SingularValuePruning(site, (0, 2))]):
            bare = module(inputs)
        edit = SingularValuePruning(site, (0, 2), bias=bias)
        with torch.no_grad(), applied_interventions(model, [edit], tensors=[tensors]):
            difference = module(inputs) - bare
        expected = tensors["bias"].expand(2, POSITIONS, -1)
        torch.testing.assert_close(anatomy.outputs_in(difference, site), expected, atol=1e-5, rtol=1e-5)
        touched = int((difference[0].abs() > 1e-4).any(0).sum())
        assert touched <= expected.shape[-1], site
        assert_restored(model, before)


@every_model
def test_a_bias_is_one_of_the_modules_own_and_goes_where_there_was_none(model_type: str, tiny: Tiny) -> None:
    model = tiny(model_type)
    anatomy = Anatomy.of(model)
    before = places(model)
    sites = anatomy.sites(layers=[1])
    bare = {anatomy.module_path(site) for site in sites if anatomy.module(model, site).bias is None}
    edits = [SingularValuePruning(site, (0,), bias="mean") for site in sites]
    tensors = [random_bias(anatomy, model, site, "mean") for site in sites]
    attachment = attach_interventions(model, edits, tensors=tensors)
    assert attachment.new_biases == {name: model.get_submodule(name) for name in bare}
    assert {name for name, _ in model.named_parameters()} == {*before, *(f"{name}.bias" for name in bare)}
    assert not any(module._forward_hooks for module in model.modules())
    attachment.detach()
    assert attachment.new_biases == {}
    assert all(model.get_submodule(name).bias is None for name in bare)
    assert_restored(model, before)


@every_bias
def test_the_edits_of_one_module_add_up(bias: Bias, tiny: Tiny) -> None:
    """Two heads, the whole matrix, and a reduction before them: one module, one output."""
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    before = places(model)
    whole, first, last = WeightSite(1, T.QUERY), WeightSite(1, T.QUERY, head=0), WeightSite(1, T.QUERY, head=3)
    prunings = [SingularValuePruning(site, (0,), bias=bias) for site in (first, last, whole)]
    tensors = [random_bias(anatomy, model, edit.site, bias) for edit in prunings]
    edits = [RankReduction(whole, 0.5), *prunings]
    without = [RankReduction(whole, 0.5), *(SingularValuePruning(edit.site, (0,)) for edit in prunings)]
    module, inputs = anatomy.module(model, whole), torch.randn(2, POSITIONS, 32)
    with torch.no_grad(), applied_interventions(model, without):
        bare = module(inputs)
    expected = tensors[2]["bias"].clone()
    expected[..., :8] += tensors[0]["bias"]
    expected[..., 24:] += tensors[1]["bias"]
    with torch.no_grad(), applied_interventions(model, edits, tensors=[{}, *tensors]):
        torch.testing.assert_close(module(inputs) - bare, expected.expand(2, POSITIONS, -1), atol=1e-5, rtol=1e-5)
    assert_restored(model, before)


@every_bias
def test_two_attachments_add_up_and_come_off_one_by_one(bias: Bias, tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy, site = Anatomy.of(model), WeightSite(1, T.UP)
    before, plain = places(model), logits(model)
    edit, tensors = SingularValuePruning(site, (0,), bias=bias), [random_bias(anatomy, model, site, bias)]
    first = attach_interventions(model, [edit], tensors=tensors)
    one = logits(model)
    second = attach_interventions(model, [edit], tensors=tensors)
    assert second.new_biases == {}
    module, inputs = anatomy.module(model, site), torch.randn(1, POSITIONS, 32)
    with torch.no_grad():
        shift = module(inputs) - inputs @ module.weight.T
    torch.testing.assert_close(shift[0], (2 * tensors[0]["bias"]).expand(POSITIONS, -1), atol=1e-5, rtol=1e-5)
    second.detach()
    assert torch.equal(logits(model), one)
    first.detach()
    assert_restored(model, before)
    assert torch.equal(logits(model), plain)


@every_bias
def test_other_parameters_have_their_gradients_and_a_new_bias_asks_for_none(bias: Bias, tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy, site = Anatomy.of(model), WeightSite(1, T.UP)
    own = dict(model.named_parameters())
    tensors = [random_bias(anatomy, model, site, bias)]
    with applied_interventions(model, [SingularValuePruning(site, (0,), bias=bias)], tensors=tensors):
        model(input_ids=IDS, labels=IDS).loss.backward()
        asking = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        reference = copy.deepcopy(model)
        reference.zero_grad()
    assert asking == set(own)
    assert all(parameter.grad.abs().sum() > 0 for parameter in own.values())
    reference(input_ids=IDS, labels=IDS).loss.backward()
    for name, parameter in own.items():
        torch.testing.assert_close(parameter.grad, reference.get_parameter(name).grad)


@every_bias
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_cast_while_attached_is_restored_in_its_new_dtype(bias: Bias, dtype: torch.dtype, tiny: Tiny) -> None:
    for model_type in ("llama", "gpt2"):
        model = tiny(model_type)
        anatomy, site = Anatomy.of(model), WeightSite(1, T.UP)
        expected = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
        tensors = [random_bias(anatomy, model, site, bias)]
        with applied_interventions(model, [SingularValuePruning(site, (0,), bias=bias)], tensors=tensors):
            model.to(dtype)
            assert logits(model).dtype == dtype
        after = model.state_dict()
        assert list(after) == list(expected)
        assert all(torch.equal(after[name], expected[name]) for name in expected)


# A bias by position


@every_model
@pytest.mark.parametrize("length", [1, POSITIONS - 1, POSITIONS + 1])
def test_a_bias_by_position_is_refused_at_any_other_length_with_the_remedy(
    length: int, model_type: str, tiny: Tiny
) -> None:
    model = tiny(model_type)
    anatomy, site = Anatomy.of(model), WeightSite(1, T.KEY)
    before, plain = places(model), logits(model)
    tensors = [random_bias(anatomy, model, site, "position")]
    with applied_interventions(model, [SingularValuePruning(site, (0,), bias="position")], tensors=tensors):
        assert not torch.allclose(logits(model), plain, atol=1e-3)
        with pytest.raises(
            InterventionError,
            match=rf"{anatomy.module_path(site)}: its bias holds for sequences of 8 tokens, not of {length}; .*--bias mean",
        ):
            logits(model, torch.arange(1, length + 1)[None])
        assert not torch.allclose(logits(model), plain, atol=1e-3)
    assert_restored(model, before)
    logits(model, torch.arange(1, length + 1)[None])


def test_a_mean_bias_holds_at_any_length_and_while_generating(tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy, site = Anatomy.of(model), WeightSite(1, T.VALUE)
    tensors = [random_bias(anatomy, model, site, "mean")]
    with applied_interventions(model, [SingularValuePruning(site, (0,), bias="mean")], tensors=tensors):
        written = model.generate(IDS, max_new_tokens=5, do_sample=False, eos_token_id=None)
        assert written.shape == (1, POSITIONS + 5)
        assert torch.equal(logits(model, written[:, :-1])[0, -5:].argmax(-1), written[0, -5:])


def test_biases_for_sequences_of_two_lengths_exclude_each_other(tiny: Tiny) -> None:
    model = tiny("llama")
    before = places(model)
    edits = [SingularValuePruning(WeightSite(1, T.QUERY, head=head), (0,), bias="position") for head in (0, 1)]
    with pytest.raises(InterventionError, match=r"self_attn\.q_proj: a bias for 7 positions and one for 8 cannot"):
        attach_interventions(model, edits, tensors=[{"bias": torch.ones(8, 8)}, {"bias": torch.ones(7, 8)}])
    assert_restored(model, before)
    assert not any(module._forward_hooks for module in model.modules())


# Others who have something on the model


@every_bias
def test_hooks_of_others_stay_and_see_the_shifted_output(bias: Bias, tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy, site = Anatomy.of(model), WeightSite(1, T.UP)
    module = anatomy.module(model, site)
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda module, arguments, output: seen.append(output.detach()))
    hooks = dict(module._forward_hooks)
    inputs, tensors = torch.randn(1, POSITIONS, 32), random_bias(anatomy, model, site, bias)
    with applied_interventions(model, [SingularValuePruning(site, (0,), bias=bias)], tensors=[tensors]):
        module(inputs)
        expected = inputs @ module.weight.T + tensors["bias"]
    torch.testing.assert_close(seen[-1], expected.detach(), atol=1e-5, rtol=1e-5)
    assert dict(module._forward_hooks) == hooks
    module(inputs)
    assert len(seen) == 2
    handle.remove()


class Adapter(nn.Module):
    """A wrapper as PEFT puts around a Linear: it passes its layer's weight and bias off as its own."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor:
        return self.base_layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * self.base_layer(inputs)


@every_bias
def test_an_adapters_layer_gets_the_bias_and_the_adapter_stays(bias: Bias, tiny: Tiny) -> None:
    model = tiny("llama")
    anatomy, site = Anatomy.of(model), WeightSite(1, T.UP)
    layer = anatomy.module(model, site)
    model.model.layers[1].mlp.up_proj = adapter = Adapter(layer)
    before, inputs = places(model), torch.randn(1, POSITIONS, 32)
    tensors = random_bias(anatomy, model, site, bias)
    attachment = attach_interventions(model, [SingularValuePruning(site, (0,), bias=bias)], tensors=[tensors])
    new = {"model.layers.1.mlp.up_proj.base_layer": layer} if bias == "mean" else {}
    assert attachment.new_biases == new
    with torch.no_grad():
        expected = 2 * (inputs @ layer.weight.T + tensors["bias"])
        torch.testing.assert_close(adapter(inputs), expected, atol=1e-5, rtol=1e-5)
    attachment.detach()
    assert anatomy.module(model, site) is adapter
    assert_restored(model, before)


@every_bias
def test_a_run_of_a_part_of_the_model_has_it_too(bias: Bias, tiny: Tiny) -> None:
    for model_type, site in itertools.product(["llama", "gptj"], [WeightSite(1, T.KEY), WeightSite(2, T.DOWN)]):
        model = tiny(model_type)
        anatomy = Anatomy.of(model)
        with torch.no_grad():
            state = hidden_states_entering(model, anatomy, IDS, layer=1)
        tensors = [random_bias(anatomy, model, site, bias)]
        with (
            torch.no_grad(),
            applied_interventions(model, [SingularValuePruning(site, (0,), bias=bias)], tensors=tensors),
        ):
            found = logits_at(model, anatomy, IDS, torch.tensor([0]), torch.tensor([7]), start=1, state=state)
            torch.testing.assert_close(found[0], logits(model)[0, 7], atol=1e-5, rtol=1e-5)


# Recipes and modules a shift does not fit


SITE = WeightSite(1, T.UP)


@pytest.mark.parametrize(
    ("bias", "tensor", "complaint"),
    [
        ("mean", None, "layer 1 up: a mean bias is a tensor of 1 axis, and the recipe's is missing; prune anew"),
        ("position", None, "layer 1 up: a position bias is a tensor of 2 axes, and the recipe's is missing"),
        ("mean", torch.zeros(8, 48), "layer 1 up: a mean bias is a tensor of 1 axis, and the recipe's is of 2 axes"),
        ("position", torch.zeros(48), "layer 1 up: a position bias is a tensor of 2 axes, and the recipe's is of 1 ax"),
        ("mean", torch.zeros(32), r"layer 1 up: a bias of shape \(32,\) does not fit a matrix of 48 outputs"),
        ("position", torch.zeros(48, 8), r"layer 1 up: a bias of shape \(48, 8\) does not fit a matrix of 48"),
        ("mean", torch.full((48,), torch.nan), "layer 1 up: its bias is not made of finite numbers; prune anew"),
        ("mean", torch.zeros(48, dtype=torch.int64), "layer 1 up: its bias is not made of finite numbers"),
    ],
)
def test_a_bias_that_does_not_fit_is_refused_by_its_site_and_nothing_stays(
    bias: Bias, tensor: Tensor | None, complaint: str, tiny: Tiny
) -> None:
    model = tiny("llama")
    before = places(model)
    edits = [SingularValuePruning(WeightSite(0, T.UP), (0,), bias="mean"), SingularValuePruning(SITE, (0,), bias=bias)]
    with pytest.raises(InterventionError, match=complaint) as caught:
        attach_interventions(
            model, edits, tensors=[{"bias": torch.ones(48)}, {} if tensor is None else {"bias": tensor}]
        )
    assert "\n" not in str(caught.value)
    assert_restored(model, before)


class Scaled(nn.Module):
    """A layer that knows no bias."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight.T


def test_a_module_that_knows_no_bias_is_refused_and_takes_one_by_position(tiny: Tiny) -> None:
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj = Scaled(model.model.layers[1].mlp.up_proj.weight)
    family = Family("own", ("llama",), "model.layers", {T.UP: Spelling("mlp.up_proj")})
    anatomy = Anatomy.of(model, family=family)
    before, plain = places(model), logits(model)
    with pytest.raises(InterventionError, match=r"layer 1 up: .*mlp\.up_proj, a Scaled, can hold no bias; .*bias none"):
        attach_interventions(
            model,
            [SingularValuePruning(SITE, (0,), bias="mean")],
            anatomy=anatomy,
            tensors=[{"bias": torch.ones(48)}],
        )
    assert_restored(model, before)
    edit, tensors = SingularValuePruning(SITE, (0,), bias="position"), [{"bias": torch.ones(8, 48)}]
    with applied_interventions(model, [edit], anatomy=anatomy, tensors=tensors):
        assert not torch.allclose(logits(model), plain, atol=1e-3)
    assert_restored(model, before)
