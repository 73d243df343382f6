"""How a classifier takes in examples: texts as tokens, images as pixels."""

from collections.abc import Sequence
from typing import Any, Protocol

from transformers import PreTrainedModel

from strop.anatomy import Anatomy
from strop.checkpoints import looks_at_images
from strop.errors import UsageError
from strop.scoring.image_batches import ImageForm
from strop.scoring.label_batches import LabelBatch, TextForm
from strop.tasks.examples import Example
from strop.tasks.labels import Labels


class LabelForm(Protocol):
    """What turns examples into what a classifier is called with."""

    def encode(self, examples: Sequence[Example]) -> Sequence[Any]:
        """Return each example as the model reads it, with its `target`."""
        ...

    def batches(self, encoded: Sequence[Any], *, limit: int) -> list[LabelBatch]:
        """Return all of them in batches of at most so many tokens."""
        ...

    def batch(self, encoded: Sequence[Any], members: Sequence[int]) -> LabelBatch:
        """Return some of them as one batch."""
        ...

    def tokens_of(self, encoded: Sequence[Any]) -> int:
        """Return how many tokens they are, padding left out."""
        ...


def label_form(
    model: PreTrainedModel, anatomy: Anatomy, reader: Any, examples: Sequence[Example], labels: Labels
) -> LabelForm:
    """Return how a classifier takes in some examples.

    Args:
        model: a classifier of texts, or of images.
        anatomy: of that model.
        reader: its fast tokenizer, or its image processor.
        examples: at least one.
        labels: the task's.

    Raises:
        TaskError: the model has no padding token, or cannot look at the first image.
        UsageError: the model looks at images and the examples are texts, or the other way round; or the reader is not of its kind.
    """
    name, images = type(model).__name__, looks_at_images(model)
    if images and examples[0].image is None:
        raise UsageError(
            f"{name} looks at images, and the task's examples are texts; name the column that holds images under image: in the "
            "task file."
        )
    if not images and examples[0].image is not None:
        raise UsageError(
            f"The task's examples are images, and {name} reads text; load a model that classifies images with "
            "strop.load_image_classifier."
        )
    if images != hasattr(reader, "preprocess"):
        wanted, loader = (
            ("an image processor", "load_image_classifier") if images else ("a tokenizer", "load_classifier")
        )
        raise UsageError(f"{name} goes with {wanted}, not with {type(reader).__name__}; strop.{loader} returns both.")
    if images:
        return ImageForm(model, anatomy, reader, labels, example=examples[0])
    return TextForm.of(model, anatomy, reader, labels)
