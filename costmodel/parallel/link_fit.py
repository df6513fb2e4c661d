"""The constants of the links, fitted to measured collectives.

A table has one row per group and size: `node`, `collective`, `devices`, `devices_per_node`, `bytes`, the
median `time_s`, and `tenth_s`, which a tenth of the runs stayed below. Short messages were timed with the
host in the way: two modes, of which the slower, 45 to 66 us, is the host's and says nothing of the link.
So below `SHORT_BYTES` the faster mode counts, and what lies at the host's floor is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.parallel.links import LinkLaw, Protocol, ring

if TYPE_CHECKING:
    import pandas as pd

#: Below so many bytes the faster of two modes counts.
SHORT_BYTES = 1.2e6
#: Times of short messages beyond which the host holds them, and of long ones below which it does.
HOST_S, FLOOR_S = 40e-6, 70e-6
_START = (10e-6, 1.2e-6, 0.33, 40e-6, 4e-6, 0.6)


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that speak of the link, with their `seconds`."""
    short = table["bytes"] < SHORT_BYTES
    seconds = table["tenth_s"].where(short, table["time_s"])
    # A pair's messages of a few MB are faster than the host; those of more ranks are not.
    over = ~short & ((seconds > FLOOR_S) | ((table["devices"] > 2) & (table["bytes"] > 1.9e6)))
    keep = over | (short & (seconds < HOST_S)) | (table["devices_per_node"] < table["devices"])
    return table.assign(seconds=seconds)[keep]


def fit_link(
    reduces: pd.DataFrame, sends: pd.DataFrame | None, rate: float, *, steps_of: LinkLaw | None = None,
    source: str = "",
) -> LinkLaw:  # fmt: skip
    """Return the law that all-reduces and sends over a link follow best.

    Args:
        reduces: all-reduces.
        sends: sends; None takes those of `steps_of`.
        rate: the link's B/s in one direction.
        steps_of: a law whose seconds per step hold, where the table has ranks of one number only.
        source: what the table is.
    """
    from scipy.optimize import least_squares

    rows = usable(reduces)
    ranks, seconds = rows["devices"].to_numpy(), rows["seconds"].to_numpy()
    steps, carried = ring("all_reduce", rows["bytes"].to_numpy(float), ranks)
    given = np.log(_START)
    free = np.ones(6, bool)
    if steps_of is not None:
        given[[1, 4]] = np.log([steps_of.short.step_s, steps_of.long.step_s])
        free[[1, 4]] = False

    def law(logs: Any) -> LinkLaw:
        values = given.copy()
        values[free] = logs
        short, long = (Protocol(*map(float, part)) for part in np.exp(values).reshape(2, 3))
        return LinkLaw(short, long, long, 1.0, 1.0, source)

    def off(logs: Any) -> Any:
        return np.log(law(logs).seconds(steps, carried, rate, np.minimum) / seconds)

    found = law(least_squares(off, given[free], loss="soft_l1", f_scale=0.1).x)
    ratio = seconds / found.seconds(steps, carried, rate, np.minimum)
    low, high = np.quantile(ratio, (0.05, 0.95))
    send = _fit_send(sends, rate) if sends is not None else None
    if send is None:
        send = found.long if steps_of is None else steps_of.send
    return found._replace(send=send, low=float(low), high=float(high))


def _fit_send(sends: pd.DataFrame, rate: float) -> Protocol:
    """Return start and efficiency of sends; a single step has no time of its own."""
    from scipy.optimize import least_squares

    size, seconds = sends["bytes"].to_numpy(float), sends["time_s"].to_numpy()

    def off(logs: Any) -> Any:
        start, efficiency = np.exp(logs)
        return np.log((start + size / (efficiency * rate)) / seconds)

    start, efficiency = np.exp(least_squares(off, np.log([12e-6, 0.7]), loss="soft_l1").x)
    return Protocol(float(start), 0.0, float(efficiency))
