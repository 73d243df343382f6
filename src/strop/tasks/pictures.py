"""Images that rows hold: as paths of files, as nested lists of pixel numbers, or as the values of a data set's Image column."""

import dataclasses
import hashlib
import importlib.util
import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strop.errors import TaskError, UsageError, quoted, reason_in, shortened
from strop.tasks.values import NotTextError, kind_of, plain, whole_text

if TYPE_CHECKING:
    import PIL.Image

Pixels = NDArray[np.uint8]
"""(height, width, channels), 0 to 255; one channel is gray, three are red, green and blue."""

EXACT_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
"""Of Pillow's modes those that 8-bit gray or RGB hold without loss, and which of the two; others are refused, by name."""
SEE_THROUGH = ("LA", "PA", "RGBA")
"""Modes that say how far pixels are seen through; an image of such a mode is taken where it is opaque all over."""


@dataclasses.dataclass(frozen=True)
class Beside:
    """Where the paths of images begin."""

    folder: Path | None
    """None where rows come from no folder: of a data set of the hub."""
    bounded: bool = True
    """Paths may not lead out of the folder: so it is wherever rows were not given as Python objects."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image as a row holds it, decoded only where a model is to look at it; the same as another if both hold the same."""

    name: str = dataclasses.field(compare=False)
    """What people call it: its path as the row has it, or its size."""
    digest: str
    """32 hexadecimal digits over its content: over the file's bytes, or over size and pixels."""
    content: "Path | bytes | Pixels" = dataclasses.field(repr=False, compare=False)

    def pixels(self) -> Pixels:
        """Return its pixels, upright where a camera noted how it was held.

        Raises:
            TaskError: the file is damaged, or was changed; the message names no row.
        """
        if isinstance(self.content, np.ndarray):
            return self.content
        return _decoded(_bytes_of(self.content, self.name), self.name)


def require_pillow() -> None:
    """Raise UsageError where images cannot be read, for Pillow is not installed."""
    if importlib.util.find_spec("PIL") is None:
        raise UsageError("Images are read by Pillow, which is not here; pip install 'strop[images]'.")


def picture_of(value: Any, beside: Beside) -> Picture:
    """Return the image that a row's value is.

    Args:
        value: a path; nested lists, or an array, of whole numbers from 0 to 255, (height, width) or (height, width, channels);
            an image of Pillow; or the value of a data set's Image column, a mapping with `bytes` and `path`.
        beside: where paths begin.

    Raises:
        TaskError: it is none of these, or no image that can be used as it is; the message names no row.
        UsageError: Pillow is not installed.

    >>> picture_of([[0, 255], [255, 0]], Beside(None)).name
    '2 x 2 pixels'
    """
    require_pillow()
    if isinstance(value, Mapping):
        return _of_image_column(value, beside)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _checked(bytes(value), f"{len(value):,} bytes", bytes(value))
    if hasattr(value, "tobytes") and hasattr(value, "getbands"):
        return _of_pixels(_as_pixels(value, "the image"))
    found = value if isinstance(value, np.ndarray) and value.dtype != object else plain(value)
    if isinstance(found, str) and found.strip():
        path = _path_of(found, beside)
        return _checked(_bytes_of(path, found), found, path)
    if isinstance(found, (list, tuple, np.ndarray)):
        return _of_pixels(_of_numbers(found))
    if found is None or isinstance(found, str):
        raise TaskError("it is empty; fill it or drop the row.")
    raise TaskError(
        f"it holds {kind_of(found)}; an image is a path, nested lists of pixels, or the Image value of a data set."
    )


def _of_image_column(value: Mapping[str, Any], beside: Beside) -> Picture:
    """Return the image of what the `datasets` library keeps: the bytes of a file, or its path."""
    content, path = value.get("bytes"), value.get("path")
    if content is not None:
        name = path if isinstance(path, str) and path else f"{len(content):,} bytes"
        return _checked(bytes(content), name, bytes(content))
    if not isinstance(path, str) or not path:
        raise TaskError("it holds an object with neither bytes nor path; an Image value of a data set has one of them.")
    if beside.folder is None:  # the library itself has put it there
        beside = Beside(Path(), bounded=False)
    return picture_of(path, beside)


def _path_of(text: str, beside: Beside) -> Path:
    """Return the file a path names, whatever is there."""
    if beside.folder is None:
        raise TaskError(
            f"the path {quoted(text, most=60)} begins nowhere, for the rows are no file's; take a data set whose images are "
            "in an Image column."
        )
    try:
        path = Path(whole_text(text))
    except NotTextError as error:
        raise TaskError(f"{error}.") from None
    here = Path.cwd()
    whole, folder = (Path(os.path.normpath(here / one)) for one in (beside.folder / path, beside.folder))
    if beside.bounded and not whole.is_relative_to(folder):
        raise TaskError(
            f"the path {quoted(text, most=60)} leads out of the data file's folder; put the images in it, and write their paths "
            "from there."
        )
    return beside.folder / path


