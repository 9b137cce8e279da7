"""Safetensors files: pickles are refused, damaged files are errors that name the file, types are kept."""

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cnnlab.models import WeightsError
from cnnlab.models.safetensors_file import open_tensors, write_tensors


def read_all(path: Path) -> dict[str, np.ndarray]:
    with open_tensors(path) as file:
        return {name: file.read(name) for name in file.shapes}


def test_what_is_written_is_read_in_its_type_and_shape(tmp_path: Path) -> None:
    rows = np.arange(12.0).reshape(3, 4)
    content = {
        "transposed": rows.T,
        "strided": rows[:, ::2],
        "big endian": rows.astype(">f4"),
        "half": rows.astype(np.float16),
        "brain": rows.astype(ml_dtypes.bfloat16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }
    write_tensors(tmp_path / "w.safetensors", content, {"format": "pt"})
    found = read_all(tmp_path / "w.safetensors")
    assert found.keys() == content.keys()
    for name, array in content.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name].astype(np.float64), array.astype(np.float64), err_msg=name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.pth", b"PK\x03\x04" + b"\0" * 40),
        ("x.safetensors", b"PK\x03\x04" + b"\0" * 40),
        ("x.safetensors", b"\x80\x02\x8a\n" + b"\0" * 40),
        ("x.pt", b"anything"),
        ("x.pt", b""),
    ],
)
def test_a_pickle_file_is_refused_with_the_command_that_converts_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as error:
        read_all(tmp_path / name)
    text = str(error.value)
    assert text.startswith("Expected a safetensors file, got the pickle file ") and "\n" not in text
    assert f"torch.load('{tmp_path / name}', map_location='cpu', weights_only=True)" in text
    assert text.endswith(f"""w.items()}}, '{tmp_path}/x.safetensors')\"""")


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(start: int, end: int, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
DAMAGED = {
    "empty": b"",
    "no header": b"\x01\0",
    "header longer than the file": raw({"a": tensor(0, 4)}, b"1234", length=4000),
    "header above 100 MB": raw({"a": tensor(0, 4)}, b"1234", length=2**40),
    "no JSON": raw(b"{]"),
    "no text": raw(b"{\xff\xfe}"),
    "cut off": raw({"a": tensor(0, 8, shape=(2,))}, b"1234"),
    "too long": raw({"a": tensor(0, 4)}, b"123456"),
    "overlap": raw({"a": tensor(0, 4), "b": tensor(2, 6)}, b"123456"),
    "gap": raw({"a": tensor(0, 4), "b": tensor(6, 10)}, b"1234567890"),
    "offsets backwards": raw({"a": tensor(4, 0)}, b"1234"),
    "offsets outside": raw({"a": tensor(100, 104)}, b"1234"),
    "size and shape differ": raw({"a": tensor(0, 4, shape=(2,))}, b"1234"),
    "a shape beyond all numbers": raw({"a": tensor(0, 4, shape=(2**62, 2**62))}, b"1234"),
    "unknown type": raw({"a": tensor(0, 4, dtype="F99")}, b"1234"),
    "a name twice": raw(TWICE, b"1234"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"Expected (a whole safetensors file|each name once).*w\.safetensors.*; do "
    ):
        read_all(tmp_path / "w.safetensors")


def test_a_header_whose_length_begins_like_a_pickle_is_none(tmp_path: Path) -> None:
    header = json.dumps({"a": tensor(0, 4)}).encode()
    header += b" " * (0x0280 - len(header))
    content = raw(header, b"1234")
    assert content[:2] == b"\x80\x02"
    (tmp_path / "w.safetensors").write_bytes(content)
    assert read_all(tmp_path / "w.safetensors")["a"].tobytes() == b"1234"
