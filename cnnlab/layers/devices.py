"""What the layers ask about the devices of the process before they choose how to compute."""

from __future__ import annotations

import jax


def several_devices() -> bool:
    """Whether this process computes on several CPU devices, over which the compiler may spread an array."""
    return jax.default_backend() == "cpu" and jax.local_device_count() > 1
