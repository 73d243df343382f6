"""The fingerprints of a whole model: hashed over threads, and what was hashed before is not hashed again."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from strop.checkpoints.offloaded import fetched
from strop.errors import CheckpointError, UsageError
from strop.files import cache_folder, write_json

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

REMEMBERED_BYTES = 2**26
"""From this size on the fingerprints of a model are kept in Strop's cache folder, by the checksums of its tensors."""


def fingerprints_of(model: "PreTrainedModel", own: "Mapping[str, Tensor]") -> dict[str, str]:
    """Return the fingerprint of each of a model's tensors, by name.

    As many are read at once as PyTorch may use threads, the largest first. A large model whose tensors have the checksums of
    one that was hashed before, by this or another process, has its fingerprints.

    Args:
        model: the whole of it.
        own: its tensors, by their names inside it.

    Raises:
        CheckpointError: a tensor has no numbers, for it is on the meta device.
    """
    import torch

    from strop.linalg import checksum, fingerprint, remember_fingerprints

    largest_first = sorted(own, key=lambda name: -own[name].nbytes)

    def stored(name: str) -> "Tensor":
        found = fetched(model, name, own[name])
        if found.is_meta:
            raise CheckpointError(f"{name} is on the meta device, without numbers; load the model onto a real one.")
        return found

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:

        def of_each(work: Callable[[str], str]) -> dict[str, str]:
            return dict(zip(largest_first, pool.map(work, largest_first), strict=True))

        if sum(tensor.nbytes for tensor in own.values()) < REMEMBERED_BYTES:
            return of_each(lambda name: fingerprint(stored(name)))
        seen = of_each(lambda name: checksum(stored(name)))
        before = _remembered(seen)
        remember_fingerprints(before)
        found = of_each(lambda name: fingerprint(stored(name), checksum=seen[name]))
    if not before:
        _remember(seen, {seen[name]: found[name] for name in own})
    return found


def _remembered(seen: Mapping[str, str]) -> dict[str, str]:
    """Return the fingerprints of a model with such checksums, by these; nothing where it was not hashed before."""
    try:
        kept = json.loads(_path_of(seen).read_text(encoding="utf-8"))
        found = {known: kept[known] for known in seen.values()}
        return found if all(len(bytes.fromhex(digits)) == 16 for digits in found.values()) else {}
    except (OSError, UsageError, ValueError, TypeError, KeyError):
        return {}


def _remember(seen: Mapping[str, str], found: Mapping[str, str]) -> None:
    with contextlib.suppress(OSError, UsageError):  # a disk that refuses costs the reuse and nothing else
        write_json(_path_of(seen), found)


def _path_of(seen: Mapping[str, str]) -> Path:
    named = "".join(f"{name}={seen[name]};" for name in sorted(seen))
    return cache_folder() / "fingerprints" / f"{hashlib.sha256(named.encode()).hexdigest()[:32]}.json"
