"""What eigenpruning's paper and published code say, and that Strop does the same, or why not.

Paper: Vergara-Browne, Soto and Aizawa, "Eigenpruning", arXiv 2404.03147. Code: github.com/tvergara/eigenpruning.

Where a matrix lies in a model is written out here once more, so that nothing rests on the library's own anatomy.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from strop.anatomy import MatrixType, WeightSite
from strop.errors import UsageError
from strop.linalg import decompose
from strop.scoring import Scorer
from strop.searching import EffectPlan, Effects, measure_effects
from strop.tasks import Example

THREE_FAMILIES = ["llama", "gpt2", "gpt_neox"]
QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN = list(MatrixType)[:7]
SIZE = 8  # of a head
ALIKE = {QUERY: 4, KEY: 4, VALUE: 4, OUTPUT: 4}
HEADS = {"llama": {QUERY: 4, KEY: 2, VALUE: 2, OUTPUT: 4}, "gpt2": ALIKE, "gpt_neox": ALIKE}

EXAMPLES = [  # of several lengths, one answer of several tokens among them
    Example("The city of Lyon is in", " France"),
    Example("1 + 2 =", " 3 and 12"),
    Example("The capital of Brazil is", " Brasilia"),
]
SAME_LENGTH = [
    Example(f"The city of {name} is in", answer)
    for name, answer in [("Lyon", " France"), ("Curitiba", " Brazil"), ("Paris", " France"), ("Brasilia", " Brazil")]
]


class Place(NamedTuple):
    """Where a matrix (out, in) lies: the module, and which of its outputs and inputs are the matrix's own."""

    module: str
    outputs: slice = slice(None)
    inputs: slice = slice(None)
    transposed: bool = False

    def of(self, weight: Tensor) -> Tensor:
        """Return the matrix (out, in), a view of the module's weight."""
        return (weight.T if self.transposed else weight)[self.outputs, self.inputs]


def place(family: str, site: WeightSite) -> Place:
    kind, layer, head = site.matrix_type, site.layer, site.head
    share = slice(None) if head is None else slice(SIZE * head, SIZE * (head + 1))
    if family == "llama":
        block = f"model.layers.{layer}"
        if kind in (GATE, UP, DOWN):
            return Place(f"{block}.mlp.{kind}_proj")
        if kind is OUTPUT:
            return Place(f"{block}.self_attn.o_proj", inputs=share)
        return Place(f"{block}.self_attn.{kind.value[0]}_proj", outputs=share)
    if family == "gpt2":
        block = f"transformer.h.{layer}"
        if kind in (UP, DOWN):
            return Place(f"{block}.mlp.{'c_fc' if kind is UP else 'c_proj'}", transposed=True)
        if kind is OUTPUT:
            return Place(f"{block}.attn.c_proj", inputs=share, transposed=True)
        start = 32 * (QUERY, KEY, VALUE).index(kind) + SIZE * (head or 0)
        return Place(f"{block}.attn.c_attn", outputs=slice(start, start + SIZE), transposed=True)
    block = f"gpt_neox.layers.{layer}"
    if kind in (UP, DOWN):
        return Place(f"{block}.mlp.{'dense_h_to_4h' if kind is UP else 'dense_4h_to_h'}")
    if kind is OUTPUT:
        return Place(f"{block}.attention.dense", inputs=share)
    start = SIZE * (3 * (head or 0) + (QUERY, KEY, VALUE).index(kind))
    return Place(f"{block}.attention.query_key_value", outputs=slice(start, start + SIZE))


def sites_in(family: str, layer: int) -> list[WeightSite]:
    """Every head of the attention matrices, and the MLP matrices whole."""
    heads = [WeightSite(layer, kind, head=head) for kind, count in HEADS[family].items() for head in range(count)]
    return heads + [WeightSite(layer, kind) for kind in ((GATE, UP, DOWN) if family == "llama" else (UP, DOWN))]


