"""The persistent compilation cache: a second start does not compile again."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from cnnlab.data.cache import cache_root


def use_compilation_cache() -> Path | None:
    """Keep compiled programs in a private folder of cnnlab's cache, unless the user has decided otherwise.

    `CNNLAB_COMPILATION_CACHE=0` turns it off; a folder set with `jax_compilation_cache_dir` (or its environment
    variable) is left alone. The folder is readable by its owner only, because what lies in it is executed.

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
        if hasattr(os, "getuid") and (folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022):
            return None  # somebody else could write programs there
    except OSError:
        return None  # a read-only home is no reason to stop
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
