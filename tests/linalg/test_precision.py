"""Products are computed in the precision of their tensors, whatever PyTorch was told to make of them."""

import threading
from collections.abc import Iterator

import pytest
import torch
from tests.fixtures.matrices import gaussian

from strop.linalg import decompose, full_precision, orthonormal_rows, token_effects, without_components

W = gaussian(40, 24, 0, torch.float32)
MATMUL = torch.backends.mkldnn.matmul


@pytest.fixture
def shortened() -> Iterator[None]:
    """Products in bfloat16, as `set_float32_matmul_precision("medium")` asks for."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def computed() -> list[torch.Tensor]:
    """What every function that multiplies makes of one matrix."""
    found, sketched = decompose(W), decompose(W, method="randomized", rank=5)
    return [
        found.recompose(7),
        sketched.u,
        sketched.singular_values,
        without_components(W, found, [0, 3]),
        without_components(W, found, range(4, 24)),
        orthonormal_rows(W[:6]),
        token_effects(found, W[:3, :24], W[:, :3].T),
    ]


def test_autocast_changes_no_product() -> None:
    expected = computed()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(own, other) for own, other in zip(computed(), expected, strict=True))
        assert (W @ W.T).dtype == torch.bfloat16


def test_shorter_products_are_set_aside_and_come_back(shortened: None) -> None:
    assert MATMUL.fp32_precision == "bf16"
    with full_precision():
        assert MATMUL.fp32_precision == "ieee"
        with full_precision():
            pass
        assert MATMUL.fp32_precision == "ieee"
    assert MATMUL.fp32_precision == "bf16"
    assert torch.get_float32_matmul_precision() == "medium"


def test_they_come_back_once_no_thread_needs_them_set_aside(shortened: None) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with full_precision():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with full_precision():
        thread.start()
        assert inside.wait(10)
    assert MATMUL.fp32_precision == "ieee"
    leave.set()
    thread.join()
    assert MATMUL.fp32_precision == "bf16"
