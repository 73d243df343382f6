"""Prompts in an encoder and answers in a decoder, against raw transformers calls."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.paired import FAMILIES, make_tiny_paired, paired_tokenizer

import strop
from strop.anatomy import Anatomy
from strop.errors import TaskError, UsageError
from strop.scoring import Scorer, evaluate
from strop.tasks import Example, Task
from strop.tasks.task_file import GenerateSettings

SAME = {"rtol": 1e-4, "atol": 1e-4}
EXAMPLES = [
    Example("The city of Lyon is in", " France"),
    Example("Paris", " Paris is a city"),
    Example("The city of Curitiba, which is large, is in", " Brazil"),
    Example("The sky is", " red is"),
]
BEGUN = {"t5": [1], "bart": [2, 0]}


def by_hand(model: Any, tokenizer: Any, example: Example) -> tuple[Any, list[int]]:
    """Return the log-probabilities at each answer token, (tokens, vocabulary), and the answer: one text alone."""
    answer = tokenizer(example.answer.lstrip(), add_special_tokens=False)["input_ids"]
    begun = BEGUN[model.config.model_type]
    ids = torch.tensor([tokenizer(example.prompt)["input_ids"]])
    with torch.no_grad():
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([begun + answer[:-1]])).logits
    return logits[0, len(begun) - 1 :].double().log_softmax(-1), answer


@pytest.mark.parametrize("model_type", ["t5", "bart"])
@pytest.mark.parametrize("score", ["exact", "first_token", "perplexity"])
def test_answers_are_scored_in_the_decoder_as_by_hand(model_type: str, score: Any) -> None:
    model, tokenizer = make_tiny_paired(model_type), paired_tokenizer(model_type)
    anatomy = Anatomy.of(model, family=FAMILIES[model_type])
    scorer = Scorer(model, tokenizer, EXAMPLES, score, anatomy=anatomy)
    assert len(scorer.batches) == 1  # padded
    found = scorer.evaluate()
    for index, example in enumerate(EXAMPLES):
        said, answer = by_hand(model, tokenizer, example)
        own = said[range(len(answer)), answer]
        expected = own[:1] if score == "first_token" else own
        assert found.loss[index] == pytest.approx(-float(expected.mean()), rel=1e-4)
        assert found.tokens[index] == len(expected)
        if found.correct is not None:
            assert bool(found.correct[index]) == (said.argmax(-1).tolist()[: len(expected)] == answer[: len(expected)])
        if score == "first_token":
            assert found.rank is not None
            assert found.rank[index] == int((said[0] > own[0]).sum())
    alone = [Scorer(model, tokenizer, [one], score, anatomy=anatomy).evaluate() for one in EXAMPLES]
    np.testing.assert_allclose(found.loss, [float(one.loss[0]) for one in alone], **SAME)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_choices_share_a_prompt_and_are_compared_by_their_sums(model_type: str) -> None:
    model, tokenizer = make_tiny_paired(model_type), paired_tokenizer(model_type)
    choices = (" France", " Brazil", " France is", " red")
    examples = [Example(one.prompt, choice, choices) for one in EXAMPLES for choice in choices]
    anatomy = Anatomy.of(model, family=FAMILIES[model_type])
    scorer = Scorer(model, tokenizer, examples, "choice", anatomy=anatomy)
    found = scorer.evaluate()
    assert found.correct is not None
    for index, example in enumerate(examples):
        sums = []
        for choice in choices:
            said, answer = by_hand(model, tokenizer, Example(example.prompt, choice))
            sums.append(float(said[range(len(answer)), answer].sum()))
        own = choices.index(example.answer)
        assert found.correct[index] == (sums.index(max(sums)) == own)
        assert found.loss[index] * found.tokens[index] == pytest.approx(-sums[own], rel=1e-4)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_what_is_generated_is_what_transformers_generates_from_one_prompt(model_type: str) -> None:
    model, tokenizer = make_tiny_paired(model_type), paired_tokenizer(model_type)
    anatomy = Anatomy.of(model, family=FAMILIES[model_type])
    settings = GenerateSettings(max_new_tokens=5)
    scorer = Scorer(model, tokenizer, EXAMPLES, "generate", generate=settings, anatomy=anatomy)
    found = scorer.evaluate()
    expected = []
    for example in EXAMPLES:
        ids = torch.tensor([tokenizer(example.prompt)["input_ids"]])
        begun = torch.tensor([BEGUN[model_type]])
        mask = torch.ones_like(ids)
        written = model.generate(ids, attention_mask=mask, decoder_input_ids=begun, max_new_tokens=5, do_sample=False)
        expected.append(tokenizer.decode(written[0], skip_special_tokens=True, clean_up_tokenization_spaces=False))
    assert found.generated is not None
    assert list(found.generated) == expected
    assert len(set(expected)) > 1


def test_an_encoder_decoder_is_loaded_as_such_and_evaluated(tmp_path: Path) -> None:
    tokenizer = paired_tokenizer()
    make_tiny_paired().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, again = strop.load(tmp_path)
    assert type(model).__name__ == "T5ForConditionalGeneration"
    task = Task("made", "exact", {"test": tuple(EXAMPLES)})
    found = evaluate(model, again, task, family=FAMILIES["t5"])
    expected = evaluate(make_tiny_paired(), tokenizer, task, family=FAMILIES["t5"])
    np.testing.assert_array_equal(found.loss, expected.loss)


def test_a_decoder_without_a_start_and_an_answer_without_a_token_are_refused() -> None:
    tokenizer = paired_tokenizer()
    model = make_tiny_paired()
    anatomy = Anatomy.of(model, family=FAMILIES["t5"])
    with pytest.raises(TaskError, match="the answer '  ' has no token of its own; drop the row"):
        Scorer(model, tokenizer, [Example("The sky is", "  ")], "exact", anatomy=anatomy)
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    with pytest.raises(UsageError) as refused:
        Scorer(model, tokenizer, EXAMPLES, "exact", anatomy=anatomy)
    assert str(refused.value) == (
        "This T5ForConditionalGeneration does not say what its decoder starts with; set "
        "model.config.decoder_start_token_id."
    )
