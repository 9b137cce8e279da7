"""cnnlab's side of `step_profile.py`: the epoch's program under JAX's profiler, its seconds by kind of operation."""

from __future__ import annotations

from contender import Channel

if __name__ == "__main__":  # binds the process to its CPUs: before JAX starts its threads
    CHANNEL = Channel()

import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from architectures_jax import Training
from profile_kinds import COPIES, FORWARD, GRADIENTS, INPUTS, KERNEL, POOLING, PRODUCTS, REST, share_out

# `%name = shape opcode(`, where the shape may be a tuple with `/*index=5*/` in it
_LINE = re.compile(r"^\s*(?:ROOT )?%(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) (?P<opcode>[\w\-]+)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>[\w.\-]+) \(")
_CONTAINERS = ("while", "call", "conditional")  # their time is that of the operations in them
_CONVOLUTION, _PRODUCT = {"convolution"}, {"dot"}
_MOVES = {"copy", "copy-start", "copy-done", "transpose", "concatenate", "pad", "reverse", "slice", "dynamic-slice"}
_MOVES |= {"dynamic-update-slice", "gather", "reshape", "bitcast", "broadcast", "fusion", "parameter", "constant"}
_MOVES |= {"iota", "get-tuple-element", "tuple"}

_TRANSFORMS = _MOVES | {"add", "subtract", "multiply", "negate"}


class Operation(NamedTuple):
    """An operation of a compiled program: what it does, with all that is fused into it, and where it comes from."""

    opcode: str
    opcodes: frozenset[str]
    source: str


def operations(program: str) -> dict[str, Operation]:
    """Return the operations of a compiled program by name, of all its computations.

    Args:
        program: HLO as text.
    """
    bodies: dict[str, set[str]] = {}
    found, body = {}, ""
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            body = match["name"]
            bodies[body] = set()
        elif match := _LINE.match(line):
            source = re.search(r'op_name="([^"]*)"', line)
            called = re.search(r"calls=%([\w.\-]+)", line)
            if not re.match(r"\w+\[\]", match["shape"]):  # a number alone says where, not what
                bodies.setdefault(body, set()).add(match["opcode"])
            found[match["name"]] = (match["opcode"], called[1] if called else "", source[1] if source else "")
    return {
        name: Operation(opcode, frozenset({opcode} | bodies.get(called, set())), source)
        for name, (opcode, called, source) in found.items()
    }


def kind_of(operation: Operation) -> str:
    """Return to which row of the table an operation belongs."""
    source, backward = operation.source, "transpose(" in operation.source
    convolves, multiplies = operation.opcodes & _CONVOLUTION, operation.opcodes & _PRODUCT
    if "pool" in source:
        return POOLING
    by_products = multiplies and any(scope in source for scope in ("conv_by_blocks", "gradient_of_", "winograd"))
    transforms = "winograd" in source and operation.opcodes <= _TRANSFORMS  # of tiles; else other work is fused into it
    if convolves or by_products or transforms:
        if "gradient_of_kernel" in source:
            return KERNEL
        if "gradient_of_inputs" in source:
            return INPUTS
        return GRADIENTS if backward else FORWARD
    if multiplies:
        return PRODUCTS
    return COPIES if operation.opcodes <= _MOVES else REST


def intervals(planes: Iterable[Any], known: Mapping[str, Operation]) -> list[tuple[float, float, str]]:
    """Return `(start, end, kind)`, in seconds, of each operation that a trace of the CPU holds.

    An operation that goes on in other threads ends where the trace says `end:` with the number it was given.
    """
    starts, ends = [], {}
    for plane in planes:
        for line in plane.lines:
            for event in line.events:
                if event.name.startswith("end: "):
                    if (number := dict(event.stats).get("_c")) is not None:
                        ends[number] = event.end_ns
                elif event.name in known and known[event.name].opcode not in _CONTAINERS:
                    facts = dict(event.stats)
                    if "hlo_op" in facts:
                        starts.append((event.start_ns, event.end_ns, facts.get("_p"), kind_of(known[event.name])))
    return [(start / 1e9, max(end, ends.get(number, end)) / 1e9, kind) for start, end, number, kind in starts]


def run(channel: Channel) -> None:
    """Compile, then trace one dispatch of training steps per request."""
    jax.config.update("jax_enable_compilation_cache", False)
    train = Training(channel.options)
    known: dict[str, Operation] = {}
    for program in train.epoch.programs:
        known |= operations(program.as_text())
    for _ in range(2):
        jax.block_until_ready(train())
    channel.answer(ready=True)
    while True:
        start = time.perf_counter()
        jax.block_until_ready(train())
        seconds = (time.perf_counter() - start) / train.steps
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                jax.block_until_ready(train())
            (trace,) = Path(folder).glob("**/*.xplane.pb")
            shared = share_out(intervals(jax.profiler.ProfileData.from_file(str(trace)).planes, known))
        channel.answer(seconds=seconds, kinds={kind: value / train.steps for kind, value in shared.items()})


if __name__ == "__main__":
    run(CHANNEL)
