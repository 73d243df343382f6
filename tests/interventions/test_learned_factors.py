"""Weights that learn from their factors alone: the module's own product is left out, and what comes out is the same."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.interventions import OutputBias, SingularValuePruning, SpectrumScaling, attach_interventions
from strop.interventions.attachment import Attachment
from strop.linalg import decompose

T = MatrixType
Tiny = Callable[..., Any]
IDS = torch.arange(1, 13)[None]
UP = WeightSite(1, T.UP)


def attached(model: Any, sites: list[WeightSite], *, size: float = 0.1, top: int | None = None) -> Attachment:
    generator = torch.Generator().manual_seed(0)
    shapes = [Anatomy.of(model).read_weight(model, site).shape for site in sites]
    tensors = [{"change": size * torch.randn(min(*shape, top or 10**6), generator=generator)} for shape in shapes]
    entries = [SpectrumScaling(site, top=top) for site in sites]
    return attach_interventions(model, entries, tensors=tensors, decompose=decompose, trainable=True)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The linear modules whose own product was computed."""
    found: list[nn.Module] = []
    for kind in (nn.Linear, Conv1D):
        real = kind.forward

        def counting(self: nn.Module, x: Tensor, real: Any = real) -> Any:
            found.append(self)
            return real(self, x)

        monkeypatch.setattr(kind, "forward", counting)
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3"])
def test_a_module_whose_matrices_all_learn_computes_no_product_of_its_own(
    family: str, tiny: Tiny, products: list[nn.Module]
) -> None:
    model = tiny(family)
    sites = Anatomy.of(model).sites(layers=[1])
    holders = {Anatomy.of(model).module(model, site) for site in sites}
    with torch.no_grad():
        expected = model(IDS).logits
    assert holders <= {*products}
    products.clear()
    attachment = attached(model, sites, size=0.0)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, expected, atol=1e-5, rtol=1e-4)
    assert not holders & {*products}
    attachment.detach()
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, expected)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    ("family", "site", "top"),
    [("llama", UP, 5), ("phi3", WeightSite(1, T.QUERY), None), ("llama", WeightSite(1, T.VALUE, head=1), None)],
    ids=["the largest values", "a part of a module", "one head"],
)
def test_where_something_of_a_module_does_not_learn_its_product_stays(
    family: str, site: WeightSite, top: int | None, tiny: Tiny, products: list[nn.Module]
) -> None:
    model = tiny(family)
    with torch.no_grad():
        expected = model(IDS).logits
    attached(model, [site], size=0.0, top=top)
    products.clear()
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, expected)
    assert Anatomy.of(model).module(model, site) in products


@pytest.mark.parametrize("narrow", ["the model", "autocast"])
def test_in_bfloat16_no_change_gives_every_bit_of_what_the_base_gives(narrow: str, tiny: Tiny) -> None:
    model = tiny("llama")
    model = model.to(torch.bfloat16) if narrow == "the model" else model
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow == "autocast"):
        expected = model(IDS).logits
        attachment = attached(model, Anatomy.of(model).sites(), size=0.0)
        assert torch.equal(model(IDS).logits, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow == "autocast"):
        loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    learned = [own for module in attachment.modules for own in module.parameters()]
    assert all(bool(own.grad.any()) for own in learned)
    assert {own.dtype for own in learned} == {torch.float32}


@pytest.mark.parametrize("shape", [(9, 7), (7, 9), (8, 8)])
@pytest.mark.parametrize("band", [0, 2])
def test_output_and_gradients_are_those_of_the_edited_matrix(shape: tuple[int, int], band: int) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(*shape, generator=generator, dtype=torch.float64)
    inputs = torch.randn(2, 3, shape[1], generator=generator, dtype=torch.float64)
    wanted = torch.randn(shape[0], generator=generator, dtype=torch.float64)
    given = {"change": 0.3 * torch.randn(min(shape), generator=generator, dtype=torch.float64)}
    if band:
        given["band"] = 0.3 * torch.randn(2 * band, min(shape), generator=generator, dtype=torch.float64)
    scaling = SpectrumScaling(UP, band=band)
    factors = scaling.precomputed(matrix, decompose=decompose)
    found = []
    for from_factors in (True, False):
        learned = {name: own.clone().requires_grad_() for name, own in given.items()}
        x = inputs.clone().requires_grad_()
        if from_factors:
            made = scaling.output(x, {**learned, **factors})
            assert made is not None
        else:
            made = x @ scaling.edit(matrix, decompose=decompose, tensors=learned).T
        (made.sin() @ wanted).sum().backward()
        found.append([made.detach(), x.grad, *(own.grad for own in learned.values())])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-8)


def test_a_bias_that_learns_beside_the_spectrum_changes_nothing_at_first(tiny: Tiny) -> None:
    model = tiny("llama")
    with torch.no_grad():
        expected = model(IDS).logits
    entries = [SpectrumScaling(UP), OutputBias(UP)]
    outputs, _ = Anatomy.of(model).read_weight(model, UP).shape
    tensors = [{"change": torch.zeros(32)}, {"bias": torch.zeros(outputs)}]
    attach_interventions(model, entries, tensors=tensors, decompose=decompose, trainable=True)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, expected, atol=1e-5, rtol=1e-4)


def test_a_copy_of_a_model_learns_by_itself(tiny: Tiny) -> None:
    model = tiny("llama")
    attachment = attached(model, [UP])
    other = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(IDS).logits
        attachment.modules[0].learned["change"].zero_()
        assert torch.equal(other(IDS).logits, expected)
        assert not torch.equal(model(IDS).logits, expected)


@pytest.mark.parametrize("removed", [(), (1, 3), (0, 1, 2, 4)], ids=str)
@pytest.mark.parametrize("with_factors", [False, True])
def test_what_only_removes_is_the_pruning_bit_for_bit(removed: tuple[int, ...], with_factors: bool) -> None:
    matrix = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    change = torch.zeros(5)
    change[list(removed)] = -1
    scaling = SpectrumScaling(UP)
    assert scaling.removed_by({"change": change}) == removed
    factors = scaling.precomputed(matrix, decompose=decompose) if with_factors else {}
    edited = scaling.edit(matrix, decompose=decompose, tensors={"change": change, **factors})
    expected = matrix
    if removed:
        pruning = SingularValuePruning(UP, removed)
        own = pruning.precomputed(matrix, decompose=decompose) if with_factors else {}
        expected = pruning.edit(matrix, decompose=decompose, tensors=own)
    assert torch.equal(edited, expected)


def test_what_scales_or_mixes_is_no_removal() -> None:
    assert SpectrumScaling(UP).removed_by({"change": torch.tensor([0.0, -1.0, 0.1])}) is None
    assert SpectrumScaling(UP, band=1).removed_by({"change": torch.zeros(3), "band": torch.zeros(2, 3)}) is None
