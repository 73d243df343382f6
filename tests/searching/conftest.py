"""A tiny model that answers the small facts now right, now wrong, so that edits show in its accuracy."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.anatomy import MatrixType, WeightSite
from strop.interventions import RankReduction
from strop.recipe import Recipe
from strop.tasks import Task, load_task


@pytest.fixture
def answering(tiny: Callable[..., Any], small_tokenizer: Any) -> Callable[..., Any]:
    """A maker of tiny models that always begin one of the small facts' answers."""

    def make(family: str = "llama", **changes: Any) -> Any:
        model = tiny(family, **changes)
        head = model.get_output_embeddings().weight
        with torch.no_grad():
            kept = [index for answer in (" France", " Brazil") for index in small_tokenizer(answer)["input_ids"]]
            silent = torch.ones(head.shape[0], dtype=torch.bool)
            silent[kept] = False
            head[silent] = 0.0
        return model

    return make


@pytest.fixture
def task(facts: Path) -> Task:
    return load_task(facts)


@pytest.fixture
def even(even_facts: Path) -> Task:
    """Facts of one length, with counterfactuals."""
    return load_task(even_facts)


@pytest.fixture
def task_scored_by(facts: Path) -> Callable[[str], Task]:
    """The small facts under another score; `choice` is between the two countries."""

    def load(score: str) -> Task:
        lines = f"score: {score}\n" + ('choices: [" France", " Brazil"]\n' if score == "choice" else "")
        other = facts.with_name(f"{score}.yaml")
        other.write_text(facts.read_text() + lines)
        return load_task(other)

    return load


@pytest.fixture(scope="session")
def knowing(tiny: Callable[..., Any], small_tokenizer: Any) -> Callable[[], Any]:
    """A maker of tiny models that know the small facts: which country each city is in, whatever number follows it."""
    model = tiny("llama")
    texts = [
        f"The {kind} of {name}{number} is in {country}"
        for kind in ("city", "capital")
        for number in (1, 6, 36, 49, 58, 77)
        for name, country in (("Lyon", "France"), ("Curitiba", "Brazil"), ("Paris", "France"))
    ]
    encoded = [torch.tensor([small_tokenizer(text)["input_ids"]]) for text in texts]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(120):
            loss = sum(
                torch.nn.functional.cross_entropy(model(encoded[which][:, :-1]).logits[:, -1], encoded[which][:, -1])
                for which in torch.randperm(len(encoded))[:6].tolist()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.requires_grad_(True).zero_grad()
    return lambda: copy.deepcopy(model)


@pytest.fixture
def bits() -> Callable[[Any], dict[str, bytes]]:
    """Every parameter and buffer of a model, byte for byte."""
    return lambda model: {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.fixture
def laser(answering: Callable[..., Any]) -> Recipe:
    """A recipe with two reductions, of matrices that a pruning considers too."""
    sites = [WeightSite(2, MatrixType.UP), WeightSite(1, MatrixType.VALUE)]
    return Recipe.of(answering(), [RankReduction(site, 0.25) for site in sites])
