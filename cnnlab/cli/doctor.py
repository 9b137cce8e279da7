"""`cnnlab doctor`: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .listings import print_datasets
from .output import print_table

PACKAGES = {
    "jax": "training",
    "flax": "the networks",
    "optax": "the optimisers",
    "orbax-checkpoint": "checkpoints",
    "numpy": "everything",
    "pillow": "image files",
    "scikit-learn": "the data set digits",
    "matplotlib": "the figures of a report",
    "rich": "tables on a terminal",
    "safetensors": "files of weights",
    "tyro": "the command line",
}
OPTIONAL = {
    "tensorflow-datasets": "data sets of TensorFlow Datasets",
    "array_record": "data sets of TensorFlow Datasets",
    "importlib_resources": "data sets of TensorFlow Datasets",
}
_SMI = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
_DRIVER_OF_CUDA_13 = 580


@dataclass(frozen=True)
class Finding:
    """Something missing.

    Attributes:
        what: is missing, and what for.
        mend: the command that mends it.
        needed: whether cnnlab does not do its work without it.
    """

    what: str
    mend: str
    needed: bool = True


def doctor() -> int:
    """Tell the device, the versions, where the data are, and the command that mends what is missing.

    Returns:
        0 when nothing that is needed is missing, else 1.
    """
    from cnnlab import __version__

    device, findings = _device()
    cache, more = _cache()
    findings += [*more, *_missing_packages(), *_cifar10()]
    facts = {
        "cnnlab": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.platform()}, {os.cpu_count()} cores",
        "device": device,
        "packages": ", ".join(f"{name} {version}" for name, version in _versions().items() if version),
        "cache": cache,
    }
    names = ("CNNLAB_CACHE", "CNNLAB_COMPILATION_CACHE", "CNNLAB_DATA", "XLA_FLAGS")
    names += tuple(sorted(name for name in os.environ if name[:4] == "JAX_"))
    facts |= {name: os.environ[name] for name in names if os.environ.get(name)}
    print_table(("what", "here"), list(facts.items()))
    print()
    try:
        print_datasets()
    except ModuleNotFoundError as error:
        print(f"data sets: cannot tell without {error.name}")
    print()
    for finding in findings:
        print(f"{'missing' if finding.needed else 'optional'}: {finding.what}\n    {finding.mend}")
    needed = [finding for finding in findings if finding.needed]
    if not findings:
        print("all is well: nothing is missing")
    elif not needed:
        print("all is well: nothing that is needed is missing")
    return 1 if needed else 0


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in (*PACKAGES, "jaxlib", *OPTIONAL):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _missing_packages() -> list[Finding]:
    purposes = {**PACKAGES, **OPTIONAL}
    return [
        Finding(f"{name}, for {purposes[name]}", _pip_install(name), name in PACKAGES)
        for name, version in _versions().items()
        if version is None and name in purposes
    ]


def _pip_install(*what: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *what])


def _device() -> tuple[str, list[Finding]]:
    """What JAX computes on, and what keeps it from an NVIDIA GPU that is there."""
    gpu = _nvidia_gpu()
    wanted = os.environ.get("JAX_PLATFORMS", "")
    try:
        import jax

        devices = jax.devices()
    except ImportError as error:
        return f"unknown ({' '.join(str(error).split())})", []
    except RuntimeError as error:  # a platform was asked for that cannot be had
        text = " ".join(str(error).split())
        mend = _install_cuda(gpu[1]) if gpu else "unset JAX_PLATFORMS"
        return f"none ({text})", [Finding(f"a device for JAX (JAX_PLATFORMS={wanted})", mend)]
    kind = devices[0].device_kind
    device = f"{len(devices)} x {kind}" + (f" ({devices[0].platform})" if kind != devices[0].platform else "")
    if gpu is None or devices[0].platform != "cpu":
        return device, []
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted or hidden in ("", "-1"):
        by = f"JAX_PLATFORMS={wanted}" if wanted else f"CUDA_VISIBLE_DEVICES={hidden}"
        return f"{device}; {gpu[0]} is left out by {by}", []
    what = f"JAX's CUDA plugin: {gpu[0]} is here, but JAX uses the CPU"
    return device, [Finding(what, _install_cuda(gpu[1]))]


def _install_cuda(driver: str) -> str:
    cuda = 13 if int(driver.partition(".")[0] or 0) >= _DRIVER_OF_CUDA_13 else 12
    return _pip_install("--upgrade", f"jax[cuda{cuda}]=={metadata.version('jax')}")


def _nvidia_gpu() -> tuple[str, str] | None:
    """Name and driver version of the first NVIDIA GPU, or None."""
    try:
        done = subprocess.run(_SMI, capture_output=True, text=True, errors="replace", timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # no driver, or no GPU
        return None
    name, _, driver = (done.stdout.splitlines() or [""])[0].partition(",")
    driver = driver.strip()
    return (name.strip(), driver) if driver[:1].isdigit() else None


def _cache() -> tuple[str, list[Finding]]:
    """The cache folder and its size, and whether it can be written."""
    try:
        from cnnlab.data.cache import cache_root
    except ModuleNotFoundError as error:
        return f"cannot tell without {error.name}", []
    root = cache_root()
    size = sum(_size(path) for path in root.rglob("*"))
    text = f"{root} ({size / 1e6:,.1f} MB)" if root.exists() else f"{root} (not made yet)"
    there = next(path for path in (root, *root.absolute().parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK):
        return text, []
    return text, [Finding(f"a cache folder that can be written ({root})", 'export CNNLAB_CACHE="$HOME/cnnlab-cache"')]


def _cifar10() -> list[Finding]:
    """Whether CIFAR-10 is where `$CNNLAB_DATA` says, or else anywhere."""
    try:
        from cnnlab.data.cifar10 import REMOTE, cifar10_fault, cifar10_location
        from cnnlab.data.cifar10_binary import find_binary
    except ModuleNotFoundError:  # the missing package is named already
        return []
    named = os.environ.get("CNNLAB_DATA")
    place = Path(named).expanduser() if named else None
    fault = None if place is None else cifar10_fault(place)
    if place is not None and fault is None:
        return []
    findings = []
    elsewhere = cifar10_location(named=False) is not None
    damaged = place is not None and find_binary(place) is not None
    if place is not None:
        mend = "unset CNNLAB_DATA" if elsewhere or damaged else _fetch_cifar10(place)
        findings.append(Finding(f"a usable CIFAR-10 in $CNNLAB_DATA ({place}: {fault})", mend))
    if not elsewhere and (place is None or damaged):
        what = f"CIFAR-10, for the thesis' experiment ({REMOTE.size / 1e6:.0f} MB, else fetched on first use)"
        findings.append(Finding(what, _fetch_cifar10(None), needed=False))
    return findings


def _fetch_cifar10(folder: Path | None) -> str:
    names = ", ".join(json.dumps(name) for name in ("cifar10", *([str(folder)] if folder else [])))
    return shlex.join([sys.executable, "-c", f"import cnnlab; cnnlab.load_dataset({names})"])


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # gone meanwhile
        return 0
