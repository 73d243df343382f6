"""Loading classifiers of images: with the head they have or one that is drawn, and what is said of other checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fixtures.images import LABELS, make_vit, save_vit

import strop
from strop.checkpoints import open_as_saved, saved_classifier
from strop.errors import CheckpointError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_vit(tmp_path / "vit")


def test_the_head_of_a_checkpoint_is_kept_and_another_is_drawn_by_the_seed(folder: Path) -> None:
    own = make_vit().classifier.weight
    for labels in (None, 3, LABELS, tuple(name.upper() for name in LABELS)):
        model, processor = strop.load_image_classifier(folder, labels=labels)
        assert torch.equal(model.classifier.weight, own)
        assert not model.training
        assert processor.size["height"] == 8
    drawn = [strop.load_image_classifier(folder, labels=5, seed=seed)[0].classifier.weight for seed in (0, 0, 1)]
    assert drawn[0].shape == (5, 16)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_labels_are_named_and_those_in_another_order_are_refused(folder: Path) -> None:
    model, _ = strop.load_image_classifier(folder, labels=["a", "b", "c"])
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    with pytest.raises(UsageError, match="has its labels in another order: give them as cat, dog, owl"):
        strop.load_image_classifier(folder, labels=["owl", "dog", "cat"])
    with pytest.raises(UsageError, match="one label or more"):
        strop.load_image_classifier(folder, labels=[])


def test_what_is_no_classifier_of_images_is_refused_in_one_sentence(
    folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    make_vit().save_pretrained(tmp_path / "alone")
    for call, said in (
        (
            lambda: strop.load_image_classifier(tiny_folder),
            r"\(LlamaForCausalLM\) classifies no images, and the task's",
        ),
        (
            lambda: strop.load(folder),
            r"\(ViTForImageClassification\) looks at images and reads no text; give the task file",
        ),
        (lambda: strop.load_classifier(folder, labels=3), "looks at images and reads no text"),
        (
            lambda: strop.load_image_classifier(tmp_path / "alone"),
            "has no preprocessor_config.json, which says how images",
        ),
        (lambda: strop.load_image_classifier(tmp_path / "none"), "is not there; give a folder with a config.json"),
        (
            lambda: strop.load_image_classifier(folder, labels=5, new_head=False),
            "has no head for 5 labels, and edits are",
        ),
    ):
        with pytest.raises(CheckpointError, match=said) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_a_checkpoint_is_opened_as_what_it_was_saved_as(
    folder: Path, tiny_folder: Path, tiny_classifier: Any, small_tokenizer: Any, tmp_path: Path
) -> None:
    tiny_classifier("bert", 4).save_pretrained(tmp_path / "texts")
    small_tokenizer.save_pretrained(tmp_path / "texts")
    kinds = [saved_classifier(place) for place in (folder, tmp_path / "texts", tiny_folder, tmp_path, "smollm2-135m")]
    assert kinds == ["images", "texts", None, None, None]
    opened = [open_as_saved(place)[0] for place in (folder, tmp_path / "texts", tiny_folder)]
    names = ["ViTForImageClassification", "BertForSequenceClassification", "LlamaForCausalLM"]
    assert [type(model).__name__ for model in opened] == names
    assert opened[1].config.num_labels == 4
