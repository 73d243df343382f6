"""Who goes on with a run must let the same model read the same; how its folder is spelled is another matter."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fixtures.runs import Interrupting

import strop
from strop.errors import RunError
from strop.proving import RunOptions, RunOutcome
from strop.searching import SearchPlan
from strop.searching.laser import search
from strop.tasks import Task

PLAN = SearchPlan(strategy="exhaustive", layers=(1,), rank_fractions=(0.1, 0.5), matrix_types=(strop.MatrixType.UP,))
PLAIN = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}<model> "
OTHER = "{% for m in messages %}### {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}### {% endif %}"


@pytest.fixture
def chatting(facts: Path) -> Task:
    content = yaml.safe_load(facts.read_text(encoding="utf-8"))
    facts.write_text(yaml.safe_dump({**content, "chat": True}), encoding="utf-8")
    return strop.load_task(facts)


@pytest.fixture
def speaking(small_tokenizer: Any) -> Callable[[str], Any]:
    """A maker of tokenizers with a chat template."""

    def make(template: str) -> Any:
        tokenizer = copy.deepcopy(small_tokenizer)
        tokenizer.chat_template = template
        return tokenizer

    return make


def begun(model: Any, tokenizer: Any, task: Task, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(model, tokenizer, task, PLAN, RunOptions(out=out, progress=Interrupting(4)))
    assert not (out / "result.json").exists()


def resumed(model: Any, tokenizer: Any, task: Task, out: Path) -> RunOutcome:
    return search(model, tokenizer, task, PLAN, RunOptions(out=out, resume=True))


def test_another_chat_template_is_refused_and_the_same_goes_on(
    answering: Callable[..., Any], speaking: Callable[[str], Any], chatting: Task, tmp_path: Path
) -> None:
    begun(answering(), speaking(PLAIN), chatting, tmp_path / "run")
    with pytest.raises(
        RunError,
        match=r"run began with other prompts: the tokenizer or its chat template has changed since; .*--out\.$",
    ):
        resumed(answering(), speaking(OTHER), chatting, tmp_path / "run")
    assert resumed(answering(), speaking(PLAIN), chatting, tmp_path / "run").result.task.name == "small-facts"


def test_a_tokenizer_with_a_token_more_is_refused(
    answering: Callable[..., Any], small_tokenizer: Any, facts: Path, tmp_path: Path
) -> None:
    task = strop.load_task(facts)
    begun(answering(), small_tokenizer, task, tmp_path / "run")
    other = copy.deepcopy(small_tokenizer)
    other.add_tokens(["city"])
    with pytest.raises(RunError, match="run began with other prompts"):
        resumed(answering(), other, task, tmp_path / "run")


def test_other_examples_are_not_taken_for_another_tokenizer(
    answering: Callable[..., Any], small_tokenizer: Any, facts: Path, tmp_path: Path
) -> None:
    begun(answering(), small_tokenizer, strop.load_task(facts), tmp_path / "run")
    text = (tmp_path / "facts.jsonl").read_text(encoding="utf-8")
    (tmp_path / "facts.jsonl").write_text(text.replace("Lyon7 is", "Lyon 7 is"), encoding="utf-8")
    with pytest.raises(
        RunError,
        match=r"run began with other examples: the task file or its data has changed since; resume with what it began with, "
        r"or choose another --out\.$",
    ):
        resumed(answering(), small_tokenizer, strop.load_task(facts), tmp_path / "run")


@pytest.mark.parametrize(("field", "value"), [("rms_norm_eps", 0.5), ("hidden_act", "relu")])
def test_a_config_that_computes_otherwise_is_refused_by_its_field(
    field: str, value: Any, answering: Callable[..., Any], small_tokenizer: Any, facts: Path, tmp_path: Path
) -> None:
    task = strop.load_task(facts)
    begun(answering(), small_tokenizer, task, tmp_path / "run")
    with pytest.raises(RunError, match=rf"run began with reads\.config\.{field} = .*, and now it is {value!r}: resume"):
        resumed(answering(**{field: value}), small_tokenizer, task, tmp_path / "run")


def test_what_changes_no_logits_may_differ(
    answering: Callable[..., Any], small_tokenizer: Any, facts: Path, tmp_path: Path
) -> None:
    task, model = strop.load_task(facts), answering()
    begun(answering(), small_tokenizer, task, tmp_path / "run")
    model.config.use_cache, model.config.architectures, model.config.id2label = False, ["Other"], {0: "a"}
    model.config.name_or_path = "elsewhere"
    model.config.pad_token_id, model.config.eos_token_id = 3, [3, 4]  # as a trainer takes them from the tokenizer
    assert resumed(model, small_tokenizer, task, tmp_path / "run").folder == tmp_path / "run"


def test_the_same_folder_under_another_spelling_goes_on(
    tiny_folder: Path, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = strop.load_task(facts)
    (tmp_path / "link").symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    spellings = [f"{tiny_folder}/", os.path.relpath(tiny_folder, tmp_path) + "//", "link", str(tmp_path / "." / "link")]
    for number, spelling in enumerate(spellings):
        begun(*strop.load(str(tiny_folder)), task, tmp_path / f"run{number}")
        assert resumed(*strop.load(spelling), task, tmp_path / f"run{number}").result.cost.evaluations > 0


def test_other_weights_under_the_same_spelling_are_refused(
    answering: Callable[..., Any], small_tokenizer: Any, facts: Path, tmp_path: Path
) -> None:
    task, other = strop.load_task(facts), answering()
    begun(answering(), small_tokenizer, task, tmp_path / "run")
    other.model.norm.weight.data[0] += 1
    with pytest.raises(RunError, match=r"run began with base_model\.fingerprint = "):
        resumed(other, small_tokenizer, task, tmp_path / "run")


def test_a_run_of_an_earlier_version_that_does_not_say_what_it_read_goes_on(
    answering: Callable[..., Any], small_tokenizer: Any, facts: Path, tmp_path: Path
) -> None:
    task = strop.load_task(facts)
    begun(answering(), small_tokenizer, task, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content.pop("reads")) == {"prompts", "config"}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert resumed(answering(), small_tokenizer, task, tmp_path / "run").result.task.name == "small-facts"
