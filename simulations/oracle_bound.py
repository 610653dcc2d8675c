"""A bound on the GPU-hours of any schedule: the least work of the cheapest good requests."""

import numpy as np

from simulations.attainable import attainable_flags
from simulations.oracle_replay import Deployment
from simulations.oracle_work import BaseShare, least_work
from simulations.trace_chunks import Requests


def bound_gpu_hours(requests: Requests, deployment: Deployment, *, good_min: int) -> float:
    """GPU-hours below which no schedule has ``good_min`` good requests."""
    model = deployment.model
    able = requests.pick(attainable_flags(requests, model, deployment.objectives))
    work = least_work(able, model, BaseShare())
    cheapest = np.sort(work.prefill_s + work.decode_s)[:good_min]
    floor_s = deployment.replicas_min * float(requests.arrival_s[-1])
    return model.gpus_per_replica * max(float(cheapest.sum()), floor_s) / 3600.0
