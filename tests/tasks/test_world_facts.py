"""The shipped facts hold what docs/world-facts.md promises of them."""

import functools
import importlib.util
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from strop.tasks import Example, load_task

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "src" / "strop" / "tasks" / "builtin" / "world-facts.jsonl"
DOC = ROOT / "docs" / "world-facts.md"
TASKS = ("world-facts", "world-facts-all")
KEYS = {"prompt", "answer", "paraphrases", "relation", "subject", "group", "popularity"}

shipped = functools.cache(load_task)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def prompts_of(row: dict[str, Any]) -> list[str]:
    return [row["prompt"], *row["paraphrases"]]


def test_size_and_counts(rows: list[dict[str, Any]]) -> None:
    counts = Counter(row["relation"] for row in rows)
    assert DATA.stat().st_size < 2_000_000
    assert len(rows) >= 6_000
    assert len(counts) >= 8
    assert min(counts.values()) >= 50
    assert counts["city-country"] <= 0.6 * len(rows)


def test_file_is_plain_utf8_json_lines() -> None:
    text = DATA.read_bytes().decode("utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    assert "\\u" not in text  # letters are written, not escaped
    assert all(line.startswith("{") for line in text.splitlines())


def test_every_row_has_the_same_keys_of_the_right_types(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert set(row) == KEYS
        assert all(
            isinstance(row[key], str) and row[key] for key in ("prompt", "answer", "relation", "subject", "group")
        )
        assert row["popularity"] is None or type(row["popularity"]) is int


def test_paraphrases_are_three_other_prompts(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert len(row["paraphrases"]) == 3
        assert len(set(prompts_of(row))) == 4, row


def test_prompts_name_the_subject_and_stop_before_the_space(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for prompt in prompts_of(row):
            assert row["subject"] in prompt
            assert prompt == prompt.strip()
            assert "  " not in prompt
            assert "{" not in prompt


def test_answers_start_with_one_space_and_are_short(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert re.fullmatch(r" \S+(?: \S+){0,3}", row["answer"]), row


def test_no_answer_is_spelled_out_in_its_subject(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        answer = row["answer"].strip().removeprefix("the ").casefold()
        assert answer not in row["subject"].casefold().split(), row
        if " " in answer:
            assert answer not in row["subject"].casefold(), row


def test_each_relation_and_subject_has_one_row(rows: list[dict[str, Any]]) -> None:
    counts = Counter((row["relation"], row["subject"]) for row in rows)
    assert [key for key, count in counts.items() if count > 1] == []


def test_no_prompt_or_paraphrase_has_two_answers_or_two_rows(rows: list[dict[str, Any]]) -> None:
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        for prompt in prompts_of(row):
            owners[prompt].append(row["answer"])
    assert {prompt: answers for prompt, answers in owners.items() if len(answers) > 1} == {}


def test_popularity_is_a_population_or_null(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        populated = row["relation"] in {"city-country", "us-city-state"} or row["relation"].startswith("country-")
        assert (row["popularity"] is not None) == populated, row
        assert row["popularity"] is None or row["popularity"] > 0, row


def test_cities_come_largest_first_and_no_country_dominates(rows: list[dict[str, Any]]) -> None:
    cities = [row for row in rows if row["relation"] == "city-country"]
    sizes = [row["popularity"] for row in cities]
    assert sizes == sorted(sizes, reverse=True)
    assert max(Counter(row["answer"] for row in cities).values()) <= 150


def test_countries_are_spelled_alike_as_answers(rows: list[dict[str, Any]]) -> None:
    countries = {r["answer"] for r in rows if r["relation"] in {"city-country", "airport-country", "capital-country"}}
    assert {" the Netherlands", " the United Kingdom", " South Korea", " Russia", " Iran"} <= countries
    # no country appears both with and without its article, nor under a long official name
    assert {c for c in countries if c.startswith(" the ") and c.removeprefix(" the") in countries} == set()
    assert [c for c in countries if re.search(r"Federation|Islamic|People's|\(|,", c)] == []


@pytest.mark.parametrize(
    ("relation", "subject", "answer"),
    [
        ("city-country", "Guangzhou", " China"),
        ("us-city-state", "Honolulu", " Hawaii"),
        ("airport-country", "CDG", " France"),
        ("country-capital", "Kazakhstan", " Astana"),
        ("capital-country", "Amsterdam", " the Netherlands"),
        ("country-continent", "New Zealand", " Oceania"),
        ("country-currency", "Japan", " Japanese yen"),
        ("country-currency-code", "United States", " USD"),
        ("currency-code-name", "EUR", " euro"),
        ("country-adjective", "Netherlands", " Dutch"),
        ("country-language", "Brazil", " Portuguese"),
        ("country-internet-domain", "Germany", " .de"),
        ("country-dialling-code", "France", " +33"),
        ("country-iso-code", "Switzerland", " CHE"),
        ("language-code", "French", " fr"),
        ("element-symbol", "gold", " Au"),
        ("symbol-element", "Fe", " iron"),
        ("element-number", "carbon", " 6"),
        ("number-element", "92", " uranium"),
    ],
)
def test_known_facts(rows: list[dict[str, Any]], relation: str, subject: str, answer: str) -> None:
    assert [r["answer"] for r in rows if (r["relation"], r["subject"]) == (relation, subject)] == [answer]


@pytest.mark.parametrize(
    ("relation", "subject"),
    [
        ("city-country", "London"),  # Canada has one as well
        ("city-country", "Jerusalem"),  # disputed
        ("country-capital", "South Africa"),  # three capitals
        ("country-capital", "Georgia"),  # a US state too
        ("country-continent", "Turkey"),  # two continents
        ("country-language", "Belgium"),  # three languages
        ("symbol-element", "Al"),  # two spellings
    ],
)
def test_ambiguous_facts_are_absent(rows: list[dict[str, Any]], relation: str, subject: str) -> None:
    assert (relation, subject) not in {(row["relation"], row["subject"]) for row in rows}


def facts_of(examples: tuple[Example, ...]) -> set[tuple[str, str]]:
    """Return subject and answer of each row, without case and article."""
    told = ((example.columns["subject"], example.answer.strip()) for example in examples)
    return {(one.casefold(), other.removeprefix("the ").casefold()) for one, other in told}


@pytest.mark.parametrize("name", TASKS)
def test_no_fact_of_one_split_has_its_reverse_in_another(name: str) -> None:
    splits = {split: facts_of(examples) for split, examples in shipped(name).splits.items()}
    reversed_facts = {split: {(answer, subject) for subject, answer in facts} for split, facts in splits.items()}
    assert all(splits[split] & reversed_facts[split] for split in splits)  # there are some, side by side
    assert [(a, b) for a in splits for b in splits if a != b and splits[a] & reversed_facts[b]] == []


@pytest.mark.parametrize("name", TASKS)
def test_every_relation_is_in_every_split(name: str, rows: list[dict[str, Any]]) -> None:
    for examples in shipped(name).splits.values():
        assert {example.category for example in examples} == {row["relation"] for row in rows}


def test_the_balanced_task_takes_two_hundred_facts_of_a_relation_at_most(rows: list[dict[str, Any]]) -> None:
    taken = Counter(example.category for examples in shipped("world-facts").splits.values() for example in examples)
    assert taken == {relation: min(count, 200) for relation, count in Counter(row["relation"] for row in rows).items()}
    assert sum(shipped("world-facts-all").counts.values()) == len(rows)


def test_the_facts_of_a_country_its_capital_and_its_own_currency_share_a_group(rows: list[dict[str, Any]]) -> None:
    group = {(row["relation"], row["subject"]): row["group"] for row in rows}
    japan = (
        ("country-capital", "Japan"),
        ("capital-country", "Tokyo"),
        ("city-country", "Tokyo"),
        ("currency-code-name", "JPY"),
    )
    assert {group[fact] for fact in japan} == {"Japan"}
    gold = ("element-symbol", "gold"), ("symbol-element", "Au"), ("element-number", "gold"), ("number-element", "79")
    assert {group[fact] for fact in gold} == {"gold"}
    assert group["city-country", "Reykjavík"] == group["capital-country", "Reykjavik"] == "Iceland"
    assert group["currency-code-name", "EUR"] == "EUR"  # many countries' own
    assert group["city-country", "Osaka"] == "Osaka"


def test_the_groups_are_those_the_script_gives(rows: list[dict[str, Any]]) -> None:
    spec = importlib.util.spec_from_file_location("group_world_facts", ROOT / "scripts" / "group_world_facts.py")
    assert spec is not None
    assert spec.loader is not None
    grouping = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grouping)
    bare = [{column: value for column, value in row.items() if column != "group"} for row in rows]
    assert grouping.text_of(grouping.with_groups(bare)) == DATA.read_text(encoding="utf-8")
    assert grouping.with_groups(rows) == rows


def table_of(page: str) -> dict[str, list[int]]:
    """Return the numbers of each row of the page's table that begins with a relation."""
    lines = re.findall(r"^\| `([a-z-]+)` \|((?: [0-9,]+ \|)+)", page, flags=re.MULTILINE)
    return {name: [int(cell.replace(",", "")) for cell in cells.split("|") if cell.strip()] for name, cells in lines}


def test_page_states_the_true_counts(rows: list[dict[str, Any]]) -> None:
    splits = shipped("world-facts").splits
    counts = {split: Counter(example.category for example in examples) for split, examples in splits.items()}
    assert table_of(DOC.read_text(encoding="utf-8")) == {
        relation: [count, counts["train"][relation], counts["select"][relation], counts["test"][relation]]
        for relation, count in Counter(row["relation"] for row in rows).items()
    }