def _bytes_of(content: Path | bytes, name: str) -> bytes:
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except FileNotFoundError:
        raise TaskError(
            f"there is no file {shortened(str(content), most=120)}; paths begin at the data file."
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or reason_in(error)
        raise TaskError(f"{quoted(name, most=80)} cannot be read: {why}.") from None


def _checked(raw: bytes, name: str, content: Path | bytes) -> Picture:
    """Return a file's image, if the head of the file says that it is one that can be used."""
    with _opened(raw, name):
        pass
    return Picture(name, hashlib.sha256(raw).hexdigest()[:32], content)


def _opened(raw: bytes, name: str) -> "PIL.Image.Image":
    """Return an image of which only the head is read.

    Raises:
        TaskError: it is none that can be used.
    """
    import PIL.Image

    shown = quoted(name, most=80)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            image = PIL.Image.open(io.BytesIO(raw))
    except (PIL.Image.DecompressionBombWarning, PIL.Image.DecompressionBombError):
        raise TaskError(
            f"{shown} has more pixels than Pillow's limit, {PIL.Image.MAX_IMAGE_PIXELS:,}; shrink it, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS."
        ) from None
    except PIL.UnidentifiedImageError:
        raise TaskError(f"{shown} is no image that Pillow can read; correct the path or drop the row.") from None
    except Exception as error:  # whatever a damaged file makes of its reader
        raise TaskError(f"{shown} is a damaged image: {reason_in(error)}.") from None
    _refuse_unfit(image, shown)
    return image


def _refuse_unfit(image: "PIL.Image.Image", shown: str) -> None:
    """Raise TaskError if an image of Pillow is several, or no 8-bit gray or RGB holds it."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise TaskError(f"{shown} has {frames} frames, and an image is one; save the one that is meant.")
    if image.mode not in EXACT_MODES and image.mode not in SEE_THROUGH:
        raise TaskError(f"{shown} is of mode {image.mode}, which 8-bit RGB does not hold; convert it to RGB or gray.")


def _decoded(raw: bytes, name: str) -> Pixels:
    image = _opened(raw, name)
    try:
        image.load()
    except Exception as error:
        raise TaskError(f"{quoted(name, most=80)} is a damaged image: {reason_in(error)}.") from None
    return _as_pixels(image, quoted(name, most=80))


def _as_pixels(image: "PIL.Image.Image", shown: str) -> Pixels:
    """Return the pixels of an image of Pillow that is all there.

    Raises:
        TaskError: gray or RGB of 8 bits do not hold them.
    """
    import PIL.ImageOps

    _refuse_unfit(image, shown)
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode in SEE_THROUGH or "transparency" in image.info:
        seen = image.convert("RGBA")
        if seen.getchannel("A").getextrema()[0] < 255:
            raise TaskError(f"{shown} is transparent in places; paste it on the background that is meant.")
        image = seen.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    found = np.asarray(image.convert(EXACT_MODES[image.mode]), dtype=np.uint8)
    return found[..., None] if found.ndim == 2 else found


def _of_numbers(value: Any) -> Pixels:
    """Return nested lists, or an array, of pixel numbers as pixels."""
    try:
        found = np.asarray(value)
    except ValueError:
        raise TaskError("its rows of pixels are of unequal lengths; make them alike.") from None
    if found.dtype.kind not in "iuf" or found.ndim not in (2, 3) or not found.size:
        what = f"of shape {found.shape}" if found.dtype.kind in "iuf" else "with something else than numbers in it"
        raise TaskError(f"it holds a list {what}; pixels are numbers, (height, width) or (height, width, channels).")
    if not np.isfinite(found).all() or found.min() < 0 or found.max() > 255 or (found != np.floor(found)).any():
        odd = found[~np.isfinite(found) | (found < 0) | (found > 255) | (found != np.floor(found))].flat[0]
        raise TaskError(f"pixels are whole numbers from 0 to 255, not {odd:g}; scale them.")
    pixels = found.astype(np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _of_pixels(pixels: Pixels) -> Picture:
    height, width, channels = pixels.shape
    name = f"{height} x {width} pixels" + (f" of {channels} channels" if channels > 1 else "")
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()[:32]
    return Picture(name, digest, pixels)
