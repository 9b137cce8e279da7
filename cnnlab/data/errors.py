"""What this room raises. Every text reads "Expected ..., got ...; do ...", in one line."""


class DatasetError(Exception):
    """Data that cannot be found, read or trusted; the text says what to do about it."""


class DatasetNotFound(DatasetError):
    """A data set that is nowhere on this machine and cannot be downloaded now."""


class ImageError(DatasetError):
    """One image file that is missing, damaged, too large, or no image at all."""
