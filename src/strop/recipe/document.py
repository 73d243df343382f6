"""A recipe: a base model's identity and an ordered list of interventions."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from strop.anatomy import Anatomy, Family, WeightSite
from strop.checkpoints import BaseIdentity, identify
from strop.errors import BaseMismatchError, InterventionError, RecipeError, SiteError, reason_in, shortened
from strop.files import making_folder
from strop.interventions import (
    Attachment,
    Head,
    Intervention,
    applied_interventions,
    attachments_of,
    summarize,
)
from strop.linalg import DecompositionCache, fingerprint
from strop.recipe.card import Form, model_card
from strop.recipe.compose import composed, composed_provenance
from strop.recipe.entries import read_entries, refuse_unfit_tensors
from strop.recipe.factors import refuse_other_factors
from strop.recipe.files import FORMAT, HEAD, LEVELS, Document, read_document, read_tensors, write_files
from strop.recipe.identity import MatrixIdentity
from strop.recipe.levels import packed, with_levels

if TYPE_CHECKING:
    from strop.interventions import Decompose


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """The product's document: which model, which interventions in which order, and how they were found.

    Build it with `Recipe.of(model, interventions)`, or read a folder with `Recipe.load`.

    Args:
        base: the model it was made for.
        interventions: in the order they are applied.
        matrices: for each intervention, the identity of the matrix it edits, or that writes the hidden states it edits, as
            the base model has it.
        tensors: for each intervention, the tensors it carries; empty for a bare decision.
        provenance: how it was made: task, seed, versions, figures.
        head: the classification head that was trained beside the interventions; None for a language model's recipe.

    Raises:
        RecipeError: the lists are not of one length.
    """

    base: BaseIdentity
    interventions: tuple[Intervention, ...]
    matrices: tuple[MatrixIdentity, ...]
    tensors: tuple[Mapping[str, Tensor], ...] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    head: Head | None = None

    def __post_init__(self) -> None:
        if not self.tensors:
            object.__setattr__(self, "tensors", ({},) * len(self.interventions))
        if not len(self.interventions) == len(self.matrices) == len(self.tensors):
            raise RecipeError(
                f"A recipe with {len(self.interventions)} interventions has {len(self.matrices)} matrix identities "
                f"and {len(self.tensors)} sets of tensors; each intervention needs one of both."
            )

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        interventions: Sequence[Intervention],
        *,
        base: BaseIdentity | None = None,
        family: Family | None = None,
        tensors: Sequence[Mapping[str, Tensor]] | None = None,
        provenance: Mapping[str, Any] | None = None,
        head: Head | None = None,
    ) -> "Recipe":
        """Return a recipe for a model.

        Args:
            model: the base; what is attached to it does not count.
            interventions: in the order they are to be applied.
            base: the model's identity, where it is at hand.
            family: the spelling of an architecture Strop does not know.
            tensors: for each intervention, what it carries, such as its `bias`; nothing by default.
            provenance: how the interventions were found.
            head: a classification head to carry, such as `Head.of(model, labels)`; none by default.

        Raises:
            SiteError: the model has no such matrix.
            RecipeError: there are more or fewer sets of tensors than interventions.
        """
        anatomy = Anatomy.of(model, family=family)
        matrices = tuple(MatrixIdentity.at(model, anatomy, entry, rounded=True) for entry in interventions)
        return cls(
            base or identify(model), tuple(interventions), matrices, tuple(tensors or ()), _plain(provenance), head
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipe):
            return NotImplemented
        return (
            (self.base, self.interventions, self.matrices) == (other.base, other.interventions, other.matrices)
            and dict(self.provenance) == dict(other.provenance)
            and all(_same_tensors(mine, theirs) for mine, theirs in zip(self.tensors, other.tensors, strict=True))
            and _same_heads(self.head, other.head)
        )

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: object) -> "Recipe":
        """Return this recipe and then another of the same base, in one; `first + second`.

        Where both scale the same singular values of a matrix, or are LoRAs of it, their changes are added.

        Raises:
            BaseMismatchError: they were made for different bases.
            RecipeError: both edit one place and do not add up, or both carry a classification head.
        """
        if not isinstance(other, Recipe):
            return NotImplemented
        entries = composed(self, other)
        interventions, matrices, tensors = zip(*entries, strict=True) if entries else ((), (), ())
        account = composed_provenance(self, other)
        return Recipe(self.base, interventions, matrices, tensors, account, self.head or other.head)

    def __str__(self) -> str:
        if not self.interventions:
            return f"no edit of {self.base.id}"
        return f"{self.base.id}: " + "; ".join(self.summary)

    def with_factors(
        self, model: PreTrainedModel, *, family: Family | None = None, decompose: "Decompose | None" = None
    ) -> "Recipe":
        """Return the recipe with the low-rank factors beside each intervention, so that applying it decomposes nothing.

        They are of the matrix as the interventions before left it. What an intervention carries already, such as its
        bias, stays.

        Args:
            model: the base, with nothing attached.
            family: the spelling of an architecture Strop does not know.
            decompose: how to come by decompositions; the cache on disk by default.

        Raises:
            BaseMismatchError: the model is not the recipe's base.
            InterventionError: something is attached to it.
        """
        if attachments_of(model):
            raise InterventionError(
                "Something is attached to this model already; detach it before factors are computed."
            )
        anatomy = Anatomy.of(model, family=family)
        self._check_base(model, anatomy)
        decompose = decompose or DecompositionCache().decompose
        tensors: list[Mapping[str, Tensor]] = []
        with contextlib.ExitStack() as stack:
            for index, (entry, carried) in enumerate(zip(self.interventions, self.tensors, strict=True)):
                if entry.kind == "state":
                    tensors.append(carried)
                    continue
                matrix = anatomy.read_weight(model, entry.site)
                tensors.append({**carried, **entry.precomputed(matrix, decompose=decompose)})
                later = self.interventions[index + 1 :]
                if any(other.kind == "weight" and entry.site.overlaps(other.site) for other in later):
                    stack.enter_context(applied_interventions(model, [entry], anatomy=anatomy, tensors=[tensors[-1]]))
        return dataclasses.replace(self, tensors=tuple(tensors))

    def learned_by(self, attachment: Attachment) -> "Recipe":
        """Return the recipe with the numbers its edits, and its head, have learned since it was attached.

        Args:
            attachment: what attaching this recipe returned.

        Raises:
            RecipeError: it is another recipe's.
        """
        if attachment.interventions != self.interventions:
            raise RecipeError("The attachment is of other interventions than this recipe's.")
        tensors = tuple({**mine, **new} for mine, new in zip(self.tensors, attachment.tensors, strict=True))
        learned = attachment.head_tensors
        head = self.head.with_tensors(learned) if self.head is not None and learned is not None else self.head
        return dataclasses.replace(self, tensors=tensors, head=head)

    def check(self, model: PreTrainedModel, *, family: Family | None = None) -> str | None:
        """Make sure that a model is the one this recipe was made for.

        Args:
            model: to be compared; what is attached to it does not count.
            family: the spelling of an architecture Strop does not know.

        Returns:
            A note where it is that model in a narrower dtype, bfloat16 or float16; None where it is the very same.

        Raises:
            BaseMismatchError: it is not; the message names the first difference.
            RecipeError: factors the recipe carries are not those of the model's matrices.
        """
        anatomy = Anatomy.of(model, family=family)
        note = self._check_base(model, anatomy)
        refuse_other_factors(model, anatomy, self.interventions, self.tensors, rounded=note is not None)
        return note

    def _check_base(self, model: PreTrainedModel, anatomy: Anatomy) -> str | None:
        """Do what `check` does, but for the factors."""
        base = shortened(self.base.id, most=100)
        remedy = f"load {base}, or pass force=True (--force) if you know that the recipe fits"
        if type(model).__name__ != self.base.architecture:
            raise BaseMismatchError(
                f"The recipe was made for {base}, a {shortened(self.base.architecture)}, and this model is a "
                f"{type(model).__name__}; {remedy}."
            )
        read: dict[tuple[str, WeightSite], MatrixIdentity] = {}
        note = None
        for intervention, expected in zip(self.interventions, self.matrices, strict=True):
            site = intervention.site.writer
            sizes = anatomy.stacks.get(site.stack)
            if sizes is not None and site.layer >= sizes.layer_count:
                raise BaseMismatchError(
                    f"The recipe edits {intervention.site}, and this model has only {sizes.layer_count} layers; {remedy}."
                )
            try:
                place = intervention.kind, site
                found = read[place] = read.get(place) or MatrixIdentity.at(model, anatomy, intervention)
            except SiteError as error:
                reason = str(error).rstrip(".")
                raise BaseMismatchError(f"The recipe does not fit this model: {reason}; {remedy}.") from None
            if expected.is_rounded_to(found):
                note = (
                    f"The recipe was made for {base} in {expected.dtype}, and this is the same base in {found.dtype}: its "
                    "figures may differ a little."
                )
                continue
            for what in ("shape", "dtype", "fingerprint"):
                if getattr(found, what) != getattr(expected, what):
                    raise BaseMismatchError(
                        f"{site} is not the matrix the recipe was made for: its {what} is {getattr(found, what)}, not "
                        f"{getattr(expected, what)}; {remedy}."
                    )
        return note

    def describe(self) -> list[dict[str, Any]]:
        """Return the interventions as a recipe's JSON holds them."""
        return [entry.to_json(matrix.shape) for entry, matrix in zip(self.interventions, self.matrices, strict=True)]

    @property
    def summary(self) -> list[str]:
        """The interventions in words, those that go together in one line, and the head."""
        return summarize(self.describe(), head=self.describe_head())

    def describe_head(self) -> dict[str, Any] | None:
        """Return the head as a recipe's JSON holds it: its labels, its tensors' names, how many numbers they are."""
        if self.head is None:
            return None
        return {
            "labels": list(self.head.labels),
            "tensors": sorted(self.head.tensors),
            "parameters": self.head.parameter_count,
        }

    def describe_exactly(self) -> list[dict[str, Any]]:
        """Return what tells this recipe from another: its entries, each with the fingerprints of what it carries."""
        head = [{"head": list(self.head.labels)}] if self.head is not None else []
        carried = [*self.tensors, *([self.head.tensors] if self.head is not None else [])]
        return [
            {**entry, "tensors": {name: fingerprint(tensor) for name, tensor in tensors.items()}}
            for entry, tensors in zip([*self.describe(), *head], carried, strict=True)
        ]

    def with_provenance(self, provenance: Mapping[str, Any]) -> "Recipe":
        """Return the recipe with another account of how it was made."""
        return dataclasses.replace(self, provenance=_plain(provenance))

    def card(self, *, form: Form = "recipe") -> str:
        """Return the model card that travels with the recipe, or with what was made of it.

        Args:
            form: what the card lies beside: the `recipe`, a `checkpoint` it was baked into, or an `adapter` of PEFT's.

        Raises:
            RecipeError: its provenance holds figures that are not as a run writes them.
        """
        labels = self.head.labels if self.head is not None else None
        try:
            return model_card(self.base, self.summary, self.provenance, labels=labels, form=form)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecipeError(
                f"The recipe's provenance is not as a run writes it ({type(error).__name__}: "
                f"{shortened(reason_in(error), most=80)}): take provenance out of its recipe.json."
            ) from None

    def save(self, folder: str | Path) -> Path:
        """Write the recipe as a folder that appears whole or not at all.

        recipe.json, tensors.safetensors where it carries tensors, and a model card as README.md.

        Args:
            folder: must not hold anything yet.

        Raises:
            UsageError: the folder is there already and is not empty.
        """
        with making_folder(Path(folder)) as temporary:
            self.write_files(temporary)
        return Path(folder)

    def write_files(self, folder: Path) -> None:
        """Write the recipe's files into a folder that is there; others may lie beside them."""
        together = packed(self.interventions, self.tensors)
        values, levels, carried = together or ([], None, self.tensors)
        content = {
            "format": FORMAT,
            "base": dataclasses.asdict(self.base),
            "interventions": self.describe(),
            "matrices": [matrix.to_json() for matrix in self.matrices],
            **({"levels": {"values": values}} if together is not None else {}),
            **({"head": self.describe_head()} if self.head is not None else {}),
            "provenance": dict(self.provenance),
        }
        tensors = {f"{index}.{name}": own for index, of_one in enumerate(carried) for name, own in of_one.items()}
        if levels is not None:
            tensors[LEVELS] = levels
        if self.head is not None:
            tensors |= {f"{HEAD}{name}": tensor for name, tensor in self.head.tensors.items()}
        write_files(folder, content=content, tensors=tensors, card=self.card())

    @classmethod
    def load(cls, folder: str | Path) -> "Recipe":
        """Read a recipe folder. Nothing in it is executed.

        Args:
            folder: as `save` or a run left it.

        Raises:
            RecipeError: there is no recipe there, it is damaged or says two things, or it was written by a newer version.
        """
        path = Path(folder)
        document = read_document(path)
        matrices = tuple(MatrixIdentity(**matrix.model_dump()) for matrix in document.matrices)
        interventions = read_entries(document.interventions, matrices, path / "recipe.json")
        carried = path / "tensors.safetensors"
        bare, of_head, together = read_tensors(carried, len(interventions))
        values = document.levels.values if document.levels is not None else None
        tensors = with_levels(bare, together, values, interventions, matrices, carried)
        refuse_unfit_tensors(interventions, matrices, tensors, carried)
        return cls(
            BaseIdentity(**document.base.model_dump()),
            interventions,
            matrices,
            tensors,
            document.provenance,
            _head_read(document, of_head, path),
        )


