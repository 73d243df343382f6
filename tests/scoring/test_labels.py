"""Tasks with labels: what the file may say, what a classifier is called with, and what its answers are judged by."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from tokenizers import processors

import strop
from strop.errors import TaskError, UsageError
from strop.scoring import ClassScorer, Evaluation, Scorer, compare
from strop.scoring.label_batches import encode_labelled, padded
from strop.statistics import METRICS
from strop.statistics.metrics import measure
from strop.tasks import Labels, load_task

TWO = Labels(("france", "brazil"), "accuracy")
CLASSIFIERS = ["llama", "gpt2", "gpt_neox", "gptj", "phi3", "bert", "roberta"]
Cities = Callable[..., Path]
Classifier = Callable[..., Any]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"labels": None}, "score: label needs labels, a list of names or the word number"),
        ({"score": "exact"}, "labels goes with score: label, not with score: exact"),
        ({"score": "exact", "labels": None, "pair": "{{ where }}"}, "pair goes with score: label"),
        ({"score": "exact", "labels": None, "metric": "f1"}, "metric goes with score: label"),
        ({"labels": ["france"]}, "labels needs two names or more"),
        ({"labels": ["france", "france"]}, "none twice"),
        ({"labels": [True, False]}, "labels"),
        ({"metric": "pearson"}, "metric: pearson does not go with labels that are names; use accuracy, f1, matthews"),
        ({"labels": "number", "metric": "f1"}, "labels that are number; use pearson, spearman"),
        ({"metric": "recall"}, "metric"),
        ({"pair": "{{ where }}", "chat": True}, "a chat has one text; write both into prompt and leave out pair"),
        ({"splits": {"held_select": 4}}, "held_select goes with a file called held"),
        (
            {"data": None, "splits": {"files": {"held": "cities.jsonl", "test": "cities.jsonl"}}},
            "either held, which select and test share, or these two",
        ),
        ({"labels": ["france", "peru"]}, "row 2: the answer 'brazil' is not one of the labels ['france', 'peru']"),
        ({"labels": "number"}, "row 1: the answer 'france' is not a finite number"),
        ({"prompt": ""}, "row 1: the prompt is empty"),
    ],
    ids=str,
)
def test_a_task_that_does_not_fit_is_refused_in_one_sentence(cities: Cities, keys: dict[str, Any], said: str) -> None:
    keys = {key: value for key, value in keys.items() if value is not None}
    path = cities(**keys)
    text = path.read_text()
    if "labels" not in keys and said.startswith(("score: label needs", "pair goes", "metric goes")):
        path.write_text("\n".join(line for line in text.splitlines() if not line.startswith(("labels", "- "))))
    if "data" not in keys and "files" in str(keys):
        path.write_text(path.read_text().replace("data: cities.jsonl\n", ""))
    with pytest.raises(TaskError) as raised:
        load_task(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_labels_pair_and_metric_are_part_of_the_fingerprint(cities: Cities) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"labels": ["brazil", "france"]}, {"metric": "matthews"}, {"pair": "{{ where }}"}, {"max_tokens": 9},
    ]  # fmt: skip
    assert len({load_task(cities(**keys)).fingerprint for keys in changes}) == len(changes)


def with_separator(tokenizer: Any) -> Any:
    """Return the tokenizer with a pair form of its own: A <|end|> B."""
    import copy

    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A <|end|> $B:1", special_tokens=[("<|end|>", 0)]
    )
    return other


def test_a_pair_is_written_in_the_tokenizers_own_form_or_with_a_line_break(
    cities: Cities, small_tokenizer: Any
) -> None:
    examples = load_task(cities(pair="{{ where }}")).examples("test")
    parted, plain = with_separator(small_tokenizer), small_tokenizer
    for tokenizer, between in ((parted, "<|end|>"), (plain, "\n")):
        texts = [tokenizer.decode(text.ids) for text in encode_labelled(examples, tokenizer, TWO, longest=99)]
        assert texts == [f"{example.prompt}{between}{example.pair}" for example in examples]


def test_long_texts_are_refused_unless_the_task_says_to_cut_them(cities: Cities, small_tokenizer: Any) -> None:
    examples = load_task(cities()).examples("test")
    with pytest.raises(
        TaskError, match=r"^row \d+ \(prompt '.*'\): \d+ tokens do not fit .* of 6; shorten .* max_tokens: 6"
    ):
        encode_labelled(examples, small_tokenizer, TWO, longest=6)
    cut = encode_labelled(examples, small_tokenizer, Labels(TWO.names, "accuracy", 5), longest=6)
    assert {len(text.ids) for text in cut} == {5}


def test_roberta_reads_as_many_tokens_as_it_has_positions_after_padding(
    cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any
) -> None:
    task = load_task(cities(prompt="{{ text * 20 }}", max_tokens=300))
    for model_type, longest in (("roberta", 127), ("bert", 128)):
        model = tiny_classifier(model_type)
        scorer = ClassScorer(model, small_tokenizer, task.examples("test"), task.labels)
        assert {batch.inputs["input_ids"].shape[1] for batch in scorer.batches} == {longest}
        assert np.isfinite(scorer.evaluate().loss).all()


def by_hand(
    model: Any, tokenizer: Any, examples: Sequence[Any], names: tuple[str, ...]
) -> tuple[list[float], list[float]]:
    losses, said = [], []
    for example in examples:
        ids = torch.tensor([tokenizer(example.prompt)["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].double()
        if names:
            losses.append(float(-torch.log_softmax(logits, -1)[names.index(example.answer)]))
            said.append(float(logits.argmax()))
        else:
            losses.append(float((logits[0] - float(example.answer)) ** 2))
            said.append(float(logits[0]))
    return losses, said


@pytest.mark.parametrize("model_type", CLASSIFIERS)
@pytest.mark.parametrize("labels", [["france", "brazil"], "number"])
def test_a_batch_says_what_each_text_says_by_itself(
    cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any, model_type: str, labels: Any
) -> None:
    number = labels == "number"
    task = load_task(cities(labels=labels, answer="{{ degree }}" if number else "{{ where }}"))
    model = tiny_classifier(model_type, 1 if number else 2)
    found = strop.evaluate(model, small_tokenizer, task)
    losses, said = by_hand(model, small_tokenizer, task.examples("test"), () if number else ("france", "brazil"))
    assert found.loss.tolist() == pytest.approx(losses, abs=1e-5)
    assert found.predicted is not None
    assert found.predicted.tolist() == pytest.approx(said, abs=1e-5)
    assert found.accuracy == (None if number else np.mean(found.predicted == found.actual))
    assert not model.training
    assert model.config.problem_type is None


def test_a_classifiers_evaluation_tells_categories(
    cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any
) -> None:
    task = load_task(cities(category="where"))
    found = strop.evaluate(tiny_classifier("llama", 2), small_tokenizer, task)
    assert found.categories == tuple(example.answer for example in task.examples("test"))
    said = found.predicted
    assert said is not None
    assert found.actual is not None
    assert found.macro == pytest.approx(np.mean([(said[found.actual == label] == label).mean() for label in (0, 1)]))


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox", "gptj"])
def test_left_padding_says_what_right_padding_says_with_edits_on(
    cities: Cities, tiny_classifier: Classifier, small_tokenizer: Any, model_type: str
) -> None:
    from strop.anatomy import StreamSite
    from strop.interventions import LowRankEdit, Positions, applied_interventions

    model = tiny_classifier(model_type)
    edit = LowRankEdit(StreamSite(1), "loreft", rank=2, positions=Positions(2, 2))
    drawn = {name: 2 * own for name, own in edit.initial_tensors((32, 32), init="paper").items()}
    examples = load_task(cities()).examples("test")[:9]
    texts = encode_labelled(examples, small_tokenizer, TWO, longest=99)
    right = padded(texts, range(9), pad=0, classes=True).inputs
    assert len({len(text.ids) for text in texts}) > 1
    left = {name: tensor.clone() for name, tensor in right.items()}
    for row, text in enumerate(texts):
        for name in left:
            left[name][row] = right[name][row].roll(right[name].shape[1] - len(text.ids))
    left["position_ids"] = (left["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        plain = model(**right).logits
        with applied_interventions(model, [edit], tensors=[drawn]):
            edited = model(**right).logits
            assert torch.allclose(model(**left).logits, edited, atol=1e-5)
    assert not torch.allclose(plain, edited, atol=1e-2)


def test_models_of_the_wrong_kind_are_refused_in_one_sentence(
    cities: Cities, facts: Path, tiny: Classifier, tiny_classifier: Classifier, small_tokenizer: Any
) -> None:
    labelled, answers = load_task(cities()), load_task(facts)
    for model, task, said in (
        (tiny("llama"), labelled, r"needs a classifier, and LlamaForCausalLM is none; load it with .*labels=2"),
        (tiny_classifier("llama", 3), labelled, r"^The task has 2 labels, and this LlamaFor.* has 3; load it"),
        (
            tiny_classifier("llama"),
            answers,
            r"^LlamaForSequenceClassification does not predict the next token, and score",
        ),
        (tiny_classifier("bert"), answers, r"^BertForSequenceClassification does not predict the next token"),
        (tiny_classifier("llama", pad_token_id=None), labelled, r"has no pad_token_id in its config"),
    ):
        with pytest.raises((UsageError, TaskError), match=said) as raised:
            strop.evaluate(model, small_tokenizer, task)
        assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="score: label is a classifier's"):
        Scorer(tiny("llama"), small_tokenizer, labelled.examples("test"), "label")


def evaluation(actual: list[float], predicted: list[float], metric: str, groups: list[int] | None = None) -> Evaluation:
    a, p = np.array(actual), np.array(predicted)
    names = ("no", "yes", "perhaps")[: int(max(2, a.max() + 1))] if METRICS[metric].classes else ()
    return Evaluation(
        "label", (a - p) ** 2, np.ones(len(a), dtype=np.int64), a == p if names else None,
        groups=None if groups is None else np.array(groups), actual=a, predicted=p, labels=Labels(names, metric),
    )  # fmt: skip


def test_metrics_by_hand() -> None:
    # tp 3, fn 1, fp 2, tn 4
    actual, predicted = [1.0] * 4 + [0.0] * 6, [1.0, 1, 1, 0, 1.0, 1, 0, 0, 0, 0]
    pytest.importorskip("sklearn")
    expected = {"accuracy": 0.7, "f1": 6 / 9, "matthews": (3 * 4 - 2 * 1) / (5 * 4 * 6 * 5) ** 0.5}
    for name, value in expected.items():
        found = evaluation(actual, predicted, name)
        assert found.metric == (name, pytest.approx(value))
        assert found.figures.to_json()[name] == pytest.approx(value)
        assert found.figures.merit == (pytest.approx(value), pytest.approx(-0.3))
    x, y = [0.0, 1, 2, 3], [1.0, 0, 2, 5]
    assert measure("pearson", np.array(x), np.array(y), 1) == pytest.approx(7 / (5 * 14) ** 0.5)
    assert measure("spearman", np.array(x), np.array(y), 1) == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_a_metric_that_is_not_defined_is_zero() -> None:
    pytest.importorskip("sklearn")
    same, mixed = np.zeros(4), np.array([0.0, 1, 0, 1])
    assert [measure(name, mixed, same, 2) for name in ("f1", "matthews")] == [0, 0]
    assert [measure(name, mixed, same, 1) for name in ("pearson", "spearman")] == [0, 0]


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_sums_over_examples_give_the_references_value(name: str, count: int) -> None:
    if METRICS[name].needs_scikit_learn:
        pytest.importorskip("sklearn")
    generator = np.random.default_rng(count)
    for _ in range(20):
        actual = generator.integers(0, count, 30).astype(float)
        predicted = np.where(generator.random(30) < 0.4, actual, generator.integers(0, count, 30)).astype(float)
        sums = METRICS[name].addends(actual, predicted, count).sum(0)
        assert METRICS[name].value(sums) == pytest.approx(measure(name, actual, predicted, count), abs=1e-12)


def test_without_scikit_learn_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^metric: f1 is computed by scikit-learn, .*pip install 'strop\[glue\]'\.$"):
        measure("f1", np.array([0.0, 1]), np.array([0.0, 1]), 2)
    assert measure("accuracy", np.array([0.0, 1]), np.array([0.0, 1]), 2) == 1


@pytest.mark.parametrize("name", ["f1", "matthews", "pearson", "spearman"])
def test_the_interval_is_that_of_plain_resampling_and_the_p_value_that_of_plain_exchanges(name: str) -> None:
    if METRICS[name].needs_scikit_learn:
        pytest.importorskip("sklearn")
    generator = np.random.default_rng(1)
    actual = generator.integers(0, 2, 80).astype(float)
    before = np.where(generator.random(80) < 0.3, actual, generator.integers(0, 2, 80)).astype(float)
    after = np.where(generator.random(80) < 0.5, actual, before).astype(float)
    if not METRICS[name].classes:
        actual, before, after = (part + generator.normal(0, 0.3, 80) for part in (actual, before, after))
    base, edited = (evaluation(list(actual), list(said), name) for said in (before, after))
    found = compare(base, edited)
    assert found.gain == pytest.approx(measure(name, actual, after, 2) - measure(name, actual, before, 2))

    metric, drawn = METRICS[name], generator.integers(0, 80, (2000, 80))
    resampled = [metric.addends(actual, said, 2)[drawn].sum(1) for said in (after, before)]
    plain = [float(metric.value(one) - metric.value(other)) for one, other in zip(*resampled, strict=True)]
    assert found.ci95 == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.03)
    assert found.ci95[0] < found.gain < found.ci95[1]
    exchanged = []
    ranks = [scipy.stats.rankdata(said) for said in (before, after)] if name == "spearman" else [before, after]
    judged = "pearson" if name == "spearman" else name
    right = scipy.stats.rankdata(actual) if name == "spearman" else actual
    for _ in range(1000):
        keep = generator.random(80) < 0.5
        one, other = np.where(keep, *ranks), np.where(keep, *ranks[::-1])
        sums = [METRICS[judged].addends(right, said, 2).sum(0) for said in (other, one)]
        exchanged.append(abs(float(METRICS[judged].value(sums[0]) - METRICS[judged].value(sums[1]))))
    assert found.p_value == pytest.approx(np.mean(np.array(exchanged) >= abs(found.gain)), abs=0.03)
    assert (found.fixed, found.broken) == (int((edited.loss < base.loss).sum()), int((edited.loss > base.loss).sum()))


def test_no_difference_has_no_gain_and_groups_widen_the_interval() -> None:
    pytest.importorskip("sklearn")
    generator = np.random.default_rng(0)
    actual = np.repeat(generator.integers(0, 2, 20), 5).astype(float)
    before, after = np.repeat(generator.integers(0, 2, 20), 5).astype(float), actual
    alone, grouped = (
        compare(*(evaluation(list(actual), list(said), "matthews", groups) for said in (before, after)))
        for groups in (None, [index // 5 for index in range(100)])
    )
    width = [found.ci95[1] - found.ci95[0] for found in (alone, grouped)]
    assert width[1] > 1.5 * width[0]
    same = evaluation(list(actual), list(before), "matthews")
    none = compare(same, same)
    assert (none.gain, none.ci95, none.p_value, none.fixed, none.broken) == (0, (0, 0), 1, 0, 0)


def test_evaluations_of_other_labels_are_not_compared() -> None:
    right, other = (evaluation([1.0, 0.0], [1.0, 1.0], name) for name in ("accuracy", "f1"))
    with pytest.raises(UsageError, match="Only evaluations of the same examples"):
        compare(right, other)
