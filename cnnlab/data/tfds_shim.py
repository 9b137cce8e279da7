"""Letting the stock builders of TensorFlow Datasets prepare image sets where TensorFlow is not installed.

Most of them need TensorFlow for two things only: opening files (`tf.io.gfile`) and encoding arrays as PNG or
JPEG. While `without_tensorflow` is active, the builder's own modules see a stand-in for `tf` that opens
files, and Pillow encodes the arrays. Nothing is put into `sys.modules`, and everything is put back at the
end. Tried with 4.9.10: mnist, fashion_mnist, cifar10, cifar100, imagenette, svhn_cropped, oxford_flowers102
(the last two need scipy). Builders that use real TensorFlow operations (cats_vs_dogs, oxford_iiit_pet,
sun397) get a clear error.

This leans on private parts of tensorflow_datasets 4.9; `tests/data/test_tfds_shim.py` watches them.
"""

import glob
import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from unittest import mock

import numpy as np

from cnnlab.data.errors import DatasetError


@contextmanager
def without_tensorflow(builder_class: type) -> Iterator[None]:
    """Within the block, a stock builder works without TensorFlow; does nothing when TensorFlow is there.

    Args:
        builder_class: a subclass of `tfds.core.GeneratorBasedBuilder`.

    Raises:
        DatasetError: inside the block, when the builder asks for a part of TensorFlow that has no stand-in.
    """
    if find_spec("tensorflow") is not None:
        yield
        return

    from tensorflow_datasets.core.features import image_feature

    modules = {sys.modules[base.__module__] for base in builder_class.__mro__ if base.__module__ in sys.modules}
    with ExitStack() as stack:
        for module in modules:
            if "tf" in vars(module) and not module.__name__.startswith("tensorflow_datasets.core."):
                stack.enter_context(mock.patch.object(module, "tf", _TensorFlowStandIn(builder_class.__name__)))
        stack.enter_context(mock.patch.object(image_feature._ImageEncoder, "_encode_image", _encode_with_pillow))
        yield


class _TensorFlowStandIn:
    """What `tf` is in a builder's module: `tf.io.gfile`, and an error for everything else."""

    def __init__(self, builder: str) -> None:
        self._builder = builder
        self.io = SimpleNamespace(
            gfile=SimpleNamespace(
                GFile=_open,
                Open=_open,
                exists=os.path.exists,
                isdir=os.path.isdir,
                listdir=os.listdir,
                glob=_glob,
                walk=os.walk,
            )
        )

    def __getattr__(self, name: str) -> Any:
        raise DatasetError(
            f"Expected a builder that only reads files and encodes images, got {self._builder}, which uses "
            f"tf.{name}; do prepare it where TensorFlow is (file_format='array_record') and copy it."
        )


def _open(name: str | os.PathLike[str], mode: str = "r") -> IO[Any]:
    return open(os.fspath(name), mode)


def _glob(pattern: str | os.PathLike[str]) -> list[str]:
    return sorted(glob.glob(os.fspath(pattern)))


def _encode_with_pillow(encoder: Any, array: np.ndarray) -> bytes:
    """Stands for `_ImageEncoder._encode_image`: the same checks, the same formats."""
    from PIL import Image
    from tensorflow_datasets.core.features import image_feature

    image_feature._validate_np_array(array, shape=encoder.shape, dtype=encoder.np_dtype)
    pixels = array[..., 0] if array.shape[-1] == 1 else array  # [h, w] or [h, w, c]
    buffer = io.BytesIO()
    options = {"quality": 95} if encoder.encoding_format == "jpeg" else {}  # TensorFlow's default quality
    Image.fromarray(pixels).save(buffer, format=encoder.encoding_format, **options)
    return buffer.getvalue()


def prepare_stock(builder_class: type, name: str, data_dir: Path) -> Path:
    """Download and prepare a stock data set as ArrayRecord files.

    Args:
        builder_class: the class of the builder, for the stand-in.
        name: `name[/config][:version]`, as TFDS spells it.
        data_dir: where TFDS keeps its data sets.

    Returns:
        Folder of the prepared set.

    Raises:
        DatasetError: the builder needs more of TensorFlow than the stand-in has.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    with (
        without_tensorflow(builder_class),
        mock.patch.object(downloader, "MAX_RETRIES", 3),
    ):  # 3.5 minutes otherwise
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    return Path(builder.data_dir)
