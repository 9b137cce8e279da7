"""The stand-in for TensorFlow, on a builder written the way the stock ones are and on a stock one."""

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import DatasetError, tfds_sets
from cnnlab.data.tfds_shim import prepare_stock, without_tensorflow

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")
if find_spec("tensorflow") is not None:
    pytest.skip("TensorFlow is installed: nothing stands in for it", allow_module_level=True)

from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf  # noqa: E402 (as stock builders do)


class ShimmedSet(tfds.core.GeneratorBasedBuilder):
    """Opens a file with tf.io.gfile and yields arrays, like mnist."""

    VERSION = tfds.core.Version("1.0.0")
    file: Path

    def _info(self):
        fields = {
            "image": tfds.features.Image(shape=(4, 4, 1)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(fields))

    def _split_generators(self, dl_manager):
        return [tfds.core.SplitGenerator(name="train", gen_kwargs={"path": self.file})]

    def _generate_examples(self, path):
        with tf.io.gfile.GFile(path, "rb") as file:
            images = np.frombuffer(file.read(), np.uint8).reshape(-1, 4, 4, 1)
        for i, image in enumerate(images):
            yield i, {"image": image, "label": i % 2}


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    ShimmedSet.file = tmp_path / "images"
    ShimmedSet.file.write_bytes(images.tobytes())
    return images


def test_without_the_stand_in_such_a_builder_fails(images: np.ndarray, tmp_path: Path) -> None:
    builder = ShimmedSet(data_dir=tmp_path, file_format="array_record")
    with tfds_sets.quiet_tfds(False), pytest.raises((ImportError, AttributeError)):
        builder.download_and_prepare()


def test_with_the_stand_in_it_prepares_the_same_pixels(images: np.ndarray, tmp_path: Path) -> None:
    with tfds_sets.quiet_tfds(False):
        folder = prepare_stock(ShimmedSet, "shimmed_set", tmp_path)
    source = tfds.builder_from_directory(folder).as_data_source("train")
    found = {source[i]["image"].tobytes() for i in range(len(source))}
    assert found == {image.tobytes() for image in images}


def test_everything_is_put_back(images: np.ndarray) -> None:
    from tensorflow_datasets.core.features import image_feature

    before = globals()["tf"], image_feature._ImageEncoder._encode_image
    with pytest.raises(ZeroDivisionError), without_tensorflow(ShimmedSet):
        assert globals()["tf"] is not before[0]
        raise ZeroDivisionError
    assert (globals()["tf"], image_feature._ImageEncoder._encode_image) == before


def test_a_builder_that_needs_more_of_tensorflow_gets_a_clear_error() -> None:
    with without_tensorflow(ShimmedSet):
        with pytest.raises(DatasetError, match="got ShimmedSet, which uses tf.image; do prepare it where"):
            tf.image.decode_image(b"")


@pytest.mark.parametrize(("shape", "encoding"), [((4, 5, 3), "png"), ((4, 5, 1), "png"), ((8, 8, 3), "jpeg")])
def test_arrays_are_encoded_in_the_format_that_the_feature_asks_for(shape, encoding: str) -> None:
    feature = tfds.features.Image(shape=shape, encoding_format=encoding)
    image = np.full(shape, 120, np.uint8)
    with without_tensorflow(ShimmedSet):
        encoded = feature.encode_example(image)
        with pytest.raises(ValueError, match="dtype"):
            feature.encode_example(image.astype(np.int64))
    assert encoded.startswith(b"\x89PNG" if encoding == "png" else b"\xff\xd8")
    np.testing.assert_allclose(feature.decode_example_np(encoded), image, atol=2)  # JPEG may move a little


def test_the_stock_mnist_reads_its_files(tmp_path: Path) -> None:
    builder_class = tfds.builder_cls("mnist")
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    (tmp_path / "images").write_bytes(struct.pack(">4i", 2051, 3, 28, 28) + images.tobytes())
    (tmp_path / "labels").write_bytes(struct.pack(">2i", 2049, 3) + bytes([7, 0, 1]))
    builder = builder_class(data_dir=tmp_path / "tfds", file_format="array_record")
    with without_tensorflow(builder_class):
        rows = [row for _, row in builder._generate_examples(3, tmp_path / "images", tmp_path / "labels")]
    np.testing.assert_array_equal(np.stack([row["image"] for row in rows]), images)
    assert [int(row["label"]) for row in rows] == [7, 0, 1]
