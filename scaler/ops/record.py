"""A past window of a live system as files: a trace to simulate, and a log to replay.

``decide`` is run over observations made by the daemon's own readers from the daemon's own queries,
so that the log is what a daemon would have written that had watched at the time.
"""

import contextlib
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaler.config import config_hash
from scaler.core.config import PolicyConfig
from scaler.core.model import NoData, Observation, Replicas
from scaler.core.policy import PolicyState, decide
from scaler.errors import SignalError
from scaler.ops.record_history import Asked, Store, chunks
from scaler.ops.record_ticks import Collected, Lives, collected, lives
from scaler.ops.record_trace import Rounds, Trace, build_trace, read_lengths, write_csv
from scaler.service.codec import SCHEMA_VERSION, DecisionRecord, StateRecord, encode
from scaler.signals.readers import Readers
from scaler.signals.tracker import TargetTracker, TrackerSettings

TRACE, LOG, SUMMARY = "trace.csv.gz", "decisions.jsonl.gz", "record.json"
_ID = "recorded"
_GAPS_SHOWN = 100
_WORKLOADS_SHOWN = 5

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch without a good look at the engines, and why."""

    from_s: float
    to_s: float
    reason: str


@dataclass(slots=True, kw_only=True)
class _Looks:
    """What the ticks were like."""

    tick_s: float
    ticks: int = 0
    blind: Counter[str] = field(default_factory=Counter)
    gaps: list[Gap] = field(default_factory=list)
    no_work: Counter[str] = field(default_factory=Counter)
    replicas_first: int | None = None
    replicas_inferred: bool = False

    def add(self, observation: Observation) -> None:
        """Take in one tick."""
        self.ticks += 1
        replicas = observation.replicas
        if isinstance(replicas, Replicas):
            self.replicas_inferred |= replicas.inferred
            if self.replicas_first is None:
                self.replicas_first = replicas.ready
        if isinstance(observation.work, NoData):
            self.no_work[observation.work.detail] += 1
        if isinstance(observation.queue, NoData):
            self._blind(observation.queue, observation.seen_at_s)

    def _blind(self, missing: NoData, at_s: float) -> None:
        self.blind[missing.cause.value] += 1
        end_s = at_s + self.tick_s
        if self.gaps and self.gaps[-1].to_s >= at_s - 0.5 * self.tick_s:
            last = self.gaps[-1]
            self.gaps[-1] = Gap(from_s=last.from_s, to_s=end_s, reason=last.reason)
        else:
            reason = f"{missing.cause.value}: {missing.detail}"
            self.gaps.append(Gap(from_s=at_s, to_s=end_s, reason=reason))


def write_recording(
    asked: Asked,
    readers: Readers,
    store: Store,
    policy: PolicyConfig,
    *,
    out: Path,
    seed: int,
    told: Told,
) -> dict[str, Any]:
    """Write trace, log and summary of a history that is in ``store``; returns the summary.

    Raises:
        SignalError: the window holds nothing of the target, or no arrival can be told.
        OSError: a file cannot be written.
    """
    known = lives(asked, chunks(asked, store))
    _refuse_nothing(asked, known)
    looks, rounds = _Looks(tick_s=asked.tick_s), Rounds()
    ticks = collected(asked, readers, known, chunks(asked, store))
    with _beside(out / LOG) as write:
        for line, observation in _decided(asked, ticks, policy):
            write(line)
            looks.add(observation)
            rounds.add(observation)
            told(looks.ticks, asked.ticks)
    if not rounds.rounds:
        why = looks.no_work.most_common(1)[0][0] if looks.no_work else "no tick"
        raise SignalError(f"no arrivals can be told in the whole window: {why}")
    prompts, outputs = (
        read_lengths((rows.get(name, []) for _, rows in chunks(asked, store)), asked.target)
        for name in ("prompt_lengths", "output_lengths")
    )
    trace = build_trace(rounds.rounds, prompts, outputs, from_s=asked.from_s, seed=seed)
    write_csv(out / TRACE, trace)
    drawn = {"prompt": bool(prompts.by_end_s), "output": bool(outputs.by_end_s)}
    summary = _summary(asked, looks, rounds, trace, policy=policy, drawn=drawn)
    (out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _refuse_nothing(asked: Asked, known: Lives) -> None:
    """A window without the target is never a window without load.

    Raises:
        SignalError: no series of the target's pods in the whole window, and what there is instead.
    """
    if known.first_s:
        return
    target, settings = asked.target, asked.settings
    window = f"between {asked.from_s:.0f} and {asked.to_s:.0f}"
    if not known.others:
        raise SignalError(
            f"{settings.url} has no engine series with"
            f" {settings.namespace_label}={target.namespace!r} {window}; check the namespace, the"
            " window, the retention, and the scrape job"
        )
    shown = ", ".join(sorted(known.others)[:_WORKLOADS_SHOWN])
    raise SignalError(
        f"no series {window} has a {settings.pod_label} of {target.kind}/{target.name};"
        f" series of {target.namespace} come from {shown}"
    )


def _decided(
    asked: Asked, ticks: Iterator[Collected], policy: PolicyConfig
) -> Iterator[tuple[bytes, Observation]]:
    """The records of every tick and what was seen in it; the first brings a state as well."""
    freshness = policy.freshness
    tracker = TargetTracker(
        TrackerSettings(
            stale_after_s=freshness.stale_after_s,
            gpu_stale_after_s=freshness.gpu_stale_after_s,
            coverage_min_ratio=freshness.coverage_min_ratio,
        )
    )
    target = asked.target
    state = PolicyState()
    common = {
        "schema": SCHEMA_VERSION,
        "namespace": target.namespace,
        "name": target.name,
        "id": _ID,
        "target": f"{target.kind}/{target.name}",
        "config_hash": config_hash(policy),
    }
    head = encode(StateRecord(kind="state", policy=policy, state=state, **common)) + b"\n"  # type: ignore[arg-type]  # one of them is a number
    for tick in ticks:
        observation = tracker.observe(tick.samples, tick.replicas, tick.at_s)
        decision, state = decide(observation, state, policy, tick.at_s)
        record = DecisionRecord(kind="decision", decision=decision, **common)  # type: ignore[arg-type]  # as above
        yield head + encode(record) + b"\n", observation
        head = b""


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Callable[[bytes], object]]:
    """A compressed file that has its name only once it is whole."""
    made = path.with_name(path.name + ".new")
    with (
        made.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
    ):
        yield packed.write
    made.replace(path)


def _summary(
    asked: Asked,
    looks: _Looks,
    rounds: Rounds,
    trace: Trace,
    *,
    policy: PolicyConfig,
    drawn: dict[str, bool],
) -> dict[str, Any]:
    """What was recorded, and what could not be."""
    target = asked.target
    return {
        "target": f"{target.namespace}/{target.kind}/{target.name}",
        "model_name": target.model_name,
        "from_s": asked.from_s,
        "to_s": asked.to_s,
        "tick_s": asked.tick_s,
        "config_hash": config_hash(policy),
        "requests": len(trace),
        "requests_counted": sum(round_.arrived for round_ in rounds.rounds),
        "requests_finished": sum(round_.finished for round_ in rounds.rounds),
        "prompt_tokens": int(trace.prompt_tokens.sum()),
        "prompt_tokens_counted": sum(round_.prompt_tokens for round_ in rounds.rounds),
        "output_tokens": int(trace.output_tokens.sum()),
        "output_tokens_counted": sum(round_.output_tokens for round_ in rounds.rounds),
        "lengths_from": {name: "histogram" if had else "mean" for name, had in drawn.items()},
        "replicas_first": looks.replicas_first,
        "replicas_inferred": looks.replicas_inferred,
        "ticks": looks.ticks,
        "ticks_blind": dict(looks.blind),
        "gaps": [
            {"from_s": gap.from_s, "to_s": gap.to_s, "reason": gap.reason}
            for gap in looks.gaps[:_GAPS_SHOWN]
        ],
        "gap_s": sum(gap.to_s - gap.from_s for gap in looks.gaps),
    }
