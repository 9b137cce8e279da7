"""A kill -9 at any moment of a save leaves a whole checkpoint to go on from."""

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cnnlab.training.checkpoint import CheckpointStore

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys, time, numpy as np
from pathlib import Path
from cnnlab.training import checkpoint
store = checkpoint.CheckpointStore(Path(sys.argv[1]))
def save(step):
    store.save(step, {"a": np.full((300, 300), step, np.float32), "b": np.int32(step)}, {"step": step})
def stop(*args, **options):
    print("stopped", flush=True)
    time.sleep(60)
save(1); store.wait()
{stop_at}
for step in range(2, 10_000):
    save(step); store.wait(); print(step, flush=True)
"""
LIKE = {"a": np.empty((300, 300), np.float32), "b": np.int32(0)}


AFTER_THE_SECOND = "lambda folder: stop() if (folder / 'save-00000002').exists() else None"


def kill_a_writer(folder: Path, stop_at: str, seconds: float = 0.0) -> list[str]:
    """Kill a process that saves and saves, `seconds` after it stopped or saved 3; return what it said."""
    command = [sys.executable, "-c", WRITER.replace("{stop_at}", stop_at), str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(1 if stop_at else 3)]
        time.sleep(seconds)
        process.kill()
        return said + process.stdout.readlines()


def load_what_fits_together(folder: Path) -> int:
    step, tree, meta = CheckpointStore(folder).load(LIKE)
    assert meta == {"step": step} and int(tree["b"]) == step and (tree["a"] == step).all()
    return step


def save_once_more(folder: Path) -> None:
    """Save; what the killed process left behind must be gone then."""
    with closing(CheckpointStore(folder)) as store:
        store.save(0, LIKE, {})
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("stop_at", "step"),
    [
        ("checkpoint._write_meta = stop", 1),  # the arrays are written, the meta is not
        ("checkpoint.os.replace = stop", 1),  # all is written, nothing is published
        (f"checkpoint._remove_drafts = {AFTER_THE_SECOND}", 2),  # published, the one before not yet removed
    ],
    ids=["before the meta", "before publishing", "before removing"],
)
def test_a_kill_in_mid_save_leaves_the_newest_whole_checkpoint(tmp_path, stop_at, step):
    assert kill_a_writer(tmp_path / "last", stop_at) == ["stopped\n"]
    assert any(path.name.startswith(".draft-") for path in (tmp_path / "last").iterdir())
    assert load_what_fits_together(tmp_path / "last") == step
    save_once_more(tmp_path / "last")


def test_a_kill_at_a_random_moment_loses_nothing_that_was_complete(tmp_path):
    said = kill_a_writer(tmp_path / "last", "", seconds=np.random.default_rng().uniform(0, 0.05))
    assert load_what_fits_together(tmp_path / "last") >= int(said[-1])
    save_once_more(tmp_path / "last")
