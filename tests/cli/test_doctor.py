"""`cnnlab doctor`: what it tells, what it finds missing, and its exit code."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from cnnlab.cli import doctor as doctor_module
from cnnlab.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch, tmp_path) -> Path:
    """As on a machine without NVIDIA's tools; returns the folder on PATH where they would be."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.fixture
def gpu(no_gpu):
    """Install an nvidia-smi that tells of one GPU."""

    def install(driver: str) -> None:
        (no_gpu / "nvidia-smi").write_text(f"#!/bin/sh\necho 'NVIDIA H200, {driver}'\n")
        (no_gpu / "nvidia-smi").chmod(0o755)

    return install


def on_cpu() -> bool:
    import jax

    return jax.default_backend() == "cpu"


def test_a_whole_machine_is_well(capsys, own_places):
    (own_places / "something").write_bytes(bytes(1_500_000))
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^device +1 x ", text, flags=re.MULTILINE) or not on_cpu()
    assert f"({sys.executable})" in text
    assert f"jax {metadata.version('jax')}" in text
    assert re.search(rf"^cache +{re.escape(str(own_places))} \([\d,]+\.\d MB\)$", text, flags=re.MULTILINE)
    assert "\ncifar10 " in text and "\ndigits " in text
    lines = text.splitlines()
    where = lines.index("optional: CIFAR-10, for the thesis' experiment (170 MB, else fetched on first use)")
    assert lines[where + 1].strip() == f"{sys.executable} -c 'import cnnlab; cnnlab.load_dataset(\"cifar10\")'"
    assert text.endswith("all is well: nothing that is needed is missing\n")


def cifar10_folder(place: Path) -> Path:
    """The official files in name and size; their holes take no room."""
    folder = place / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        with open(folder / name, "wb") as file:
            file.truncate(30_730_000)
    return folder


def test_a_machine_with_cifar10_misses_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CNNLAB_DATA", str(cifar10_folder(tmp_path / "data").parent))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("\nall is well: nothing is missing\n")


def test_a_cnnlab_data_without_cifar10_is_found_with_the_command_that_fills_it(capsys, monkeypatch, tmp_path):
    place = tmp_path / "empty"
    place.mkdir()
    monkeypatch.setenv("CNNLAB_DATA", str(place))
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    where = lines.index(f"missing: a usable CIFAR-10 in $CNNLAB_DATA ({place}: an empty folder)")
    assert lines[where + 1].strip().endswith(f"""cnnlab.load_dataset("cifar10", "{place}")'""")
    assert not any("all is well" in line for line in lines)


def test_a_cnnlab_data_that_is_damaged_is_found_and_not_what_else_there_is(capsys, monkeypatch, tmp_path, own_places):
    folder = cifar10_folder(tmp_path / "data")
    (folder / "data_batch_4.bin").unlink()
    monkeypatch.setenv("CNNLAB_DATA", str(folder))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert f"in $CNNLAB_DATA ({folder}: data_batch_4.bin is missing)\n    unset CNNLAB_DATA\n" in text
    assert "optional: CIFAR-10" in text, "there is no other"


def without(monkeypatch, *names: str) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in names:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor_module.metadata, "version", version)


def test_a_missing_package_is_named_with_its_command(capsys, monkeypatch):
    without(monkeypatch, "matplotlib", "array_record")
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    where = lines.index("missing: matplotlib, for the figures of a report")
    assert lines[where + 1].strip() == f"{sys.executable} -m pip install matplotlib"
    assert "optional: array_record, for data sets of TensorFlow Datasets" in lines


def test_what_is_optional_changes_no_exit_code(capsys, monkeypatch):
    without(monkeypatch, "tensorflow-datasets")
    assert main(["doctor"]) == 0
    assert "pip install tensorflow-datasets\n" in capsys.readouterr().out


@pytest.mark.parametrize(("driver", "cuda"), [("580.65.06", 13), ("570.86.15", 12)])
def test_a_gpu_that_jax_does_not_use_is_found(capsys, gpu, driver, cuda):
    if not on_cpu():
        pytest.skip("JAX uses the GPU of this machine")
    gpu(driver)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "missing: JAX's CUDA plugin: NVIDIA H200 is here, but JAX uses the CPU\n" in text
    assert f"pip install --upgrade 'jax[cuda{cuda}]=={metadata.version('jax')}'\n" in text


@pytest.mark.parametrize(("name", "value"), [("JAX_PLATFORMS", "cpu"), ("CUDA_VISIBLE_DEVICES", "")])
def test_a_gpu_that_is_left_out_on_purpose_is_well(capsys, gpu, monkeypatch, name, value):
    if not on_cpu():
        pytest.skip("JAX uses the GPU of this machine")
    gpu("580.65.06")
    monkeypatch.setenv(name, value)
    assert main(["doctor"]) == 0
    assert f"; NVIDIA H200 is left out by {name}={value}\n" in capsys.readouterr().out


def test_a_device_that_cannot_be_had_is_found(capsys, monkeypatch):
    import jax

    def devices():
        raise RuntimeError("Unknown backend:\n 'gpu' requested")

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "none (Unknown backend: 'gpu' requested)" in text
    assert "missing: a device for JAX (JAX_PLATFORMS=cuda)\n    unset JAX_PLATFORMS\n" in text


def test_a_cache_that_cannot_be_written_is_found(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert f"missing: a cache folder that can be written ({tmp_path / 'file' / 'cache'})\n    export " in text


def test_the_doctor_knows_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in project["dependencies"]}
    assert names == {*doctor_module.PACKAGES, *doctor_module.OPTIONAL}
