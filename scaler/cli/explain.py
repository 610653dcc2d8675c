"""``scaler explain``: why a target has the replicas it has."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from scaler.core.explain import headline, narrative
from scaler.core.explain_counterfactual import counterfactual_lines, counterfactuals
from scaler.errors import ConfigError
from scaler.ops.explain import Moment, Window, moment, named, window
from scaler.ops.explain_daemon import latest, remembered, target_detail
from scaler.ops.explain_history import history_window
from scaler.ops.times import parsed, spelled

EARLIER = "the decision log (--log DIR, the daemon's records.directory)"
UNKNOWN_BASIS = "what it was made from is not told: nothing can be decided again"
OTHER_AGAIN = "this version of the policy decides otherwise from the same inputs; see scaler replay"


@click.command("explain")
@click.argument("target", required=False, metavar="[NAMESPACE/NAME]")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="A decision log: decisions.jsonl, a rotated file, or the folder of the daemon's.",
)
@click.option("--url", metavar="URL", help="The daemon's HTTP port, as http://localhost:8080.")
@click.option("--trigger", metavar="ID", help="Where a target has several triggers.")
@click.option(
    "--at",
    "at",
    metavar="TIME",
    help="The decision that stood then: RFC 3339, HH:MM:SS of the log's days (UTC), or seconds of "
    "a simulated run. The last one unless given.",
)
@click.option("--from", "from_", metavar="TIME", help="With --to: every change of the count.")
@click.option("--to", metavar="TIME", help="The end of the log unless given.")
@click.option("--json", "as_json", is_flag=True, help="The same for scripts.")
def command(*, target: str | None, as_json: bool, **options: Any) -> None:
    """Say why a target has the replicas it has.

    The arithmetic of one decision: which signal bound, what held the count up, what was not seen.
    Then why it is not fewer and what would have to change: the same policy decides again with the
    load, the error budget, the hold-down or a signal changed, until the count turns. Over a window
    every change of the count, with its reason. A daemon remembers the arithmetic of its past
    decisions for about a day, of many targets that of the changes; a decision log has all of it.

    Example: scaler explain llm/chat --url http://localhost:8080; scaler explain llm/chat --log
    decisions/ --at 03:12; scaler explain --log run/decisions.jsonl --from 3600 --to 7200
    """
    log, url = options["log"], options["url"]
    if (log is None) == (url is None):
        raise ConfigError("one of --log and --url must be given")
    if options["at"] is not None and (options["from_"] is not None or options["to"] is not None):
        raise ConfigError("--at is for one decision, --from and --to for a window: not both")
    told = _of_log(log, target, options) if url is None else _of_daemon(url, target, options)
    if as_json:
        click.echo(json.dumps(told.as_object, indent=2))
    else:
        click.echo("\n".join(told.lines))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """The same for people and for scripts."""

    lines: list[str]
    as_object: dict[str, Any]


def _of_log(log: Path, target: str | None, options: dict[str, Any]) -> _Told:
    whose = named(log, target, options["trigger"])

    def at(option: str, text: str | None, default_s: float) -> float:
        span = {"begin_s": whose.begin_s, "end_s": whose.end_s}
        return default_s if text is None else parsed(option, text, **span)

    if options["from_"] is None and options["to"] is None:
        found = moment(log, whose, at("--at", options["at"], whose.end_s))
        return _told(whose.target, found)
    from_at_s = at("--from", options["from_"], whose.begin_s)
    to_at_s = at("--to", options["to"], whose.end_s)
    if to_at_s < from_at_s:
        raise ConfigError(f"--to = {options['to']}, must not be before --from")
    return _told_window(whose.target, window(log, whose, from_at_s=from_at_s, to_at_s=to_at_s))


def _of_daemon(url: str, target: str | None, options: dict[str, Any]) -> _Told:
    if target is None:
        raise ConfigError("NAMESPACE/NAME must be given with --url")
    detail = target_detail(url, target, options["trigger"])
    if options["at"] is not None:
        return _of_memory(url, target, options["trigger"], detail, options["at"])
    if options["from_"] is None and options["to"] is None:
        return _told(target, latest(detail))
    return _told_window(target, history_window(detail, options["from_"], options["to"]))


def _of_memory(
    url: str, target: str, trigger: str | None, detail: dict[str, Any], text: str
) -> _Told:
    """The decision that stood at a past time; the latest one in full."""
    decision = latest(detail).decision
    begin_s = detail.get("remembered_from_s") or decision.at_s
    try:
        at_s = parsed("--at", text, begin_s=begin_s, end_s=max(decision.at_s, detail["now_s"]))
    except ConfigError as error:
        faults = [f"{fault}; {EARLIER}" for fault in error.faults]
        raise ConfigError(*faults) from error
    if at_s >= decision.at_s:
        return _told(target, latest(detail))
    found = remembered(url, target, at_s, trigger)
    lines = [f"{target} at {spelled(found['at_s'])}", *found["explanation"]]
    lines.append(since(found))
    return _Told(lines=lines, as_object={**found, "replicas": found["desired"]})


def since(found: dict[str, Any]) -> str:
    """What holds between the decision that is told and the time that was asked for."""
    asked = spelled(found["asked_at_s"])
    if found["asked_at_s"] < found["at_s"] + found["tick_s"]:
        return f"this is the decision that stood at {asked}; {EARLIER} also decides it again"
    return (
        f"from then until {asked} the count did not change; the numbers are those of the decision"
        f" that is remembered; {EARLIER} has every one, and decides it again"
    )


def _told(target: str, found: Moment) -> _Told:
    """One decision, and what would have to change."""
    decision, basis = found.decision, found.basis
    changed = counterfactuals(basis) if basis is not None else None
    same = None if basis is None else basis.decide() == decision
    lines = [f"{target} at {spelled(decision.at_s)}", *narrative(decision)]
    if changed is None:
        lines.append(UNKNOWN_BASIS)
    else:
        lines.append("Why not fewer, and what would have to change (decided again):")
        lines += [f"  {line}" for line in counterfactual_lines(changed)]
    if same is False:
        lines.append(OTHER_AGAIN)
    namespace, _, name = target.partition("/")
    return _Told(
        lines=lines,
        as_object={
            "namespace": namespace,
            "name": name,
            "at_s": decision.at_s,
            "replicas": decision.would_be,
            "published": decision.replicas_desired,
            "verdict": decision.verdict,
            "decided_by": decision.decided_by,
            "bound_by": decision.steps[0].stage,
            "headline": headline(decision),
            "steps": [_with_terms(step) for step in decision.steps],
            "proposals": [_with_terms(proposal) for proposal in decision.proposals],
            "blind": [dataclasses.asdict(item) for item in decision.blind],
            "counterfactuals": None if changed is None else dataclasses.asdict(changed),
            "same_decided_again": same,
        },
    )


def _with_terms(item: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(item), "terms": dict(item.terms)}


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _told_window(target: str, found: Window) -> _Told:
    """Every change, and the span of the count."""
    namespace, _, name = target.partition("/")
    lines = [
        f"{target} from {spelled(found.from_at_s)} to {spelled(found.to_at_s)}",
    ]
    lines.append(
        f"{found.replicas_first} wanted at first, {found.replicas_min} to {found.replicas_max};"
        f" {_counted(len(found.changes), 'change')} in {_counted(found.decisions, 'decision')}"
    )
    lines += [
        f"  {spelled(change.at_s)}  {change.before} to {change.after}: {change.headline}"
        for change in found.changes
    ]
    return _Told(
        lines=lines,
        as_object={"namespace": namespace, "name": name, **dataclasses.asdict(found)},
    )
