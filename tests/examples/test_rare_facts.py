"""The small fact world: how often it states what, the task it makes, and three methods on a model that learned it."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from examples.rare_facts.__main__ import SMALL, main
from examples.rare_facts.models import LONGEST, SHAPES, build, learn, word_tokenizer
from examples.rare_facts.world import HOMES, TRADES, Fact, World, name_of_bin, names_of_bins, write_task

import strop

WORLD = World(people=12, exponent=1.0, generic=0.45, seed=1)


def test_facts_are_as_frequent_as_zipfs_law_says() -> None:
    facts = WORLD.facts
    assert len(facts) == len({fact.prompt for fact in facts}) == 24
    assert [facts[0].weight / fact.weight for fact in facts] == pytest.approx(range(1, 25))
    assert sum(fact.weight for fact in facts) == pytest.approx(1)
    assert all(fact.answer in {"home": HOMES, "trade": TRADES}[fact.relation] for fact in facts)
    assert facts == World(people=12, exponent=1.0, generic=0.45, seed=1).facts


def test_the_counts_are_those_of_the_text() -> None:
    sentences, counts = WORLD.text(sentences=2000, seed=4)
    seen = Counter(sentences)
    assert {fact: seen[f"{fact.prompt} {fact.answer} ."] for fact in WORLD.facts} == counts
    generic = sum(" the " in sentence for sentence in sentences)
    assert generic + sum(counts.values()) == 2000
    assert generic / 2000 == pytest.approx(0.45, abs=0.04)
    assert (sentences, counts) == WORLD.text(sentences=2000, seed=4)
    assert {word for sentence in sentences for word in sentence.split()} <= set(WORLD.words)


def test_a_category_is_named_by_the_counts_it_holds() -> None:
    bins = (0, 5, 20)
    assert [name_of_bin(count, bins) for count in (0, 4, 5, 19, 20, 900)] == [
        "0-4 times", "0-4 times", "5-19 times", "5-19 times", "20 times or more", "20 times or more",
    ]  # fmt: skip
    assert list(names_of_bins(bins)) == ["0-4 times", "5-19 times", "20 times or more"]


def test_the_task_asks_for_every_fact_once_and_keeps_a_person_in_one_split(tmp_path: Path) -> None:
    counts = {fact: index for index, fact in enumerate(WORLD.facts)}
    task = strop.load_task(write_task(tmp_path, counts, bins=(0, 10)))
    of_split = {split: task.examples(split) for split in ("train", "select", "test")}
    asked = {example.prompt: (example.answer, example.category) for rows in of_split.values() for example in rows}
    assert asked == {fact.prompt: (f" {fact.answer}", name_of_bin(count, (0, 10))) for fact, count in counts.items()}
    people = [{example.prompt.split()[0] for example in rows} for rows in of_split.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 12


def test_a_word_is_a_token_and_the_answer_is_one() -> None:
    tokenizer = word_tokenizer(WORLD.words)
    fact = WORLD.facts[0]
    ids = tokenizer(f"{fact.prompt} {fact.answer} .")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [*fact.prompt.split(), fact.answer, "."]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_learns_what_is_stated_often(shape: str) -> None:
    tokenizer = word_tokenizer(WORLD.words)
    model = build(shape, vocabulary=len(tokenizer), hidden=16, layers=2, seed=0)
    sentences, _ = WORLD.text(sentences=512, seed=4)
    loss = learn(model, tokenizer, sentences, window=4, batch=8, rate=1e-2, seed=0)
    assert model.config.model_type == shape
    assert model.config.max_position_embeddings == LONGEST
    assert not model.training
    assert loss < 0.9 * np.log(len(tokenizer))


def test_a_small_run_shows_what_each_method_gains_by_frequency(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--small", "--shapes", "mixtral", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["results"]["mixtral"]
    assert list(figures) == ["laser", "eigenpruning", "loreft"]
    counted = Counter(
        name_of_bin(count, SMALL.bins)
        for fact, count in SMALL.world.text(sentences=SMALL.sentences, seed=SMALL.seed)[1].items()
        if fact.person in people_of_test(tmp_path / "mixtral" / "rare-facts.yaml")
    )
    for method, own in figures.items():
        result = json.loads((tmp_path / "mixtral" / method / "result.json").read_text(encoding="utf-8"))
        assert own["gain"] == result["comparison"]["test"]["gain"]
        assert f"| mixtral, {method} | {100 * own['base']['accuracy']:.1f} |" in printed
        if own["by_frequency"]:
            assert {row["name"]: row["count"] for row in own["by_frequency"]} == counted
            total = sum(row["count"] * row["gain"] for row in own["by_frequency"])
            assert total / sum(counted.values()) == pytest.approx(own["gain"])
    searched = json.loads((tmp_path / "mixtral" / "laser" / "config.json").read_text(encoding="utf-8"))
    assert "exhaustive" in json.dumps(searched)


def people_of_test(path: Path) -> set[str]:
    return {example.prompt.split()[0] for example in strop.load_task(path).examples("test")}


def test_a_fact_is_a_sentence_of_its_own() -> None:
    assert Fact("anna", "home", "oslo", 0.5).prompt == "anna lives in"
    assert Fact("anna", "trade", "baker", 0.5).prompt == "anna works as"
