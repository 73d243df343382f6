"""Which model this is: its name, its revision, its architecture, and a fingerprint of all its weights."""

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from strop.checkpoints.hashing import fingerprints_of
from strop.checkpoints.own import own_parameters
from strop.checkpoints.zoo import ZOO, pulled_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class BaseIdentity:
    """What a recipe or a result says about the model it belongs to."""

    id: str
    """A zoo name, a hub id, or the folder as it was given."""
    revision: str | None
    """The hub's commit, where the model came from there."""
    architecture: str
    """The model's class in transformers."""
    fingerprint: str
    """32 hexadecimal digits over all parameters."""

    @property
    def name(self) -> str:
        """What to call it where others read it: its id, a folder's without the path to it, which is nobody else's business.

        >>> BaseIdentity("/home/me/models/my-llama", None, "LlamaForCausalLM", "0" * 32).name
        'my-llama'
        """
        path = Path(self.id)
        cached = next((part for part in path.parts if part.startswith("models--")), None)
        if cached is not None and "snapshots" in path.parts:  # the hub's cache spells owner/name so
            return cached.removeprefix("models--").replace("--", "/")
        is_place = path.is_absolute() or self.id.startswith((".", "~")) or path.is_dir()
        return (path.resolve().name if is_place else self.id) or self.architecture


def identify(model: "PreTrainedModel") -> BaseIdentity:
    """Return a model's identity; the fingerprint reads every parameter.

    sha256(‖ name=fingerprint;), its first 128 bits, over the parameters in the model's order.

    Args:
        model: with its real weights, wherever they lie; what is attached to it does not count.

    Raises:
        CheckpointError: a parameter has no numbers, for it is on the meta device.
    """
    own = dict(own_parameters(model))
    found = fingerprints_of(model, own)
    digest = hashlib.sha256("".join(f"{name}={found[name]};" for name in own).encode())
    name = str(model.config.name_or_path)
    zoo_name = next((zoo for zoo in ZOO if name and Path(name) == pulled_folder(zoo)), None)
    return BaseIdentity(
        id=zoo_name or name or type(model).__name__,
        revision=getattr(model.config, "_commit_hash", None),
        architecture=type(model).__name__,
        fingerprint=digest.hexdigest()[:32],
    )
