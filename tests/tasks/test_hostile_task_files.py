"""Two hundred hostile task files: each is a task or one sentence, at once."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from strop.errors import StropError
from strop.tasks import TaskFile, check_task, load_task

COUNT, SEED = 200, 13
ROWS = [
    {
        "prompt": f"p{i}",
        "answer": f" a{i % 4}",
        "key": i // 2,
        "lang": ("en", "de")[i % 2],
        "options": [" a0", " a1", " a2", " a3"],
        "meta": {"id": i, "big": "x" * 1000},
        "flag": i % 3 == 0,
        "none": None if i else "x",
        "num": i / 2,
        "odd": ["a", 1, None, {}][i % 4],
    }
    for i in range(12)
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    10**30,
    0.5,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    " ",
    "x" * 5_000,
    "\x00",
    "\ud800",
    "a\nb",
    "{{",
    "}}",
    "{%",
    "{{ prompt",
    "{{ prompt }}",
    "{{ nothing }}",
    "{{ none }}",
    "{{ odd }}",
    "{{ meta }}",
    "{{ 1 / 0 }}",
    "{{ prompt.__class__ }}",
    "{{ 'a' * 10**9 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ '%999999999d' % 1 }}",
    "{{ 9**9**9**9 }}",
    "{{ prompt|center(10**9) }}",
    "{% include '/etc/passwd' %}",
    "{{ " + "(" * 2_000,
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% set a = 'aa' %}" + "{% set a = a ~ a %}" * 50 + "{{ a }}",
    "(a+)+$",
    "(",
    "a{99999}",
    "[",
    "\\",
    "~nobody/x",
    "/dev/null",
    "/etc/passwd",
    "../../x.jsonl",
    "data.jsonl",
    "made.yaml",
    "hf://",
    "hf://a/b",
    "key",
    "lang",
    "meta.id",
    "meta",
    "meta.id.x",
    "options",
    "flag",
    "none",
    "odd",
    "num",
    "prompt",
    "lang == 'en'",
    "flag",
    "key and",
    "exact",
    "choice",
    "generate",
    "label",
    "perplexity",
    "first_token",
    "number",
    [],
    [None],
    [[]],
    [1, 2],
    ["a", "a"],
    [" a0", " a1"],
    ["{{ x }}"] * 3,
    {},
    {"a": 1},
    {"train": 2},
    {1: 2},
    {"count": 2},
    {"extract": "(a+)+$", "gold": "{{ 'a' * 5000 }}!"},
    {"files": {"select": "data.jsonl"}},
    {"files": {"select": "data.jsonl", "test": "data.jsonl"}},
    {"id": ["x"]},
    {"key": [1]},
    {"select": 0.4, "test": 0.6},
    {"enable": {"a": [1]}},
    [10**30],
    {"max_new_tokens": 10**30},
    {"match": "number"},
    {"stop": [""]},
    [{"a": [{}] * 50}] * 50,
]
DAMAGES: list[Callable[[str, random.Random], str]] = [
    lambda text, _: text,
    lambda text, rng: text[: rng.randrange(len(text))],
    lambda text, rng: text.replace(
        ":", rng.choice([":\t", "", "::", ": &a ", ": *a ", ": !!python/name:os.system "]), 2
    ),
    lambda text, rng: text + text,
    lambda text, rng: "".join(rng.sample(text, len(text))),
    lambda text, rng: "[" * 4_000 + text,
    lambda text, _: "b0: &b0 [x,x]\n" + "".join(f"b{i}: &b{i} [*b{i - 1},*b{i - 1}]\n" for i in range(1, 40)) + text,
    lambda text, rng: text + "---\n" + text,
    lambda text, rng: text + f"seed{rng.random()}: 2024-99-99\n",
    lambda text, rng: text + "x: " + "9" * 5_000,
]


def hostile(rng: random.Random) -> str:
    content: dict[Any, Any] = {"name": "made", "data": "data.jsonl", "splits": {"select": 0.4, "test": 0.6}}
    keys = [*TaskFile.model_fields, "question", "input", "target", "label", "prommt", 3, None, "x" * 300]
    for key in rng.sample(keys, rng.randint(0, 4)):
        content[key] = rng.choice(VALUES)
    text = yaml.safe_dump(content, allow_unicode=False, sort_keys=False)
    return text if rng.random() < 0.75 else rng.choice(DAMAGES)(text, rng)


@pytest.mark.parametrize("part", range(4))
def test_a_hostile_task_file_is_a_task_or_one_sentence_at_once(tmp_path: Path, part: int) -> None:
    rng = random.Random(SEED + part)
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = tmp_path / "made.yaml"
    loaded = 0
    for number in range(COUNT // 4):
        path.write_bytes(hostile(rng).encode("utf-8", errors="surrogatepass"))
        for door in (load_task, check_task):
            began = time.process_time()
            try:
                door(path)
                loaded += 1
            except StropError as error:
                message = str(error).replace(str(tmp_path), "DIR")
                assert message.endswith((".", "?")), (number, message)
                assert message.isprintable(), (number, message)
                assert len(message) < 700, (number, message)
            assert time.process_time() - began < 5, number
    assert 2 <= loaded < COUNT // 2  # some are fine after all, and most are not
