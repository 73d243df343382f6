"""Factors are told from those of another matrix without a decomposition."""

import pytest
import torch
from tests.fixtures.matrices import gaussian

from strop.linalg import are_components, decompose

W = gaussian(40, 24, 0, torch.float32)
FOUND = decompose(W)


@pytest.mark.parametrize("chosen", [[], [0], [0, 1, 2], [5, 9, 23], list(range(24))])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_components_are_known_for_what_they_are_whatever_the_matrix_was_rounded_to(
    chosen: list[int], dtype: torch.dtype
) -> None:
    left, right = FOUND.factors_of(chosen)
    assert are_components(W.to(dtype), left, right)
    assert are_components(
        W.to(dtype).T, right.T * FOUND.singular_values[chosen], left.T / FOUND.singular_values[chosen, None]
    )
    assert are_components(W.to(dtype), left, right, largest=True) == (chosen == list(range(len(chosen))))


@pytest.mark.parametrize(
    "change", ["another left", "another right", "of another matrix", "rows that only span", "scaled"]
)
def test_anything_else_is_not(change: str) -> None:
    left, right = FOUND.factors_of([0, 1, 2])
    if change == "another left":
        left = gaussian(40, 3, 1, torch.float32)
    if change == "another right":
        right = gaussian(3, 24, 1, torch.float32)
    if change == "of another matrix":
        left, right = decompose(gaussian(40, 24, 1, torch.float32)).factors_of([0, 1, 2])
    if change == "rows that only span":
        turn = torch.linalg.qr(gaussian(3, 3, 2, torch.float32)).Q
        left, right = left @ turn, turn.T @ right
    if change == "scaled":
        left, right = 1.1 * left, right
    span = change == "rows that only span"  # whose product is the same, and which rounding hides
    for dtype in (torch.float32, *([] if span else [torch.bfloat16])):
        assert not are_components(W.to(dtype), left, right)


def test_a_matrix_of_zeros_and_repeated_values_have_components_too() -> None:
    for matrix in (torch.zeros(4, 3), torch.eye(4)[:, :3], torch.ones(4, 3)):
        assert are_components(matrix, *decompose(matrix).factors_of([0, 1]), largest=True)
