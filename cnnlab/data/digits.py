"""Handwritten digits that come with scikit-learn: real images for a first run without a download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
    1998.
"""

from importlib.util import find_spec

import numpy as np

from cnnlab.data.dataset import Dataset, Split, fingerprint_of
from cnnlab.data.errors import DatasetNotFound
from cnnlab.data.images import Size, resize_image
from cnnlab.data.splitting import complement, stratified_choice

_TEST_IMAGES = 500


def load_digits(size: Size | None = None) -> Dataset:
    """1,297 train and 500 test images, `uint8 [n, 8, 8, 1]`; the cut is stratified and always the same.

    scikit-learn's 17 levels of ink, 0 to 16, become 0 to 255 (rounded).

    Args:
        size: side, or `(height, width)`, in pixels that every image is enlarged to (bilinear, to cover, middle
            cut out); None keeps 8 x 8.

    Raises:
        DatasetNotFound: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise DatasetNotFound("Expected scikit-learn for 'digits', got none; do pip install scikit-learn.")
    from sklearn import datasets

    ink, labels = datasets.load_digits(return_X_y=True)  # [n, 64], [n]
    images = np.rint(np.asarray(ink) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    if size is not None:
        images = np.stack([resize_image(image, size) for image in images])
    everything = Split(images, np.asarray(labels).astype(np.int32))
    chosen = stratified_choice(everything.labels, _TEST_IMAGES)
    train, test = everything.take(complement(chosen, len(everything))), everything.take(chosen)
    classes = tuple(str(digit) for digit in range(10))
    return Dataset("digits", train, test, classes, "scikit-learn's load_digits (UCI)", fingerprint_of(train, test))
