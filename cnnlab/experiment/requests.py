"""The data that a run names in its recipe.json, found again from any directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnlab.data import Dataset, load_dataset
from cnnlab.training import RunFolderError

_FOLDER = "folder:"


def absolute_request(request: str | None, data_dir: str | Path | None) -> str | None:
    """Return a request that means the same from every directory: `folder:cats?size=32` gets its whole path."""
    if request is None or not request.startswith(_FOLDER):
        return request
    base, mark, options = request.partition("?")
    place = Path(data_dir or "").expanduser() / Path(base.removeprefix(_FOLDER)).expanduser()
    return f"{_FOLDER}{place.absolute()}{mark}{options}"


def load_recorded(
    run: Path, record: dict[str, Any], data_dir: str | Path | None, *, download: bool = True, progress: bool = True
) -> Dataset:
    """Load the data of a run.

    Args:
        run: its folder, for the messages.
        record: its recipe.json, with a request.
        data_dir: where to look, if they have moved: as for `cnnlab.load_dataset`, and for a folder of images this
            folder, or the one that it lies in.
        download: whether the network may be used.
        progress: show progress bars.

    Raises:
        RunFolderError: the images or labels are others than those of the run.
        cnnlab.data.DatasetError: they cannot be found or read.
    """
    request, place = record["dataset"]["request"], record["dataset"]["data_dir"]
    if data_dir is not None:
        request, place = _moved(request, Path(data_dir).expanduser().absolute()), data_dir
    dataset = load_dataset(request, place, download=download, progress=progress)
    if dataset.fingerprint != record["dataset"]["fingerprint"]:
        raise RunFolderError(
            f"Expected the data {run} was trained on, got other images or labels from {dataset.source}; "
            "do give their place with --data-dir."
        )
    return dataset


def _moved(request: str, data_dir: Path) -> str:
    """The request with the folder of images in `data_dir`, or that is `data_dir`."""
    base, mark, options = request.partition("?")
    if not base.startswith(_FOLDER):
        return request
    inside = data_dir / Path(base.removeprefix(_FOLDER)).name
    return f"{_FOLDER}{inside if inside.is_dir() else data_dir}{mark}{options}"
