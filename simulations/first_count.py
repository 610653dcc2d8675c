"""How many replicas a run begins with where nobody says: those that its first minutes need.

A recorded trace begins in the middle of a day's work.  A run that begins with fewer replicas than
were there is a cold start that no policy survives, and says nothing of the policies.
"""

import math
from collections.abc import Iterable

import numpy as np

from simulations.attainable import alone
from simulations.oracle_work import BaseShare, least_work
from simulations.replica import ReplicaModel
from simulations.trace_chunks import Requests, join

FIRST_S = 600.0
USE_RATIO = 0.65  # of a replica's time that its least work may fill: latencies need the rest


def first_count(
    chunks: Iterable[Requests], model: ReplicaModel, *, load_factor: float, until_s: float | None
) -> int:
    """Replicas for the arrivals before ``FIRST_S``; 0 without any.

    ceil(load_factor * least work of the first arrivals / FIRST_S / USE_RATIO), over the time that
    is played where that is shorter.  Requests that are too long for the model need none.
    """
    span_s = FIRST_S if until_s is None else min(FIRST_S, until_s)
    first: list[Requests] = []
    for chunk in chunks:
        first.append(chunk.pick(chunk.arrival_s < span_s))
        if len(chunk) and chunk.arrival_s[-1] >= span_s:
            break
    requests = join(first)
    served = requests.pick(alone(requests, model).served)
    work = least_work(served, model, BaseShare())
    busy = float(np.sum(work.prefill_s + work.decode_s)) / span_s
    return math.ceil(load_factor * busy / USE_RATIO)
