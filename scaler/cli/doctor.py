"""``scaler doctor``: mistakes in manifests."""

import json
from pathlib import Path

import click

from scaler.errors import ConfigError
from scaler.ops.lint.model import Severity
from scaler.ops.lint.run import Report, as_line, as_row, lint

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: None}


@click.command("doctor")
@click.option(
    "--manifests",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Check every YAML and JSON file below DIR; nothing is asked of a cluster.",
)
@click.option("--json", "as_json", is_flag=True, help="A list of findings for scripts.")
@click.option("--gpus-total", type=int, metavar="N", help="GPUs of the cluster, for maxima.")
@click.pass_context
def command(
    context: click.Context, *, manifests: Path | None, as_json: bool, gpus_total: int | None
) -> None:
    """Find known mistakes in anyone's manifests for vLLM.

    Kustomize overlays are read file by file; what is applied in the end is checked by rendering
    it first: kubectl kustomize overlays/x > rendered/x.yaml

    Exit status 0: no finding of severity error; 1: at least one.

    Example: scaler doctor --manifests manifests/
    """
    if manifests is None:
        raise ConfigError("--manifests DIR must be given: a live installation is not checked yet")
    report = lint(manifests, gpus_total=gpus_total)
    if as_json:
        click.echo(json.dumps([as_row(one) for one in report.findings], indent=2))
    else:
        _print(report)
    context.exit(1 if report.count(Severity.ERROR) else 0)


def _print(report: Report) -> None:
    for one in report.findings:
        click.secho(as_line(one), fg=COLOURS[one.severity])
    counts = ", ".join(f"{report.count(severity)} {severity.value}" for severity in Severity)
    click.echo(f"{report.files} files, {report.objects} objects: {counts}")
