"""The cache of compiled programs: private, on by default, and a second process compiles nothing."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from cnnlab.training.compilation_cache import use_compilation_cache

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def as_a_person_has_it(monkeypatch, tmp_path):
    """A cache of its own, nothing turned off; nothing compiles here, so that JAX never opens the folder."""
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CNNLAB_COMPILATION_CACHE", raising=False)
    before = {name: jax.config.values[name] for name in OPTIONS}
    jax.config.update(OPTIONS[0], None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def settings():
    return [jax.config.values[name] for name in OPTIONS]


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def folder_of(tmp_path: Path, permissions: int) -> Path:
    folder = tmp_path / "cache" / "compiled"
    folder.mkdir(parents=True)
    folder.chmod(permissions)
    return folder


def test_every_program_is_kept_in_a_folder_that_only_its_owner_may_enter(tmp_path):
    folder = use_compilation_cache()
    assert folder == tmp_path / "cache" / "compiled" and mode(folder) == 0o700
    assert settings() == [str(folder), 0.0, -1]
    assert use_compilation_cache() == folder  # once more changes nothing


@pytest.mark.parametrize("permissions", [0o755, 0o750, 0o704], ids=oct)
def test_a_folder_that_others_may_read_is_closed_to_them(tmp_path, permissions):
    folder = folder_of(tmp_path, permissions)
    assert use_compilation_cache() == folder and mode(folder) == 0o700


@pytest.mark.parametrize("permissions", [0o770, 0o702, 0o777], ids=oct)
def test_a_folder_that_others_may_have_written_into_is_not_used(tmp_path, permissions):
    folder = folder_of(tmp_path, permissions)
    assert use_compilation_cache() is None and settings()[0] is None
    assert mode(folder) == permissions


def test_a_folder_of_somebody_else_is_not_used(tmp_path, monkeypatch):
    folder, own = folder_of(tmp_path, 0o700), os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    assert use_compilation_cache() is None and settings()[0] is None
    assert mode(folder) == 0o700


def test_it_can_be_turned_off(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLAB_COMPILATION_CACHE", "0")
    before = settings()
    assert use_compilation_cache() is None and settings() == before
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_the_users_choice_is_left_alone(tmp_path):
    jax.config.update(OPTIONS[0], str(tmp_path / "mine"))
    jax.config.update(OPTIONS[1], 7.0)
    assert use_compilation_cache() == tmp_path / "mine"
    assert settings()[:2] == [str(tmp_path / "mine"), 7.0] and not (tmp_path / "cache").exists()


def test_a_place_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert use_compilation_cache() is None and settings()[0] is None


FIT = """
import collections, json
from jax import monitoring

heard = collections.Counter()
monitoring.register_event_listener(lambda event, **about: heard.update([event.rpartition("/")[2]]))

import numpy as np
from flax import nnx
import cnnlab
from cnnlab.data import Dataset, Split

class Tiny(nnx.Module):
    def __init__(self, rngs):
        self.head = nnx.Linear(48, 3, rngs=rngs)
    def __call__(self, images):
        return self.head(images.reshape(images.shape[0], -1))

split = Split(np.arange(8 * 48).reshape(8, 4, 4, 3).astype(np.uint8), np.arange(8, dtype=np.int32) % 3)
data = Dataset("tiny", split, split, ("a", "b", "c"), "made here", "0" * 16)
run = cnnlab.fit(Tiny, data, cnnlab.Recipe(epochs=1, batch_size=4, noise=0.1), progress=False)
wanted, found = heard["compile_requests_use_cache"], heard["cache_hits"]
print(json.dumps({"wanted": wanted, "found": found, "loss": run.history[0]["loss"]}))
"""


def fit_in_a_new_process(cache: Path, **variables: str) -> dict:
    """Run FIT as a person would, who has set nothing but the place of the cache."""
    kept = {k: v for k, v in os.environ.items() if k != "CNNLAB_COMPILATION_CACHE" and not k.startswith("JAX_")}
    environment = {**kept, "CNNLAB_CACHE": str(cache), "JAX_PLATFORMS": "cpu", **variables}
    done = subprocess.run([sys.executable, "-c", FIT], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_second_fit_compiles_nothing_and_gives_the_same(tmp_path):
    """Every program that the first process compiled, the smallest too, is on the disk for the second."""
    first, second = (fit_in_a_new_process(tmp_path / "cache") for _ in range(2))
    assert first["wanted"] > 10 and first["found"] < first["wanted"] / 2
    assert second == {**first, "found": second["wanted"]}
    assert mode(tmp_path / "cache" / "compiled") == 0o700


def test_a_fit_with_the_cache_turned_off_leaves_nothing(tmp_path):
    off = fit_in_a_new_process(tmp_path / "cache", CNNLAB_COMPILATION_CACHE="0")
    assert off["wanted"] > 10 and off["found"] == 0
    assert not (tmp_path / "cache" / "compiled").exists()
