"""What a race is run on: rows enough to be sure of a gain, and a machine that is always as fast."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from strop.anatomy import Anatomy, MatrixType, WeightSite
from strop.improving.pace import Pace
from strop.tasks import Task, load_task


def facts_of(count: int) -> list[dict[str, str]]:
    """Return three times as many small facts, about two countries."""
    cities = {"Lyon": "France", "Curitiba": "Brazil", "Paris": "France"}
    return [
        {"prompt": f"The city of {name}{number} is in", "answer": f" {country}"}
        for number in range(count)
        for name, country in cities.items()
    ]


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this machine for one that always reads an example in a tenth of a millisecond, whatever else runs on it."""
    monkeypatch.setattr(Pace, "measured", classmethod(lambda cls, given: cls(1e-4, 8.0)))


@pytest.fixture
def many_facts() -> Callable[..., Task]:
    """A maker of 300 small facts, about two countries; with shuffled answers there is nothing to know."""

    def make(*, shuffled: int | None = None, train: bool = True, **keys: Any) -> Task:
        rows = facts_of(100)
        if shuffled is not None:
            answers = [row["answer"] for row in rows]
            random.Random(shuffled).shuffle(answers)
            rows = [{**row, "answer": answer} for row, answer in zip(rows, answers, strict=True)]
        shares = {"train": 0.3, "select": 0.4, "test": 0.3} if train else {"select": 0.5, "test": 0.5}
        return load_task({"name": "many-facts", "data": rows, "splits": shares, **keys})

    return make


@pytest.fixture
def spoilt(knowing: Callable[[], Any], small_tokenizer: Any) -> Callable[[], Any]:
    """A maker of tiny models that know the small facts, but for one component of one matrix that says " the" over it."""

    def make() -> Any:
        model = knowing()
        anatomy = Anatomy.of(model)
        down = anatomy.module(model, WeightSite(anatomy.layer_count - 1, MatrixType.DOWN))
        seen: list[torch.Tensor] = []
        handle = down.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0][0, -1]))
        with torch.no_grad():
            for name in ("Lyon", "Curitiba", "Paris"):
                model(torch.tensor([small_tokenizer(f"The city of {name}7 is in")["input_ids"]]))
            handle.remove()
            usual = torch.stack(seen).mean(0)
            wrong = model.get_output_embeddings().weight[small_tokenizer(" is")["input_ids"][0]]
            down.weight += 60 * torch.outer(wrong / wrong.norm(), usual / usual.norm() ** 2)
        return model

    return make
