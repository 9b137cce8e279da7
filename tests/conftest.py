"""What every test shares: strict JAX, no compiled programs in a person's cache, hypothesis without chance.

Settings go through the environment, so that tests that never use JAX do not import it and processes that a test starts
inherit them.
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings

os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["CNNLAB_COMPILATION_CACHE"] = "0"

# Shapes are small to begin with, and each costs a compilation: a failure is shown as found, not shrunk.
settings.register_profile(
    "cnnlab", derandomize=True, deadline=None, max_examples=6, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("cnnlab")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs that several tests compile alike are compiled once, in each of pytest's processes.

    Processes that a test starts do not know of it: two that compile the same would read what the other is writing.
    """
    folder = tmp_path_factory.mktemp("compiled")
    if "jax" in sys.modules:  # collecting the tests has imported it, if any of them computes
        config = sys.modules["jax"].config
        config.update("jax_compilation_cache_dir", str(folder))
        config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
        config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="write the golden logits of the models that run")
