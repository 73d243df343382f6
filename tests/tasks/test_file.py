"""The task file: each of its keys, and one clear sentence for whatever does not fit."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.task_files import GLUE, LLM_ADAPTERS, SUPER_GLUE

from strop.errors import TaskError
from strop.tasks import TaskFile, builtin_tasks, load_task, read_task_file

SHIPPED = ("int-mult", "int-sum", "world-facts", "world-facts-all")
MINIMAL = {"name": "made", "data": "data.jsonl"}


def test_a_name_and_data_are_enough(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("name: made\ndata: data.jsonl\n")
    found = read_task_file(tmp_path / "t.yaml")
    assert (found.prompt, found.answer, found.score) == ("{{ prompt }}", "{{ answer }}", "exact")
    assert (found.choices, found.paraphrases, found.group, found.generate) == (None, None, None, None)
    assert (found.counterfactual, found.splits.overlap) == (None, "refuse")
    assert (found.category, found.per_category) == (None, None)
    assert (found.chat, found.system) == (False, None)
    assert (found.splits.train, found.splits.select, found.splits.test, found.splits.seed) == (0, 0.2, 0.8, 0)


def test_every_key_of_the_contract_is_understood(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        """
name: my-facts
data: facts.jsonl
prompt: "{{ q }}"
answer: " {{ a }}"
paraphrases: others
counterfactual: "{{ r }}"
group: subject
category: relation
per_category: 100
score: generate
generate: {max_new_tokens: 5, extract: "is (\\\\w+)", match: contains, gold: "{{ g }}", stop: ["\\n", "."]}
chat: true
system: "Be brief."
splits: {train: 0.5, select: 0.2, test: 0.3, seed: 7}
"""
    )
    found = read_task_file(tmp_path / "t.yaml")
    assert (found.name, found.data, found.prompt, found.answer) == ("my-facts", "facts.jsonl", "{{ q }}", " {{ a }}")
    assert (found.paraphrases, found.group, found.score) == ("others", "subject", "generate")
    assert found.counterfactual == "{{ r }}"
    assert (found.category, found.per_category) == ("relation", 100)
    assert found.generate is not None
    assert (found.generate.gold, found.generate.stop) == ("{{ g }}", ("\n", "."))
    assert (found.chat, found.system) == (True, "Be brief.")
    assert (found.generate.max_new_tokens, found.generate.extract, found.generate.match) == (5, r"is (\w+)", "contains")
    assert (found.splits.train, found.splits.select, found.splits.test, found.splits.seed) == (0.5, 0.2, 0.3, 7)


@pytest.mark.parametrize("score", ["choice", "first_token"])
def test_choices_and_files_are_understood(score: str) -> None:
    found = TaskFile.model_validate(
        {
            "name": "made",
            "score": score,
            "choices": ["{{ a }}", "{{ b }}"],
            "splits": {
                "files": {"train": "a.jsonl", "select": "b.jsonl", "test": "c.jsonl"},
                "overlap": "drop",
            },
        }
    )
    assert found.choices == ("{{ a }}", "{{ b }}")
    assert found.splits.files == {"train": "a.jsonl", "select": "b.jsonl", "test": "c.jsonl"}
    assert found.splits.overlap == "drop"


@pytest.mark.parametrize("score", ["exact", "first_token", "generate", "perplexity"])
def test_every_score_is_understood(score: str) -> None:
    assert TaskFile.model_validate({**MINIMAL, "score": score}).score == score


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": None}, ("key name", "required")),
        ({"name": ""}, ("key name", "at least 1 character")),
        ({"name": 7}, ("key name", "string")),
        ({"data": None}, ("either data names one source, or splits.files",)),
        ({"splits": {"files": {"select": "a.jsonl", "test": "b.jsonl"}}}, ("either data", "not both")),
        ({"promt": "{{ p }}"}, ("key promt: there is no such key; write prompt.",)),
        ({"prosody": 1}, ("key prosody: there is no such key; a task file has name, data, prompt",)),
        ({"question": "{{ q }}"}, ('key question: there is no such key; write prompt: "{{ q }}".',)),
        ({"input": "text"}, ('key input: there is no such key; write prompt: "{{ text }}".',)),
        ({"target": 3}, ('key target: there is no such key; write answer: "{{ target }}".',)),
        ({"options": ["a"]}, ("key options: there is no such key; write choices.",)),
        ({"max_new_tokens": 3}, ("key max_new_tokens: there is no such key; write generate.max_new_tokens.",)),
        ({"num_fewshot": 3}, ("key num_fewshot: there is no such key; write shots.",)),
        ({"per_category": 5}, ("per_category needs category, the column that says of which kind a row is",)),
        ({"category": "key", "per_category": 0}, ("key per_category", "greater than 0")),
        (
            {
                "data": None,
                "category": "key",
                "per_category": 5,
                "splits": {"files": {"select": "a.jsonl", "test": "b.jsonl"}},
            },
            ("per_category goes with data, one source",),
        ),
        ({"score": "accuracy"}, ("key score", "'exact'", "'perplexity'")),
        (
            {"choices": ["{{ a }}", "{{ b }}"]},
            ("choices go with score: choice or first_token, not with score: exact",),
        ),
        ({"score": "first_token", "choices": ["{{ a }}"]}, ("choices needs two templates or more",)),
        ({"score": "choice"}, ("score: choice needs choices",)),
        ({"score": "choice", "choices": ["{{ a }}"]}, ("choices needs two templates or more",)),
        (
            {"score": "choice", "choices": "{{ a }}"},
            (
                "key choices: write a list of templates, or the bare name of a column that holds a list, such as options.",
            ),
        ),
        ({"name": "two\nlines"}, ("key name: a name is one line of text that can be printed.",)),
        ({"seed": 3}, ("key seed: there is no such key; a task file has name",)),
        (
            {"skip": []},
            ("key skip: name rows by their numbers, as in [3, 17], or by a column, as in {id: [a17, b4]}.",),
        ),
        ({"skip": ["a17"]}, ("key skip: 'a17' is not the number of a row, which counts from 1; name rows by",)),
        ({"skip": [0]}, ("key skip: '0' is not the number of a row",)),
        ({"skip": {"id": [None]}}, ("key skip: a blank names no row; name rows by",)),
        ({"skip": {"id": {"a": 1}}}, ("key skip: name rows by their numbers",)),
        (
            {"data": None, "skip": [1], "splits": {"files": {"select": "a.jsonl", "test": "b.jsonl"}}},
            ("skip: row numbers go with data, one source; name rows by a column, as in skip: {id: [a17]}.",),
        ),
        (
            {"where": "{{ key == 1 }}"},
            ("in where: of task made is written without braces, such as where: lang == 'en'.",),
        ),
        ({"generate": {"max_new_tokens": 3}}, ("generate settings go with score: generate, not with score: exact",)),
        ({"score": "generate", "generate": {"max_new_tokens": 0}}, ("generate.max_new_tokens", "greater than 0")),
        ({"score": "generate", "generate": {"match": "like"}}, ("generate.match", "'contains'")),
        (
            {"score": "generate", "generate": {"stops": ["."]}},
            ("key generate.stops", "generate: has max_new_tokens, extract, match, gold, stop"),
        ),
        (
            {"splits": {"train": 0.5, "select": 0.4, "test": 0.3}},
            ("add up to 1.2, which is above 1: train 0.5, select 0.4, test 0.3; lower one",),
        ),
        (
            {"splits": {"train": 0.8, "test": 0.2}},
            ("add up to 1.2, which is above 1: train 0.8, test 0.2, select 0.2 by default; lower one",),
        ),
        (
            {"splits": {"train": 0.8, "validation": 0.1}},
            ("key splits.validation: there is no such key; write select; splits: has",),
        ),
        ({"splits": {"tran": 0.8}}, ("key splits.tran: there is no such key; write train; splits: has",)),
        ({"splits": {"folds": 5}}, ("key splits.folds: there is no such key; splits: has train, select, test",)),
        (
            {"score": "generate", "generate": {"max_tokens": 5}},
            ("key generate.max_tokens: there is no such key; write max_new_tokens; generate: has",),
        ),
        ({"splits": {"train": -0.1}}, ("splits.train", "greater than or equal to 0")),
        ({"splits": {"select": 0}}, ("splits.select", "greater than 0")),
        ({"splits": {"test": 1.0}}, ("splits.test", "less than 1")),
        ({"splits": {"seed": -1}}, ("splits.seed", "greater than or equal to 0")),
        (
            {"splits": {"dev": 0.1}},
            ("key splits.dev", "splits: has train, select, test, seed, files, held_select, overlap"),
        ),
        ({"splits": {"overlap": "drop"}}, ("overlap: drop goes with files",)),
        ({"splits": {"overlap": "keep"}}, ("splits.overlap", "'refuse'")),
        ({"data": None, "splits": {"files": {"select": "a.jsonl"}}}, ("splits.files lacks test", "both")),
        ({"data": None, "splits": {"files": {"train": "a.jsonl"}}}, ("splits.files lacks select and test",)),
        ({"data": None, "splits": {"files": {"dev": "a", "select": "b", "test": "c"}}}, ("splits.files.dev",)),
    ],
    ids=str,
)
def test_a_key_that_does_not_fit_is_named(
    write_task: Callable[..., Path], changes: dict[str, Any], said: tuple[str, ...]
) -> None:
    path = write_task(**{"splits": None, **changes})
    with pytest.raises(TaskError) as raised:
        load_task(path)
    message = str(raised.value)
    assert str(path) in message or "of task made" in message
    assert "\n" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is empty or not a mapping; it needs at least name and data"),
        (b"- a\n- b\n", "is empty or not a mapping"),
        (b"name: [unclosed\n", "is not YAML"),
        (b"name: \xff\xfe\n", "cannot be read: it is not UTF-8 text"),
        (b"1: 2\nname: x\ndata: y.jsonl\n", "key 1"),
    ],
)
def test_a_file_that_is_no_task_file_is_refused(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(text)
    with pytest.raises(TaskError) as raised:
        read_task_file(path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_task_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"The task file .*gone\.yaml cannot be read: No such file"):
        load_task(tmp_path / "gone.yaml")


def test_a_folder_stands_for_the_one_task_file_in_it(write_task: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(
        TaskError, match=r"^The folder .* stands for the task file \(\*\.yaml\) in it, and holds none\.$"
    ):
        load_task(tmp_path)
    task = load_task(write_task())
    assert load_task(tmp_path).fingerprint == load_task(str(tmp_path)).fingerprint == task.fingerprint
    (tmp_path / "other.yml").write_text("name: other\n")
    with pytest.raises(TaskError, match=r"in it, and holds 2 of them, made\.yaml, other\.yml; name one\.$"):
        load_task(tmp_path)


def test_a_misspelt_builtin_name_lists_the_real_ones() -> None:
    with pytest.raises(TaskError) as raised:
        load_task("world-fact")
    assert str(raised.value) == (
        "There is no task 'world-fact' (did you mean world-facts?): give a task file (*.yaml) or one of addsub, aqua, "
        "arc-challenge, arc-easy, boolq, cb, copa, glue-cola, glue-mnli, glue-mrpc, glue-qnli, glue-qqp, glue-rte, "
        "glue-sst2, glue-stsb, gsm8k, hellaswag, int-mult, int-sum, mawps, openbookqa, piqa, rte, siqa, svamp, "
        "winogrande, world-facts, world-facts-all."
    )


shipped = functools.cache(load_task)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_task_whose_data_are_shipped_loads_with_its_three_splits(name: str) -> None:
    task = shipped(name)
    assert task.name == name
    assert set(task.counts) == {"train", "select", "test"}


def test_every_other_builtin_task_stands_on_the_shelf_that_is_read_in_place_of_the_hub() -> None:
    assert set(builtin_tasks()) == {*SHIPPED, *SUPER_GLUE, *(f"glue-{name}" for name in GLUE), *LLM_ADAPTERS}


def test_the_sums_of_the_builtin_arithmetic_are_right() -> None:
    for name, total in (("int-sum", lambda a, b: a + b), ("int-mult", lambda a, b: a * b)):
        for example in shipped(name).examples("test"):
            a, b = int(example.columns["a"]), int(example.columns["b"])
            assert example.answer == f" {total(a, b)}"
            assert str(a) in example.prompt
            assert str(b) in example.prompt


def test_a_chat_may_tell_the_template_arguments(write_task: Callable[..., Path]) -> None:
    assert TaskFile.model_validate({**MINIMAL, "chat": {"enable_thinking": False}}).chat == {"enable_thinking": False}
    told = load_task(write_task(chat={"thinking_budget": 5, "enable_thinking": False})).examples("test")[0].chat
    assert told is not None
    assert told.arguments == (("enable_thinking", False), ("thinking_budget", 5))
    assert told.template_arguments == {"enable_thinking": False, "thinking_budget": 5}
    plain = load_task(write_task(chat=True)).examples("test")[0].chat
    assert plain is not None
    assert plain.template_arguments == {}


def test_arguments_of_a_chat_are_part_of_what_a_task_is(write_task: Callable[..., Path]) -> None:
    prints = [
        load_task(write_task(chat=chat)).fingerprint
        for chat in (True, {"enable_thinking": False}, {"enable_thinking": True}, {"a": 1, "b": 2}, {"b": 2, "a": 1})
    ]
    assert len(set(prints)) == 4
    assert prints[3] == prints[4]


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ({}, "key chat: write true, or arguments of the tokenizer's chat template such as {enable_thinking: false}."),
        ("please", "key chat: write true, or arguments"),
        (
            {"messages": "x"},
            "key chat: messages is not yours to give, for Strop tells it every template; leave it out.",
        ),
        ({"a-b": 1}, "key chat: 'a-b' is not the name of an argument, such as enable_thinking."),
        ({"tools": ["x"]}, "key chat: tools is a text, a number, true, false or null, not list."),
        ({"budget": float("nan")}, "key chat: budget is a text, a number, true, false or null, not float."),
    ],
    ids=str,
)
def test_a_chat_that_says_nothing_is_refused(write_task: Callable[..., Path], chat: Any, said: str) -> None:
    with pytest.raises(TaskError) as raised:
        load_task(write_task(chat=chat))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nname: b\n", ", line 2, column 1: the key name stands twice; keep one."),
        ("name: a\nsplits: {test: 0.1, test: 0.2}\n", ", line 2, column 21: the key test stands twice; keep one."),
        ("name: a\n\tdata: b\n", "is not YAML, line 2, column 1: found character '\\t' that cannot start any token; indent by"),
        ("name: a\n---\nname: b\n", "is not YAML, line 2, column 1: but found another document"),
        ("a: &a [x,x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1 if i else ''},*a{i - 1 if i else ''}]\n" for i in range(40)),
         "it holds more than such a file does."),
        ("a: &a [*a]\n", "it holds more than such a file does."),
        ("name: " + "[" * 3000 + "]" * 3000, "it is nested deeper than such a file is."),
        ("- a\n" * 70_000, "is not YAML, line 5001, column 1: it holds more than such a file does."),
        ("name: a\x01b\n", "is not YAML: unacceptable character #x0001: special characters are not allowed"),
        ("- " * 3000 + "a", "it is nested deeper than such a file is."),
        ("name: 2024-13-45\ndata: x\n", "is not YAML: month must be in 1..12."),
        ("name: " + "9" * 5000 + "\n", "a number or a date has too many characters; put it in quotes if it is text."),
        ("name: " + "1:" * 90_000 + "1\n", "a number or a date has too many characters; put it in quotes if it is text."),
        ("name: !!python/object/apply:os.system [true]\n", "could not determine a constructor for the tag"),
        ("name: a\ndata: " + "x" * 300_000, "has more than 300,000 characters; put what is long into the rows."),
        ("? [a, b]\n: c\n", "found unhashable key"),
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_yaml_that_is_more_than_it_seems_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError) as raised:
        read_task_file(tmp_path / "t.yaml")
    message = str(raised.value)
    assert said in message
    assert "\n" not in message
    assert len(message) < 300 + len(str(tmp_path))


def test_an_alias_of_a_yaml_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text('name: made\ndata: d.jsonl\nprompt: &p "{{ q }}"\ncounterfactual: *p\n')
    assert read_task_file(tmp_path / "t.yaml").counterfactual == "{{ q }}"


@pytest.mark.parametrize("name", ["facts.csv", "facts.jsonl", "FACTS.TSV", "facts.parquet"])
def test_data_in_the_place_of_a_task_file_says_what_to_write(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("prompt,answer\na, b\n")
    with pytest.raises(TaskError) as raised:
        load_task(tmp_path / name)
    said = (
        f"holds rows, and no task: write a task file (*.yaml) that says data: {name}, and what prompt: and answer: are."
    )
    assert str(raised.value) == f"{tmp_path / name} {said}"
