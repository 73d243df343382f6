"""Interventions in words: a line for each reduction, one for all prunings of a matrix type."""

from typing import Any

from strop.interventions import summarize


def reduction(layer: int, **changes: Any) -> dict[str, Any]:
    entry = {"method": "rank_reduction", "layer": layer, "matrix_type": "up", "rank_fraction": 0.015, "rank": 8}
    return {**entry, **changes}


def pruning(layer: int, **changes: Any) -> dict[str, Any]:
    entry = {"method": "singular_value_pruning", "layer": layer, "matrix_type": "key", "removed": "0-3,17"}
    return {**entry, "removed_count": 5, "full_rank": 64, "bias": "mean", **changes}


def test_no_intervention_has_no_line() -> None:
    assert summarize([]) == []


def test_each_reduction_has_its_line_with_its_head() -> None:
    assert summarize([reduction(28), reduction(28), reduction(3, matrix_type="value", head=1)]) == [
        "layer 28 up: rank reduction to rank 8 (1.5 % kept)",
        "layer 28 up: rank reduction to rank 8 (1.5 % kept)",
        "layer 3 value head 1: rank reduction to rank 8 (1.5 % kept)",
    ]


def test_prunings_are_summed_over_heads_and_layers() -> None:
    entries = [pruning(layer, head=head) for layer in range(28) for head in range(3)]
    assert summarize(entries) == ["key: 420 of 5,376 singular values removed in 28 layers (mean bias)"]


def test_prunings_in_one_layer_name_it() -> None:
    assert summarize([pruning(4, head=0), pruning(4, head=1)]) == [
        "key: 10 of 128 singular values removed in layer 4 (mean bias)"
    ]


def test_each_matrix_type_and_each_bias_has_its_own_line_in_the_order_of_the_first() -> None:
    entries = [
        pruning(0),
        pruning(0, matrix_type="value", bias="none"),
        reduction(28),
        pruning(1),
        pruning(2, bias="position"),
    ]
    assert summarize(entries) == [
        "key: 10 of 128 singular values removed in 2 layers (mean bias)",
        "value: 5 of 64 singular values removed in layer 0",
        "layer 28 up: rank reduction to rank 8 (1.5 % kept)",
        "key: 5 of 64 singular values removed in layer 2 (position bias)",
    ]
