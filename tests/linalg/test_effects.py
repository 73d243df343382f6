"""The effects of singular values against what autograd and finite differences say."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strop.errors import UsageError
from strop.linalg import (
    EffectAccumulator,
    Reduction,
    decompose,
    loss_change_by_rank,
    singular_value_effects,
    singular_value_effects_from_gradient,
    token_effects,
)

law = settings(deadline=None, max_examples=25, database=None)


def problem(tokens: int, rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix, inputs, and targets of a smooth loss, in float64."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(rows, columns), draw(tokens, columns), draw(tokens, rows)


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return (torch.tanh(outputs) - targets).square().mean()


@law
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_tokens_the_gradient_and_autograd_through_the_factors_agree(
    tokens: int, rows: int, columns: int, seed: int
) -> None:
    matrix, inputs, targets = problem(tokens, rows, columns, seed)
    found = decompose(matrix)

    weight = matrix.clone().requires_grad_()
    outputs = inputs @ weight.T
    outputs.retain_grad()
    loss_of(outputs, targets).backward()
    from_tokens = singular_value_effects(found, -inputs, outputs.grad)  # a removed component sees nothing
    from_gradient = singular_value_effects_from_gradient(found, weight.grad)

    values = found.singular_values.clone().requires_grad_()
    loss_of(inputs @ (found.u @ torch.diag(values) @ found.vh).T, targets).backward()
    expected = -values.detach() * values.grad

    torch.testing.assert_close(from_tokens, expected, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(from_gradient, expected, atol=1e-10, rtol=1e-8)


@law
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 999))
def test_all_effects_together_are_the_slope_of_the_loss_as_the_matrix_is_turned_down(
    rows: int, columns: int, seed: int
) -> None:
    matrix, inputs, targets = problem(6, rows, columns, seed)
    weight = matrix.clone().requires_grad_()
    loss_of(inputs @ weight.T, targets).backward()
    effects = singular_value_effects_from_gradient(decompose(matrix), weight.grad)
    torch.testing.assert_close(effects.sum(), -(weight.detach() * weight.grad).sum(), atol=1e-10, rtol=1e-8)


@law
@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 999))
def test_the_predicted_change_is_the_slope_of_the_loss_as_the_tail_is_turned_down(
    rows: int, columns: int, seed: int
) -> None:
    matrix, inputs, targets = problem(6, rows, columns, seed)
    found = decompose(matrix)
    weight = matrix.clone().requires_grad_()
    loss_of(inputs @ weight.T, targets).backward()
    predicted = loss_change_by_rank(singular_value_effects_from_gradient(found, weight.grad))
    assert predicted.shape == (min(rows, columns) + 1,)
    step = 1e-5
    for rank in range(min(rows, columns) + 1):
        tail = matrix - found.recompose(rank)
        after, before = (loss_of(inputs @ (matrix + sign * step * tail).T, targets) for sign in (-1, 1))
        assert float(predicted[rank]) == pytest.approx(float((after - before) / (2 * step)), abs=1e-7)


def test_keeping_everything_changes_nothing_and_keeping_nothing_brings_all_effects() -> None:
    effects = torch.tensor([1.0, -2.0, 3.0])
    change = loss_change_by_rank(effects)
    assert float(change[-1]) == 0
    assert float(change[0]) == 2
    torch.testing.assert_close(change[:-1] - change[1:], effects)


def test_padding_with_zero_gradient_adds_nothing() -> None:
    matrix, inputs, gradients = problem(4, 5, 6, 0)
    found = decompose(matrix)
    padded_inputs = torch.cat([inputs, torch.full((3, 6), 7.0, dtype=torch.float64)])
    padded_gradients = torch.cat([gradients, torch.zeros(3, 5, dtype=torch.float64)])
    torch.testing.assert_close(
        singular_value_effects(found, padded_inputs, padded_gradients), singular_value_effects(found, inputs, gradients)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_activations_are_projected_in_float32(dtype: torch.dtype) -> None:
    matrix, inputs, gradients = (tensor.float() for tensor in problem(50, 8, 8, 0))
    found = decompose(matrix)
    inputs, gradients = inputs.to(dtype), gradients.to(dtype)
    effects = singular_value_effects(found, inputs, gradients)
    assert effects.dtype == torch.float64
    torch.testing.assert_close(effects, singular_value_effects(found, inputs.float(), gradients.float()))


def test_effects_at_tokens_are_those_of_plain_loops() -> None:
    matrix, changes, gradients = problem(4, 5, 3, 0)
    found = decompose(matrix)
    effects = token_effects(found, changes, gradients)
    assert effects.shape == (4, 3)
    for token in range(4):
        for rank in range(3):
            along_input = sum(float(changes[token, column] * found.vh[rank, column]) for column in range(3))
            along_output = sum(float(gradients[token, row] * found.u[row, rank]) for row in range(5))
            expected = float(found.singular_values[rank]) * along_input * along_output
            assert float(effects[token, rank]) == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(singular_value_effects(found, changes, gradients), effects.sum(0))


# The tally

REDUCTIONS: tuple[Reduction, ...] = ("consistency", "sum", "max", "mean-abs")


def reduced_at_once(effects: Tensor, reduction: Reduction) -> Tensor:
    return {"sum": effects.sum(0), "max": effects.max(0).values, "mean-abs": effects.abs().mean(0)}[reduction]


@pytest.mark.parametrize("reduction", ["sum", "max", "mean-abs"])
@law
@given(st.integers(1, 40), st.integers(1, 5), st.lists(st.integers(0, 40), max_size=6), st.integers(0, 999), st.data())
def test_tokens_counted_in_any_portions_reduce_to_what_they_do_all_at_once(
    reduction: Reduction, tokens: int, rank: int, cuts: list[int], seed: int, data: st.DataObject
) -> None:
    sign = data.draw(st.sampled_from([1.0, -1.0, 0.0]))  # all positive, all negative, or of both signs
    effects = torch.randn(tokens, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    effects = sign * effects.abs() if sign else effects
    tally = EffectAccumulator(reduction)
    borders = [0, *sorted(min(cut, tokens) for cut in cuts), tokens]
    for start, stop in zip(borders, borders[1:], strict=False):  # some of them empty
        tally.add(effects[start:stop])
    torch.testing.assert_close(tally.loss_change, effects.sum(0), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(tally.score, reduced_at_once(effects, reduction), atol=1e-12, rtol=1e-12)


ALONE = torch.tensor([0])
"""One token, of one example."""


def test_what_a_tally_returned_stays_as_it_was_while_more_is_counted() -> None:
    for reduction in REDUCTIONS:
        tally = EffectAccumulator(reduction)
        tally.add(torch.tensor([[1.0, -2.0]]), ALONE)
        change, score = tally.loss_change, tally.score
        before = change.clone(), score.clone()
        tally.add(torch.tensor([[3.0, 4.0]]), ALONE)
        assert torch.equal(change, before[0])
        assert torch.equal(score, before[1])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_tally_of_no_tokens_is_refused_with_the_remedy(reduction: Reduction) -> None:
    tally = EffectAccumulator(reduction)
    tally.add(torch.zeros(0, 3))
    for figure in ("loss_change", "score"):
        with pytest.raises(UsageError, match="No token was counted.*take examples of more tokens"):
            getattr(tally, figure)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_an_effect_that_is_not_finite_is_not_lost_among_the_others(reduction: Reduction) -> None:
    tally = EffectAccumulator(reduction)
    for value in (1.0, float("nan"), 2.0):
        tally.add(torch.tensor([[value, 1.0]]), ALONE)
    assert tally.score.isnan().tolist() == [True, False]


# Consistency


@law
@given(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=5),
    st.integers(1, 4),
    st.integers(0, 999),
    st.booleans(),
)
def test_consistency_is_the_mean_over_examples_in_units_of_its_spread(
    lengths_by_batch: list[list[int]], rank: int, seed: int, shuffled: bool
) -> None:
    """Each example the sum over its tokens, whatever batches they come in and in whatever order a batch has them."""
    generator = torch.Generator().manual_seed(seed)
    tally = EffectAccumulator("consistency")
    of_each: list[list[float]] = []
    for lengths in lengths_by_batch:
        rows = torch.tensor([row for row, length in enumerate(lengths) for _ in range(length)])
        if shuffled:
            rows = rows[torch.randperm(len(rows), generator=generator)]
        effects = torch.randn(len(rows), rank, generator=generator, dtype=torch.float64)
        tally.add(effects, rows)
        tally.add(effects[:0], rows[:0])
        of_each += [effects[rows == row].sum(0).tolist() for row in range(len(lengths))]
    for component, found in enumerate(tally.score.tolist()):
        sums = [example[component] for example in of_each]
        spread = statistics.pstdev(sums)
        expected = statistics.fmean(sums) / spread if len(sums) > 1 else 0.0
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    torch.testing.assert_close(tally.loss_change, torch.tensor(of_each, dtype=torch.float64).sum(0))


@law
@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 999), st.sampled_from([torch.float32, torch.float64]))
def test_examples_that_are_all_alike_tell_no_component_from_another(
    examples: int, size: int, seed: int, dtype: torch.dtype
) -> None:
    """Though rounding leaves a trace of a spread, which a mean over it would blow up."""
    effects = torch.randn(1, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    tally = EffectAccumulator("consistency")
    for start in range(0, examples, size):
        count = min(size, examples - start)
        tally.add(effects.expand(count, 3), torch.arange(count))
    assert tally.score.tolist() == [0.0, 0.0, 0.0]


def test_consistency_puts_what_helps_most_examples_before_what_helps_one_much() -> None:
    tally = EffectAccumulator("consistency")
    tally.add(torch.tensor([[-9.0, -1.0], [1.0, -1.1], [1.0, -0.9]]), torch.tensor([0, 1, 2]))
    assert tally.loss_change[0] < tally.loss_change[1]
    assert tally.score[1] < tally.score[0]


def test_consistency_without_examples_is_refused() -> None:
    with pytest.raises(UsageError, match="'consistency' needs to know which example each token is of"):
        EffectAccumulator("consistency").add(torch.ones(2, 3))
    EffectAccumulator("consistency").add(torch.ones(0, 3))  # no tokens at all change nothing
