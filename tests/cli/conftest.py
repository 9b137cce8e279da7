"""What the tests of the command line share: places of their own, and one small run that all of them read."""

import contextlib
import io
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flax import nnx
from PIL import Image

from cnnlab.cli import main
from cnnlab.data import load_dataset
from cnnlab.models.registry import REGISTRY, register_model
from cnnlab.training.keeper import Keeper

SMALL = ["--model", "tiny", "--model-set", "widths=16", "--set", "noise=0", "--set", "batch-size=256"]


class Tiny(nnx.Module):
    """Dense layers: compiled in a second, where a convolution takes ten."""

    def __init__(self, sizes: list[int], rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in zip(sizes[:-1], sizes[1:], strict=True)])

    def __call__(self, images):
        x = images.reshape(images.shape[0], -1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


@contextlib.contextmanager
def tiny_registered() -> Iterator[None]:
    """A model "tiny" in the registry, for a moment."""
    with REGISTRY.temporarily():

        @register_model
        def tiny(num_classes=10, *, widths=(8,), in_channels=3, image_size=32, rngs):
            return Tiny([image_size**2 * in_channels, *widths, num_classes], rngs)

        yield


@dataclass(frozen=True)
class FinishedRun:
    """A run of two epochs that was interrupted after the first, and what the two commands printed."""

    folder: Path
    image: Path
    train_code: int
    train_text: str
    resume_code: int
    resume_text: str


def _quiet_main(args: list[str]) -> tuple[int, str]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = main(args)
    return code, text.getvalue()


@pytest.fixture(scope="session")
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the caches of the person who runs it; returns the cache."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("CNNLAB_CACHE", str(cache))
        patch.setenv("CNNLAB_COMPILATION_CACHE", "0")
        patch.setenv("TFDS_DATA_DIR", str(cache / "tensorflow_datasets"))
        patch.delenv("CNNLAB_DATA", raising=False)
        patch.delenv("CNNLAB_TRACEBACK", raising=False)
        yield cache


@pytest.fixture(autouse=True)
def in_an_empty_folder(own_places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs without --out go to tmp_path/runs; the model of the finished run is known."""
    monkeypatch.chdir(tmp_path)
    with tiny_registered():
        yield


@pytest.fixture(scope="session")
def finished(own_places: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Trained on digits, with Ctrl-C at the end of the first of two epochs, and resumed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    record = Keeper.record

    def record_and_interrupt(self, *args, **options):
        record(self, *args, **options)
        os.kill(os.getpid(), signal.SIGINT)

    with tiny_registered():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Keeper, "record", record_and_interrupt)
            train = _quiet_main(["train", "--set", "epochs=2", "--out", str(folder), "--seed", "3", *SMALL])
        resume = _quiet_main(["resume", str(folder)])
    image = folder.parent / "digit.png"
    Image.fromarray(load_dataset("digits?size=32").test.images[0, :, :, 0]).save(image)
    return FinishedRun(folder, image, *train, *resume)
