"""`step_profile.py`: every operation goes to the right row, and the rows add up to the time that passed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from cnnlab.layers import avg_pool, conv_general_dilated, max_pool

ROOT = Path(__file__).resolve().parents[2]


def test_time_of_several_kinds_at_once_is_no_kinds_own_and_gaps_are_named(room):
    kinds = room("profile_kinds")
    found = kinds.share_out([(0.0, 4.0, "a"), (1.0, 2.0, "b"), (5.0, 6.0, "a"), (5.5, 5.5, "b")])
    assert found == pytest.approx({"a": 3 + 1, kinds.SEVERAL: 1, kinds.NOTHING: 1})
    assert sum(found.values()) == pytest.approx(6)


def test_two_operations_of_one_kind_at_once_count_once(room):
    assert room("profile_kinds").share_out([(0.0, 2.0, "a"), (0.0, 3.0, "a")]) == pytest.approx({"a": 3})


def traced_in(profile, program):
    """Return the operations of a compiled program that a trace of it may hold: none that is fused into another."""
    fused = re.findall(r"calls=%([\w.\-]+)", program)
    bodies = re.split(r"\n}\n", program)
    whole = "\n".join(body for body in bodies if not any(f"%{name} (" in body for name in fused))
    known, names = profile.operations(program), profile.operations(whole)
    return [known[name] for name in names if known[name].opcode not in ("parameter", "constant", "tuple")]


def kinds_in(profile, function, *arrays):
    """Return the kinds of all operations of a compiled function that a trace of it may hold."""
    program = jax.jit(function).lower(*arrays).compile().as_text()
    return {profile.kind_of(operation) for operation in traced_in(profile, program)}


def conv(images, kernel):
    return conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


IMAGES, KERNEL = jnp.ones((2, 8, 8, 24)), jnp.ones((3, 3, 24, 20))


@pytest.mark.parametrize("argument", [0, 1], ids=["inputs", "kernel"])
def test_the_passes_of_a_convolution_are_told_apart(room, argument):
    profile, kinds = room("step_profile_jax"), room("profile_kinds")
    ours, other = (kinds.INPUTS, kinds.KERNEL) if argument == 0 else (kinds.KERNEL, kinds.INPUTS)
    assert kinds.FORWARD in kinds_in(profile, conv, IMAGES, KERNEL)

    def gradient(images, kernel):
        return jax.grad(lambda *arrays: (conv(*arrays) ** 2).sum(), argnums=argument)(images, kernel)

    found = kinds_in(profile, gradient, IMAGES, KERNEL)
    assert {kinds.FORWARD, ours} <= found and other not in found


def test_products_over_blocks_are_convolutions_and_others_are_not(room):
    profile, kinds = room("step_profile_jax"), room("profile_kinds")
    images, kernel = jnp.ones((4, 16, 16, 3)), jnp.ones((5, 5, 3, 6))  # few channels: by blocks

    def gradient(images, kernel):
        return jax.grad(lambda w: (conv(images, w) ** 2).sum())(kernel)

    assert {kinds.FORWARD, kinds.GRADIENTS, kinds.COPIES} <= kinds_in(profile, gradient, images, kernel)
    found = kinds_in(profile, jnp.matmul, jnp.ones((64, 64)), jnp.ones((64, 64)))
    assert kinds.PRODUCTS in found and kinds.FORWARD not in found


def test_transformed_tiles_and_their_products_are_convolutions_and_what_is_fused_into_them_is_not(room):
    profile, kinds = room("step_profile_jax"), room("profile_kinds")
    images, kernel = jnp.ones((32, 8, 8, 128)), jnp.ones((3, 3, 128, 128))
    assert kinds_in(profile, conv, images, kernel) <= {kinds.FORWARD, kinds.COPIES}
    found = kinds_in(profile, lambda x, w: conv(jnp.tanh(x), w), images, kernel)
    assert kinds.REST in found and kinds.FORWARD in found

    def gradient(images, kernel):
        return jax.grad(lambda w: conv(images, w).sum())(kernel)

    assert kinds.KERNEL in kinds_in(profile, gradient, images, kernel)


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_pooling_has_a_row_of_its_own(room, pool):
    found = kinds_in(room("step_profile_jax"), lambda x: pool(x, 3, 2), jnp.ones((2, 9, 9, 20)))
    assert room("profile_kinds").POOLING in found


def test_what_computes_is_no_copy_and_the_pooling_of_lenet_is_found(room):
    profile, kinds = room("step_profile_jax"), room("profile_kinds")
    options = {"name": "lenet", "batch_size": 8, "image_size": 32, "num_classes": 10, "device": "cpu"}
    (program,) = room("architectures_jax").Training({**options, "model_options": {}}).epoch.programs
    found = traced_in(profile, program.as_text())
    of_kind = {kind: [o for o in found if profile.kind_of(o) == kind] for kind in map(profile.kind_of, found)}
    assert {kinds.FORWARD, kinds.GRADIENTS, kinds.POOLING, kinds.PRODUCTS, kinds.COPIES} <= set(of_kind)
    assert not any(o.opcodes & {"maximum", "multiply", "convert", "dot"} for o in of_kind[kinds.COPIES])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mkldnn_convolution", "FORWARD"),
        ("aten::convolution_backward", "GRADIENTS"),
        ("aten::max_pool2d_with_indices_backward", "POOLING"),
        ("aten::addmm", "PRODUCTS"),
        ("aten::copy_", "COPIES"),
        ("aten::native_batch_norm", "REST"),
    ],
)
def test_operations_of_pytorch_go_to_the_same_rows(room, name, kind):
    pytest.importorskip("torch", reason="PyTorch is not installed; do: make torch")
    assert room("step_profile_torch").kind_of(name) == getattr(room("profile_kinds"), kind)


def event(name, start, end, **stats):
    return SimpleNamespace(name=name, start_ns=start * 1e9, end_ns=end * 1e9, stats=list(stats.items()))


def test_an_operation_ends_where_another_thread_ends_it_and_loops_do_not_count_twice(room):
    profile, kinds = room("step_profile_jax"), room("profile_kinds")
    known = {
        "conv.1": profile.Operation("convolution", frozenset({"convolution"}), "jit(f)/jvp()/conv_general_dilated"),
        "conv.2": profile.Operation("convolution", frozenset({"convolution"}), "jit(f)/gradient_of_inputs/conv"),
        "while.3": profile.Operation("while", frozenset({"while"}), "jit(f)/while"),
        "copy.4": profile.Operation("copy", frozenset({"copy"}), "jit(f)/transpose"),
    }
    one = SimpleNamespace(
        events=[
            event("while.3", 0, 9, hlo_op="while.3"),
            event("conv.1", 1, 2, hlo_op="conv.1", _p=7),
            event("conv.2", 5, 6, hlo_op="conv.2"),
            event("conv.1", 6, 7),  # a name, but no operation
            event("elsewhere", 0, 9, hlo_op="elsewhere"),
            event("end: nothing", 8, 9),
        ]
    )
    two = SimpleNamespace(events=[event("end: conv.1", 3.5, 4, _c=7), event("copy.4", 8, 9, hlo_op="copy.4", _p=8)])
    found = profile.intervals([SimpleNamespace(lines=[one, two])], known)
    assert sorted(found) == [(1, 4, kinds.FORWARD), (5, 6, kinds.INPUTS), (8, 9, kinds.COPIES)]


def test_the_table_sums_gradients_that_are_told_apart_and_names_what_failed(room):
    script, kinds, measure = room("step_profile"), room("profile_kinds"), room("measure")

    def entry(seconds, **of):
        return {"seconds": measure.summary([seconds]), "kinds": {k: measure.summary([v]) for k, v in of.items()}}

    ours = entry(0.3, **{kinds.FORWARD: 0.1, kinds.INPUTS: 0.05, kinds.KERNEL: 0.15})
    peer = entry(0.02, **{kinds.GRADIENTS: 0.012})
    environment = {"cpu": "C", "python": "3", "jax": "1", "torch": "2", "started": "2026-11-26T00:00"}
    network = {"batch_size": 8, "contenders": {"cnnlab": ours, "other": {"error": "x"}, "torch eager": peer}}
    settings = {"threads": 2, "dtype": "float32", "rounds": 1}
    text = script.report({"environment": environment, "settings": settings, "networks": {"net": network}})
    rows = {line.split("  ")[0]: line.split()[-2:] for line in text.splitlines()[4:] if not line.startswith("  ")}
    assert rows[kinds.FORWARD] == ["100", "-"] and rows[kinds.GRADIENTS] == ["200", "12.0"]
    assert "  of which weight gradients" in text and rows["without a profiler"] == ["300", "20.0"]
    assert rows["under the profiler"] == ["300", "12.0"]
    assert text.splitlines()[-1] == "other failed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--only", "lenet6"], "Expected some of"), (["--rounds", "0"], "Expected --rounds of at least 1, got 0.")],
    ids=["name", "rounds"],
)
def test_bad_options_are_one_line(room, arguments, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        room("step_profile").main(arguments)
    assert "\n" not in str(stopped.value.code)


@pytest.mark.slow  # traces both sides
def test_a_step_is_profiled_from_end_to_end(room, tmp_path):
    kinds = room("profile_kinds")
    pytest.importorskip("torch", reason="PyTorch is not installed; do: make torch")
    page, out = tmp_path / "page.md", tmp_path / "o.json"
    page.write_text("<!-- step_profile: begin -->\n<!-- step_profile: end -->\n")
    command = [sys.executable, str(ROOT / "benchmarks" / "step_profile.py"), "--only", "lenet", "--rounds", "1"]
    command += ["--threads", "1", "--out", str(out), "--page", str(page)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    contenders = json.loads(out.read_text())["networks"]["lenet"]["contenders"]
    for side in ("cnnlab", "torch eager"):
        seconds = {kind: of["median"] for kind, of in contenders[side]["kinds"].items()}
        assert min(seconds[kinds.FORWARD], seconds[kinds.GRADIENTS], seconds[kinds.PRODUCTS]) > 0
        assert seconds.get(kinds.NOTHING, 0) < 0.5 * sum(seconds.values())
    assert "lenet, batch 32" in page.read_text()
