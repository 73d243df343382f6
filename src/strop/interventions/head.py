"""The head of a classifier: what it decides with, trained beside the edits and carried by a recipe."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from strop.checkpoints import head_parameters, labels_in_own_order
from strop.errors import InterventionError
from strop.interventions.interfaces import Entry


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """A classification head: the labels it tells apart and its tensors, by their names inside the model.

    A head is learned in float32, and computed in it, whatever the model is cast to.
    """

    labels: tuple[str, ...]
    """In the order of the outputs; none where the one output is a number."""
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: PreTrainedModel, labels: tuple[str, ...]) -> "Head":
        """Return a classifier's head as it is now.

        Args:
            model: a classifier.
            labels: their names; none for a number.

        Raises:
            InterventionError: the model has no head, or one of another number of labels.
        """
        refuse_other_labels(model, labels)
        return cls(labels, {name: own.detach().float().clone() for name, own in own_parameters(model).items()})

    @property
    def parameter_count(self) -> int:
        """How many numbers it is made of."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "Head":
        """Return the head with other numbers."""
        return dataclasses.replace(self, tensors=dict(tensors))

    def same_as(self, other: "Head") -> bool:
        """Return whether two heads are equal to the last bit."""
        return (
            self.labels == other.labels
            and self.tensors.keys() == other.tensors.keys()
            and all(torch.equal(own.cpu(), other.tensors[name].cpu()) for name, own in self.tensors.items())
        )

    def check(self, model: PreTrainedModel) -> None:
        """Make sure that a model has a head of this kind.

        Raises:
            InterventionError: it is no classifier, or has another number of labels or a head of another shape.
        """
        refuse_other_labels(model, self.labels)
        found = own_parameters(model)
        for name in sorted(found.keys() | self.tensors.keys()):
            mine, theirs = self.tensors.get(name), found.get(name)
            if mine is None or theirs is None or mine.shape != theirs.shape:
                here, there = (
                    "missing" if tensor is None else f"of shape {tuple(tensor.shape)}" for tensor in (mine, theirs)
                )
                raise InterventionError(
                    f"The recipe's head does not fit this {type(model).__name__}: its {name} is {here}, and the model's "
                    f"{there}; load the model it was trained on."
                )
            if not bool(torch.isfinite(mine).all()):
                raise InterventionError(f"The recipe's {name} is not made of finite numbers; train anew.")


def own_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the parameters of a classifier's head by name, those of attached edits left aside."""
    return {name: own for name, own in head_parameters(model).items() if not name.startswith("strop_edits")}


def refuse_other_labels(model: PreTrainedModel, labels: tuple[str, ...]) -> None:
    """Raise InterventionError if a model has no classification head, or one of another number or order of labels."""
    count = len(labels) or 1
    wanted = f"{count} labels ({', '.join(labels)})" if labels else "one output, a number"
    if not head_parameters(model):
        raise InterventionError(
            f"A head of {wanted} needs a classifier, and {type(model).__name__} is none; load the model with "
            f"strop.load_classifier(name, labels={count})."
        )
    if model.config.num_labels != count:
        raise InterventionError(
            f"This {type(model).__name__} has {model.config.num_labels} labels, and {wanted} are needed; load it with "
            f"strop.load_classifier(name, labels={count})."
        )
    own = labels_in_own_order(model, labels)
    if own is not None:
        raise InterventionError(
            f"This {type(model).__name__} has the labels in another order, {', '.join(own)}, and {wanted} are needed; name "
            "them in the order of its outputs."
        )


def head_in_words(head: Entry) -> str:
    """Say what a classification head tells apart; its numbers are not among the learned parameters of the edits.

    Args:
        head: as `Recipe.describe_head` gives it.
    """
    labels = head["labels"]
    shown = ", ".join(labels[:4]) + (", …" if len(labels) > 4 else "")
    what = f"of {len(labels)} labels ({shown})" if labels else "of one number"
    return f"a classification head {what}, with {head['parameters']:,} parameters of its own"


class HeadSwap:
    """Another head in the place of a model's own, in float32, until `restore` gives back the very storage it had.

    Args:
        model: a classifier.
        head: what to put on.

    Raises:
        InterventionError: it does not fit.
    """

    def __init__(self, model: PreTrainedModel, head: Head) -> None:
        head.check(model)
        self._parameters = own_parameters(model)
        _refuse_placeless(self._parameters)
        self._originals = {name: (own.data, own.grad) for name, own in self._parameters.items()}
        self._hooks = []
        for name, own in self._parameters.items():
            own.grad = None
            own.data = head.tensors[name].detach().to(own.device, torch.float32, copy=True)
        if any(original.dtype != torch.float32 for original, _ in self._originals.values()):
            holders = {model.get_submodule(name.rpartition(".")[0]) for name in self._parameters}
            self._hooks = [holder.register_forward_pre_hook(_in_float32) for holder in holders]

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The model's own parameters, which hold the head's numbers."""
        return tuple(self._parameters.values())

    def original_of(self, parameter: nn.Parameter) -> Tensor | None:
        """Return what one of the model's own parameters held before, if it is the head's."""
        originals = (self._originals[name][0] for name, own in self._parameters.items() if own is parameter)
        return next((original.to(parameter.device) for original in originals), None)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The head's numbers, detached."""
        return {name: own.detach().clone() for name, own in self._parameters.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over other numbers, in place."""
        with torch.no_grad():
            for name, own in self._parameters.items():
                own.copy_(tensors[name])

    def restore(self) -> None:
        """Give the model its own head back."""
        for name, own in self._parameters.items():
            original, gradient = self._originals[name]
            own.grad = None
            own.data = original.to(own.device)  # where the model is now
            own.grad = gradient
        for hook in self._hooks:
            hook.remove()


def _refuse_placeless(parameters: Mapping[str, nn.Parameter]) -> None:
    """Raise InterventionError if a head is offloaded, for another would be overwritten by what is fetched for each call."""
    offloaded = next((name for name, own in parameters.items() if own.is_meta), None)
    if offloaded is not None:
        raise InterventionError(
            f"{offloaded} is offloaded, and a recipe that carries a head puts another in its place; keep the head on a device "
            "(device_map)."
        )


def _in_float32(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(argument.float() for argument in arguments)
