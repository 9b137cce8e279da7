"""The commands that compute keep their compiled programs, as training does."""

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from cnnlab.cli import main

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def cache(own_places, monkeypatch, tmp_path):
    """The folder in question, nothing turned off."""
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CNNLAB_COMPILATION_CACHE")
    before = {name: jax.config.values[name] for name in OPTIONS}
    jax.config.update(OPTIONS[0], None)
    yield tmp_path / "cache" / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()  # JAX keeps the folder that it has begun to use


@pytest.mark.parametrize("command", ["evaluate", "predict", "report"])
def test_a_command_that_computes_keeps_its_programs(finished, cache, capsys, command):
    images = [str(finished.image)] if command == "predict" else []
    assert main([command, str(finished.folder), *images]) == 0
    assert jax.config.values[OPTIONS[0]] == str(cache)
    assert cache.is_dir()


def test_a_command_that_lists_does_not_open_it(cache, capsys):
    assert main(["recipes"]) == 0
    assert jax.config.values[OPTIONS[0]] is None and not cache.exists()
