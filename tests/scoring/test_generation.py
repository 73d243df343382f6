"""Generated answers: greedy whatever the model's settings say, the same alone and in a batch, read and compared by rule."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

import strop
from strop.errors import InterventionError, TaskError, UsageError
from strop.scoring import Evaluation, Resources, Scorer
from strop.scoring.generation import Generator
from strop.tasks import Example, GenerateSettings, load_task
from strop.tasks.extraction import extract, is_right, until_stop

THREE_FAMILIES = ["llama", "gpt2", "gpt_neox"]
PROMPTS = [
    "The",
    "The city of Lyon is in",
    "1 + 2 =",
    "The capital of Brazil is Brasilia and the city of Curitiba is in Brazil and 12 x 12",
    "é 🙂",
    "and the city of Lyon",
]
EXAMPLES = [Example(prompt, " France", row=row) for row, prompt in enumerate(PROMPTS, start=1)]


def written_alone(model: Any, tokenizer: Any, prompt: str, count: int) -> str:
    """Return greedy text by a plain loop: no padding, no cache, no generate."""
    ids = tokenizer(prompt)["input_ids"]
    new: list[int] = []
    for _ in range(count):
        with torch.no_grad():
            best = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
        if best == tokenizer.eos_token_id:
            break
        new.append(best)
    return str(tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("family", THREE_FAMILIES)
def test_a_left_padded_batch_writes_what_a_plain_loop_writes_alone(
    tiny: Callable[..., Any], small_tokenizer: Any, family: str
) -> None:
    model = tiny(family)
    scorer = Scorer(model, small_tokenizer, EXAMPLES, "generate", generate=GenerateSettings(max_new_tokens=9))
    found = scorer.evaluate()
    generator = Generator(
        model, small_tokenizer, EXAMPLES, GenerateSettings(max_new_tokens=9, match="contains"), longest=128
    )
    assert [len(batch) for batch in generator.batches] == [len(EXAMPLES)]  # so short prompts were padded
    assert found.generated == tuple(written_alone(model, small_tokenizer, prompt, 9) for prompt in PROMPTS)
    assert len(set(found.generated)) > 3


def test_batches_hold_few_tokens_and_prompts_of_like_length(
    tiny: Callable[..., Any], small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    together = Generator(model, small_tokenizer, EXAMPLES, GenerateSettings(max_new_tokens=6), longest=128)
    expected = together.generate()
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(generated_tokens=40))
    apart = Generator(model, small_tokenizer, EXAMPLES, GenerateSettings(max_new_tokens=6), longest=128)
    assert len(apart.batches) > 2
    lengths = [len(small_tokenizer(PROMPTS[index])["input_ids"]) for batch in apart.batches for index in batch]
    assert lengths == sorted(lengths)
    assert apart.generate().texts == expected.texts
    assert apart.tokens <= together.tokens


def test_the_models_own_settings_neither_matter_nor_change(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    model = tiny("llama")
    settings = GenerateSettings(max_new_tokens=8)
    expected = Scorer(model, small_tokenizer, EXAMPLES, "generate", generate=settings).evaluate().generated
    own = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        top_k=3,
        repetition_penalty=9.0,
        no_repeat_ngram_size=1,
        max_length=2,
        eos_token_id=0,
    )
    model.generation_config = own
    before = own.to_dict()
    torch.manual_seed(0)
    assert Scorer(model, small_tokenizer, EXAMPLES, "generate", generate=settings).evaluate().generated == expected
    assert model.generation_config is own
    assert own.to_dict() == before


def test_the_models_settings_and_mode_come_back_after_an_exception(
    tiny: Callable[..., Any], small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama").train()
    own = model.generation_config
    generator = Generator(model, small_tokenizer, EXAMPLES, GenerateSettings(), longest=128)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        generator.generate()
    assert model.generation_config is own
    assert model.training


def test_generation_stops_at_every_end_the_model_or_tokenizer_names(
    tiny: Callable[..., Any], small_tokenizer: Any
) -> None:
    model = tiny("llama")
    generator = Generator(model, small_tokenizer, EXAMPLES[1:2], GenerateSettings(max_new_tokens=8), longest=128)
    whole = generator.generate().texts[0]
    ids = small_tokenizer(PROMPTS[1], return_tensors="pt")
    written = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
    third = int(written[2])
    model.generation_config.eos_token_id = [third, 317]
    assert generator.generate().texts[0] == small_tokenizer.decode(written[: written.tolist().index(third)])
    model.generation_config.eos_token_id = None
    assert generator.generate().texts[0] == whole
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.eos_token = small_tokenizer.convert_ids_to_tokens(third)
    generator = Generator(model, tokenizer, EXAMPLES[1:2], GenerateSettings(max_new_tokens=8), longest=128)
    assert len(generator.generate().texts[0]) < len(whole)


@pytest.mark.parametrize("stops", [1, 2])
def test_text_ends_before_the_first_stop_string_and_no_row_runs_on_alone(
    tiny: Callable[..., Any], small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, stops: int
) -> None:
    model = tiny("llama")
    plain = Generator(model, small_tokenizer, EXAMPLES[:stops], GenerateSettings(max_new_tokens=12), longest=128)
    whole = plain.generate().texts
    stop = tuple(text[4:6] for text in whole)
    lengths = []
    generate = model.generate

    def watched(**given: Any) -> Any:
        written = generate(**given)
        lengths.append(written.shape[1] - given["input_ids"].shape[1])
        return written

    monkeypatch.setattr(model, "generate", watched)
    settings = GenerateSettings(max_new_tokens=12, stop=stop)
    cut = Generator(model, small_tokenizer, EXAMPLES[:stops], settings, longest=128).generate().texts
    assert cut == tuple(until_stop(text, settings) for text in whole)
    assert all(len(ours) <= 4 for ours in cut)
    assert lengths[0] < 12


def test_the_loss_is_that_of_exact_and_the_answer_may_be_generated_otherwise(
    tiny: Callable[..., Any], small_tokenizer: Any
) -> None:
    model = tiny("llama")
    exact = Scorer(model, small_tokenizer, EXAMPLES, "exact").evaluate()
    texts = Scorer(model, small_tokenizer, EXAMPLES, "generate").evaluate().generated
    assert texts is not None
    golds = [text[:3] if index % 2 else "no such text" for index, text in enumerate(texts)]
    examples = [dataclasses.replace(e, gold=gold or "?") for e, gold in zip(EXAMPLES, golds, strict=True)]
    scorer = Scorer(model, small_tokenizer, examples, "generate", generate=GenerateSettings(match="contains"))
    found = scorer.evaluate()
    np.testing.assert_array_equal(found.loss, exact.loss)
    np.testing.assert_array_equal(found.tokens, exact.tokens)
    assert found.correct is not None
    assert found.correct.tolist() == [index % 2 == 1 for index in range(len(EXAMPLES))]
    from_a_block_on = scorer.evaluate(start=2, states=scorer.states_entering(2))
    assert from_a_block_on.generated == found.generated
    np.testing.assert_allclose(from_a_block_on.loss, exact.loss, rtol=2e-4)


def test_progress_is_told_of_every_batch_that_scores_or_generates(
    tiny: Callable[..., Any], small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strop.scoring.resources.CPU", Resources(generated_tokens=60))
    scorer = Scorer(tiny("llama"), small_tokenizer, EXAMPLES, "generate", generate=GenerateSettings(max_new_tokens=4))

    class Counted(strop.progress.Progress):
        steps = 0

        def advance(self, steps: int = 1) -> None:
            self.steps += steps

    told = Counted()
    scorer.evaluate(progress=told)
    assert told.steps == scorer.steps > len(scorer.batches)


TRIGGER = r"(?s)the correct answer is (.*)"


@pytest.mark.parametrize(
    ("settings", "text", "gold", "right"),
    [
        ({"extract": TRIGGER}, "the correct answer is answer2", "answer2", True),
        ({"extract": TRIGGER}, "so the correct answer is answer2\n", "answer2", True),
        ({"extract": TRIGGER}, "the correct answer is answer2\nand more", "answer2", False),
        ({"extract": TRIGGER}, "answer2", "answer2", False),
        ({"extract": TRIGGER}, "The Correct Answer Is answer2", "answer2", False),
        ({"extract": "answer[1-5]"}, "I take answer3, not answer2", "answer3", True),
        ({"extract": "is (true)?"}, "it is false", "true", False),
        ({"extract": "([A-E])"}, "the answer is (C).", "C", True),
        ({"extract": "([A-E])"}, "All of them, so C", "C", False),
        ({"extract": "([A-E])"}, "All of them, so C", "A", True),
        ({"extract": "([A-E])"}, "none", "A", False),
        ({}, "  Paris \n", "Paris", True),
        ({}, "Paris, of course", "Paris", False),
        ({"match": "contains"}, "Paris, of course", " Paris ", True),
        ({"match": "contains"}, "of course", "Paris", False),
        ({"match": "number"}, "that makes 1,234.0", "1234", True),
        ({"match": "number"}, "that makes 1234.", "1,234.0", True),
        ({"match": "number"}, "3 + 4 = 7 apples", "7", True),
        ({"match": "number"}, "7 apples, as 3 + 4", "7", False),
        ({"match": "number"}, "it falls to -5", "-5.0", True),
        ({"match": "number"}, "it falls to 5", "-5.0", False),
        ({"match": "number"}, "0.3333", "0.3337", True),
        ({"match": "number"}, "0.333", "0.335", False),
        ({"match": "number"}, "no figure", "7", False),
        ({"match": "number"}, "", "7", False),
        ({"match": "number", "extract": "#### (.*)"}, "2 + 2 #### 4 apples", "4", True),
        ({"match": "number", "extract": "#### (.*)"}, "2 + 2 is 4", "4", False),
        ({"match": "number_or_option"}, "3 + 4 = 7", "7.0", True),
        ({"match": "number_or_option"}, "7, so (C)", "C", True),
        ({"match": "number_or_option"}, "All in all (C)", "C", False),
        ({"match": "number_or_option"}, "7", "C", False),
    ],
    ids=str,
)
def test_an_answer_is_read_and_compared_by_the_rule(
    settings: dict[str, Any], text: str, gold: str, right: bool
) -> None:
    rule = GenerateSettings.model_validate(settings)
    assert is_right(extract(text, rule), gold, rule) is right


def test_the_gold_is_what_the_same_pattern_finds_in_the_answer(write_task: Callable[..., Path]) -> None:
    rows = [{"prompt": f"{n}?", "answer": f" the correct answer is answer{n}"} for n in range(5)]
    task = load_task(write_task(rows, score="generate", generate={"extract": TRIGGER}))
    assert {e.gold for name in task.counts for e in task.examples(name)} == {f"answer{n}" for n in range(5)}


def test_a_gold_template_stands_in_for_the_answer(write_task: Callable[..., Path]) -> None:
    rows = [{"prompt": f"{n}?", "answer": " I do not say", "right": f" {n} "} for n in range(5)]
    task = load_task(write_task(rows, score="generate", generate={"match": "number", "gold": "{{ right }}"}))
    assert {e.gold for name in task.counts for e in task.examples(name)} == {str(n) for n in range(5)}


@pytest.mark.parametrize(
    ("generate", "said"),
    [
        ({"extract": "is (.*"}, "key generate.extract: 'is (.*' is not a regular expression: "),
        ({"stop": "."}, "key generate.stop: give a list of texts, such as ['.']"),
        ({"stop": [""]}, "key generate.stop.0: String should have at least 1 character"),
        ({"gold": "{{ answer"}, "The template in generate.gold: of task made is not Jinja: "),
        ({"gold": "{{ gold }}"}, "row 1: the template in generate.gold: needs a column that is not there"),
        ({"gold": "{{ '' }}"}, "row 1: the gold is empty; fill its column or drop the row; "),
        (
            {"extract": "x(.*)"},
            "row 1: the pattern in generate.extract finds nothing in the answer ' 1'; correct it, or",
        ),
        ({"match": "number", "gold": "many"}, "row 1: match: number needs a number in the gold, not 'many'"),
        ({"golden": "{{ answer }}"}, "generate: has max_new_tokens, extract, match, gold, stop."),
    ],
    ids=str,
)
def test_a_setting_that_does_not_fit_is_named_in_one_sentence(
    write_task: Callable[..., Path], generate: dict[str, Any], said: str
) -> None:
    with pytest.raises(TaskError) as raised:
        load_task(write_task(score="generate", generate=generate))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_pattern_is_checked_before_any_row_is_read(write_task: Callable[..., Path]) -> None:
    path = write_task(data="gone.jsonl", score="generate", generate={"extract": "("})
    with pytest.raises(TaskError, match=r"made\.yaml, key generate\.extract: '\(' is not a regular expression"):
        load_task(path)


def test_a_prompt_that_leaves_no_room_to_write_is_refused(tiny: Callable[..., Any], small_tokenizer: Any) -> None:
    examples = [Example("q", " a", row=3), Example("q" * 100, " a", row=4)]
    settings = GenerateSettings(max_new_tokens=29)
    with pytest.raises(TaskError) as raised:
        Scorer(tiny("llama"), small_tokenizer, examples, "generate", generate=settings)
    assert str(raised.value) == (
        f"row 4 (prompt '{'q' * 39}…'): 100 tokens of prompt and 29 new ones (generate.max_new_tokens) do not fit the "
        "model's context of 128; lower one or shorten the row."
    )
    Scorer(
        tiny("llama"), small_tokenizer, examples, "generate", generate=GenerateSettings(max_new_tokens=28)
    ).evaluate()


def test_a_bias_by_position_is_refused_before_anything_is_written(
    tiny: Callable[..., Any], small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(tiny("llama"), small_tokenizer, EXAMPLES, "generate")

    class Bias:
        positions = 6

    monkeypatch.setattr("strop.scoring.lengths.attachments_of", lambda model: [Bias()])
    with pytest.raises(
        InterventionError, match="of 6 tokens, and generating runs through many lengths; prune with --bias"
    ):
        scorer.evaluate()


def test_an_evaluation_with_too_few_texts_is_refused() -> None:
    with pytest.raises(UsageError, match="An evaluation with 2 losses has 1 values of generated"):
        Evaluation("generate", np.zeros(2), np.ones(2, dtype=np.int64), generated=("a",))


def test_the_fingerprint_knows_the_golds_and_the_settings(write_task: Callable[..., Path]) -> None:
    prints = set()
    for generate in (None, {"max_new_tokens": 5}, {"match": "contains"}, {"gold": "{{ key }}"}, {"stop": ["."]}):
        prints.add(load_task(write_task(score="generate", generate=generate)).fingerprint)
    assert len(prints) == 5


@pytest.fixture
def written_task(write_task: Callable[..., Path]) -> Path:
    rows = [{"prompt": f"The city of Lyon{n} is in", "answer": " France"} for n in range(16)]
    return write_task(rows, score="generate", generate={"max_new_tokens": 4, "match": "contains"})


def test_eval_writes_the_generated_and_the_extracted_text_of_each_example(
    tiny_folder: Path,
    written_task: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from strop.cli import main

    out = tmp_path / "scores.json"
    call = ["strop", "eval", str(tiny_folder), "--task", str(written_task), "--out", str(out), "--json", "--quiet"]
    monkeypatch.setattr("sys.argv", call)
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code in (0, None)
    printed = json.loads(capsys.readouterr().out)
    examples = json.loads(out.read_text())["examples"]
    assert printed["base"]["count"] == len(examples)
    for example in examples:
        base = example["base"]
        assert set(base) == {"loss", "correct", "generated", "extracted"}
        assert base["extracted"] == base["generated"].strip()
        assert base["correct"] == ("France" in base["generated"])
    assert any(example["base"]["generated"] for example in examples)


@pytest.mark.parametrize("work", ["search", "prune"])
def test_search_and_prune_choose_by_generated_answers(
    tiny: Callable[..., Any], small_tokenizer: Any, written_task: Path, work: str
) -> None:
    model, task = tiny("llama"), load_task(written_task)
    if work == "search":
        plan: Any = strop.SearchPlan(layers=(1,), top_matrices=2)
        result: Any = strop.search(model, small_tokenizer, task, plan=plan)
    else:
        plan = strop.PrunePlan(iterate=1, fractions=(0.1,), layers=(1,))
        result = strop.prune(model, small_tokenizer, task, plan=plan)
    assert result.test_evaluations is not None
    assert all(evaluation.generated is not None for evaluation in result.test_evaluations)
    assert all(trial.accuracy is not None for trial in result.trials)


@pytest.mark.real
def test_the_real_model_says_where_cities_lie_and_what_follows_five(real: Any) -> None:
    model, tokenizer = real
    examples = [
        Example("The capital of Japan is", " Tokyo"),
        Example("1, 2, 3, 4, 5,", " 6"),
        Example("Monday, Tuesday, Wednesday,", " Thursday"),
        Example("The capital of Japan is", " Lima"),
    ]
    settings = GenerateSettings(max_new_tokens=3, match="contains", stop=(".", ","))
    found = Scorer(model, tokenizer, examples, "generate", generate=settings).evaluate()
    assert found.correct is not None
    assert found.correct.tolist() == [True, True, True, False]
    alone = [Scorer(model, tokenizer, [e], "generate", generate=settings).evaluate().generated for e in examples]
    assert found.generated == tuple(text[0] for text in alone if text is not None)
