"""A small Vision Transformer that learns to read digits."""

from pathlib import Path

import torch
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from examples.digits.images import DIGITS, Images


def image_processor() -> ViTImageProcessorPil:
    """Return what makes a model's input of an image: gray, 8 x 8, and its pixels between -1 and 1."""
    return ViTImageProcessorPil(do_resize=False, size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])


def train_reader(
    images: Images, *, hidden_size: int, layers: int, epochs: int, batch: int, rate: float, seed: int
) -> ViTForImageClassification:
    """Return a Vision Transformer with patches of 2 x 2 (Dosovitskiy et al., arXiv 2010.11929) that learned the images.

    Args:
        images: to learn from.
        hidden_size: of the model.
        layers: of the model.
        epochs: how often the images are read.
        batch: images of one step.
        rate: AdamW's, at its highest.
        seed: of the weights, and of the order of images.
    """
    torch.manual_seed(seed)
    names = dict(enumerate(DIGITS))
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden_size,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    model = ViTForImageClassification(config)
    processed = image_processor()(
        list(images.pixels[..., None]), input_data_format="channels_last", return_tensors="pt"
    )
    pixels, digits = processed["pixel_values"], torch.from_numpy(images.digits)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    steps = epochs * -(-len(digits) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(digits))
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            loss = functional.cross_entropy(model(pixel_values=pixels[chosen]).logits, digits[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return model.eval()


def save_reader(model: ViTForImageClassification, folder: Path) -> None:
    """Save a model with its image processor, as any checkpoint that is loaded by name."""
    model.save_pretrained(folder)
    image_processor().save_pretrained(folder)
