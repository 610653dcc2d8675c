"""How many replicas a load needs at a price of misses, and how many clear a backlog.

Three things are not known when a count is chosen: the load at the lead time, the randomness of
arrivals within it (which is the slack of queueing), and what a replica carries.  They are
independent, so their margins add as squares:

    count >= load + sigmas * sqrt(forecast ** 2 + slack(count) ** 2 + capacity ** 2)
"""

import math
from dataclasses import dataclass

from scaler.core.config import CapacityConfig
from scaler.core.made import maker
from scaler.core.model import Capacity
from scaler.core.window import normal_quantile

_COUNT_MAX = 10**9
_LOAD_MAX = float(_COUNT_MAX)
_INTERVAL_SIGMAS = normal_quantile(0.95)  # a capacity's interval holds nine of ten


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """How much to leave above a load: ``sigmas`` of each of the three doubts.

    ``forecast`` is the margin above the mean load that the forecast's own quantile gives, already
    at these sigmas; ``capacity_ratio`` one standard deviation of the replica's cost, relative.
    """

    sigmas: float
    forecast: float
    capacity_ratio: float


make_margins = maker(Margins)


def cost_sigma(capacity: Capacity) -> float:
    """One standard deviation of a request's cost, relative, from the capacity's interval."""
    return math.log(capacity.request_cost_high_s / capacity.request_cost_s) / _INTERVAL_SIGMAS


def load_sigma(load: float, capacity: Capacity, *, over_s: float) -> float:
    """Standard deviation of a load that fades with ``over_s``, if requests come at random.

    Poisson arrivals of cost s make shot noise of variance ``rate * E[s ** 2] / (2 * over_s)``
    (Campbell 1909); with costs as spread as an exponential distribution E[s ** 2] = 2 * E[s] ** 2:

        sigma = sqrt(load * request_cost_s / over_s)
    """
    return math.sqrt(max(load, 0.0) * capacity.request_cost_s / over_s)


def count_for(
    load: float,
    margins: Margins,
    capacity: Capacity,
    config: CapacityConfig,
    *,
    attainment_ratio: float,
) -> int:
    """Smallest count that carries ``load`` with ``margins`` above it; 0 for no load.

    ``carried(count)`` leaves the slack that ``attainment_ratio`` needs, which is as many standard
    deviations as its normal quantile.
    """
    if load <= 0.0:
        return 0
    load, sigmas = min(load, _LOAD_MAX), margins.sigmas
    slack_sigmas = sigmas / max(normal_quantile(attainment_ratio), 0.1)
    doubt = sigmas * margins.capacity_ratio * load
    alone, power = 1.0 - capacity.load_max_ratio, -config.load_max_gain
    others = margins.forecast**2 + doubt**2

    def enough(count: int) -> bool:
        carried = count * (1.0 - alone * count**power)  # as ``capacity.carried`` has it
        slack = slack_sigmas * (count - carried)
        return count - math.sqrt(slack * slack + others) >= load

    high = math.ceil(load)
    low = high - 1
    while not enough(high) and high < _COUNT_MAX:
        low, high = high, high + (high // 8 or 1)
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def drain_extra(backlog: float, load: float, price_factor: float, *, kept_s: float) -> float:
    """Replicas beyond the load that clear ``backlog`` (replica-seconds of work) at least cost.

    With e replicas to spare the backlog lasts backlog / e seconds, in which all that arrives is
    late: ``price * load * backlog / e`` replica-seconds.  The extra replicas cost ``e * kept_s``,
    their start-up and hold.  The sum is least at the square root of the ratio.
    """
    return math.sqrt(max(price_factor * max(load, 1.0) * backlog, 0.0) / max(kept_s, 1.0))
