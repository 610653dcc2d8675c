"""What the DCGM exporter shows: utilisation, refreshed every 30 s and scraped in between."""

from collections.abc import Mapping

from simulations.fleet_counters import FleetCounters


class GpuExporter:
    """Collects GPU utilisation; between two collections its page does not change."""

    def __init__(self) -> None:
        self._busy_s: dict[int, float] = {}
        self._collected_at_s: float | None = None
        self._ratio: dict[int, float] | None = None

    @property
    def ratio(self) -> Mapping[int, float] | None:
        """Utilisation by uid of the replicas that served at the last collection.

        None before the second one, because utilisation is a share of the time between two.
        """
        return self._ratio

    def collect(self, counters: FleetCounters) -> None:
        """DCGM takes its values: the share of its interval in which a step was running.

        An assumption: under vLLM a kernel runs through nearly all of a step.
        """
        busy = dict(zip(counters.serving.names, counters.busy_s, strict=True))
        if self._collected_at_s is not None:
            span_s = counters.at_s - self._collected_at_s
            self._ratio = {
                uid: min((busy_s - self._busy_s.get(uid, 0.0)) / span_s, 1.0)
                for uid, busy_s in busy.items()
            }
        self._busy_s, self._collected_at_s = busy, counters.at_s
