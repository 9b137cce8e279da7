"""Checkpoints come back exactly, or say in one line why not."""

import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.training import checkpoint
from cnnlab.training.checkpoint import CheckpointError, CheckpointStore

ROOT = Path(__file__).resolve().parents[2]


@jax.tree_util.register_dataclass
@dataclass
class State:
    params: Any
    step: Any
    key: Any


def small_tree(value: float = 1.0) -> dict[str, Any]:
    return {"kernel": jnp.full((3, 4), value, jnp.float32), "step": jnp.uint32(7)}


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints" / "best")
    yield store
    store.close()


def saved(store: CheckpointStore, step: int, tree: Any, meta: dict | None = None) -> Path:
    """Save, wait and return the folder it was published in."""
    store.save(step, tree, meta or {})
    store.wait()
    (folder,) = store.folder.iterdir()
    return folder


def keep_a_copy(folder: Path) -> Path:
    """Put a save aside, as if the writer had been killed before it removed it."""
    copy = folder.parent.parent / f"aside-{folder.name}"
    shutil.copytree(folder, copy)
    return copy


def flip_a_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def largest_file(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def assert_same_leaves(got: Any, expected: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_every_kind_of_leaf_comes_back_with_its_bits_shape_and_dtype(store):
    tree = State(
        params={
            "conv/1": [jnp.linspace(0, 1, 24, dtype=jnp.bfloat16).reshape(2, 3, 4), jnp.arange(5)],
            "float8": jnp.array([1, 2], jnp.float8_e4m3fn),
            "nan": np.array([np.nan, -0.0, np.inf], np.float32),
            "double": np.float64(1 / 3),
            "empty": np.zeros((0, 3), np.float16),
            "flag": np.array(True),
            "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
            "nothing": None,
        },
        step=jnp.uint32(2**32 - 1),
        key={"one": jax.random.key(3), "many": jax.random.split(jax.random.key(4, impl="rbg"), 3)},
    )
    store.save(12, tree, {"a": 1})
    for like in (tree, jax.tree.map(shape_of, tree)):
        step, got, meta = store.load(like)
        assert (step, meta) == (12, {"a": 1})
        assert_same_leaves(got, tree)
        assert isinstance(got, State)
    draw = jax.random.normal(got.key["one"], (2,))
    assert draw.tolist() == jax.random.normal(jax.random.key(3), (2,)).tolist()


def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


@pytest.mark.parametrize("tree", [{}, np.float32(3), [np.zeros((0,), np.int32)]])
def test_a_tree_without_names_or_elements_comes_back(store, tree):
    store.save(1, tree, {})
    _, got, _ = store.load(tree)
    assert_same_leaves(got, tree)


def test_meta_comes_back_exactly(store):
    meta = {
        "rate": 1.0000000000000002e-06,
        "tiny": 5e-324,
        "third": 1 / 3,
        "none": None,
        "text": 'é "\n\ud800',
        "history": [[1, [2.5, None]], {"loss": [0.1 + 0.2, -0.0]}],
        "long": 2**70,
        "flag": True,
    }
    store.save(3, small_tree(), meta)
    meta["history"].append("changed by the caller afterwards")
    step, got = store.meta()
    del meta["history"][-1]
    assert step == 3
    assert repr(got) == repr(meta)
    assert repr(store.load(small_tree())[2]) == repr(meta)


def test_meta_keeps_nan_and_infinities(store):
    store.save(1, small_tree(), {"loss": [math.nan, math.inf, -math.inf, np.float64(0.1)]})
    loss = store.meta()[1]["loss"]
    assert math.isnan(loss[0]) and loss[1:] == [math.inf, -math.inf, 0.1]


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        (
            {"a": [np.float32(1)]},
            r"Expected plain JSON at meta\['a'\]\[0\], got float32; do convert it first",
        ),
        ({"a": {1: 2}}, r"Expected plain JSON at meta\['a'\], got a dict with keys that are no text"),
        ({"a": b"x"}, r"at meta\['a'\], got bytes"),
    ],
)
def test_meta_that_is_no_plain_json_is_refused(store, meta, text):
    with pytest.raises(CheckpointError, match=text):
        store.save(1, small_tree(), meta)
    assert not store.exists()


@pytest.mark.parametrize("leaf", [3, "text", np.array(["x"]), np.array([None]), np.zeros(2, ">f4")])
def test_a_leaf_that_is_no_array_of_numbers_is_refused_by_name(store, leaf):
    with pytest.raises(CheckpointError, match="Expected an array of numbers at 'a/0', got "):
        store.save(1, {"a": [leaf]}, {})


