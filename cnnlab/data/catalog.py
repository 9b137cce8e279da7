"""What data sets there are, where they are on this machine, and how to get them."""

from dataclasses import dataclass
from importlib.util import find_spec

from cnnlab.data.cache import cache_root, newest_entry
from cnnlab.data.cifar10 import REMOTE, cifar10_location
from cnnlab.data.tfds_sets import tfds_available

NOT_PREPARED = "not prepared"


@dataclass(frozen=True)
class DatasetRecord:
    """One line of `cnnlab datasets`.

    Attributes:
        name: what to pass to `load_dataset`; capitals stand for something of yours.
        description: what it is, in a few words.
        location: where it is now, or `"not prepared"`.
        how: how to get it.
    """

    name: str
    description: str
    location: str
    how: str


def list_datasets() -> list[DatasetRecord]:
    """The names that `load_dataset` knows, the TFDS sets in the cache, and the open-ended names.

    Looks at folders only: loads, prepares and downloads nothing, and imports neither TFDS nor scikit-learn.
    """
    sklearn = "comes with scikit-learn" if find_spec("sklearn") else NOT_PREPARED
    return [
        DatasetRecord("digits", "1,797 handwritten digits, 8x8 grey, 10 classes", sklearn, "pip install scikit-learn"),
        DatasetRecord(
            "cifar10",
            "60,000 photographs, 32x32 colour, 10 classes",
            cifar10_location() or NOT_PREPARED,
            f"fetched on first use ({REMOTE.size / 1e6:.0f} MB); or get {REMOTE.url} and set CNNLAB_DATA",
        ),
        *_cached_tfds_sets(),
        DatasetRecord(
            "folder:PATH",
            "your images, PATH/train/<class>/* and PATH/test/<class>/*, or PATH/<class>/*",
            "PATH",
            "-",
        ),
        DatasetRecord(
            "TFDS_NAME",
            "any image-classification set of TensorFlow Datasets, such as mnist or cifar100",
            "fetched on first use" if tfds_available() else NOT_PREPARED,
            "pip install tensorflow-datasets array_record importlib_resources",
        ),
    ]


def _cached_tfds_sets() -> list[DatasetRecord]:
    groups = sorted(path.name for path in (cache_root() / "datasets").glob("tfds-*"))
    return [
        DatasetRecord(group.removeprefix("tfds-"), "from TensorFlow Datasets", str(entry), "in the cache")
        for group in groups
        if (entry := newest_entry(group)) is not None
    ]
