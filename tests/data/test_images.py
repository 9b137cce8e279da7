import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlab.data import DatasetError, ImageError, read_image
from cnnlab.data.images import decode_image


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_a_lossless_file_is_read_exactly(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", pixels, **({"lossless": True} if suffix == ".webp" else {}))
    np.testing.assert_array_equal(read_image(path), pixels)


def test_grey_becomes_three_equal_channels_and_colour_becomes_one(tmp_path: Path, pixels: np.ndarray) -> None:
    grey = read_image(save(tmp_path / "grey.png", pixels[..., 0]))
    assert grey.shape == (6, 9, 3)
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, axis=2))
    assert read_image(save(tmp_path / "colour.png", pixels), channels=1).shape == (6, 9, 1)


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path, pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels).quantize(4)
    image.save(tmp_path / "p.png", transparency=b"\x00\x80\xff\xff")
    assert read_image(tmp_path / "p.png").shape == (6, 9, 3)


def test_the_exif_orientation_is_respected(tmp_path: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    path = save(tmp_path / "turned.png", pixels, exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(pixels, k=-1))
    np.testing.assert_array_equal(decode_image(path.read_bytes(), upright=False), pixels)


def test_a_size_covers_and_cuts_the_middle_without_stretching(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # only the middle third is lit
    image = read_image(save(tmp_path / "wide.png", wide), size=8)
    assert image.shape == (8, 8, 3)
    assert (image == 200).all()
    assert read_image(tmp_path / "wide.png", size=(4, 6)).shape == (4, 6, 3)


def test_the_size_of_the_file_leaves_the_pixels_alone(tmp_path: Path, pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", pixels), size=(6, 9)), pixels)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="got No such file or directory for .*nowhere.png; do check the path"):
        read_image(tmp_path / "nowhere.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="got Is a directory"):
        read_image(tmp_path)


def test_a_text_file_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("not an image")
    with pytest.raises(ImageError, match="got something else in .*a.png; do convert or remove"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".bmp"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut{suffix}", pixels)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=f"in .*cut{suffix}; do (replace|convert)"):
        read_image(path)


def test_a_decompression_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (16_000, 16_000)).save(path)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ImageError, match="Expected at most 89,478,485 pixels, got more in .*bomb.png"):
        read_image(path)


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_smaller_bomb_that_pillow_only_warns_about_is_refused_too(tmp_path: Path, action: str) -> None:
    warnings.simplefilter(action, Image.DecompressionBombWarning)  # pytest puts the filters back
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match="Expected at most 89,478,485 pixels, got more in"):
        read_image(tmp_path / "bomb.png")


def test_sixteen_bits_are_not_cut_silently(tmp_path: Path) -> None:
    path = save(tmp_path / "deep.png", np.full((4, 4), 40_000, np.uint16))
    with pytest.raises(ImageError, match="Expected 8 bits a channel in .*deep.png, got mode I;16"):
        read_image(path)


def test_formats_that_start_other_programs_are_not_tried() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="EPS")
    with pytest.raises(ImageError, match="got something else"):
        decode_image(buffer.getvalue())


@pytest.mark.parametrize(
    ("options", "text"),
    [({"channels": 2}, "Expected 1, 3 or 4"), ({"size": 0}, "got 0x0"), ({"size": (4, 99_999)}, "4x99999")],
)
def test_impossible_options_are_errors(tmp_path: Path, pixels: np.ndarray, options: dict, text: str) -> None:
    with pytest.raises(DatasetError, match=text):
        read_image(save(tmp_path / "a.png", pixels), **options)
