"""Train a Vision Transformer on scikit-learn's digits, reduce one matrix, and measure both on images nobody has looked at.

python -m examples.digits            # a minute
python -m examples.digits --small    # some seconds, for a look at how it goes
"""

import argparse
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

import strop
from examples.exhaustive import Merit, best_reduction
from examples.tables import gain_of_answers, gain_of_numbers, gains_table
from strop import Family, MatrixType, Spelling
from strop.tables import to_markdown

VIT = Family(
    name="Vision Transformer",
    model_types=("vit",),
    blocks="vit.layers",
    matrices={
        MatrixType.QUERY: Spelling("attention.q_proj"),
        MatrixType.KEY: Spelling("attention.k_proj"),
        MatrixType.VALUE: Spelling("attention.v_proj"),
        MatrixType.OUTPUT: Spelling("attention.o_proj"),
        MatrixType.UP: Spelling("mlp.fc1"),
        MatrixType.DOWN: Spelling("mlp.fc2"),
    },
    causal=False,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How large a run is."""

    train: int = 500
    """Images to learn from; of the others a third is there to choose by."""
    hidden_size: int = 32
    layers: int = 2
    epochs: int = 40
    batch: int = 50
    rate: float = 3e-3
    seed: int = 0


SMALL = Settings(train=100, hidden_size=16, epochs=2)


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images with the digits they show."""

    pixels: Tensor
    """(images, 1, 8, 8), 0 to 1."""
    digits: Tensor
    """(images,) int64."""

    def rows(self, index: Tensor) -> "Images":
        """Return some of them."""
        return Images(self.pixels[index], self.digits[index])


def deal_images(*, train: int, seed: int) -> tuple[Images, Images, Images]:
    """Return scikit-learn's 1,797 digits, shuffled, as train, select and test.

    Args:
        train: how many to learn from; a third of the others is select.
        seed: of the order.
    """
    content = load_digits()
    pixels = torch.from_numpy(content.images / 16).float()[:, None]
    images = Images(pixels, torch.from_numpy(content.target).long())
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(pixels)))
    border = train + (len(order) - train) // 3
    return images.rows(order[:train]), images.rows(order[train:border]), images.rows(order[border:])


def train_reader(images: Images, settings: Settings) -> ViTForImageClassification:
    """Return a Vision Transformer with patches of 2 x 2 (Dosovitskiy et al., arXiv 2010.11929) that learned the images.

    Args:
        images: to learn from.
        settings: its sizes, and how it learns.
    """
    torch.manual_seed(settings.seed)
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=4,
        intermediate_size=2 * settings.hidden_size,
        num_labels=10,
    )
    model = ViTForImageClassification(config)
    steps = settings.epochs * -(-len(images.digits) // settings.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(settings.epochs):
        order = torch.randperm(len(images.digits))
        for first in range(0, len(order), settings.batch):
            read = images.rows(order[first : first + settings.batch])
            loss = functional.cross_entropy(model(pixel_values=read.pixels).logits, read.digits)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def score(model: ViTForImageClassification, images: Images) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which images a model reads right, and −log p of each one's digit in nats, (images,) both."""
    logits = model(pixel_values=images.pixels).logits.double()
    loss = functional.cross_entropy(logits, images.digits, reduction="none")
    return (logits.argmax(-1) == images.digits).numpy(), loss.numpy()


def merit(model: ViTForImageClassification, images: Images) -> Merit:
    """Return a model's accuracy and minus its loss."""
    correct, loss = score(model, images)
    return float(correct.mean()), -float(loss.mean())


def run(settings: Settings, *, out: Path) -> dict[str, Any]:
    """Train, choose on the select images, measure on the test images, and return the figures.

    Args:
        settings: how large it is.
        out: folder for the model, the recipe and figures.json.
    """
    train, select, test = deal_images(train=settings.train, seed=settings.seed)
    model = train_reader(train, settings)
    model.save_pretrained(out / "model")
    anatomy = strop.Anatomy.of(model, family=VIT)
    reduction, tried = best_reduction(model, anatomy, lambda: merit(model, select))
    base = edited = score(model, test)
    if reduction is not None:
        recipe = strop.Recipe.of(model, [reduction], family=VIT)
        recipe.save(out / "recipe")
        with strop.applied(model, recipe, family=VIT):
            edited = score(model, test)
    figures = {
        "settings": dataclasses.asdict(settings),
        "images": {"train": len(train.digits), "select": len(select.digits), "test": len(test.digits)},
        "choice": str(reduction) if reduction is not None else None,
        "tried": len(tried),
        "select": {"base": merit(model, select)[0], "best": max(own for _, own in tried)[0]},
        "test": {
            "accuracy": gain_of_answers(base[0], edited[0]),
            "loss, nats": gain_of_numbers(base[1], edited[1], loss=True),
        },
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few images and epochs: seconds, and a poor reader")
    parser.add_argument(
        "--out", type=Path, default=Path("digits"), help="folder for the model, the recipe and figures.json"
    )
    given = parser.parse_args(arguments)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    given.out.mkdir(parents=True, exist_ok=True)
    figures = run(SMALL if given.small else Settings(), out=given.out)
    print(f"chosen of {figures['tried']} on the select images: {figures['choice'] or 'no edit'}")
    print(to_markdown(gains_table("on the test images", figures["test"])))
    print(f"figures: {given.out / 'figures.json'}")


if __name__ == "__main__":
    main()
