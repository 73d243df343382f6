"""Tokenizers that know more than their model, stop strings that are special tokens, and models that lie elsewhere."""

import dataclasses
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.spelled import spelled
from transformers.modeling_outputs import CausalLMOutputWithPast

from strop.anatomy import Anatomy, input_device
from strop.errors import TaskError, UsageError
from strop.scoring import ClassScorer, DriftScorer, Scorer, Texts, evaluate, own_texts
from strop.scoring.generation import Generator
from strop.scoring.token_check import check_tokens
from strop.tasks import Example, GenerateSettings, Labels, Task, load_task
from strop.tasks.chat import Chat
from strop.training import TrainPlan, train

CHATML = (
    "{% for m in messages %}<new79>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<new79>assistant:\n{% endif %}"
)


def grown() -> Any:
    """A tokenizer with 80 tokens more, of which a tiny model knows the first ones: as after `add_tokens` without a resize."""
    tokenizer = spelled()
    tokenizer.add_tokens([f"<new{number}>" for number in range(80)])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.chat_template = CHATML
    return tokenizer


GROWN = grown()
LAST = GROWN.convert_tokens_to_ids("<new79>")
SAID = (
    f"row 2 (prompt 'Item <new79> is'): the tokenizer writes '<new79>' as token {LAST}, and the model knows 320; load the "
    "tokenizer that belongs to the model, or resize the model's embeddings."
)


@pytest.mark.parametrize("score", ["exact", "first_token", "choice", "generate", "perplexity"])
def test_a_token_the_model_does_not_know_is_named_before_it_is_read(tiny: Callable[..., Any], score: Any) -> None:
    choices = (" red", " 7") if score == "choice" else None
    known, unknown = (Example(f"Item {word} is", " red", choices, row=2) for word in ("<new5>", "<new79>"))
    Scorer(tiny("llama"), GROWN, [known], score).evaluate()
    with pytest.raises(TaskError) as refused:
        Scorer(tiny("llama"), GROWN, [known, unknown], score)
    assert str(refused.value) == SAID


def test_a_check_of_a_task_names_every_row_with_such_a_token() -> None:
    examples = tuple(Example(f"Item {word} is", " red", row=2) for word in ("<new5>", "<new79>"))
    found = check_tokens(Task("made", "exact", {"test": examples}), GROWN, longest=128, vocabulary=320)
    assert found.bad == (SAID,)
    assert found.answer_tokens is not None


def test_a_token_that_would_only_be_written_is_named_too(tiny: Callable[..., Any]) -> None:
    with pytest.raises(TaskError, match=f"the tokenizer writes '<new79>' as token {LAST}, and the model knows 320"):
        Scorer(tiny("llama"), GROWN, [Example("Item is", "<new79>", row=2)], "exact")


def test_classifiers_and_counterfactuals_and_templates_are_looked_at_as_well(
    tiny: Callable[..., Any], tiny_classifier: Callable[..., Any]
) -> None:
    said = f"the tokenizer writes '<new79>' as token {LAST}, and the model knows 320; load the tokenizer"
    with pytest.raises(TaskError, match=said):
        ClassScorer(
            tiny_classifier("llama"), GROWN, [Example("Item <new79> is", "a", row=2)], Labels(("a", "b"), "accuracy")
        )
    with pytest.raises(TaskError, match=said):
        Scorer(
            tiny("llama"), GROWN, [Example("<new0>", "red", counterfactual="<new79>")], "exact", counterfactuals=True
        )
    with pytest.raises(TaskError, match=said):
        Scorer(tiny("llama"), GROWN, [Example("Item", "red", chat=Chat())], "exact")


def test_what_is_learned_is_looked_at_before_training(
    tiny: Callable[..., Any], write_task: Callable[..., Path]
) -> None:
    rows = [{"prompt": f"Item {number} is", "answer": " red"} for number in range(12)]
    task = load_task(write_task(rows, splits={"train": 0.4, "select": 0.3, "test": 0.3}))
    spoilt = types.MappingProxyType(
        {**task.splits, "train": (Example("Item <new79> is", " red", row=2), *task.splits["train"][1:])}
    )
    with pytest.raises(TaskError) as refused:
        train(tiny("llama"), GROWN, dataclasses.replace(task, splits=spoilt), TrainPlan(rank=2, layers=(1,), epochs=1))
    assert str(refused.value) == SAID


