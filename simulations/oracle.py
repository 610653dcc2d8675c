"""The oracle: the best clairvoyant schedule found, and a bound that no schedule gets below.

    result = oracle(requests, deployment, attainment_ratio=0.985)
    result.gpu_hours, result.bound_gpu_hours, result.schedule

Both are of the same simulator that policies run in: the schedule commands replicas directly, and
pays start-ups and drains as everybody does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scaler.errors import ScenarioError
from simulations.attainable import attainable
from simulations.oracle_bound import bound_gpu_hours
from simulations.oracle_replay import Deployment, Step, replay
from simulations.oracle_schedule import GRID_S, steps_of
from simulations.oracle_search import search
from simulations.trace_chunks import Requests

ATTAINABLE_SHARE = 0.99
REPLAYED_REQUESTS_MAX = 400_000_000  # some three minutes of one core
REPLAYS_MIN, REPLAYS_MAX = 24, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleResult:
    """What clairvoyance comes to.

    ``slo_attainment_ratio`` is what ``schedule`` attains in its replay, at least
    ``attainment_target_ratio`` where ``reached``; where not, no schedule tried reaches the target,
    and this one attains most.  ``schedule`` holds (at_s, count) from ``replicas_first`` on.
    """

    gpu_hours: float
    bound_gpu_hours: float
    schedule: tuple[Step, ...]
    slo_attainment_ratio: float
    slo_attainable_ratio: float
    attainment_target_ratio: float
    reached: bool
    replays: int


def oracle(
    requests: Requests,
    deployment: Deployment,
    *,
    attainment_ratio: float | None = None,
    replays_max: int | None = None,
    known: Sequence[Step] | None = None,
) -> OracleResult:
    """The cheapest schedule found that attains ``attainment_ratio`` of all requests.

    The whole trace comes as one chunk (``trace_chunks.join``), as the run would play it.  Without
    an attainment it is 0.99 of what is attainable.  ``known`` is a schedule that is tried as well,
    as what a policy came to: then the result is never dearer.  Equal arguments, equal result.

    Raises:
        ScenarioError: there are no requests, or the attainment is no share.
    """
    if not len(requests):
        raise ScenarioError("the trace has no request in the time that is played")
    reachable = attainable(requests, deployment.model, deployment.objectives)
    target = ATTAINABLE_SHARE * reachable if attainment_ratio is None else attainment_ratio
    if not 0.0 <= target <= 1.0:
        raise ScenarioError(f"attainment = {target}, must be in [0, 1]")
    count = len(requests)
    # A share that a run has reached is a quotient of whole numbers; its rounding must not cost one.
    good_min = math.ceil(target * count - 1e-6)
    found = search(
        requests,
        deployment,
        misses_max=count - good_min,
        replays_max=replays_max or _replays(count),
    )
    best, schedule = found.replay, steps_of(found.counts, first=deployment.replicas_first)
    reached, replays = found.reached, found.replays
    if known is not None:
        other = replay(requests, deployment, known, block_s=GRID_S)
        replays += 1
        able = other.misses.sum() <= count - good_min
        if able and (not reached or other.gpu_hours < best.gpu_hours):
            best, schedule, reached = other, tuple(known), True
    return OracleResult(
        gpu_hours=best.gpu_hours,
        bound_gpu_hours=bound_gpu_hours(requests, deployment, good_min=good_min),
        schedule=schedule,
        slo_attainment_ratio=best.attainment_ratio,
        slo_attainable_ratio=reachable,
        attainment_target_ratio=target,
        reached=reached,
        replays=replays,
    )


def _replays(count: int) -> int:
    return min(max(REPLAYED_REQUESTS_MAX // count, REPLAYS_MIN), REPLAYS_MAX)
