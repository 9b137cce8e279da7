"""The small study in place of the real ones, and its runs without training them again."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest

from cnnlab.reproduction import reproduce
from tests.reproduction.small_study import Small


def put(patch: pytest.MonkeyPatch) -> Small:
    """Put the small study in place of every other, and leave out the reports of its runs, which take longest."""
    study = Small()
    for module in ("reproduce", "page"):
        patch.setattr(import_module(f"cnnlab.reproduction.{module}"), "get_study", lambda name: study)
    patch.setattr(import_module("cnnlab.reproduction.page"), "list_studies", lambda: [study])
    patch.setattr("cnnlab.experiment.plan.draw_report", lambda *args: None)
    return study


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    """The study, in place of every other."""
    return put(monkeypatch)


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the quick version, really trained; to be read only."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        put(patch)
        reproduce("small", folder, quick=True)
    return folder


@pytest.fixture
def trained(small: Small, small_runs: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rows and seeds that are trained from now on; each gets a copy of a real run, and nothing is drawn."""
    calls: list[str] = []

    def copy(row, seeds, out, **options) -> bool:
        for seed in seeds:
            calls.append(f"{row.name} {seed}")
            shutil.copytree(small_runs / row.name / "seed-0", out / row.name / f"seed-{seed}", dirs_exist_ok=True)
        return True

    monkeypatch.setattr(import_module("cnnlab.reproduction.reproduce"), "train_row", copy)
    monkeypatch.setattr(Small, "draw", lambda self, results: {})
    return calls
