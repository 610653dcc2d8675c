"""Alerts on one target, for who wants them beside its ScaledObject.

They read vLLM's and the scaler's own series, so no recording rule has to be installed.
"""

from typing import Any

from scaler.core.config import PolicyConfig

# Bounds of vllm:time_to_first_token_seconds (vLLM 0.8.5 to 0.33.0), as far as an objective goes.
TTFT_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0,
)  # fmt: skip
_POD_ENDS = {"deployment": "-[a-z0-9]+-[a-z0-9]{5}"}  # replica set and pod
_ORDINALS = "-[0-9]+(-[0-9]+)?"  # of a StatefulSet, and of a group and its worker


def prometheus_rule(*, namespace: str, target: str, policy: PolicyConfig) -> dict[str, Any]:
    """A PrometheusRule for ``kind/name`` in ``namespace``; the label ``release`` is the usual one.

    The objective is judged at the next bound of the histogram at or above it, so that the alert
    speaks only of requests that have missed it for certain.
    """
    name = target.partition("/")[2]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": f"{name}-scaling",
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "vllm", "release": "prometheus"},
        },
        "spec": {
            "groups": [
                {
                    "name": f"{name}-scaling",
                    "interval": "30s",
                    "rules": [
                        _objective_missed(namespace, target, policy),
                        *_scaler_alerts(namespace, target),
                    ],
                }
            ]
        },
    }


def _objective_missed(namespace: str, target: str, policy: PolicyConfig) -> dict[str, Any]:
    bound_s = next(bound for bound in TTFT_BOUNDS_S if bound >= policy.slo.ttft_s)
    kind, _, name = target.partition("/")
    pods = name.replace(".", "[.]") + _POD_ENDS.get(kind, _ORDINALS)
    chosen = f'namespace="{namespace}", pod=~"{pods}"'
    metric = "vllm:time_to_first_token_seconds"
    # The label is written 5 or 5.0, by the version of the client library and of Prometheus.
    texts = "|".join(dict.fromkeys((f"{bound_s:g}", str(bound_s)))).replace(".", "[.]")
    within = f'sum(increase({metric}_bucket{{{chosen}, le=~"{texts}"}}[30m]))'
    all_ = f"sum(increase({metric}_count{{{chosen}}}[30m]))"
    wanted = policy.slo.attainment_target_ratio
    return _alert(
        name="VLLMTargetMissesObjective",
        severity="critical",
        hold="5m",
        expression=f"{within}\n/\n{all_} < {wanted:g}\nand\n{all_} > 20",
        summary=f"{namespace}/{target} gives too few first tokens in time",
        description=(
            "{{ $value | humanizePercentage }} of the last 30 minutes came within "
            f"{bound_s:g} s (objective {policy.slo.ttft_s:g} s), {wanted:g} is asked for."
        ),
    )


def _scaler_alerts(namespace: str, target: str) -> list[dict[str, Any]]:
    chosen = f'{{target_namespace="{namespace}", target="{target}"}}'
    decided_at = f"vllm_scaler_last_decision_timestamp_seconds{chosen}"
    return [
        _alert(
            name="VLLMTargetUndecided",
            severity="critical",
            hold="5m",
            expression=f"absent({decided_at})\nor\ntime() - max({decided_at}) > 60",
            summary=f"The scaler decides nothing for {namespace}/{target}",
            description="It is down, does not know the trigger, or its loop hangs: KEDA holds.",
        ),
        _alert(
            name="VLLMTargetBlind",
            severity="critical",
            hold="3m",
            expression=f"max(vllm_scaler_blind{chosen}) == 1",
            summary=f"The scaler is blind for {namespace}/{target}",
            description="Nothing is known of the load: the count is held. It does not mean idle.",
        ),
        _alert(
            name="VLLMTargetAtMaximum",
            severity="warning",
            hold="10m",
            expression=f"max(vllm_scaler_at_max{chosen}) == 1",
            summary=f"{namespace}/{target} is at its maximum",
            description="At least maxReplicaCount replicas are wanted: raise it, or add GPUs.",
        ),
    ]


def _alert(
    *, name: str, severity: str, hold: str, expression: str, summary: str, description: str
) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": hold,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }
