"""What a measurement of `architectures.py` depends on, and what `--resume` may keep of an earlier one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from measure import HERE, BenchmarkError, versions

# Of `cnnlab.training.describe_environment`: what speed depends on. The code is compared by its text.
_DECIDING = ("python", "jax", "jaxlib", "flax", "optax", "numpy")
_DECIDING += ("platform", "cpu", "cpu_count", "backend", "device_kind", "device_count", "variables")


def environment_facts() -> dict[str, Any]:
    """Return device, CPU, versions and revision of this process, as plain JSON; `code` is a hash of the programs.

    Raises:
        BenchmarkError: JAX finds no device of the kind that is asked for.
    """
    from cnnlab.training import describe_environment

    try:
        found = describe_environment()
    except RuntimeError as error:  # JAX on the platform that JAX_PLATFORMS names
        raise BenchmarkError(f"Expected a device for JAX, got: {str(error).splitlines()[0]}") from error
    facts = {key: found[key] for key in _DECIDING}
    return {**facts, **versions("torch"), "revision": found["cnnlab_revision"], "code": _code()}


def earlier(path: Path, settings: dict[str, Any], facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the architectures that an earlier run measured under the same settings and facts; none without a file.

    Raises:
        BenchmarkError: something differs; it says what.
    """
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise BenchmarkError(
            f"Expected {path} to be of the same settings, got {found['settings']}; do leave out --resume."
        )
    for name, entry in found["architectures"].items():
        then = entry.get("measured_under", {})
        different = [key for key in facts if key != "revision" and then.get(key) != facts[key]]
        if different:
            changes = ", ".join(_change(key, then, facts) for key in different)
            raise BenchmarkError(
                f"Expected {path} to be measured as here and now, got {name} with another {changes}; "
                "do leave out --resume, or write another file with --out."
            )
    return found["architectures"]


def _change(key: str, then: dict[str, Any], now: dict[str, Any]) -> str:
    if key == "code":  # hashes tell a reader nothing
        key = "revision" if then.get("revision") != now["revision"] else "state of the code"
    return f"{key} ({then.get(key)}, now {now[key]})" if key in now else key


def _code() -> str:
    """A hash of the programs of cnnlab and of the benchmarks; it also tells trees apart that git calls changed."""
    import cnnlab

    digest = hashlib.sha256()
    for root in (Path(cnnlab.__file__).parent, HERE):
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
