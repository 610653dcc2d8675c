"""``scaler doctor``: mistakes in manifests, and in a live installation."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from scaler.config import ScalerConfig, load
from scaler.errors import ConfigError
from scaler.ops.lint.model import Finding, Severity
from scaler.ops.lint.run import as_line, as_row, lint

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: None}


@click.command("doctor")
@click.option(
    "--manifests",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Check every YAML and JSON file below DIR; nothing is asked of a cluster.",
)
@click.option("--gpus-total", type=int, metavar="N", help="GPUs of the cluster, for maxima.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The daemon's configuration; a live installation is checked with its sources.",
)
@click.option("--target", metavar="NAMESPACE/NAME|all", help="One target; default: all.")
@click.option("--url", "urls", multiple=True, help="HTTP port of a daemon; repeat for each.")
@click.option("--kubeconfig", metavar="FILE", default="", help="Instead of the usual one.")
@click.option("--context", "kube_context", default="", help="A context of the kubeconfig.")
@click.option(
    "--scaler-address",
    metavar="HOST:PORT",
    default="",
    help="Call this instead of the triggers' scalerAddress (a port-forward).",
)
@click.option(
    "--grpc-ca",
    metavar="FILE",
    default="",
    help="CA of the daemon's gRPC certificate, where triggers call over TLS.",
)
@click.option("--grpc-cert", metavar="FILE", default="", help="A client's certificate, for mTLS.")
@click.option("--grpc-key", metavar="FILE", default="", help="Its key.")
@click.option(
    "--service-account",
    metavar="NAMESPACE:NAME",
    default="",
    help="Ask for the permissions of this account, e.g. vllm-scaler:vllm-scaler.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(0.1, 300.0),
    default=10.0,
    show_default=True,
    help="Limit of each question.",
)
@click.option("--json", "as_json", is_flag=True, help="A list of findings for scripts.")
@click.pass_context
def command(
    context: click.Context,
    *,
    manifests: Path | None,
    gpus_total: int | None,
    config_path: Path | None,
    target: str | None,
    urls: tuple[str, ...],
    kubeconfig: str,
    kube_context: str,
    scaler_address: str,
    grpc_ca: str,
    grpc_cert: str,
    grpc_key: str,
    service_account: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Find known mistakes in a live installation, or in anyone's manifests for vLLM.

    Live, the cluster, the daemon's sources, KEDA's objects and the daemons themselves are asked,
    nothing is changed.  What cannot be checked is said.

    Kustomize overlays are read file by file; what is applied in the end is checked by rendering
    it first: kubectl kustomize overlays/x > rendered/x.yaml

    Exit status 0: no finding of severity error; 1: at least one; 2: wrong input.

    Example: scaler doctor --manifests manifests/

    Example: scaler doctor --config scaler.yaml --url http://localhost:8080

    Of two daemons, over TLS: scaler doctor --config scaler.yaml --url http://10.0.0.4:8080 --url
    http://10.0.0.5:8080 --grpc-ca ca.crt --grpc-cert tls.crt --grpc-key tls.key
    """
    tls = {"ca_file": grpc_ca, "cert_file": grpc_cert, "key_file": grpc_key}
    live = (
        config_path, target, urls, kubeconfig, kube_context, scaler_address, service_account,
        *tls.values(),
    )  # fmt: skip
    if manifests is not None and any(live):
        raise ConfigError("--manifests asks nothing of a cluster: give it without live options")
    if manifests is not None:
        errors = _manifests(manifests, gpus_total=gpus_total, as_json=as_json)
    elif not any(live):
        raise ConfigError("give --manifests DIR, or --config, --target, --url of an installation")
    else:
        errors = _live(
            config=load(config_path),
            target=target or "all",
            urls=urls,
            kubeconfig=kubeconfig,
            kube_context=kube_context,
            scaler_address=scaler_address,
            tls=tls,
            account=service_account,
            timeout_s=timeout_s,
            as_json=as_json,
        )
    context.exit(1 if errors else 0)


def _manifests(directory: Path, *, gpus_total: int | None, as_json: bool) -> int:
    """Check manifests and print the findings; the number of errors."""
    report = lint(directory, gpus_total=gpus_total)
    if as_json:
        click.echo(json.dumps([as_row(one) for one in report.findings], indent=2))
    else:
        counts = ", ".join(f"{report.count(severity)} {severity.value}" for severity in Severity)
        told = f"{report.files} files, {report.objects} objects: {counts}"
        _print(report.findings, told)
    return report.count(Severity.ERROR)


def _live(
    *,
    config: ScalerConfig,
    target: str,
    urls: tuple[str, ...],
    kubeconfig: str,
    kube_context: str,
    scaler_address: str,
    tls: Mapping[str, str],
    account: str,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Check an installation and print the findings; the number of errors."""
    _refuse(target=target, urls=urls, account=account, tls=tls)
    # gRPC reads this when it is imported: its own lines would stand beside ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from scaler.ops.doctor import run  # noqa: PLC0415 - after the line above
    from scaler.ops.doctor.daemon import GrpcTls  # noqa: PLC0415 - as well
    from scaler.ops.doctor.gather import Request  # noqa: PLC0415 - as well

    request = Request(
        config=config,
        target=target,
        urls=urls,
        kubeconfig=kubeconfig,
        context=kube_context,
        scaler_address=scaler_address,
        grpc_tls=GrpcTls(**tls),
        account=account,
        timeout_s=timeout_s,
    )
    report = run.examine(request)
    if as_json:
        click.echo(json.dumps([run.as_row(one) for one in report.findings], indent=2))
    else:
        _print(report.findings, report.summary())
    return report.count(Severity.ERROR)


def _refuse(*, target: str, urls: Sequence[str], account: str, tls: Mapping[str, str]) -> None:
    faults = [
        f"url = {url!r}, must begin with http:// or https://"
        for url in urls
        if not url.startswith(("http://", "https://"))
    ]
    if target != "all" and "/" not in target.strip("/"):
        faults.append(f"target = {target!r}, must be namespace/name or all")
    if account and len(list(filter(None, account.split(":")))) != 2:
        faults.append(f"service-account = {account!r}, must be namespace:name")
    if bool(tls["cert_file"]) != bool(tls["key_file"]):
        faults.append("--grpc-cert and --grpc-key must be given together")
    faults += [
        f"{name} is not a file" for name in tls.values() if name and not Path(name).is_file()
    ]
    if faults:
        raise ConfigError(*faults)


def _print(findings: Sequence[Finding], summary: str) -> None:
    for one in findings:
        click.secho(as_line(one), fg=COLOURS[one.severity])
    click.echo(summary)