def loss_of(forward: Callable[[Tensor], Any], tokenizer: Any, examples: Sequence[Example] = EXAMPLES) -> Tensor:
    """The mean over examples of the mean −log p of an answer token, one text at a time."""
    losses = []
    for example in examples:
        prompt, answer = tokenizer(example.prompt)["input_ids"], tokenizer(example.answer)["input_ids"]
        assert tokenizer(example.prompt + example.answer)["input_ids"] == prompt + answer
        log_p = forward(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        own = [log_p[len(prompt) + index - 1, token] for index, token in enumerate(answer)]
        losses.append(-torch.stack(own).mean())
    return torch.stack(losses).mean()


def measured(
    model: Any,
    tokenizer: Any,
    sites: Sequence[WeightSite],
    plan: EffectPlan | None = None,
    *,
    examples: Sequence[Example] = EXAMPLES,
    score: Any = "exact",
) -> dict[WeightSite, Effects]:
    scorer = Scorer(model, tokenizer, examples, score)
    assert len(scorer.batches) == 1
    return measure_effects(scorer, sites, decompose=decompose, plan=plan)


def loss_without(
    model: Any, tokenizer: Any, where: Place, component: Tensor, share: float, mean: Tensor | None = None
) -> float:
    """The loss once a share of a component σuvᵀ is out of a matrix, as much of its output for a mean input left behind."""
    module = model.get_submodule(where.module)
    original = module.weight.detach().clone()

    def leave_behind(_: Any, arguments: Any, output: Tensor) -> Tensor:
        shifted = output.clone()
        if mean is not None:
            shifted[..., where.outputs] += share * (component @ mean)
        return shifted

    handle = module.register_forward_hook(leave_behind)
    with torch.no_grad():
        where.of(module.weight).sub_(share * component)
        loss = float(loss_of(model, tokenizer))
        module.weight.copy_(original)
    handle.remove()
    return loss


def components_of(model: Any, where: Place, ranks: Sequence[int]) -> list[Tensor]:
    """σ_i u_i v_iᵀ for each of some ranks."""
    u, s, vh = torch.linalg.svd(where.of(model.get_submodule(where.module).weight.detach()), full_matrices=False)
    return [s[rank] * torch.outer(u[:, rank], vh[rank]) for rank in ranks]


@pytest.mark.parametrize("family", THREE_FAMILIES)
def test_effects_are_minus_the_gradients_of_singular_values_put_in_place_of_the_matrix(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str
) -> None:
    """e_i = −σ_i ∂L/∂σ_i, through autograd and an explicit U diag(σ) Vᵀ, all matrices of a block at once."""
    model, sites = tiny(family).double(), sites_in(family, 1)
    found = measured(model, small_tokenizer, sites)
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    values = {}
    for site in sites:
        where = place(family, site)
        matrix = where.of(weights[f"{where.module}.weight"])
        u, s, vh = torch.linalg.svd(matrix.detach().clone(), full_matrices=False)
        values[site] = s.requires_grad_()
        matrix.copy_(u @ torch.diag(s) @ vh)
    loss_of(lambda ids: torch.func.functional_call(model, weights, (ids,)), small_tokenizer).backward()
    for site, s in values.items():
        assert s.grad is not None
        expected = -(s * s.grad).detach()
        size = float(expected.abs().max())
        assert size > 1e-6
        torch.testing.assert_close(found[site].loss_change, expected, atol=1e-5 * size, rtol=0, msg=str(site))


@pytest.mark.parametrize("family", THREE_FAMILIES)
@pytest.mark.parametrize("counterfactual", ["zero", "mean"])
def test_effects_are_the_slopes_of_the_loss_as_one_component_is_taken_out(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str, counterfactual: Any
) -> None:
    """W ← W − ε σuvᵀ, and for the mean b ← b + ε σu (v · μ), by finite differences."""
    model = tiny(family).double()
    sites = [site for site in sites_in(family, 1) if site.head in (None, 1)]
    found = measured(model, small_tokenizer, sites, EffectPlan(counterfactual=counterfactual))
    for site in sites:
        where = place(family, site)
        mean = mean_seen(model, small_tokenizer, where) if counterfactual == "mean" else None
        size = float(found[site].loss_change.abs().max())
        for rank, component in zip((0, 3), components_of(model, where, (0, 3)), strict=True):
            after, before = (
                loss_without(model, small_tokenizer, where, component, share, mean)
                for share in (5e-3, -5e-3)  # Llama's norms are taken in float32
            )
            slope = (after - before) / 1e-2
            assert float(found[site].loss_change[rank]) == pytest.approx(slope, abs=2e-3 * size), site


def mean_seen(model: Any, tokenizer: Any, where: Place) -> Tensor:
    """The mean input of a matrix over the tokens of all examples that the model reads: all but the last of each."""
    seen: list[Tensor] = []
    handle = model.get_submodule(where.module).register_forward_pre_hook(
        lambda _, arguments: seen.append(arguments[0].detach()[0, :-1, where.inputs])
    )
    loss_of(model, tokenizer)
    handle.remove()
    return torch.cat(seen).mean(0)


@pytest.mark.parametrize("site", [WeightSite(1, KEY, head=1), WeightSite(0, UP)])
def test_the_smaller_the_share_taken_out_the_nearer_the_loss_is_to_what_was_predicted(
    tiny: Callable[..., Any], small_tokenizer: Any, site: WeightSite
) -> None:
    """Of first order: a tenth of the cut, a hundredth of the error."""
    model, where = tiny("llama").double(), place("llama", site)
    predicted = float(measured(model, small_tokenizer, [site])[site].loss_change[0])
    (component,) = components_of(model, where, [0])
    before = loss_without(model, small_tokenizer, where, component, 0.0)
    errors = [
        abs(loss_without(model, small_tokenizer, where, component, share) - before - share * predicted)
        for share in (0.1, 0.01)
    ]
    assert errors[0] < 0.5 * abs(0.1 * predicted)
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.3)


