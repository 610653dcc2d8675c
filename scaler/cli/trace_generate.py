"""``scaler trace generate``: seeded synthetic traces."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scaler.cli.trace_files import out_option, seed_option, write_generated
from scaler.errors import ScalerError, ScenarioError

if TYPE_CHECKING:
    from simulations.trace_generate import Lengths

SHAPES = ("constant", "diurnal", "ramp", "step", "flash-crowd", "on-off", "mix-shift")
LENGTHS = "MEDIAN,P95[,LONGEST]"


@click.command("generate")
@click.argument("shape", type=click.Choice(SHAPES))
@out_option
@seed_option
@click.option("--duration-s", type=float, default=86400.0, show_default=True)
@click.option("--rate-per-s", type=float, default=1.0, show_default=True, help="Requests a second.")
@click.option(
    "--peak-per-s", type=float, help="The highest rate; --rate-per-s times 4 unless given."
)
@click.option("--at-s", type=float, help="When it happens; half of --duration-s unless given.")
@click.option("--hold-s", type=float, default=600.0, show_default=True, help="How long it lasts.")
@click.option("--period-s", type=float, default=86400.0, show_default=True, help="Of a cycle.")
@click.option("--prompt-tokens", default="1020,4083", show_default=True, metavar=LENGTHS)
@click.option("--output-tokens", default="129,451", show_default=True, metavar=LENGTHS)
@click.option("--later-prompt-tokens", default="4000,16000", show_default=True, metavar=LENGTHS)
@click.option("--later-output-tokens", default="60,200", show_default=True, metavar=LENGTHS)
def generate(*, shape: str, out: Path, seed: int, **options: Any) -> None:
    """Write Poisson arrivals whose rate follows SHAPE, with lognormal token lengths.

    \b
    constant     --rate-per-s throughout
    diurnal      from --rate-per-s up to --peak-per-s and back, each --period-s
    ramp         from --rate-per-s to --peak-per-s over the whole trace
    step         --peak-per-s from --at-s on
    flash-crowd  --peak-per-s at --at-s, decaying back with time constant --hold-s
    on-off       --peak-per-s for --hold-s of each --period-s
    mix-shift    lengths go over to the --later-... ones from --at-s on, within --hold-s

    Example: scaler trace generate flash-crowd --duration-s 7200 --peak-per-s 20 --out crowd.csv.gz
    """  # noqa: D301 - click's own mark: these lines are not wrapped
    try:
        from simulations import trace_generate as made  # noqa: PLC0415 - numpy, only for this
    except ImportError as missing:
        raise ScalerError(
            f"scaler trace needs {missing.name}: pip install 'vllm-scaler[sim]'"
        ) from missing
    duration_s, peak, at_s = (options[name] for name in ("duration_s", "peak_per_s", "at_s"))
    spec = made.TraceSpec(
        shape=made.Shape(shape),
        duration_s=duration_s,
        rate_per_s=options["rate_per_s"],
        peak_per_s=4.0 * options["rate_per_s"] if peak is None else peak,
        at_s=0.5 * duration_s if at_s is None else at_s,
        hold_s=options["hold_s"],
        period_s=options["period_s"],
        prompt=_lengths("prompt_tokens", options),
        output=_lengths("output_tokens", options),
        later_prompt=_lengths("later_prompt_tokens", options),
        later_output=_lengths("later_output_tokens", options),
    )
    rows = write_generated(out, made.generate(spec, seed=seed), duration_s=duration_s)
    click.echo(f"{rows:,} requests written to {out}")


def _lengths(name: str, options: dict[str, Any]) -> "Lengths":
    from simulations.trace_generate import LONGEST_TOKENS, Lengths  # noqa: PLC0415

    option, text = f"--{name.replace('_', '-')}", options[name]
    try:
        median, p95, *rest = [float(part) for part in text.split(",")]
        longest = [int(value) for value in rest]
        (limit,) = longest or (LONGEST_TOKENS,)
    except (ValueError, OverflowError) as error:
        raise ScenarioError(f"{option} = {text!r}, must be {LENGTHS}") from error
    try:
        return Lengths(median_tokens=median, p95_tokens=p95, longest_tokens=limit)
    except ScenarioError as error:
        raise ScenarioError(f"{option} = {text!r}: {error}") from error
