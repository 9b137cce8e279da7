"""The small study in place of the real ones."""

from importlib import import_module

import pytest

from tests.reproduction.small_study import Small


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    """The study, in place of every other."""
    study = Small()
    for module in ("reproduce", "page"):
        monkeypatch.setattr(import_module(f"cnnlab.reproduction.{module}"), "get_study", lambda name: study)
    monkeypatch.setattr(import_module("cnnlab.reproduction.page"), "list_studies", lambda: [study])
    return study