# The published procedure, with x the input of the matrix: after the norm, as the paper's formulas mean it


def published_effects(
    family: str, model: Any, tokenizer: Any, examples: Sequence[Example], layer: int
) -> NDArray[np.float64]:
    """Return effect[example, token, head, value] of the keys, as training/*.py computes it, loop by loop.

    The loss is the batch's mean cross-entropy of the label token at the last position; x′ is the next example's in the
    batch (`torch.roll(x, 1, dim=batch)`); matrices act on row vectors, y = xW, W = U S V.
    """
    ids = torch.tensor([tokenizer(example.prompt)["input_ids"] for example in examples])
    labels = torch.tensor([tokenizer(example.answer)["input_ids"][0] for example in examples])
    heads = [place(family, WeightSite(layer, KEY, head=head)) for head in range(HEADS[family][KEY])]
    module = model.get_submodule(heads[0].module)
    seen: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _, arguments, output: seen.update(x=arguments[0].detach())),
        module.register_full_backward_hook(lambda _, into, out: seen.update(gradient=out[0].detach())),
    ]
    torch.nn.functional.cross_entropy(model(ids).logits[:, -1], labels).backward()
    for handle in handles:
        handle.remove()
    x, gradient = seen["x"].numpy(), seen["gradient"].numpy()
    dx = np.roll(x, 1, axis=0) - x
    effects = np.zeros((*x.shape[:2], len(heads), SIZE))
    for head, where in enumerate(heads):
        u, s, v = np.linalg.svd(where.of(module.weight.detach()).numpy().T, full_matrices=False)
        for example, token, value in np.ndindex(*x.shape[:2], SIZE):
            changed_output = np.dot(dx[example, token], u[:, value]) * s[value] * v[value]
            effects[example, token, head, value] = np.dot(gradient[example, token, where.outputs], changed_output)
    return effects


@pytest.mark.parametrize("family", THREE_FAMILIES)
@pytest.mark.parametrize("layer", [0, 2])
def test_the_scores_are_those_of_the_published_procedure(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str, layer: int
) -> None:
    """score_i = the largest effect, with its sign, over examples and tokens.

    The published loss is the batch's mean, and a token's effect is on its share of it; Strop's score is of the example's
    own loss, whatever the batch. So all scores differ by one factor, the batch's size, and are ranked alike.
    """
    model = tiny(family).double()
    sites = [WeightSite(layer, KEY, head=head) for head in range(HEADS[family][KEY])]
    plan = EffectPlan(counterfactual="roll", reduction="max")
    found = measured(model, small_tokenizer, sites, plan, examples=SAME_LENGTH, score="first_token")
    published = published_effects(family, model, small_tokenizer, SAME_LENGTH, layer)
    scores, sums = published.max((0, 1)), published.sum((0, 1))
    ours = np.stack([found[site].score.numpy() for site in sites])
    changes = np.stack([found[site].loss_change.numpy() for site in sites])
    np.testing.assert_allclose(ours, len(SAME_LENGTH) * scores, atol=1e-5 * np.abs(ours).max(), rtol=0)
    np.testing.assert_allclose(changes, sums, atol=1e-5 * np.abs(changes).max(), rtol=0)
    assert np.array_equal(ours.argsort(None), scores.argsort(None))
    assert np.abs(changes).max() > 1e-6


def test_where_the_published_batch_of_one_leaves_every_effect_at_zero_strop_refuses(
    tiny: Callable[..., Any], small_tokenizer: Any
) -> None:
    """`--batch_size 1`, the published default: an example rolled alone is itself."""
    model, alone = tiny("llama").double(), SAME_LENGTH[:1]
    assert not published_effects("llama", model, small_tokenizer, alone, 1).any()
    with pytest.raises(UsageError, match="'roll' swaps each example with another of its batch"):
        measured(model, small_tokenizer, [WeightSite(1, KEY)], EffectPlan(counterfactual="roll"), examples=alone)
