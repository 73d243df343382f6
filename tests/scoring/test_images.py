"""Classifiers of images on tasks: what they are shown, what is scored, and what does not go together."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fixtures.images import LABELS, image_keys, image_rows, make_processor, make_vit, save_vit

import strop
from strop.errors import StropError
from strop.scoring import ClassScorer, Resources, using
from strop.tasks import Task, load_task


@pytest.fixture
def task() -> Task:
    return load_task(image_keys(data=image_rows(30)))


def by_hand(model: Any, task: Task, *, channels: int = 1) -> tuple[float, float]:
    """Return accuracy and mean loss on the test split, from pixels scaled to between -1 and 1."""
    examples = task.examples("test")
    pixels = torch.tensor([example.columns["image"] for example in examples]).float()[:, None] / 255
    targets = torch.tensor([LABELS.index(example.answer) for example in examples])
    with torch.no_grad():
        logits = model(pixel_values=((pixels - 0.5) / 0.5).repeat(1, channels, 1, 1)).logits
    loss = torch.nn.functional.cross_entropy(logits, targets)
    return float((logits.argmax(-1) == targets).float().mean()), float(loss)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_figures_are_those_computed_by_hand_and_gray_is_the_same_in_all_channels(task: Task, channels: int) -> None:
    model = make_vit(channels=channels)
    found = strop.evaluate(model, make_processor(channels=channels), task)
    accuracy, loss = by_hand(model, task, channels=channels)
    assert found.accuracy == pytest.approx(accuracy)
    assert found.mean_loss == pytest.approx(loss, rel=1e-5)
    assert found.wanted == tuple(example.answer for example in task.examples("test"))


def test_a_folder_stands_for_model_and_processor(task: Task, tmp_path: Path) -> None:
    folder = save_vit(tmp_path / "vit")
    assert strop.evaluate(folder, task).mean_loss == pytest.approx(by_hand(make_vit(), task)[1], rel=1e-5)
    other = make_processor()
    other.image_mean = (0.25,)
    assert strop.evaluate(folder, other, task).mean_loss != strop.evaluate(folder, task).mean_loss


def test_images_that_memory_does_not_hold_are_read_for_each_pass(task: Task) -> None:
    model, examples = make_vit(), task.examples("test")
    kept = ClassScorer(model, make_processor(), examples, task.labels)
    with using(Resources(state_bytes=1, batch_tokens=1)):
        read = ClassScorer(model, make_processor(), examples, task.labels)
    assert [len(batch.members) for batch in kept.batches] == [9]
    assert [len(batch.members) for batch in read.batches] == [2, 2, 2, 2, 1]
    assert kept.tokens == read.tokens == 9 * 17  # 16 patches and the class token
    np.testing.assert_allclose(read.evaluate().loss, kept.evaluate().loss, rtol=1e-5)


def test_a_model_of_half_precision_is_shown_numbers_of_its_own_kind(task: Task) -> None:
    narrow = strop.evaluate(make_vit().to(torch.bfloat16), make_processor(), task)
    assert narrow.mean_loss == pytest.approx(by_hand(make_vit(), task)[1], rel=0.05)


def refused(model: Any, reader: Any, task: Task) -> str:
    with pytest.raises(StropError) as raised:
        strop.evaluate(model, reader, task)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_does_not_go_together_is_refused_in_one_sentence(
    task: Task, cities: Callable[..., Path], tiny_classifier: Any, tiny: Any, small_tokenizer: Any
) -> None:
    model, processor, text = make_vit(), make_processor(), load_task(cities(labels=["france", "brazil", "peru"]))
    assert "ViTForImageClassification looks at images, and the task's examples are texts; name the column" in refused(
        model, processor, text
    )
    assert "examples are images, and BertForSequenceClassification reads text; load a model that classifies" in refused(
        tiny_classifier("bert", 3), small_tokenizer, task
    )
    assert "ViTForImageClassification goes with an image processor, not with TokenizersBackend" in refused(
        model, small_tokenizer, task
    )
    assert "goes with a tokenizer, not with ViTImageProcessorPil; strop.load_classifier returns both" in refused(
        tiny_classifier("bert", 3), processor, text
    )
    assert "LlamaForCausalLM is none; load it with strop.load_image_classifier(name, labels=3)." in refused(
        tiny("llama"), small_tokenizer, task
    )
    assert "does not predict the next token" in refused(
        model, processor, load_task([{"prompt": f"{n} + 1 =", "answer": f" {n + 1}"} for n in range(10)])
    )


def colourful(task: Task, shape: tuple[int, ...]) -> Task:
    """Return the task with a test image of another shape behind the first."""
    from strop.tasks.pictures import Beside, picture_of

    image = picture_of(np.zeros(shape, dtype=np.uint8), Beside(None))
    first, second, *_ = task.examples("test")
    return dataclasses.replace(task, splits={**task.splits, "test": (first, dataclasses.replace(second, image=image))})


def test_an_image_that_the_model_cannot_look_at_is_named_with_its_row(task: Task) -> None:
    model, processor, whole = make_vit(), make_processor(), make_processor()
    whole.do_resize = False
    row = task.examples("test")[1].row
    said = refused(model, processor, colourful(task, (8, 8, 3)))
    assert said == (
        f"row {row} (image '8 x 8 pixels of 3 channels'): it has 3 channels, and this ViTForImageClassification looks at 1; "
        "convert the image."
    )
    said = refused(model, whole, colourful(task, (10, 8)))
    assert said.startswith(f"row {row} (image '10 x 8 pixels'): the image processor makes it 1 x 10 x 8, and the first")
    larger = make_processor()
    larger.size = {"height": 12, "width": 12}
    assert "ViTForImageClassification cannot look at it: Input image size (12*12) doesn't match" in refused(
        model, larger, task
    )
    strange = make_processor(channels=3)
    assert ": the model's image processor fails: mean must have 1 elements" in refused(model, strange, task)
