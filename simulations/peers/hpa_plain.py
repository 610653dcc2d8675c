"""Peers that are a trigger or two in a ScaledObject or an HPA: what most people run today.

W is the sum of ``vllm:num_requests_waiting`` and R that of ``vllm:num_requests_running`` over the
ready replicas at the last scrape; k is a replica's KV-cache usage, u its GPU utilisation.  Several
triggers are several metrics of one HPA, whose largest proposal counts.
"""

from collections.abc import Sequence
from functools import partial

from scaler.core.hpa import Behavior, Metric, Version, parse_behavior
from simulations.controller import Context
from simulations.peers.hpa_controller import BOTH, Law, MakeLaw, Seen, external, hpa_driven
from simulations.peers.hpa_pods import pods_metric
from simulations.peers.peer import CORRECTED, Group, Peer, Setting
from simulations.scenario import SHIPPED
from simulations.scrape_history import kv_cache_usage, metric

WAITING = metric("requests_waiting")
RUNNING = metric("requests_running")
PROMPT_TOKENS = metric("prompt_tokens")
GENERATION_TOKENS = metric("generation_tokens")

# keda-queue, keda-queue-kv


def queue_law(seen: Seen, *, threshold: float, keda: Version) -> Sequence[Metric]:
    """W with ``threshold`` a replica."""
    waiting = seen.history.now(WAITING, seen.now_s).total
    return (external(waiting, threshold, keda),)


def queue_kv_law(
    seen: Seen, *, waiting_target: float, kv_target_ratio: float, keda: Version
) -> Sequence[Metric]:
    """W with 5 a replica, and the sum of k with ``kv_target_ratio`` a replica."""
    used = seen.history.now(kv_cache_usage, seen.now_s).total
    queue = queue_law(seen, threshold=waiting_target, keda=keda)
    return (*queue, external(used, kv_target_ratio, keda))


def _queue(setting: Setting, context: Context) -> Law:
    return partial(queue_law, threshold=setting.knob, keda=context.cluster.keda)


def _queue_kv(setting: Setting, context: Context) -> Law:
    return partial(
        queue_kv_law,
        waiting_target=5.0,
        kv_target_ratio=setting.knob,
        keda=context.cluster.keda,
    )


# hpa-gpu-util


def gpu_law(seen: Seen, *, target_ratio: float) -> Sequence[Metric]:
    """Mean u over the ready pods against ``target_ratio``, a Pods metric."""
    used = seen.history.gpu_ratio(seen.now_s).by_uid()
    return (_of_ready(seen, used, target_ratio),)


def _of_ready(seen: Seen, by_uid: dict[int, float], target: float) -> Metric:
    """The Pods metric of the pods that Kubernetes lists as ready now."""
    known = {uid: by_uid[uid] for uid in seen.view.ready if uid in by_uid}
    return pods_metric(
        known, target=target, replicas=seen.view.replicas, tolerances=seen.tolerances
    )


def _gpu(setting: Setting, _context: Context) -> Law:
    return partial(gpu_law, target_ratio=setting.knob)


# running-requests, production-stack's operator


def running_law(seen: Seen, *, threshold: float, keda: Version) -> Sequence[Metric]:
    """R with ``threshold`` a replica."""
    return (external(seen.history.now(RUNNING, seen.now_s).total, threshold, keda),)


def operator_law(seen: Seen, *, threshold: float, keda: Version) -> Sequence[Metric]:
    """R with ``threshold`` a replica, and generated and prompt tokens a second with 100 each."""
    tokens = [
        seen.history.rate(series, window_s=60.0, now_s=seen.now_s).total
        for series in (GENERATION_TOKENS, PROMPT_TOKENS)
    ]
    running = running_law(seen, threshold=threshold, keda=keda)
    return (*running, *(external(rate, 100.0, keda) for rate in tokens))


def _running(setting: Setting, context: Context) -> Law:
    return partial(running_law, threshold=setting.knob, keda=context.cluster.keda)


def _operator(setting: Setting, context: Context) -> Law:
    return partial(operator_law, threshold=setting.knob, keda=context.cluster.keda)


OPERATOR_BEHAVIOR: Behavior | None = parse_behavior(
    {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }
)

# keda-inference-scaler


def inference_scaler_law(
    seen: Seen, *, waiting_target: float, per_replica: bool, keda: Version
) -> Sequence[Metric]:
    """100 * max(W / ``waiting_target``, max k / 0.7) with a target of 100.

    As shipped the pool's highest k is divided by the replicas, so that KV pressure alone never asks
    for more than ceil(1 / 0.7) = 2; ``per_replica`` multiplies it by status.replicas.
    """
    waiting = seen.history.now(WAITING, seen.now_s).total
    used = seen.history.now(kv_cache_usage, seen.now_s)
    pressure = used.highest / 0.7 if len(used.uids) else 0.0
    if per_replica:
        pressure *= seen.current
    return (external(100.0 * max(waiting / waiting_target, pressure), 100.0, keda),)


