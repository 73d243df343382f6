"""Checksums: whether values are those of another time."""

from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing._internal.two_tensor import TwoTensor

from strop.linalg import checksum, fingerprint

checksum_room, fingerprint_room = map(import_module, ("strop.linalg.checksum", "strop.linalg.fingerprint"))
WORDS = checksum_room.WORDS

law = settings(deadline=None, max_examples=60, database=None)


def gaussian(rows: int = 24, columns: int = 2048, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@law
@given(st.integers(0, 24 * 2048 + 4), st.integers(0, 31))
def test_any_bit_changes_it(entry: int, bit: int) -> None:
    matrix = torch.cat([gaussian().flatten(), torch.ones(5)])  # the last five fill no row
    before = checksum(matrix)
    matrix.view(torch.int32)[entry] ^= torch.tensor(1 << bit, dtype=torch.int64).to(torch.int32)
    assert checksum(matrix) != before


CHANGES = {
    "negated": lambda own: own.neg_(),
    "a row negated": lambda own: own[3].neg_(),
    "an even block negated": lambda own: own[:4, :512].neg_(),
    "every second column negated": lambda own: own[:, 1::2].neg_(),
    "two signs in one row": lambda own: own[0, 5:8:2].neg_(),
    "rows exchanged": lambda own: own.copy_(own.flip(0)),
    "columns exchanged": lambda own: own.copy_(own.flip(1)),
    "heads exchanged": lambda own: own.copy_(own.roll(64, 1)),
    "rows and columns exchanged": lambda own: own.copy_(own.flip(0, 1)),
    "two values exchanged": lambda own: own[2, 8:10].copy_(own[2, 8:10].flip(0)),
    "two values of two rows exchanged crosswise": lambda own: own[:2, :512].copy_(own[:2, :512].flip(0)),
    "halved": lambda own: own.mul_(0.5),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_people_do_to_weights_changes_it(change, dtype: torch.dtype) -> None:
    matrix = gaussian().to(dtype)
    before = checksum(matrix)
    assert before == checksum(matrix.clone())
    change(matrix)
    assert checksum(matrix) != before


def test_permutations_are_told_apart_though_all_rows_and_columns_have_the_same_sum() -> None:
    orders = [torch.randperm(WORDS, generator=torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert len({checksum(torch.eye(WORDS, dtype=torch.float64)[order]) for order in orders}) == len(orders)


def test_dtype_and_shape_change_it_and_layout_does_not() -> None:
    zeros = torch.zeros(64, 4 * WORDS)
    others = [zeros.half(), zeros.int(), zeros.double(), zeros.T, zeros.flatten(), zeros[None]]
    assert len({checksum(zeros), *map(checksum, others)}) == 1 + len(others)
    matrix = gaussian()
    assert checksum(matrix.T) == checksum(matrix.T.contiguous())
    assert checksum(matrix.flatten()[1:4097]) == checksum(matrix.flatten()[1:4097].clone())  # not at eight bytes


def test_it_is_the_same_however_many_rows_are_added_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, found = gaussian(), checksum(gaussian())
    for rows in (1, 5, 1000):
        monkeypatch.setattr(checksum_room, "PART_ROWS", {"cpu": rows})
        assert checksum(matrix) == found


def test_a_tensor_kept_in_several_has_a_checksum_of_all_of_them() -> None:
    numbers, scales = torch.ones(2, 3), torch.zeros(2, 3)
    whole = checksum(TwoTensor(numbers, scales))
    assert whole != checksum(TwoTensor(numbers, scales + 1))
    assert whole != checksum(TwoTensor(numbers + 1, scales))


def test_a_large_tensor_is_hashed_once_and_again_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    plain = fingerprint_room._hashed

    def counting(tensor: Tensor) -> str:
        hashed.append(tensor.nbytes)
        return plain(tensor)

    monkeypatch.setattr(fingerprint_room, "_hashed", counting)
    matrix = gaussian(512, 512, seed=torch.seed() % 2**31)
    first = fingerprint(matrix)
    assert fingerprint(matrix.clone()) == first
    assert hashed == [2**20]
    matrix.data[0, 0] += 1  # no version counts this
    assert fingerprint(matrix) == plain(matrix) != first
    assert hashed == [2**20, 2**20]
    fingerprint(matrix[:-1])
    fingerprint(matrix[:-1])
    assert hashed[2:] == [2**20 - 2048] * 2  # below a mebibyte nothing is remembered
