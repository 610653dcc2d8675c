"""Idleness: seen, not assumed.  Zero replicas need a proof; one request ends it."""

from scaler.core.config import PolicyConfig
from scaler.core.model import Gateway, NoData, Observation
from scaler.core.stages import limits


def is_idle(observation: Observation, config: PolicyConfig) -> bool:
    """Whether nothing moves, and that can be seen: engines, GPUs and gateway all say so."""
    queue, work = observation.queue, observation.work
    gpu, gateway = observation.gpu, observation.gateway
    if isinstance(queue, NoData) or isinstance(work, NoData):
        return False
    if queue.requests_running + queue.requests_waiting + queue.requests_deferred > 0.0:
        return False
    came = max(work.requests_arrived, work.requests_finished, work.requests_rejected) > 0.0
    hot = not isinstance(gpu, NoData) and gpu.utilisation_max_ratio >= config.signals.gpu_busy_ratio
    asked = not isinstance(gateway, NoData) and is_asked(gateway)
    return not (came or hot or asked)


def is_asked(gateway: Gateway) -> bool:
    """Whether somebody asks for the target in front of it."""
    return gateway.requests_arrived > 0.0 or gateway.requests_waiting > 0.0


def idle_proven(
    idle_since_s: float | None, observation: Observation, config: PolicyConfig, now_s: float
) -> bool:
    """Whether zero may be published: allowed by the bounds, and idle for the whole proof."""
    replicas = observation.replicas
    if isinstance(replicas, NoData) or idle_since_s is None:
        return False
    low = limits(config, replicas.replicas_min, replicas.replicas_max).low
    return low == 0 and now_s - idle_since_s >= config.zero.idle_proof_s