def test_padding_the_model_does_not_know_is_never_read(tiny: Callable[..., Any]) -> None:
    assert GROWN.pad_token_id >= 320
    examples = [Example("Item is", " red"), Example("The item of all is", " red")]
    settings = GenerateSettings(max_new_tokens=4)
    together = Generator(tiny("llama"), GROWN, examples, settings, longest=128)
    assert len(together.batches) == 1
    alone = [Generator(tiny("llama"), GROWN, [one], settings, longest=128).generate().texts[0] for one in examples]
    assert list(together.generate().texts) == alone


def test_a_base_whose_tokenizer_has_a_chat_it_does_not_know_writes_plain_text(tiny: Callable[..., Any]) -> None:
    texts = own_texts(tiny("llama"), GROWN, fingerprint="grown", count=4)
    assert max(int(chunk.ids.max()) for chunk in texts) < 320


def test_a_text_to_measure_drift_on_is_looked_at(tiny: Callable[..., Any]) -> None:
    model = tiny("llama")
    with pytest.raises(
        UsageError, match=r"^The text drift is measured on has a token 330, and the model knows 320; load"
    ):
        DriftScorer(model, [Texts(torch.tensor([[1, 2, 330, 4]]), 2)], anatomy=Anatomy.of(model))


# Stop strings that are special tokens


def saying(model: Any, tokenizer: Any, text: str) -> Any:
    """Let a model write a text, token by token, and then its last letter for ever."""
    ids = tokenizer(text).input_ids
    coming = iter([*ids, *ids[-1:] * 20])

    def forward(self: Any, input_ids: Any = None, **_: Any) -> Any:
        logits = torch.zeros(*input_ids.shape, 320)
        logits[:, -1, next(coming)] = 9
        return CausalLMOutputWithPast(logits=logits)

    model.forward, model.config.use_cache = types.MethodType(forward, model), False
    model.generation_config.eos_token_id = None
    return model


@pytest.mark.parametrize(
    ("stop", "written", "text"),
    [
        (("<|im_end|>",), "red<|im_end|>blue", "red"),
        (("<|im_end|>", "\n"), "red<|im_end|>blue\n", "red"),
        (("<|im_end|>", "d"), "red<|im_end|>blue", "re"),
        (("\n",), "red<|im_end|>\nblue", "red"),  # a special token that is no stop is not seen
        (("<s>",), "<s>red", ""),
    ],
)
def test_what_is_written_ends_at_a_stop_that_is_a_special_token(
    tiny: Callable[..., Any], stop: tuple[str, ...], written: str, text: str
) -> None:
    tokenizer = spelled()
    model = saying(tiny("llama"), tokenizer, written)
    settings = GenerateSettings(max_new_tokens=12, stop=stop)
    found = Generator(model, tokenizer, [Example("Item is", "r", gold="red")], settings, longest=128).generate()
    assert found.texts == (text,)
    assert found.correct.tolist() == [text == "red"]


def test_a_stop_with_a_special_token_amid_other_text_is_refused(tiny: Callable[..., Any]) -> None:
    settings = GenerateSettings(stop=("<|im_end|>\n",))
    with pytest.raises(TaskError) as refused:
        Generator(tiny("llama"), spelled(), [Example("Item is", "r")], settings, longest=128)
    assert str(refused.value) == (
        "generate.stop: '<|im_end|>\\n' holds the special token '<|im_end|>' amid other text, which no text shows; write "
        "'<|im_end|>'."
    )


# A model whose weights lie elsewhere


@pytest.mark.parametrize("score", ["exact", "choice", "generate"])
def test_an_offloaded_model_is_scored_where_it_is_run(
    tiny: Callable[..., Any], small_tokenizer: Any, write_task: Callable[..., Path], score: Any
) -> None:
    accelerate = pytest.importorskip("accelerate")
    keys: dict[str, Any] = (
        {"choices": [" {{ key }}", " {{ key + 1 }}"], "answer": " {{ key }}"} if score == "choice" else {}
    )
    task = load_task(write_task(score=score, **keys))
    expected = evaluate(tiny("llama"), small_tokenizer, task)
    model = accelerate.cpu_offload(tiny("llama"), execution_device=torch.device("cpu"))
    assert model.get_input_embeddings().weight.device.type == "meta"
    assert input_device(model) == torch.device("cpu")
    found = evaluate(model, small_tokenizer, task)
    assert found.loss.tolist() == expected.loss.tolist()
    assert found.generated == expected.generated