def _head_read(document: Document, tensors: Mapping[str, Tensor], folder: Path) -> Head | None:
    entry = document.head
    wanted = set(entry.tensors) if entry is not None else set()
    if wanted != set(tensors):
        name = shortened(min(wanted ^ set(tensors)), most=40)
        raise RecipeError(
            f"{folder} cannot be read: its head's tensor '{name}' is in only one of recipe.json and tensors.safetensors."
        )
    if entry is None:
        return None
    head = Head(entry.labels, tensors)
    if entry.parameters not in (None, head.parameter_count):
        raise RecipeError(
            f"{folder / 'recipe.json'}: its head is said to have {entry.parameters} parameters, and tensors.safetensors holds "
            f"{head.parameter_count}; copy the recipe again."
        )
    return head


def _plain(provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return it as it will be read back: with lists, not tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(provenance or {})))
    return plain


def _same_heads(mine: Head | None, theirs: Head | None) -> bool:
    return mine is theirs or (mine is not None and theirs is not None and mine.same_as(theirs))


def _same_tensors(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return mine.keys() == theirs.keys() and all(_same_tensor(mine[name], theirs[name]) for name in mine)


def _same_tensor(mine: Tensor, theirs: Tensor) -> bool:
    return mine.dtype == theirs.dtype and torch.equal(mine.cpu(), theirs.cpu())
