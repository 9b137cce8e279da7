"""One process trains in a folder; whatever becomes of it, the next one may."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cnnlab.training import RunFolder, RunFolderError, Trainer, run_lock

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import runpy, sys, time
from pathlib import Path
lock = runpy.run_path("cnnlab/training/run_lock.py")["RunLock"](Path(sys.argv[1]))
with lock:
    print("in", flush=True)
    time.sleep(60)
"""

pytestmark = pytest.mark.skipif(run_lock.fcntl is None, reason="no flock on this system")


@pytest.fixture
def run(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_json("recipe.json", {})
    return folder


def refused(run):
    text = f"Expected no other process training in {run.path}, got one; do wait for it to end."
    return pytest.raises(RunFolderError, match=f"^{text}$")


def test_a_second_one_is_refused_until_the_first_has_left(run):
    with run.lock:
        with run.lock:  # the same run may enter again
            pass
        with refused(run), RunFolder(run.path).lock:
            pass
    assert not (run.path / ".lock").exists()
    with RunFolder(run.path).lock:
        pass


def test_an_error_inside_releases_the_lock(run):
    with pytest.raises(ZeroDivisionError), run.lock:
        raise ZeroDivisionError
    with RunFolder(run.path).lock:
        pass


def test_another_process_is_refused_and_its_death_releases_the_lock(run):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(run.path)], cwd=ROOT, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"in\n"
        with refused(run), run.lock:
            pass
        os.kill(child.pid, signal.SIGKILL)
    assert (run.path / ".lock").exists()  # left behind, and no hindrance
    with run.lock:
        pass


def test_a_trainer_does_not_train_where_another_one_does(run, recipe, split, network):
    trainer = Trainer(recipe(), split(35), split(20, seed=1), "test")
    with RunFolder(run.path).lock, refused(run):
        trainer.run(network(), folder=run)


@pytest.mark.parametrize("inside", [".", "seed-1"])
def test_a_run_under_way_is_not_overwritten(run, inside):
    other = RunFolder(run.path / inside)
    other.path.mkdir(exist_ok=True)
    other.write_json("recipe.json", {})
    with RunFolder(other.path).lock, refused(other):
        RunFolder.create(run.path, overwrite=True)
    assert (run.path / "recipe.json").exists() and (other.path / "recipe.json").exists()
    RunFolder.create(run.path, overwrite=True)
    assert not (other.path / "recipe.json").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(
        RunFolderError, match=r"Expected to write .*\.lock, got .*; do check the disk's room and rights"
    ):
        with RunFolder(tmp_path / "nowhere").lock:
            pass
