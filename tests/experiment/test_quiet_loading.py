"""Whether progress is wanted is told to the loading of the data too."""

import json
from pathlib import Path

import pytest

from cnnlab.data import cifar10
from cnnlab.experiment import fit, resume


class Loading(Exception):
    """Stands for all that would come after; its text is the progress that was asked for."""


@pytest.mark.parametrize("progress", [True, False])
def test_fit_and_resume_load_with_the_progress_that_is_wanted(tmp_path: Path, monkeypatch, progress: bool) -> None:
    def refuse(data_dir: Path | None, *, download_allowed: bool, progress: bool) -> None:
        raise Loading(str(progress))

    monkeypatch.setattr(cifar10, "load_cifar10", refuse)
    with pytest.raises(Loading, match=str(progress)):
        fit("lenet", "cifar10", progress=progress)
    record = {"model": {"options": {}}, "dataset": {"request": "cifar10", "data_dir": None}, "seed": 0}
    (tmp_path / "recipe.json").write_text(json.dumps(record))
    with pytest.raises(Loading, match=str(progress)):
        resume(tmp_path, progress=progress)
