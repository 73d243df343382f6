"""scikit-learn's handwritten digits: some for a reader to learn from, the others as a task of images."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

DIGITS = tuple(map(str, range(10)))


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images with the digits they show."""

    pixels: NDArray[np.uint8]
    """(images, 8, 8), 0 to 255."""
    digits: NDArray[np.int64]
    """(images,)."""

    def rows(self, index: NDArray[np.int64]) -> "Images":
        """Return some of them."""
        return Images(self.pixels[index], self.digits[index])


def deal_images(*, read: int, seed: int) -> tuple[Images, Images]:
    """Return scikit-learn's 1,797 digits, shuffled: those a reader learns from, and the others.

    Args:
        read: how many it learns from.
        seed: of the order.
    """
    content = load_digits()
    pixels = np.round(content.images * (255 / 16)).astype(np.uint8)  # of 17 shades
    images = Images(pixels, content.target.astype(np.int64))
    order = np.random.default_rng(seed).permutation(len(pixels))
    return images.rows(order[:read]), images.rows(order[read:])


def write_task(folder: Path, images: Images, *, seed: int) -> Path:
    """Write images as a task: digits.jsonl, a row for each, and digits.yaml beside it.

    Args:
        folder: for both files.
        images: that the reader has not learned from.
        seed: by which they are dealt out.
    """
    rows = [
        {"image": pixels.tolist(), "digit": int(digit)}
        for pixels, digit in zip(images.pixels, images.digits, strict=True)
    ]
    (folder / "digits.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    path = folder / "digits.yaml"
    path.write_text(
        'name: digits\ndata: digits.jsonl\nimage: image\nanswer: "{{ digit }}"\nscore: label\n'
        f"labels: {json.dumps(DIGITS)}\nsplits: {{train: 0.3, select: 0.2, test: 0.5, seed: {seed}}}\n",
        encoding="utf-8",
    )
    return path
