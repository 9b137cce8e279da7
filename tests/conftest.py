"""What every test shares: strict JAX, no compiled programs in a person's cache, hypothesis without chance.

Settings go through the environment, so that tests that never use JAX do not import it and processes that a test starts
inherit them.
"""

import os

import pytest
from hypothesis import Phase, settings

os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["CNNLAB_COMPILATION_CACHE"] = "0"

# Shapes are small to begin with, and each costs a compilation: a failure is shown as found, not shrunk.
settings.register_profile(
    "cnnlab", derandomize=True, deadline=None, max_examples=6, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("cnnlab")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="write the golden logits of the models that run")