def test_several_processes_are_refused(store, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(CheckpointError, match="Expected one JAX process, got 2; do train in one process"):
        store.save(1, small_tree(), {})


def test_two_leaves_with_one_name_are_refused(store):
    with pytest.raises(CheckpointError, match="Expected one leaf per name, got two at 'a/b'"):
        store.save(1, {"a": {"b": np.zeros(1)}, "a/b": np.ones(1)}, {})


def test_arrays_donated_or_overwritten_after_a_save_are_saved_as_they_were(store):
    grow = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    tree = {"a": jnp.zeros((512, 512)), "key": jax.random.key_data(jax.random.key(1))}
    expected = jax.tree.map(np.array, tree)
    host = np.zeros(512)
    store.save(1, {**tree, "host": host}, {})
    host += 1
    for _ in range(20):
        tree = grow(tree)
    _, got, _ = store.load({**tree, "host": host})
    assert_same_leaves(got, {**expected, "host": np.zeros(512)})


def test_the_last_save_counts_whatever_its_step_and_is_the_only_one_kept(store):
    for step in (5, 9, 2, 2):
        store.save(step, small_tree(step), {"step": step})
    store.wait()
    assert [path.name for path in store.folder.iterdir()] == ["save-00000004"]
    step, tree, meta = CheckpointStore(store.folder).load(small_tree())
    assert (step, float(tree["kernel"][0, 0]), meta) == (2, 2.0, {"step": 2})


def test_a_save_costs_the_caller_little_and_does_not_wait_for_the_disk(store, monkeypatch):
    saved(store, 1, small_tree())  # imports Orbax
    flush = checkpoint._flush_to_disk
    monkeypatch.setattr(checkpoint, "_flush_to_disk", lambda path: (time.sleep(0.02), flush(path)))
    seconds = []
    for step in range(3):
        start = time.perf_counter()
        store.save(step, small_tree(), {})
        seconds.append(time.perf_counter() - start)
        store.wait()
    assert min(seconds) < 0.06


def test_an_empty_store_has_nothing_and_says_so_in_one_line(store):
    assert not store.exists()
    for read in (store.meta, lambda: store.load(small_tree())):
        with pytest.raises(CheckpointError, match="Expected a whole checkpoint in .*best, got none; do train"):
            read()
    assert not store.folder.exists()


def test_leftovers_and_strangers_fool_nothing_and_strangers_stay(store):
    for name in ("7", "save-00000009", "save-x", ".draft-old", "8.orbax-checkpoint-tmp"):
        (store.folder / name).mkdir(parents=True)
    (store.folder / ".draft-old" / "meta.json").write_text("{}")
    (store.folder / "7" / "meta.json").write_text("junk")
    assert not store.exists()
    store.save(1, small_tree(), {})
    assert store.load(small_tree())[0] == 1
    names = {path.name for path in store.folder.iterdir()}
    assert names == {"7", "save-00000010", "save-x", "8.orbax-checkpoint-tmp"}


@pytest.mark.parametrize("file", ["arrays", "meta.json"])
def test_a_flipped_byte_is_found_and_the_save_before_is_used_instead(store, file):
    tree = {"kernel": jax.random.normal(jax.random.key(0), (50, 50))}
    older = keep_a_copy(saved(store, 1, tree, {"loss": 0.25}))
    newer = saved(store, 2, jax.tree.map(jnp.negative, tree), {"loss": 0.5})
    path = largest_file(newer / "arrays") if file == "arrays" else newer / "meta.json"
    where = path.stat().st_size // 2 if file == "arrays" else path.read_bytes().index(b"0.5") + 2
    flip_a_byte(path, where)
    with pytest.raises(CheckpointError, match=r"Expected a whole .*, got save-00000002 damaged \(.*; do "):
        store.load(tree)
    older.rename(newer.parent / "save-00000001")
    with pytest.warns(UserWarning, match=r"got save-00000002 damaged \(.*\); an older one is used"):
        step, got, _ = store.load(tree)
    assert step == 1
    assert_same_leaves(got, jax.tree.map(np.asarray, tree))


def test_no_flipped_byte_of_the_arrays_gives_wrong_numbers(store):
    tree = {"kernel": jax.random.normal(jax.random.key(0), (20, 20))}
    folder = saved(store, 1, tree)
    files = [path for path in (folder / "arrays").rglob("*") if path.is_file()]
    caught = 0
    for path in files:
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 3)):
            flip_a_byte(path, at)
            try:
                assert_same_leaves(store.load(tree)[1], tree)
            except CheckpointError as error:
                caught += 1
                assert "\n" not in str(error)
            path.write_bytes(data)
    assert caught >= 3
    assert_same_leaves(store.load(tree)[1], tree)


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: largest_file(folder / "arrays").unlink(),
        lambda folder: largest_file(folder / "arrays").write_bytes(b""),
        lambda folder: shutil.rmtree(folder / "arrays"),
        lambda folder: (folder / "meta.json").write_text("["),
        lambda folder: (folder / "meta.json").write_text("[" * 100_000),
        lambda folder: (folder / "meta.json").write_text("[]"),
        lambda folder: (folder / "meta.json").write_bytes(b"\xff\x00"),
    ],
)
def test_a_torn_save_is_one_line(store, harm):
    harm(saved(store, 1, small_tree()))
    assert store.exists()
    with pytest.raises(CheckpointError, match=r"got save-00000001 damaged \(") as caught:
        store.load(small_tree())
    assert "\n" not in str(caught.value)


