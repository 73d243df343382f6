"""What the suite has in hand for each architecture: the model, its anatomy, token ids, and what raw tensors say."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tests.conformance.models import MEMBERS, Member, built
from tests.conformance.raw import Place, place_of
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, Stack, WeightSite

PAD = 0
FOUND: dict[str, dict[str, str]] = {}
"""By member, what the suite found; the page of models is written from it."""
PROMPTS = ((11, 23, 35, 47, 19), (52, 8, 30))
"""Token ids of two prompts of unequal lengths."""
ANSWERS = ((15, 33, 21), (44, 17))
TEXTS = tuple(prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True))
IDS = torch.tensor([[11, 23, 35, 47, 19, 40], [52, 8, 30, 14, 27, 9]])


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One architecture of the suite, built and read."""

    member: Member
    model: PreTrainedModel
    anatomy: Anatomy

    @property
    def stacks(self) -> Sequence[Stack | None]:
        """The names of its lists of blocks."""
        return tuple(self.anatomy.stacks)

    @functools.cached_property
    def sites(self) -> Sequence[WeightSite]:
        """The addresses of all whole matrices."""
        return tuple(site for stack in self.stacks for site in self.anatomy.sites(stack=stack))

    @functools.cached_property
    def read_sites(self) -> Sequence[WeightSite]:
        """One matrix of each type, of as high a layer as has it, and of an expert that reads some of `IDS`; none of an eye's."""
        found = {}
        for site in self.sites:
            unread = site.expert is not None and not self._routed[self.place(site).name][site.expert].any()
            if site.stack is not Stack.VISION and not unread:
                found[site.stack, site.matrix_type] = site
        return tuple(found.values())

    @functools.cached_property
    def _routed(self) -> Mapping[str, Tensor]:
        """The gradients of the parameters that hold several experts' matrices: zeros for those no token reaches."""
        names = {self.place(site).name for site in self.sites if site.expert is not None}
        gradients = torch.autograd.grad(
            self.call().logits.logsumexp(-1).sum(), [self.model.get_parameter(name) for name in names]
        )
        return dict(zip(names, gradients, strict=True))

    @property
    def layer(self) -> int:
        """The block whose output is edited: the second, where there are two."""
        return min(1, self.anatomy.layer_count - 1)

    def cannot(self, trait: str) -> bool:
        """Whether the member's line has a trait."""
        return trait in self.member.traits

    def note(self, what: str, found: str) -> None:
        """Keep what the suite found for the page of models."""
        FOUND.setdefault(self.member.name, {})[what] = found

    def place(self, site: WeightSite) -> Place:
        """Where raw tensors hold a site's matrix."""
        path, name = self.anatomy.module_path(site), self._names[id(self.anatomy.parameter(self.model, site))]
        assert name.startswith(path), site
        return place_of(self.member, self.model, path, name.removeprefix(f"{path}."), site)

    @functools.cached_property
    def _names(self) -> Mapping[int, str]:
        return {id(parameter): name for name, parameter in self.model.named_parameters(remove_duplicate=False)}

    def takes(self, name: str) -> bool:
        """Whether the model's forward has an argument."""
        return name in inspect.signature(type(self.model).forward).parameters

    def call(self, ids: Tensor = IDS, **settings: Any) -> Any:
        """What the model makes of token ids; where it has a decoder, that reads them too."""
        more = (
            {"decoder_input_ids": ids} if self.member.head == "seq2seq" and "decoder_input_ids" not in settings else {}
        )
        if self.member.head not in ("masked", "classes") and self.takes("use_cache"):
            settings.setdefault("use_cache", False)
        return self.model(input_ids=ids, **more, **settings)

    @torch.no_grad()
    def logits(self, ids: Tensor = IDS, **settings: Any) -> Tensor:
        """Return the logits of a plain forward pass."""
        found: Tensor = self.call(ids, **settings).logits
        return found

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all that the model holds."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def member_named(name: str) -> Member:
    """Return the member that tests call so."""
    return next(member for member in MEMBERS if member.name == name)


@functools.cache
def subject_of(member_name: str) -> Subject:
    """Return a member, built and read once for all tests."""
    model = built(member_name)
    return Subject(member_named(member_name), model, Anatomy.of(model))


def reduced(matrix: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """The best approximation of a rank, by numpy."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept: NDArray[np.float64] = (left[:, :rank] * values[:rank]) @ right[:rank]
    return kept


def first_state(output: Any) -> Tensor:
    """The hidden states among what a block returns."""
    found: Tensor = output[0] if isinstance(output, (tuple, list)) else output
    return found


def with_state(output: Any, states: Tensor) -> Any:
    """What a block would have returned with other hidden states."""
    return (states, *output[1:]) if isinstance(output, (tuple, list)) else states


def batch_of(texts: Sequence[Sequence[int]], side: str) -> dict[str, Tensor]:
    """Texts padded on a side, with their mask and the places of their tokens."""
    width = max(map(len, texts))
    ids, mask = torch.full((len(texts), width), PAD), torch.zeros(len(texts), width, dtype=torch.long)
    for row, text in enumerate(texts):
        start = width - len(text) if side == "left" else 0
        ids[row, start : start + len(text)] = torch.tensor(text)
        mask[row, start : start + len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


class ByHand:
    """An edit of a block's output that is written without Strop: h ← h + Rᵀ(W h + b − R h) in chosen columns of one row.

    Args:
        block: whose output is edited.
        tensors: of a LoReFT edit whose basis R has orthonormal rows already.
    """

    def __init__(self, block: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        self.block, self.tensors = block, tensors

    @torch.no_grad()
    def run(self, columns: Iterable[int], call: Callable[[], Tensor]) -> Tensor:
        """Return what a call of the model gives while columns of the only row are edited."""
        chosen = list(columns)

        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            R, W, b = (self.tensors[name] for name in ("basis", "source", "bias"))
            states = first_state(output).clone()
            h = states[0, chosen]
            states[0, chosen] = h + (h @ W.T + b - h @ R.T) @ R
            return with_state(output, states)

        handle = self.block.register_forward_hook(hook)
        try:
            return call()
        finally:
            handle.remove()
