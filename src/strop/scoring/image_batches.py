"""Images and their labels as pixel tensors, made by a model's own image processor, in batches."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel

from strop.anatomy import Anatomy, evaluating, tokens_entering
from strop.errors import TaskError, reason_in
from strop.scoring.label_batches import LabelBatch, on_device_of
from strop.scoring.place import place_of
from strop.scoring.resources import Resources
from strop.tasks.examples import Example
from strop.tasks.labels import Labels
from strop.tasks.pictures import Pixels


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image, with what is to be said of it."""

    example: Example
    target: float
    """The label's index, or the number."""
    pixels: Tensor | None
    """(channels, height, width), as the model looks at it; None where memory does not hold it: it is read again for each pass."""


class ImageForm:
    """How a classifier of images takes in examples: each through the model's own image processor, all of one size.

    Args:
        model: a classifier of images.
        anatomy: of that model.
        processor: its image processor.
        labels: the task's.
        example: one to look at first, which shows how many tokens the model makes of an image.

    Raises:
        TaskError: the model cannot look at the image.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        anatomy: Anatomy,
        processor: BaseImageProcessor,
        labels: Labels,
        *,
        example: Example,
    ) -> None:
        self._model, self._processor, self._labels = model, processor, labels
        self._channels = anatomy.channels(model)
        seen = self._seen(example)
        self._shape = tuple(seen.shape)
        self.tokens_per_image = self._tokens_of_one(anatomy, seen, example)
        """Its patches, and tokens of the model's own such as the class token."""

    def encode(self, examples: Sequence[Example]) -> list[LabelledImage]:
        """Read every image once, and keep as many as memory holds.

        Raises:
            TaskError: one is damaged, has other channels than the model looks at, or comes out of the processor in another
                size than the first.
        """
        budget_bytes = Resources.of(self._model).state_bytes
        found = []
        for example in examples:
            pixels = self._seen(example)
            if tuple(pixels.shape) != self._shape:
                own, first = (" x ".join(map(str, shape)) for shape in (pixels.shape, self._shape))
                raise TaskError(
                    f"{place_of(example)}: the image processor makes it {own}, and the first image {first}; let it resize all "
                    "to one size (do_resize), or crop them."
                )
            budget_bytes -= pixels.nbytes
            target = self._labels.target(example.answer)
            found.append(LabelledImage(example, target, pixels if budget_bytes >= 0 else None))
        return found

    def batches(self, images: Sequence[LabelledImage], *, limit: int) -> list[LabelBatch]:
        """Return all of some images in batches of like size, two images or more in each where there are as many.

        Args:
            images: from `encode`.
            limit: most tokens of a batch.
        """
        most = max(2, limit // self.tokens_per_image)
        parts = np.array_split(np.arange(len(images)), -(-len(images) // most))
        return [self.batch(images, part.tolist()) for part in parts]

    def batch(self, images: Sequence[LabelledImage], members: Sequence[int]) -> LabelBatch:
        """Return some images as one batch; those that memory does not hold are read when it is asked for its inputs."""
        chosen = [images[index] for index in members]

        def inputs() -> Mapping[str, Tensor]:
            pixels = [self._seen(image.example) if image.pixels is None else image.pixels for image in chosen]
            return {"pixel_values": torch.stack(pixels)}

        targets = torch.tensor([image.target for image in chosen])
        return LabelBatch(
            inputs,
            torch.ones(len(chosen), self.tokens_per_image, dtype=torch.bool),
            targets.long() if self._labels.names else targets.float(),
            tuple(members),
        )

    def tokens_of(self, images: Sequence[LabelledImage]) -> int:
        """Return how many tokens a pass over some images reads."""
        return len(images) * self.tokens_per_image

    def _seen(self, example: Example) -> Tensor:
        """Return an image as the model looks at it, (channels, height, width)."""
        assert example.image is not None  # who builds the form has seen to it
        try:
            pixels = self._in_channels(example.image.pixels())
        except TaskError as error:
            raise TaskError(f"{place_of(example)}: {error}") from None
        try:
            made = self._processor([pixels], input_data_format="channels_last", return_tensors="pt")
            found: Tensor = made["pixel_values"][0]
        except Exception as error:  # whatever a processor makes of settings that do not fit
            raise TaskError(f"{place_of(example)}: the model's image processor fails: {reason_in(error)}.") from None
        return found

    def _in_channels(self, pixels: Pixels) -> Pixels:
        """Return pixels with as many channels as the model looks at: gray is the same in all."""
        own = pixels.shape[-1]
        if own == self._channels:
            return pixels
        if own == 1:
            return np.repeat(pixels, self._channels, axis=-1)
        raise TaskError(
            f"it has {own} channels, and this {type(self._model).__name__} looks at {self._channels}; convert the image."
        )

    def _tokens_of_one(self, anatomy: Anatomy, pixels: Tensor, example: Example) -> int:
        inputs: dict[str, Any] = on_device_of(self._model, {"pixel_values": pixels[None]})
        try:
            with torch.no_grad(), evaluating(self._model), tokens_entering(self._model, anatomy) as entering:
                self._model.base_model(**inputs)
        except Exception as error:  # an image of another size than the model's positions, above all
            raise TaskError(
                f"{place_of(example)}: {type(self._model).__name__} cannot look at it: {reason_in(error)}; load the image "
                "processor that belongs to the model."
            ) from None
        return entering.shape[1]
