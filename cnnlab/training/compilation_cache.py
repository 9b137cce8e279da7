"""The persistent compilation cache: a second start does not compile again."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from cnnlab.data.cache import cache_root

_ALL_OF_IT = 0o777
_OTHERS_MAY_WRITE = 0o022


def use_compilation_cache() -> Path | None:
    """Keep compiled programs in a private folder of cnnlab's cache, unless the user has decided otherwise.

    `CNNLAB_COMPILATION_CACHE=0` turns it off; a folder set with `jax_compilation_cache_dir` (or its environment
    variable) is left alone. What lies in the folder is executed, so it is its owner's alone: one that others may read
    is closed to them, one that they may write into, or that is theirs, is not used.

    Every program is kept, however fast it compiled: a start makes a hundred small ones (the initial weights, the copies
    of a state), and together they take as long as a large one. Such a hundred is less than a megabyte. Nothing is ever
    removed; the folder may be deleted at any time.

    Returns:
        The folder in use, or None.
    """
    if os.environ.get("CNNLAB_COMPILATION_CACHE", "1") == "0":
        return None
    chosen = jax.config.values.get("jax_compilation_cache_dir")
    if chosen is not None:
        return Path(chosen)
    folder = cache_root() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if hasattr(os, "getuid") and not _made_private(folder):
            return None
    except OSError:
        return None  # a read-only home is no reason to stop
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _made_private(folder: Path) -> bool:
    """Close a folder of ours to others; False where others may have put programs into it."""
    found = folder.stat()
    mode = found.st_mode & _ALL_OF_IT
    if found.st_uid != os.getuid() or mode & _OTHERS_MAY_WRITE:
        return False
    if mode & ~0o700:
        folder.chmod(0o700)
    return True