def _inference_scaler(setting: Setting, context: Context) -> Law:
    return partial(
        inference_scaler_law,
        waiting_target=setting.knob,
        per_replica=setting.variant == CORRECTED,
        keda=context.cluster.keda,
    )


# seed-keda: a guide's ScaledObject with running requests and GPU utilisation


def seed_keda_shipped(seen: Seen, *, keda: Version) -> Sequence[Metric]:
    """What the guide's two queries come to.

    The first asks for the label ``model``, which vLLM does not have (it is ``model_name``), so its
    result is empty, and KEDA reads that as 0.  The second is ``avg(DCGM_FI_DEV_GPU_UTIL)`` with
    threshold 80 and the default AverageValue, which divides the average by the replicas once more:
    no load asks for more than ceil(100 / 80) = 2.
    """
    used = seen.history.gpu_ratio(seen.now_s)
    average = 100.0 * used.mean if len(used.uids) else 0.0
    return (external(0.0, 128.0, keda), external(average, 80.0, keda))


def seed_keda_corrected(seen: Seen, *, threshold: float, keda: Version) -> Sequence[Metric]:
    """What it was meant to be: the sums, with ``threshold`` running and 80 % busy a replica."""
    running = running_law(seen, threshold=threshold, keda=keda)
    busy = 100.0 * seen.history.gpu_ratio(seen.now_s).total
    return (*running, external(busy, 80.0, keda))


def _seed_keda(setting: Setting, context: Context) -> Law:
    keda = context.cluster.keda
    if setting.variant == SHIPPED:
        return partial(seed_keda_shipped, keda=keda)
    return partial(seed_keda_corrected, threshold=setting.knob, keda=keda)


SEED_KEDA_BEHAVIOR: Behavior | None = parse_behavior(
    {
        "scaleUp": {
            "stabilizationWindowSeconds": 60,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
        },
    }
)

# seed-hpa: another guide's HPA on waiting requests


def waiting_pods_law(seen: Seen, *, target: float) -> Sequence[Metric]:
    """Mean waiting over the ready pods against ``target``, a Pods metric."""
    waiting = seen.history.now(WAITING, seen.now_s).by_uid()
    return (_of_ready(seen, waiting, target),)


def _seed_hpa(setting: Setting, _context: Context) -> Law:
    return partial(waiting_pods_law, target=setting.knob)


SEED_HPA_BEHAVIOR: Behavior | None = parse_behavior(
    {
        "scaleUp": {
            "stabilizationWindowSeconds": 60,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
        },
        "scaleDown": {"stabilizationWindowSeconds": 300},
    }
)

_PER_REPLICA = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)


def _peer(
    name: str,
    make: MakeLaw,
    *,
    knob: str,
    default: float,
    values: tuple[float, ...],
    own: Behavior | None = None,
    variants: tuple[str, ...] = (SHIPPED,),
) -> Peer:
    return Peer(
        name=name,
        group=Group.METRIC,
        knob=knob,
        knob_default=default,
        knob_values=values,
        build=hpa_driven(make, own=own),
        variants=variants,
        behaviours=BOTH,
    )


PEERS = (
    _peer(
        "keda-queue",
        _queue,
        knob="waiting requests a replica",
        default=5.0,
        values=_PER_REPLICA,
    ),
    _peer(
        "keda-queue-kv",
        _queue_kv,
        knob="KV-cache usage a replica, 0 to 1 (waiting stays at 5)",
        default=0.8,
        values=(0.03, 0.05, 0.08, 0.12, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    ),
    _peer(
        "hpa-gpu-util",
        _gpu,
        knob="GPU utilisation of a ready pod, 0 to 1",
        default=0.7,
        values=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98),
    ),
    _peer(
        "running-requests",
        _running,
        knob="running requests a replica",
        default=16.0,
        values=(4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 40.0, 48.0, 56.0, 64.0, 96.0, 128.0, 192.0),
    ),
    _peer(
        "vps-operator",
        _operator,
        knob="running requests a replica (100 generated and 100 prompt tokens/s stay)",
        default=5.0,
        values=(2.0, 5.0, 10.0, 20.0),
        own=OPERATOR_BEHAVIOR,
    ),
    _peer(
        "keda-inference-scaler",
        _inference_scaler,
        knob="waiting requests a replica (KV-cache usage stays at 0.7)",
        default=3.0,
        values=_PER_REPLICA,
        variants=(SHIPPED, CORRECTED),
    ),
    _peer(
        "seed-keda",
        _seed_keda,
        knob="running requests a replica (GPU utilisation stays at 80 %); unused as shipped",
        default=128.0,
        values=(8.0, 16.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0),
        own=SEED_KEDA_BEHAVIOR,
        variants=(SHIPPED, CORRECTED),
    ),
    _peer(
        "seed-hpa",
        _seed_hpa,
        knob="waiting requests of a ready pod",
        default=10.0,
        values=_PER_REPLICA,
        own=SEED_HPA_BEHAVIOR,
    ),
)
