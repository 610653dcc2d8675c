"""What a frontend counts: requests and tokens, through replicas that come and go."""

from dataclasses import dataclass

from simulations.fleet_counters import FleetCounters

_FIELDS = (
    "requests_running", "requests_waiting", "finished_stop", "finished_abort",
    "admission_rejections", "prompt_tokens", "generation_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Totals since the first look: requests that came, prompt and output tokens, first tokens."""

    arrived: float = 0.0
    first_tokens: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0


class TrafficMeter:
    """Adds up what each look brings; a replica that is gone keeps its last numbers."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, ...]] = {}
        self._gone = (0.0,) * (len(_FIELDS) + 1)
        self._base: Traffic | None = None

    def look(self, counters: FleetCounters) -> Traffic:
        """The totals as of these counters."""
        columns = [counters.values[name].tolist() for name in _FIELDS]
        columns.append(counters.ttft_buckets.sum(axis=1).tolist())
        rows = dict(zip(counters.uids.tolist(), zip(*columns, strict=True), strict=True))
        for uid in self._last.keys() - rows.keys():
            self._gone = _added(self._gone, self._last[uid])
        self._last = rows
        total = self._gone
        for row in rows.values():
            total = _added(total, row)
        seen = Traffic(
            arrived=sum(total[:5]) + counters.gateway_waiting,
            prompt_tokens=total[5],
            output_tokens=total[6],
            first_tokens=total[7],
        )
        if self._base is None:
            self._base = seen
        return since(self._base, seen)


def since(before: Traffic, after: Traffic) -> Traffic:
    """What came between two looks."""
    return Traffic(
        arrived=after.arrived - before.arrived,
        first_tokens=after.first_tokens - before.first_tokens,
        prompt_tokens=after.prompt_tokens - before.prompt_tokens,
        output_tokens=after.output_tokens - before.output_tokens,
    )


def _added(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
