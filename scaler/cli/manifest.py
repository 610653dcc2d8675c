"""``scaler manifest``: the ScaledObject for a workload."""

from collections.abc import Mapping
from pathlib import Path

import click

from scaler.config import load
from scaler.core.hpa_spec import parse_version
from scaler.errors import ConfigError
from scaler.ops.manifest import SCALER_ADDRESS, ManifestRequest, text

KEYS: Mapping[str, str] = {
    "model_name": "modelName",
    "ttft_slo_s": "ttftSloSeconds",
    "tpot_slo_s": "tpotSloSeconds",
    "attainment": "sloAttainmentTarget",
    "role": "role",
    "profile": "profile",
}
"""Options that become metadata of the trigger as they are, and their keys there."""


@click.command("manifest")
@click.argument("target", metavar="KIND/NAME")
@click.option("-n", "--namespace", required=True, help="Of the workload and the ScaledObject.")
@click.option("--model-name", help="model_name of the metrics; needed with --scale-to-zero.")
@click.option("--ttft-slo-s", help="Objective for the time to first token.")
@click.option("--tpot-slo-s", help="Objective for the mean time per output token.")
@click.option("--attainment", help="Share of requests within the objectives, such as 0.99.")
@click.option("--role", help="mixed, prefill or decode.")
@click.option("--profile", help="Named settings of the daemon's configuration.")
@click.option(
    "--set", "given", multiple=True, metavar="KEY=VALUE", help="Further trigger metadata."
)
@click.option("--min-replicas", type=int, help="1 unless given.")
@click.option("--max-replicas", type=int, default=8, show_default=True)
@click.option("--kubernetes-version", help="Such as 1.35: decides whether tolerance 0 is kept.")
@click.option("--scaler-address", default=SCALER_ADDRESS, show_default=True)
@click.option("--authentication", default="", metavar="[KIND/]NAME", help="TriggerAuthentication.")
@click.option("--push", is_flag=True, help="external-push: woken without waiting for a poll.")
@click.option(
    "--scale-to-zero",
    is_flag=True,
    help="Needs --model-name, and a --profile whose gateway_query counts requests in front.",
)
@click.option("--with-alerts", is_flag=True, help="A PrometheusRule for this target as well.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The daemon's configuration: checks --profile, and knows further kinds.",
)
def command(
    *,
    target: str,
    namespace: str,
    given: tuple[str, ...],
    min_replicas: int | None,
    max_replicas: int,
    kubernetes_version: str | None,
    scaler_address: str,
    authentication: str,
    push: bool,
    scale_to_zero: bool,
    with_alerts: bool,
    config_path: Path | None,
    **texts: str | None,
) -> None:
    """Print the ScaledObject that puts KIND/NAME under the scaler.

    KIND is deployment, statefulset or leaderworkerset.

    Example: scaler manifest deployment/vllm-llama-70b -n llm --ttft-slo-s 2 --max-replicas 8
    """
    request = ManifestRequest(
        target=target,
        namespace=namespace,
        metadata=_metadata(texts, given),
        scaler_address=scaler_address,
        replicas_min=(0 if scale_to_zero else 1) if min_replicas is None else min_replicas,
        replicas_max=max_replicas,
        kubernetes=parse_version(kubernetes_version) if kubernetes_version else None,
        push=push,
        scale_to_zero=scale_to_zero,
        authentication=authentication,
    )
    config = load(config_path, environ={}) if config_path else None
    click.echo(text(request, config, with_alerts=with_alerts), nl=False)


def _metadata(texts: Mapping[str, str | None], given: tuple[str, ...]) -> dict[str, str]:
    """The trigger's metadata, its most important keys first.

    Raises:
        ConfigError: an item of ``given`` is not KEY=VALUE, or is given twice.
    """
    found = {key: value for option, key in KEYS.items() if (value := texts.get(option)) is not None}
    faults = []
    for item in given:
        key, equals, value = item.partition("=")
        if not key or not equals:
            faults.append(f"--set {item!r}, must be KEY=VALUE")
        elif key in found:
            faults.append(f"{key} = {value!r}, must be given once")
        found[key] = value
    if faults:
        raise ConfigError(*faults)
    return found
