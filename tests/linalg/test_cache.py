"""The cache of decompositions: the same bits for ever, and never in the way."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

import strop.linalg.cache as cache_room
from strop.errors import DecompositionError, StropWarning, UsageError
from strop.linalg import DecompositionCache, SingularValueDecomposition, decompose, fingerprint


def gaussian(rows: int = 12, columns: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def assert_same_bits(one: SingularValueDecomposition, other: SingularValueDecomposition) -> None:
    for name in ("u", "singular_values", "vh"):
        assert fingerprint(getattr(one, name)) == fingerprint(getattr(other, name)), name


def never(*arguments: object, **settings: object) -> None:
    raise AssertionError("a decomposition was made")


@pytest.fixture(autouse=True)
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is made be written before it is handed out: test_written_behind.py is about what happens otherwise."""
    monkeypatch.setattr(cache_room._BEHIND, "do", lambda work, *, size: work())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "svd"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_second_call_gives_the_same_bits_and_decomposes_nothing(
    dtype: torch.dtype, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = gaussian().to(dtype)
    first = DecompositionCache(folder).decompose(matrix)
    monkeypatch.setattr(cache_room, "decompose", never)
    assert_same_bits(DecompositionCache(folder).decompose(matrix.clone()), first)


def test_a_transposed_view_and_its_copy_share_one_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = gaussian()
    first = DecompositionCache(folder).decompose(matrix.T)
    monkeypatch.setattr(cache_room, "decompose", never)
    assert_same_bits(DecompositionCache(folder).decompose(matrix.T.contiguous()), first)


def test_another_matrix_is_decomposed_for_itself(folder: Path) -> None:
    cache = DecompositionCache(folder)
    cache.decompose(gaussian(seed=0))
    assert_same_bits(cache.decompose(gaussian(seed=1)), decompose(gaussian(seed=1)))
    assert len(list(folder.iterdir())) == 2


def test_a_matrix_with_nan_is_refused_and_nothing_is_kept(folder: Path) -> None:
    matrix = gaussian()
    matrix[0, 0] = torch.nan
    with pytest.raises(DecompositionError, match="NaN or infinite"):
        DecompositionCache(folder).decompose(matrix)
    assert not folder.exists() or not list(folder.iterdir())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def put_garbage(path: Path) -> None:
    path.write_bytes(b"not a tensor in sight" * 20)


def drop_a_factor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["vh"]
    save_file(tensors, path)


def put_anothers_factors(path: Path) -> None:
    DecompositionCache(path.parent).decompose(gaussian(5, 4))
    other = path.with_name(name_of(gaussian(5, 4)))
    other.replace(path)


def put_factors_that_do_not_fit(path: Path) -> None:
    save_file(
        {"u": torch.zeros(12, 2), "s": torch.zeros(3), "vh": torch.zeros(3, 6)}, path, metadata={"checksum": "0" * 32}
    )


def flip_a_bit(path: Path) -> None:
    """What a failing disk does: nothing but the numbers is another."""
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(bytes(raw))


def put_noise(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({name: torch.randn(own.shape) for name, own in load_file(path).items()}, path, metadata=metadata)


def drop_the_checksum(path: Path) -> None:
    save_file(load_file(path), path)


def fill_with_zeros(path: Path) -> None:
    """What a power failure leaves of a file that was not on the disk yet."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    "damage",
    [
        truncate, empty, put_garbage, drop_a_factor, put_anothers_factors, put_factors_that_do_not_fit, flip_a_bit, put_noise,
        drop_the_checksum, fill_with_zeros,
    ],
)  # fmt: skip
def test_a_damaged_file_is_made_anew(damage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = gaussian()
    first = DecompositionCache(folder).decompose(matrix)
    (path,) = folder.iterdir()
    damage(path)
    assert_same_bits(DecompositionCache(folder).decompose(matrix), first)
    monkeypatch.setattr(cache_room, "decompose", never)
    assert_same_bits(DecompositionCache(folder).decompose(matrix), first)


def test_a_folder_that_cannot_be_made_costs_only_the_reuse(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = DecompositionCache(tmp_path / "file" / "svd")
    assert_same_bits(cache.decompose(gaussian()), decompose(gaussian()))
    assert_same_bits(cache.decompose(gaussian()), decompose(gaussian()))


def test_a_full_disk_costs_only_the_reuse_and_leaves_no_partial_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path, **settings: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_room, "save_file", full)
    cache = DecompositionCache(folder)
    with pytest.warns(StropWarning, match="svd is full, so decompositions are not kept .*; free some space, or let"):
        assert_same_bits(cache.decompose(gaussian()), decompose(gaussian()))
    assert_same_bits(cache.decompose(gaussian(seed=1)), decompose(gaussian(seed=1)))  # it is told once
    assert not list(folder.iterdir())


def test_a_cache_that_may_only_be_read_is_still_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = DecompositionCache(folder).decompose(gaussian())

    def refused(*arguments: object, **settings: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(cache_room, "decompose", never)
    assert_same_bits(DecompositionCache(folder).decompose(gaussian()), first)


def test_an_interrupted_write_leaves_no_partial_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(tensors: object, path: Path, **settings: object) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_room, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        DecompositionCache(folder).decompose(gaussian())
    assert not list(folder.iterdir())


def sizes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def name_of(matrix: Tensor) -> str:
    return f"{fingerprint(matrix)}.safetensors"


def test_the_least_recently_used_go_first_when_the_budget_is_full(folder: Path) -> None:
    matrices = [gaussian(60, 40, seed) for seed in range(4)]
    filling = DecompositionCache(folder)
    for age, matrix in zip((300, 200, 100), matrices, strict=False):
        filling.decompose(matrix)
        path = folder / name_of(matrix)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    budget = sizes_in(folder) + 1000
    DecompositionCache(folder).decompose(matrices[0])  # used again: now the youngest
    DecompositionCache(folder, budget_bytes=budget).decompose(matrices[3])
    assert {file.name for file in folder.iterdir()} == {name_of(matrices[index]) for index in (0, 2, 3)}


def test_the_folder_never_holds_more_than_its_budget(folder: Path) -> None:
    DecompositionCache(folder).decompose(gaussian(60, 40, seed=0))
    budget = 2 * sizes_in(folder) + 1000
    cache = DecompositionCache(folder, budget_bytes=budget)
    for seed in range(1, 12):
        cache.decompose(gaussian(60, 40, seed=seed))
        assert sizes_in(folder) <= budget
    assert len(list(folder.iterdir())) == 2


def test_a_sweep_larger_than_the_budget_finds_the_same_share_of_it_every_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DecompositionCache(folder).decompose(gaussian(60, 40, seed=9))  # of an earlier model: it gives way
    budget = 3 * sizes_in(folder) + 1000
    matrices = [gaussian(60, 40, seed) for seed in range(6)]
    made: list[Tensor] = []

    def counted(matrix: Tensor) -> SingularValueDecomposition:
        made.append(matrix)
        return decompose(matrix)

    monkeypatch.setattr(cache_room, "decompose", counted)
    for sweep in range(3):
        cache = DecompositionCache(folder, budget_bytes=budget)
        for matrix in matrices:
            cache.decompose(matrix)
        assert len(made) == 6 + 3 * sweep


def test_half_written_files_count_and_those_of_dead_processes_go(folder: Path) -> None:
    cache = DecompositionCache(folder)
    cache.decompose(gaussian(60, 40, seed=0))
    size = sizes_in(folder)
    fresh, stale, foreign = (folder / name for name in (".a.12345678.partial", ".b.12345678.partial", ".c.partial"))
    for path in (fresh, stale, foreign):
        path.write_bytes(bytes(size))
    os.utime(stale, (time.time() - 2 * cache_room.STALE_SECONDS,) * 2)
    DecompositionCache(folder, budget_bytes=3 * size + 1000).decompose(gaussian(60, 40, seed=1))
    assert fresh.exists()  # someone may still be writing it
    assert not stale.exists()
    assert sizes_in(folder) <= 3 * size + 1000
    assert (folder / name_of(gaussian(60, 40, seed=1))).exists()


def test_what_is_kept_is_on_the_disk_before_it_has_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        assert not (folder / name_of(gaussian())).exists()
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    DecompositionCache(folder).decompose(gaussian())
    assert len(synced) == 1
    assert name_of(gaussian()) in synced[0]


def test_many_writers_share_a_small_folder(folder: Path) -> None:
    DecompositionCache(folder).decompose(gaussian(60, 40, seed=0))
    budget = 4 * sizes_in(folder)
    wanted = [decompose(gaussian(60, 40, seed)) for seed in range(8)]

    def work(worker: int) -> None:
        for turn in range(12):
            seed = (worker + turn) % 8
            found = DecompositionCache(folder, budget_bytes=budget).decompose(gaussian(60, 40, seed))
            assert_same_bits(found, wanted[seed])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert not list(folder.glob("*.partial"))
    assert not list(folder.glob(".*.partial"))


def test_a_decomposition_larger_than_the_budget_is_returned_and_pushes_nothing_out(folder: Path) -> None:
    DecompositionCache(folder).decompose(gaussian(seed=0))
    cache = DecompositionCache(folder, budget_bytes=2 * sizes_in(folder))
    large = gaussian(200, 100, seed=1)
    assert_same_bits(cache.decompose(large), decompose(large))
    assert [file.name for file in folder.iterdir()] == [name_of(gaussian(seed=0))]


def test_the_budget_can_be_named_in_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROP_SVD_BUDGET_BYTES", "12345")
    assert DecompositionCache(folder).budget_bytes == 12345
    assert DecompositionCache(folder, budget_bytes=1).budget_bytes == 1


def test_a_budget_that_is_no_number_is_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROP_SVD_BUDGET_BYTES", "16G")
    with pytest.raises(UsageError, match="STROP_SVD_BUDGET_BYTES is a number of bytes, not '16G'"):
        DecompositionCache(folder)


# The fingerprint, by which the cache finds them


def test_a_fingerprint_is_32_hexadecimal_digits_and_the_same_for_equal_values() -> None:
    found = fingerprint(gaussian())
    assert len(found) == 32
    assert int(found, 16) >= 0
    assert found == fingerprint(gaussian().clone())
    assert found == fingerprint(torch.nn.Parameter(gaussian()))


def test_every_bit_the_dtype_and_the_shape_change_a_fingerprint() -> None:
    matrix = torch.zeros(3, 4)
    seen = {fingerprint(matrix)}
    for entry in range(12):
        for bit in range(32):
            bits = torch.zeros(12, dtype=torch.int32)
            bits[entry] = torch.tensor(1 << bit, dtype=torch.int64).to(torch.int32)
            seen.add(fingerprint(bits.view(torch.float32).reshape(3, 4)))
    assert len(seen) == 1 + 12 * 32
    others = [matrix.int(), matrix.half(), matrix.bfloat16(), matrix.double(), matrix.T, matrix.flatten(), matrix[None]]
    assert len({fingerprint(matrix), *map(fingerprint, others)}) == 1 + len(others)


def test_a_fingerprint_reads_values_not_their_layout() -> None:
    matrix = gaussian()
    assert fingerprint(matrix.T) == fingerprint(matrix.T.contiguous())
    assert fingerprint(matrix[:, ::2]) == fingerprint(matrix[:, ::2].clone())
    assert fingerprint(torch.tensor(1.0)) != fingerprint(torch.tensor(2.0))


def test_a_tensor_kept_in_several_has_a_fingerprint_of_all_of_them() -> None:
    """As quantised weights are, whose class holds numbers and scales."""
    numbers, scales = torch.ones(2, 3), torch.zeros(2, 3)
    whole = fingerprint(TwoTensor(numbers, scales))
    assert whole == fingerprint(nn.Parameter(TwoTensor(numbers.clone(), scales.clone())))
    for other in (TwoTensor(numbers, scales + 1), TwoTensor(numbers + 1, scales), numbers):
        assert fingerprint(other) != whole


def test_what_is_decomposed_together_is_kept_and_found_like_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, matrices = DecompositionCache(tmp_path), [gaussian(seed=seed) for seed in range(4)]
    first = cache.decompose(matrices[2])
    together = cache.together(matrices)
    assert_same_bits(together[2], first)
    for matrix, found in zip(matrices, together, strict=True):
        torch.testing.assert_close(found.recompose(), matrix, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(cache_room, "decompose", never)
    again = DecompositionCache(tmp_path)
    monkeypatch.setattr(cache_room, "decompose_together", lambda missing: never() if missing else [])
    for matrix, found, later in zip(matrices, together, again.together(matrices), strict=True):
        assert_same_bits(again(matrix), found)
        assert_same_bits(later, found)
