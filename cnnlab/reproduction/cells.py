"""How numbers over several seeds are written in tables and verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def percent(values: Sequence[float]) -> str:
    """Write shares as `60.84 ± 0.97 % (5)`: mean, standard deviation (n - 1) and number; "-" for none."""
    return "-" if not values else f"{spread([100 * value for value in values], 2)} % ({len(values)})"


def spread(values: Sequence[float], digits: int) -> str:
    """Write values as `8.1 ± 0.2`, of a single one the value alone; "-" for none."""
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):,.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):,.{digits}f}"


def millions(number: float) -> str:
    """Write a number of parameters or multiply-adds as `21.80 M` or `3.66 G`."""
    return f"{number / 1e9:.2f} G" if number >= 1e9 else f"{number / 1e6:.2f} M"


def duration(seconds: float) -> str:
    """Write seconds as `8.7 s`, `12 min` or `8.7 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