def test_a_tree_that_differs_is_refused_and_the_leaves_are_named(store):
    tree = {"params": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4), "old": jnp.zeros(1)}}
    store.save(1, tree, {})
    like = {"params": {"kernel": jnp.zeros((3, 5)), "bias": jnp.zeros(4, jnp.bfloat16), "new": jnp.zeros(1)}}
    with pytest.raises(CheckpointError) as caught:
        store.load(like)
    assert str(caught.value) == (
        f"Expected the checkpoint {store.folder / 'save-00000001'} to fit, got no params/new, "
        "an extra params/old, params/bias float32[4] instead of bfloat16[4], "
        "params/kernel float32[3, 4] instead of float32[3, 5]; "
        "do load it with the model and the optimiser that it was saved with."
    )


def test_of_many_differences_four_are_named_and_the_rest_counted(store):
    store.save(1, {f"leaf{i}": jnp.zeros(1) for i in range(10)}, {})
    with pytest.raises(CheckpointError, match="an extra leaf0, .*an extra leaf3 and 6 more; do"):
        store.load({})


def test_a_key_of_another_kind_is_refused(store):
    store.save(1, {"key": jax.random.key(0)}, {})
    with pytest.raises(CheckpointError, match=r"key key<fry>\[\] instead of key<rbg>\[\]"):
        store.load({"key": jax.random.key(0, impl="rbg")})


def test_a_format_from_the_future_is_named(store, monkeypatch):
    monkeypatch.setattr(checkpoint, "_FORMAT", 2)
    saved(store, 1, small_tree())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="it has format 2, this cnnlab reads 1"):
        store.meta()


def test_a_failed_write_is_told_at_the_next_call_and_the_save_before_stays(store, monkeypatch):
    saved(store, 1, small_tree(1))

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_flush_to_disk", full)
    store.save(2, small_tree(2), {})
    text = r"Expected to write a checkpoint to .*best, got 'OSError: .*No space left on device'; do check"
    with pytest.raises(CheckpointError, match=text):
        store.wait()
    monkeypatch.undo()
    assert store.load(small_tree())[0] == 1
    assert [path.name for path in store.folder.iterdir()] == ["save-00000001"]
    store.save(3, small_tree(3), {})
    assert store.load(small_tree())[0] == 3


def test_a_closed_store_can_be_used_again(store):
    store.save(1, small_tree(), {})
    store.close()
    store.close()
    store.save(2, small_tree(), {})
    assert store.meta()[0] == 2


def test_a_reader_follows_a_writer_that_replaces_the_save_under_its_eyes(store, monkeypatch):
    saved(store, 1, small_tree(1))
    reader, read = CheckpointStore(store.folder), checkpoint._read_meta

    def late(folder: Path) -> dict:
        monkeypatch.setattr(checkpoint, "_read_meta", read)
        saved(store, 2, small_tree(2))  # save-00000001, which the reader wanted, is gone now
        return read(folder)

    monkeypatch.setattr(checkpoint, "_read_meta", late)
    assert reader.load(small_tree())[0] == 2


def test_many_stores_save_and_load_at_once(tmp_path):
    stores = [CheckpointStore(tmp_path / str(number)) for number in range(6)]
    for step in range(4):
        for store in stores:
            store.save(step, small_tree(step), {})
        assert [store.load(small_tree())[0] for store in reversed(stores)] == [step] * len(stores)
    for store in stores:
        store.close()


def test_orbax_itself_reads_the_arrays_by_name(store):
    from orbax.checkpoint import v1 as ocp

    folder = saved(store, 1, {"params": {"conv1": {"kernel": np.arange(3)}}, "key": jax.random.key(5)})
    arrays = ocp.load(folder / "arrays")
    assert sorted(arrays) == ["key", "params/conv1/kernel"]
    assert arrays["key"].tolist() == jax.random.key_data(jax.random.key(5)).tolist()
    leaves = json.loads((folder / "meta.json").read_text())["content"]["leaves"]
    assert leaves["key"]["impl"] == "threefry2x32"


def test_importing_the_module_does_not_import_orbax():
    code = "import sys, cnnlab.training.checkpoint; assert 'orbax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
