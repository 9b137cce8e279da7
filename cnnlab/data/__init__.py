"""Data sets: uint8 images and int32 labels, found or fetched, checked, decoded once, then mapped into memory.

`load_dataset` is the way in. Importing this package imports neither tensorflow_datasets, scikit-learn nor
Pillow; each is imported by the first call that needs it.
"""

from cnnlab.data.augmentation import build_augmentation as build_augmentation
from cnnlab.data.augmentation import on_images as on_images
from cnnlab.data.augmentation import to_float as to_float
from cnnlab.data.batch_transforms import alternating_flip as alternating_flip
from cnnlab.data.batch_transforms import cutmix as cutmix
from cnnlab.data.batch_transforms import mixup as mixup
from cnnlab.data.batch_transforms import mixup_or_cutmix as mixup_or_cutmix
from cnnlab.data.catalog import DatasetRecord as DatasetRecord
from cnnlab.data.catalog import list_datasets as list_datasets
from cnnlab.data.colours import mean_colour as mean_colour
from cnnlab.data.colours import principal_colours as principal_colours
from cnnlab.data.dataset import Dataset as Dataset
from cnnlab.data.dataset import Split as Split
from cnnlab.data.dataset import dataset_from_arrays as dataset_from_arrays
from cnnlab.data.dataset import fingerprint_of as fingerprint_of
from cnnlab.data.errors import DatasetError as DatasetError
from cnnlab.data.errors import DatasetNotFound as DatasetNotFound
from cnnlab.data.errors import ImageError as ImageError
from cnnlab.data.image_transforms import add_noise as add_noise
from cnnlab.data.image_transforms import cutout as cutout
from cnnlab.data.image_transforms import normalize as normalize
from cnnlab.data.image_transforms import pca_colour as pca_colour
from cnnlab.data.image_transforms import random_crop as random_crop
from cnnlab.data.image_transforms import random_flip as random_flip
from cnnlab.data.images import read_image as read_image
from cnnlab.data.load import load_dataset as load_dataset
from cnnlab.data.noise import fast_normal as fast_normal
