"""Tiny models with edits of hidden states in every stream, in float64, and rows of unequal lengths to run them on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from strop.anatomy import Stream, StreamSite
from strop.interventions import Attachment, LowRankEdit, Positions, attach_interventions

EVERYWHERE = (
    (StreamSite(0), "loreft"),
    (StreamSite(1, Stream.ATTENTION), "direft"),
    (StreamSite(1, Stream.MLP), "noreft"),
    (StreamSite(2), "lobireft"),
)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Prompts of unequal lengths with answers, and the batches that are made of them."""

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]

    @property
    def lengths(self) -> list[int]:
        return [len(prompt) for prompt in self.prompts]

    def batch(
        self, side: str = "right", *, rows: Sequence[int] | None = None, answers: bool = True
    ) -> dict[str, Tensor]:
        """What a model's forward takes, labels included, of all rows or some."""
        chosen = range(len(self.prompts)) if rows is None else rows
        texts = [self.prompts[row] + (self.answers[row] if answers else ()) for row in chosen]
        width = max(map(len, texts))
        ids, mask = torch.zeros(len(texts), width, dtype=torch.long), torch.zeros(len(texts), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for index, (row, text) in enumerate(zip(chosen, texts, strict=True)):
            start = width - len(text) if side == "left" else 0
            ids[index, start : start + len(text)] = torch.tensor(text)
            mask[index, start : start + len(text)] = 1
            answer = start + len(self.prompts[row])
            labels[index, answer : start + len(text)] = ids[index, answer : start + len(text)]
        places = (mask.cumsum(1) - 1).clamp(min=0)
        found = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        return {**found, "labels": labels} if answers else {key: found[key] for key in ("input_ids", "attention_mask")}

    def real(self, values: Tensor, side: str = "right") -> list[Tensor]:
        """Each row's values, (batch, tokens, …), without those of padding."""
        mask = self.batch(side)["attention_mask"].bool()
        return [own[kept] for own, kept in zip(values, mask, strict=True)]


@pytest.fixture(scope="session")
def rows() -> Rows:
    """Four rows; the first is shorter than f2+l3 counts, none has a token twice, and none is as long as another."""
    numbers = torch.randperm(319, generator=torch.Generator().manual_seed(3)).add(1).tolist()
    prompts, answers = [], []
    for prompt, answer in ((3, 2), (9, 4), (6, 3), (5, 7)):
        prompts.append(tuple(numbers[:prompt]))
        answers.append(tuple(numbers[prompt : prompt + answer]))
        numbers = numbers[prompt + answer :]
    return Rows(tuple(prompts), tuple(answers))


def edits_of(text: str, sites: Sequence[tuple[StreamSite, str]] = EVERYWHERE) -> list[LowRankEdit]:
    return [LowRankEdit(site, method, rank=4, positions=Positions.parse(text)) for site, method in sites]


@pytest.fixture(scope="session")
def put_on() -> Callable[..., Attachment]:
    """Attach edits of every stream, or at given sites, at positions: `put_on(model, "f2+l3")`."""

    def put(
        model: Any, text: str, sites: Sequence[tuple[StreamSite, str]] = EVERYWHERE, *, seed: int = 0, **settings: Any
    ) -> Attachment:
        generator = torch.Generator().manual_seed(seed)
        edits = edits_of(text, sites)
        shapes = {"basis": (4, 32), "source": (4, 32), "bias": (4,)}
        tensors = [
            {
                name: torch.randn(shapes[name], generator=generator, dtype=model.dtype) * 0.4
                for name in edit.formula.tensors
            }
            for edit in edits
        ]
        return attach_interventions(model, edits, tensors=tensors, **settings)

    return put


@pytest.fixture
def exact(tiny: Callable[..., nn.Module]) -> Callable[..., Any]:
    """A maker of tiny models in float64 that generate until they are stopped."""

    def make(model_type: str, **changes: object) -> Any:
        model = tiny(model_type, **changes).double()
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model

    return make
