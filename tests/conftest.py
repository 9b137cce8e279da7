"""What every test shares: strict JAX, no compiled programs in a person's cache, hypothesis without chance.

Settings go through the environment, so that tests that never use JAX do not import it and processes that a test starts
inherit them.
"""

import atexit
import os
import shutil
import tempfile

import pytest
from hypothesis import Phase, settings

os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["CNNLAB_COMPILATION_CACHE"] = "0"

# A program that several tests compile alike is compiled once in each of pytest's processes: JAX reads this on import.
COMPILED = tempfile.mkdtemp(prefix="compiled-")
atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
FOR_JAX = {
    "JAX_COMPILATION_CACHE_DIR": COMPILED,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
os.environ |= FOR_JAX

# Shapes are small to begin with, and each costs a compilation: a failure is shown as found, not shrunk.
settings.register_profile(
    "cnnlab", derandomize=True, deadline=None, max_examples=6, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("cnnlab")


def pytest_collection_finish() -> None:
    """Hide the folder from processes that a test starts: two of them would read what the other is writing."""
    for name in FOR_JAX:
        os.environ.pop(name, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="write the golden logits of the models that run")
