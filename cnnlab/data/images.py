"""Reading one image file into an array: the only place in cnnlab that decodes or resizes images."""

import io
import math
from pathlib import Path

import numpy as np

from cnnlab.data.errors import DatasetError, ImageError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
"""Suffixes (lower case) that an image folder is searched for."""

_FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "BMP",
    "GIF",
    "TIFF",
    "PPM",
)  # never EPS and the like, which start other programs
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

Size = int | tuple[int, int]
"""A side in pixels, or `(height, width)`."""


def read_image(path: str | Path, size: Size | None = None, channels: int = 3) -> np.ndarray:
    """Read an image file as people see it (its EXIF orientation is applied).

    Args:
        path: a PNG, JPEG, WebP, BMP, GIF (first frame), TIFF or PPM file.
        size: side, or `(height, width)`, in pixels. The image is scaled until it covers the size (bilinear,
            with antialiasing) and its middle is cut out, so nothing is stretched. None keeps the size of the
            file.
        channels: 1 (grey), 3 (red, green, blue) or 4 (with alpha); a file that has others is converted.

    Returns:
        `uint8 [height, width, channels]`.

    Raises:
        ImageError: the file is missing, damaged, not an image, deeper than 8 bits a channel, or larger than
            Pillow's limit of 89 million pixels (a "decompression bomb").
        DatasetError: `size` or `channels` cannot be.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"Expected an image file, got {error.strerror or error} for {path}; do check the path."
        ) from error
    return decode_image(data, size, channels, name=str(path))


def decode_image(
    data: bytes, size: Size | None = None, channels: int = 3, *, name: str = "image", upright: bool = True
) -> np.ndarray:
    """Like `read_image`, from the bytes of a file.

    Args:
        data: the whole encoded file.
        size: see `read_image`.
        channels: see `read_image`.
        name: what errors call it.
        upright: apply the EXIF orientation. TensorFlow Datasets does not, nor do we for its sets.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if channels not in _MODES:
        raise DatasetError(f"Expected 1, 3 or 4 channels, got {channels}; do choose one of these.")
    target = None if size is None else height_and_width(size)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            limit = Image.MAX_IMAGE_PIXELS or math.inf  # up to twice that Pillow only warns
            if opened.width * opened.height > limit:
                raise Image.DecompressionBombError
            opened.load()
            image: Image.Image = ImageOps.exif_transpose(opened) if upright else opened
            mode = image.mode
            if mode.startswith(("I", "F")):
                raise ImageError(f"Expected 8 bits a channel in {name}, got mode {mode}; do convert the image.")
            if mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")
            image = image.convert(_MODES[channels])
            if target is not None and (image.height, image.width) != target:
                image = ImageOps.fit(image, (target[1], target[0]), method=Image.Resampling.BILINEAR)
            pixels = np.array(image)  # [h, w] or [h, w, c]
    except UnidentifiedImageError as error:
        raise ImageError(
            f"Expected an image (PNG, JPEG, WebP, BMP, GIF, TIFF, PPM), got something else in {name}; "
            "do convert or remove it."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"Expected at most {Image.MAX_IMAGE_PIXELS:,} pixels, got more in {name}; do shrink or remove it."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:  # how Pillow reports damage
        raise ImageError(f"Expected an undamaged image, got '{error}' in {name}; do replace or remove it.") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def resize_image(image: np.ndarray, size: Size) -> np.ndarray:
    """Scale `uint8 [h, w, 1 | 3 | 4]` to cover `size` (bilinear) and cut out its middle, as `read_image` does."""
    from PIL import Image, ImageOps

    height, width = height_and_width(size)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    fitted = ImageOps.fit(picture, (width, height), method=Image.Resampling.BILINEAR)
    return np.array(fitted).reshape(height, width, image.shape[-1])


def height_and_width(size: Size) -> tuple[int, int]:
    """`(height, width)` of a side or a pair, both between 1 and 16,384 pixels, or DatasetError."""
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= 16_384 and 1 <= width <= 16_384):
        raise DatasetError(f"Expected a size from 1 to 16384 pixels, got {height}x{width}; do choose another.")
    return height, width
