"""What an evaluation says was answered: a text, a token, or the place of a choice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import strop
from strop.scoring import Scorer
from strop.tasks import Example, GenerateSettings


@pytest.fixture
def always(tiny: Callable[..., Any], small_tokenizer: Any) -> Callable[[str], Any]:
    """A maker of tiny models that say one token whatever they read."""

    def make(text: str) -> Any:
        model = tiny("llama")
        bias = torch.zeros(model.lm_head.weight.shape[0])
        bias[small_tokenizer(text)["input_ids"][0]] = 1e3
        model.lm_head.bias = torch.nn.Parameter(bias)
        return model

    return make


@pytest.mark.parametrize("score", ["exact", "first_token"])
def test_the_first_token_in_the_answers_place_is_told(
    always: Callable[[str], Any], small_tokenizer: Any, score: Any
) -> None:
    first = small_tokenizer.decode(small_tokenizer(" Brazil")["input_ids"][:1])
    examples = [Example("Lyon is in", " France"), Example("The city of Curitiba is in", " Brazil")]
    found = Scorer(always(" Brazil"), small_tokenizer, examples, score).evaluate()
    assert found.said == (first, first)
    assert found.wanted == tuple(
        small_tokenizer.decode(small_tokenizer(answer)["input_ids"][:1]) for answer in (" France", " Brazil")
    )


def test_a_choice_is_told_by_its_text_where_all_examples_have_the_same_and_else_by_its_place(
    always: Callable[[str], Any], small_tokenizer: Any
) -> None:
    same = [
        Example("Lyon is in", " France", (" France", " Brazil")),
        Example("Curitiba is in", " Brazil", (" Brazil", " France")),
    ]
    found = Scorer(always(" France"), small_tokenizer, same, "choice").evaluate()
    assert (found.said, found.wanted) == ((" France", " France"), (" France", " Brazil"))
    own = [same[0], Example("1 + 2 =", " 3", (" 2", " 3"))]
    found = Scorer(always(" France"), small_tokenizer, own, "choice").evaluate()
    assert found.wanted == (1, 2)
    assert found.said is not None
    assert found.said[0] == 1
    assert set(found.said) <= {1, 2}


def test_generated_answers_that_match_by_their_number_are_spelled_alike(
    always: Callable[[str], Any], small_tokenizer: Any
) -> None:
    examples = [Example("1 + 2 =", " 3.0"), Example("5 - 3 =", " 2")]
    settings = GenerateSettings(max_new_tokens=1, extract=r"\d", match="number")
    found = Scorer(always("3"), small_tokenizer, examples, "generate", generate=settings).evaluate()
    assert (found.said, found.wanted) == (("3", "3"), ("3", "2"))
    found = Scorer(always("x"), small_tokenizer, examples, "generate", generate=settings).evaluate()
    assert found.said == (None, None)


def test_a_classifier_says_labels_and_a_loss_says_nothing(
    tiny_classifier: Callable[..., Any], tiny: Callable[..., Any], small_tokenizer: Any, cities: Callable[..., Path]
) -> None:
    found = strop.evaluate(tiny_classifier("llama"), small_tokenizer, strop.load_task(cities()))
    assert found.said is not None
    assert found.predicted is not None
    assert found.said == tuple(("france", "brazil")[int(value)] for value in found.predicted)
    assert set(found.wanted or ()) == {"france", "brazil"}
    numbers = strop.load_task(cities(labels="number", answer="{{ degree }}"))
    assert strop.evaluate(tiny_classifier("llama", 1), small_tokenizer, numbers).said is None
    assert Scorer(tiny("llama"), small_tokenizer, [Example("a b", " c d")], "perplexity").evaluate().said is None


def test_some_examples_of_an_evaluation_are_those_alone(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    examples = [Example(f"{number} + 1 =", f" {number + 1}", group="a") for number in range(4)]
    whole = Scorer(tiny("llama"), small_tokenizer, examples, "generate", generate=GenerateSettings(max_new_tokens=2))
    found = whole.evaluate()
    some = found.of_examples([3, 1])
    assert np.array_equal(some.loss, found.loss[[3, 1]])
    assert found.generated is not None
    assert some.generated == (found.generated[3], found.generated[1])
    assert some.of_example(0) == found.of_example(3)
    assert (some.count, some.score) == (2, "generate")
