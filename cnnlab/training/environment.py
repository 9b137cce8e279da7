"""What a run was made with: versions, device, flags, git revision and command, for `environment.json`."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_GIT_SECONDS = 5.0


def describe_environment() -> dict[str, Any]:
    """Describe this process; nothing in it is secret, and nothing here raises.

    Of the environment only `XLA_FLAGS` and the variables whose names start with `JAX_` are taken. Packages
    are asked for their version without being imported, but for jax, which knows the device.

    Returns:
        Plain JSON: `started` (now, ISO 8601, UTC); `command` (quoted for a shell); `cnnlab`, `python` and one
        version per package, None where it is not installed; `git_revision` of the working directory and
        `git_dirty` (tracked files differ from it), both None outside a repository; `platform`, `cpu`,
        `cpu_count`; `backend`, `device_kind`, `device_count`; `variables`.
    """
    import jax

    from cnnlab import __version__

    revision, dirty = _git_state(Path.cwd())
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "cnnlab": __version__,
        "git_revision": revision,
        "git_dirty": dirty,
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "backend": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if name == "XLA_FLAGS" or name.startswith("JAX_")
        },
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    if name := next(names, None):
        return name
    return _run(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.processor() or None


def _git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Revision, and whether tracked files differ from it."""
    # A repository's own settings can name a program to ask for changes: it is not asked.
    git = ["git", "-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false"]
    revision = _run([*git, "rev-parse", "--verify", "HEAD"])
    if not revision:
        return None, None
    changes = _run([*git, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules"])
    return revision, None if changes is None else bool(changes)


def _run(command: list[str]) -> str | None:
    """What a command prints; None when it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
