"""When the parts of the chain act."""

from dataclasses import dataclass

from simulations.streams import generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Periods that no configuration names, and where each part of the chain begins.

    Every part keeps its own time from its phase on.  Every replica is scraped at the same instant,
    where Prometheus spreads its targets over the interval.  The decision's period is
    ``PolicyConfig.tick_s``, KEDA's and the HPA's are those of the ScaledObject and the cluster.
    """

    scrape_every_s: float = 15.0
    dcgm_every_s: float = 30.0  # the exporter's default
    scrape_phase_s: float = 0.0
    dcgm_phase_s: float = 0.0
    tick_phase_s: float = 0.0
    poll_phase_s: float = 0.0
    sync_phase_s: float = 0.0


def drawn_timing(seed: int, *, tick_s: float, poll_s: float, sync_s: float) -> Timing:
    """Phases drawn from the seed: no part waits for another, and no run is lucky by design."""
    plain = Timing()
    drawn = generator(seed, "phases").random(5)
    return Timing(
        scrape_phase_s=float(drawn[0]) * plain.scrape_every_s,
        dcgm_phase_s=float(drawn[1]) * plain.dcgm_every_s,
        tick_phase_s=float(drawn[2]) * tick_s,
        poll_phase_s=float(drawn[3]) * poll_s,
        sync_phase_s=float(drawn[4]) * sync_s,
    )
