"""Many encoded images into one `.npy` file, one image in memory at a time."""

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cnnlab.data.errors import DatasetError, ImageError
from cnnlab.data.images import Size, decode_image, height_and_width
from cnnlab.data.progress import progress_bar

_NAMED = 5  # how many damaged images or odd sizes one message names


def write_images(
    target: Path,
    encoded: Iterable[tuple[str, bytes]],
    count: int,
    *,
    size: Size | None,
    channels: int,
    upright: bool = True,
    progress: bool = True,
) -> tuple[int, int]:
    """Decode `count` images into the array file `target`, `uint8 [count, height, width, channels]`.

    Args:
        target: the `.npy` file to write.
        encoded: `(name, bytes of the file)` of each image; the name is for messages.
        count: how many there are, at least 1.
        size: what every image is resized to (see `read_image`); None demands that all have the same size.
        channels: 1, 3 or 4.
        upright: apply EXIF orientation.
        progress: show a bar.

    Returns:
        `(height, width)` of all images.

    Raises:
        DatasetError: damaged images (all counted, the first ones named), images of several sizes without
            `size` (the sizes counted), or too little room on the disk.
    """
    pixels: np.ndarray | None = None
    sizes: Counter[tuple[int, int]] = Counter()
    damaged: list[str] = []
    with progress_bar(f"decoding {target.stem}", count, enabled=progress) as advance:
        for row, (name, data) in enumerate(encoded):
            advance(1)
            try:
                image = decode_image(data, size, channels, name=name, upright=upright)  # [h, w, c]
            except ImageError as error:
                damaged.append(str(error))
                continue
            sizes[image.shape[:2]] += 1
            if pixels is None:
                pixels = _allocate(target, (count, *image.shape))
            if len(sizes) == 1:
                pixels[row] = image
    if damaged:
        raise DatasetError(_damage(damaged))
    if pixels is None:
        raise DatasetError(f"Expected {count} images for {target.stem}, got none; do check the source.")
    if len(sizes) > 1:
        raise DatasetError(_several_sizes(sizes))
    pixels.flush()  # type: ignore[attr-defined]
    return next(iter(sizes))


def parse_size(text: str) -> tuple[int, int]:
    """`"64"` or `"64x48"` (height x width, pixels) as `(height, width)`.

    Example:
        >>> parse_size("64"), parse_size("64x48")
        ((64, 64), (64, 48))
    """
    sides = text.split("x")
    if len(sides) not in (1, 2) or not all(side.isascii() and side.isdigit() for side in sides):
        raise DatasetError(f"Expected size=SIDE or size=HEIGHTxWIDTH in pixels, got size={text}; do write size=64.")
    return height_and_width((int(sides[0]), int(sides[-1])))


def _allocate(target: Path, shape: tuple[int, ...]) -> np.ndarray:
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(target.parent).free
    if needed > free:
        raise DatasetError(
            f"Expected {needed / 1e9:.1f} GB of room for {shape[0]:,} decoded images in {target.parent}, got "
            f"{free / 1e9:.1f} GB; do free some, set CNNLAB_CACHE, or ask for smaller images with ?size=SIDE."
        )
    return np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)


def _damage(damaged: list[str]) -> str:
    if len(damaged) == 1:
        return damaged[0]
    shown = " | ".join(damaged[:_NAMED])
    more = "" if len(damaged) <= _NAMED else f" | and {len(damaged) - _NAMED} more"
    return f"Expected readable images, got {len(damaged)} that are not; do replace or remove them: {shown}{more}"


def _several_sizes(sizes: Counter[tuple[int, int]]) -> str:
    (height, width), _ = sizes.most_common(1)[0]
    shown = ", ".join(f"{h}x{w} ({n:,} images)" for (h, w), n in sizes.most_common(_NAMED))
    more = "" if len(sizes) <= _NAMED else f" and {len(sizes) - _NAMED} more"
    common = str(height) if height == width else f"{height}x{width}"
    return (
        f"Expected images of one size (height x width), got {len(sizes)}: {shown}{more}; "
        f"do add ?size={common} to the name to resize them all."
    )
