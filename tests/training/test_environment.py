"""What a run was made with is recorded, without secrets and without failing."""

import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata

import jax
import pytest

import cnnlab
from cnnlab.training import environment
from cnnlab.training.environment import describe_environment, what_differs


def git(folder, *words):
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, env=os.environ | settings)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_versions_and_device_are_those_of_this_process():
    found = describe_environment()
    assert found["cnnlab"] == cnnlab.__version__
    for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "tensorflow-datasets"):
        assert found[package] == metadata.version(package)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["backend"] == jax.default_backend()
    assert found["device_kind"] == jax.devices()[0].device_kind
    assert found["device_count"] == jax.device_count()
    assert found["cpu_count"] == os.cpu_count()
    assert found["cpu"] is None or found["cpu"].strip()
    assert json.loads(json.dumps(found)) == found


def test_started_is_now_in_utc():
    started = datetime.fromisoformat(describe_environment()["started"])
    assert started.utcoffset().total_seconds() == 0
    assert abs((datetime.now(UTC) - started).total_seconds()) < 60


def test_the_command_can_be_typed_again(monkeypatch):
    words = ["cnnlab", "train", "--out", "runs/a b", "--set", "name='x'"]
    monkeypatch.setattr(sys, "argv", words)
    assert shlex.split(describe_environment()["command"]) == words


def test_only_the_named_variables_are_recorded(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=")
    monkeypatch.setenv("JAX_PLANTED", "1")
    monkeypatch.setenv("MY_TOKEN", "planted-secret")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    monkeypatch.setenv("XLA_FLAGS_TOO", "planted-secret")
    found = describe_environment()
    assert found["variables"]["XLA_FLAGS"] == "--xla_dump_to="
    assert found["variables"]["JAX_PLANTED"] == "1"
    assert found["variables"]["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    named = ("XLA_FLAGS", "GLIBC_TUNABLES")
    assert all(name in named or name.startswith("JAX_") for name in found["variables"])
    assert "planted-secret" not in json.dumps(found)


def test_the_git_revision_and_whether_tracked_files_changed(repository):
    head = (repository / ".git" / "refs" / "heads").iterdir().__next__().read_text().strip()
    (repository / "untracked").write_text("1")
    found = describe_environment()
    assert (found["git_revision"], found["git_dirty"]) == (head, False)
    (repository / "a").write_text("2")
    assert describe_environment()["git_dirty"] is True


def test_code_that_git_does_not_know_makes_a_checkout_dirty(repository):
    (repository / "folder").mkdir()
    (repository / "folder" / "notes.txt").write_text("1")
    assert describe_environment()["git_dirty"] is False
    (repository / "folder" / "new \u00e9.py").write_text("1")
    assert describe_environment()["git_dirty"] is True
    (repository / ".git" / "info" / "exclude").write_text("*.py\n")
    assert describe_environment()["git_dirty"] is False


def test_the_checkout_of_cnnlab_has_a_revision_of_its_own(repository, tmp_path_factory, monkeypatch):
    head = describe_environment()["git_revision"]
    own = tmp_path_factory.mktemp("own")
    (own / "__init__.py").write_text("")
    git(own, "init", "-q")
    git(own, "add", "__init__.py")
    git(own, "commit", "-q", "-m", "another")
    monkeypatch.setattr(environment, "_PACKAGE_FOLDER", own)
    found = describe_environment()
    assert found["git_revision"] == head and found["cnnlab_dirty"] is False
    assert len(found["cnnlab_revision"]) == 40 and found["cnnlab_revision"] != head
    (own / "new.py").write_text("")
    assert (describe_environment()["cnnlab_dirty"], describe_environment()["git_dirty"]) == (True, False)


def test_a_package_installed_below_a_checkout_is_no_part_of_it(repository, monkeypatch):
    installed = repository / "venv" / "cnnlab"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(environment, "_PACKAGE_FOLDER", installed)
    found = describe_environment()
    assert (found["cnnlab_revision"], found["cnnlab_dirty"]) == (None, None)


def test_what_differs_names_what_may_round_otherwise_and_nothing_else():
    first = {"jax": "0.10.1", "flax": "0.12.8", "numpy": "2.4", "device_kind": "cpu", "variables": {}}
    assert what_differs([first], {**first, "numpy": "2.5", "started": "now"}) == []
    now = {**first, "jax": "0.10.2", "variables": {"XLA_FLAGS": "--xla_x"}}
    both = ["jax 0.10.1 is now 0.10.2", "XLA_FLAGS unset is now --xla_x"]
    assert what_differs([first], now) == both
    assert what_differs([first, now], now) == both  # what differed once is not undone
    assert what_differs([{}], now) == []


def test_outside_a_repository_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = describe_environment()
    assert (found["git_revision"], found["git_dirty"]) == (None, None)


def test_without_git_or_with_a_slow_one_there_is_no_revision(repository, monkeypatch):
    monkeypatch.setattr(environment, "_GIT_SECONDS", 1e-6)
    assert describe_environment()["git_revision"] is None
    monkeypatch.undo()
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PATH", "")
    assert describe_environment()["git_revision"] is None


def test_a_program_that_the_repository_names_is_not_run(repository):
    script = repository / "watch"
    script.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(repository / 'ran'))}\n")
    script.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(script))
    describe_environment()
    assert not (repository / "ran").exists()
    git(repository, "status")  # git would have run it
    assert (repository / "ran").exists()


def test_a_package_that_is_not_installed_is_none(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("jax", "no-such-package-planted"))
    assert describe_environment()["no-such-package-planted"] is None
