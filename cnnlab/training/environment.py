"""What a run was made with: versions, device, flags, git revision and command, for `environment.json`."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_PACKAGES += ("pillow", "scikit-learn", "tensorflow-datasets")  # they decode and deliver images
_DECIDING = ("jax", "jaxlib", "flax", "backend", "device_kind", "cpus")  # another one may round otherwise
_PACKAGE_FOLDER = Path(__file__).resolve().parents[1]
_GIT_SECONDS = 5.0
_DECIDING_VARIABLE = "XLA_FLAGS"
_VARIABLES = (_DECIDING_VARIABLE, "GLIBC_TUNABLES")  # the last decides on huge pages, which matter to speed on CPU


def describe_environment() -> dict[str, Any]:
    """Describe this process; nothing in it is secret, and nothing here raises.

    Of the environment `XLA_FLAGS`, `GLIBC_TUNABLES` and all whose names start with `JAX_` are taken.
    Packages are asked for their version without being imported, but for jax, which knows the device.

    Returns:
        Plain JSON: `started` (now, ISO 8601, UTC); `command` (quoted for a shell); `cnnlab`, `python` and one
        version per package, None where it is not installed; `git_revision` of the working directory and
        `git_dirty` (tracked files differ from it, or there are .py files that git neither tracks nor ignores), both
        None outside a repository; `cnnlab_revision` and `cnnlab_dirty`, the same of the checkout that cnnlab is
        imported from, None where it was installed; `platform`, `cpu`, `cpu_count`, `cpus` (those this process may
        use: XLA's threads); `backend`, `device_kind`, `device_count`; `variables`.
    """
    import jax

    from cnnlab import __version__

    revision, dirty = _git_state(Path.cwd())
    own_revision, own_dirty = _git_state(_PACKAGE_FOLDER, tracked="__init__.py")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "cnnlab": __version__,
        "git_revision": revision,
        "git_dirty": dirty,
        "cnnlab_revision": own_revision,
        "cnnlab_dirty": own_dirty,
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "backend": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if name in _VARIABLES or name.startswith("JAX_")
        },
    }


def what_differs(sessions: Iterable[Mapping[str, Any]], now: Mapping[str, Any]) -> list[str]:
    """Say in what deciding part this process differs from those before, such as "jax 0.10.1 is now 0.10.2".

    Where anything does, a resumed run may differ in the last bits from one that was never interrupted.

    Args:
        sessions: environments of the run so far; what one does not say is not compared.
        now: the environment of this process.
    """
    found: dict[str, str] = {}
    for session in sessions:
        pairs = {name: (session[name], now.get(name)) for name in _DECIDING if name in session}
        if isinstance(variables := session.get("variables"), dict):
            pairs[_DECIDING_VARIABLE] = (variables.get(_DECIDING_VARIABLE), now["variables"].get(_DECIDING_VARIABLE))
        for name, (before, after) in pairs.items():
            if before != after:
                found.setdefault(name, f"{name} {before or 'unset'} is now {after or 'unset'}")
    return [*found.values()]


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


def _git_state(folder: Path, *, tracked: str | None = None) -> tuple[str | None, bool | None]:
    """Revision, and whether the code differs from it; None in a repository that does not track the file `tracked`."""
    # A repository's own settings can name a program to ask for changes: it is not asked.
    git = ["git", "-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false"]
    revision = _run([*git, "rev-parse", "--verify", "HEAD"])
    if not revision or (tracked and _run([*git, "ls-files", "--error-unmatch", "--", tracked]) is None):
        return None, None  # a package installed below a checkout is no part of it
    changes = _run([*git, "status", "--porcelain", "--untracked-files=all", "--ignore-submodules"])
    return revision, None if changes is None else any(map(_is_code, changes.splitlines()))


def _is_code(change: str) -> bool:
    """Whether a line of `git status --porcelain` says more than that some file, which is no .py file, is new."""
    return not change.startswith("?? ") or change.rstrip('"').endswith(".py")


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
