"""Scoring: the batched figures are those of a plain loop over full logits, whole or from a block on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from strop.errors import UsageError
from strop.scoring import Evaluation, Scorer
from strop.tasks import Example

THREE_FAMILIES = ["llama", "gpt2", "gpt_neox"]
ANSWERS = [" France", " Brazil", " Paris and", " 144", " = 12 x", " é", " the city of Lyon is in Brazil"]
QUESTIONS = ["The city of Lyon is in", "1 + 2 =", "The", "and the capital of Brazil is Brasilia and", "é 🙂"]
EXAMPLES = [
    Example(question, answer, choices=(answer, *(other for other in ANSWERS[:3] if other != answer)))
    for question in QUESTIONS
    for answer in ANSWERS
]
PLAIN = [dataclasses.replace(example, choices=None) for example in EXAMPLES]
SAME = {"rtol": 2e-4, "atol": 2e-5}


def assert_same(one: Evaluation, other: Evaluation) -> None:
    assert one.score == other.score
    np.testing.assert_allclose(one.loss, other.loss, **SAME)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    for mine, theirs in ((one.correct, other.correct), (one.rank, other.rank)):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs)


def answer_greedily(model: Any, tokenizer: Any, prompt: str, count: int) -> str:
    """Return what the model writes, its vocabulary cut to tokens of plain letters so that text and tokens agree."""
    inputs = tokenizer(prompt, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :]))


def read_only_words(model: Any, tokenizer: Any) -> Any:
    """Let a model predict only tokens such as ` France`."""
    words = [index for token, index in tokenizer.get_vocab().items() if token.startswith("Ġ") and len(token) > 2]
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        others = torch.ones(head.shape[0], dtype=torch.bool)
        others[words] = False
        head[others] = 0.0
    return model


@pytest.mark.parametrize("family", THREE_FAMILIES)
@pytest.mark.parametrize("score", ["exact", "first_token"])
def test_answers_are_scored_as_by_hand(
    tiny: Callable[..., Any], small_tokenizer: Any, by_hand: Any, family: str, score: Any
) -> None:
    model = read_only_words(tiny(family), small_tokenizer)
    examples = [*PLAIN, *(Example(q, answer_greedily(model, small_tokenizer, q, n)) for q in QUESTIONS for n in (1, 3))]
    found = Scorer(model, small_tokenizer, examples, score).evaluate()
    losses, rights, ranks = by_hand(model, small_tokenizer, examples, first_only=score == "first_token")
    np.testing.assert_allclose(found.loss, losses, **SAME)
    assert found.correct is not None
    assert found.correct.tolist() == rights
    assert {True, False} == set(rights)
    if score == "first_token":
        assert found.rank is not None
        assert found.rank.tolist() == ranks
        assert (found.rank == 0).tolist() == rights
        assert found.top(5) == sum(rank < 5 for rank in ranks) / len(ranks)
        assert found.top(10) == sum(rank < 10 for rank in ranks) / len(ranks)
    else:
        assert found.rank is None
        assert found.tokens.tolist() == [len(small_tokenizer(e.answer)["input_ids"]) for e in examples]
    assert found.accuracy == sum(rights) / len(rights)
    assert found.mean_loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)


ENDINGS = (" France", " Brazil", " France is in", " France is", " Brazil and", " 1", " 2", " France and")


@pytest.mark.parametrize("family", THREE_FAMILIES)
@pytest.mark.parametrize("ending_alike", [False, True])
def test_choices_are_scored_as_by_hand(
    tiny: Callable[..., Any], small_tokenizer: Any, by_hand: Any, family: str, ending_alike: bool
) -> None:
    model = tiny(family)
    examples = [Example(q, end, ENDINGS) for q in QUESTIONS for end in ENDINGS] if ending_alike else EXAMPLES
    found = Scorer(model, small_tokenizer, examples, "choice").evaluate()
    rights = []
    measured: dict[Any, list[float]] = {}
    for index, example in enumerate(examples):
        texts = [Example(example.prompt, choice) for choice in example.choices or ()]
        if (example.prompt, example.choices) not in measured:
            measured[example.prompt, example.choices] = by_hand(model, small_tokenizer, texts)[0]
        losses = measured[example.prompt, example.choices]
        sums = [
            -loss * len(small_tokenizer(text.answer)["input_ids"]) for loss, text in zip(losses, texts, strict=True)
        ]
        right = (example.choices or ()).index(example.answer)
        rights.append(sums.index(max(sums)) == right)
        assert found.loss[index] == pytest.approx(losses[right], rel=1e-4)
    assert found.correct is not None
    assert found.correct.tolist() == rights
    assert {True, False} == set(rights)


@pytest.mark.parametrize("family", THREE_FAMILIES)
def test_perplexity_is_scored_as_by_hand(
    tiny: Callable[..., Any], small_tokenizer: Any, by_hand: Any, family: str
) -> None:
    model = tiny(family)
    examples = [*PLAIN, Example("", "The city of Lyon is in France"), Example("", "1 + 2")]
    found = Scorer(model, small_tokenizer, examples, "perplexity").evaluate()
    losses, _, _ = by_hand(model, small_tokenizer, examples)
    np.testing.assert_allclose(found.loss, losses, **SAME)
    assert (found.correct, found.rank, found.accuracy) == (None, None, None)
    total = sum(loss * count for loss, count in zip(losses, found.tokens, strict=True))
    assert found.perplexity == pytest.approx(np.exp(total / found.tokens.sum()), rel=1e-4)
    assert found.figures.to_json()["perplexity"] == found.perplexity


@pytest.mark.parametrize(
    ("family", "score"),
    [("llama", "exact"), ("llama", "first_token"), ("llama", "choice"), ("llama", "perplexity"), ("gpt2", "exact"),
     ("gpt_neox", "exact")],
)  # fmt: skip
def test_one_by_one_and_in_batches_the_scores_are_the_same(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str, score: Any
) -> None:
    model = tiny(family)
    examples = EXAMPLES if score == "choice" else PLAIN
    together = Scorer(model, small_tokenizer, examples, score)
    assert any(batch.input_ids.shape[0] > 1 for batch in together.batches)
    whole = together.evaluate()
    alone = [Scorer(model, small_tokenizer, [example], score).evaluate() for example in examples]
    np.testing.assert_allclose(whole.loss, [float(one.loss[0]) for one in alone], **SAME)
    if whole.correct is not None:
        assert whole.correct.tolist() == [bool(one.correct[0]) for one in alone if one.correct is not None]
    backwards = Scorer(model, small_tokenizer, examples[::-1], score).evaluate()
    np.testing.assert_allclose(whole.loss, backwards.loss[::-1], **SAME)


@pytest.mark.parametrize("family", THREE_FAMILIES)
def test_exact_means_that_greedy_decoding_writes_the_answer(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str
) -> None:
    model = read_only_words(tiny(family), small_tokenizer)
    questions = [f"{question} {number}" for question in QUESTIONS for number in range(2)]
    right = [Example(q, answer_greedily(model, small_tokenizer, q, 1 + i % 4)) for i, q in enumerate(questions)]
    wrong_at_the_end = [dataclasses.replace(e, answer=e.answer + " France Lyon Brazil") for e in right]
    wrong_at_once = [dataclasses.replace(e, answer=" zebra" + e.answer) for e in right]
    examples = [*right, *wrong_at_the_end, *wrong_at_once]
    found = Scorer(model, small_tokenizer, examples, "exact").evaluate()
    assert found.correct is not None
    for example, correct in zip(examples, found.correct, strict=True):
        wanted = small_tokenizer(example.answer)["input_ids"]
        assert correct == (answer_greedily(model, small_tokenizer, example.prompt, len(wanted)) == example.answer)
    assert found.correct[: len(right)].all()
    assert not found.correct[-len(right) :].any()


@pytest.mark.parametrize("family", THREE_FAMILIES)
@pytest.mark.parametrize("score", ["exact", "first_token", "choice", "perplexity"])
def test_from_any_block_on_the_scores_are_those_of_a_whole_pass(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str, score: Any
) -> None:
    scorer = Scorer(tiny(family), small_tokenizer, EXAMPLES, score)
    whole = scorer.evaluate()
    carried, reached = None, 0
    for layer in range(scorer.anatomy.layer_count + 1):
        assert_same(scorer.evaluate(start=layer, states=scorer.states_entering(layer)), whole)
        carried, reached = scorer.states_entering(layer, start=reached, states=carried), layer
        assert_same(scorer.evaluate(start=layer, states=carried), whole)


@pytest.mark.parametrize("family", THREE_FAMILIES)
def test_from_a_block_on_an_edit_in_or_above_it_shows_whole(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str
) -> None:
    model = tiny(family)
    scorer = Scorer(model, small_tokenizer, PLAIN, "exact")
    before = scorer.evaluate()
    states = scorer.states_entering(1)
    with torch.no_grad():
        for parameter in scorer.anatomy.blocks(model)[1:].parameters():
            parameter.mul_(0.5)
    after = scorer.evaluate()
    assert_same(scorer.evaluate(start=1, states=states), after)
    assert np.abs(after.loss - before.loss).max() > 0.01


@pytest.mark.parametrize("family", THREE_FAMILIES)
def test_the_kept_states_are_what_the_model_computes_there(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str
) -> None:
    model = tiny(family)
    scorer = Scorer(model, small_tokenizer, PLAIN, "exact")
    for layer in range(scorer.anatomy.layer_count):
        for batch, state in zip(scorer.batches, scorer.states_entering(layer), strict=True):
            with torch.no_grad():
                expected = model(batch.input_ids, output_hidden_states=True).hidden_states[layer]
            torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)
    assert scorer.state_bytes == scorer.tokens * 32 * 4


@pytest.mark.parametrize(
    ("family", "dropout"),
    [
        ("llama", {"attention_dropout": 0.5}),
        ("gpt2", {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}),
        ("gpt_neox", {"hidden_dropout": 0.5, "attention_dropout": 0.5}),
    ],
)
def test_dropout_is_off_while_scoring_and_the_mode_comes_back(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str, dropout: dict[str, float]
) -> None:
    expected = Scorer(tiny(family), small_tokenizer, PLAIN, "exact").evaluate()
    model = tiny(family, **dropout).train()
    scorer = Scorer(model, small_tokenizer, PLAIN, "exact")
    scorer.anatomy.blocks(model)[1].eval()
    modes = [module.training for module in model.modules()]
    assert_same(scorer.evaluate(), expected)
    assert_same(scorer.evaluate(start=2, states=scorer.states_entering(2)), expected)
    assert [module.training for module in model.modules()] == modes
    with torch.no_grad():
        ids = scorer.batches[-1].input_ids
        assert not torch.equal(model(ids).logits, model(ids).logits)  # so dropout would have shown


def test_the_mode_comes_back_after_an_exception(
    tiny: Callable[..., Any], small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama").train()
    scorer = Scorer(model, small_tokenizer, PLAIN, "exact")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(model.lm_head), "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        scorer.evaluate()
    assert all(module.training for module in model.modules())
    assert not model.lm_head._forward_pre_hooks
    assert all("forward" not in block.__dict__ for block in scorer.anatomy.blocks(model))


def test_scoring_leaves_no_gradient_behind(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    model = tiny("llama")
    Scorer(model, small_tokenizer, PLAIN, "exact").evaluate()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_half_precision_models_are_scored_in_full_precision(
    tiny: Callable[..., Any], small_tokenizer: Any, by_hand: Any
) -> None:
    model = tiny("llama").to(torch.bfloat16)
    found = Scorer(model, small_tokenizer, PLAIN, "exact").evaluate()
    losses, _, _ = by_hand(model, small_tokenizer, PLAIN)
    np.testing.assert_allclose(found.loss, losses, rtol=0.05)
    assert found.loss.dtype == np.float64


def test_nothing_to_score_is_refused(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="There are no examples to score"):
        Scorer(tiny("llama"), small_tokenizer, [], "exact")


def test_an_evaluation_whose_parts_differ_in_length_is_refused() -> None:
    with pytest.raises(UsageError, match="An evaluation with 3 losses has 2 values of correct"):
        Evaluation("exact", np.zeros(3), np.ones(3, dtype=np.int64), np.array([True, False]))


def test_the_summary_holds_what_the_score_measures() -> None:
    losses, tokens = np.array([1.0, 3.0]), np.array([1, 3])
    exact = Evaluation("exact", losses, tokens, np.array([True, False]))
    assert exact.figures.to_json() == {"accuracy": 0.5, "loss": 2.0, "count": 2}
    assert exact.figures.merit == (0.5, -2.0)
    first = Evaluation("first_token", losses, tokens, np.array([True, False]), np.array([0, 7]))
    assert first.figures.to_json() == {"accuracy": 0.5, "loss": 2.0, "count": 2, "top5": 0.5, "top10": 1.0}
    plain = Evaluation("perplexity", losses, tokens)
    assert plain.figures.to_json() == {
        "accuracy": None,
        "loss": 2.0,
        "count": 2,
        "perplexity": pytest.approx(np.exp(10 / 4)),
    }
    assert plain.figures.merit == (0.0, -2.0)
