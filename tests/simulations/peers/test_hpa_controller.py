"""The HPA as a controller: its syncs, its loop, both behaviours, failed queries."""

import dataclasses
from collections.abc import Sequence

import pytest

from scaler.core.config import PolicyConfig
from scaler.core.hpa import ExternalMetric, Metric, TargetType, Version
from scaler.core.hpa_spec import parse_behavior
from scaler.core.model import Cause, NoData
from simulations.controller import Context
from simulations.peers.hpa_controller import HpaController, Seen, external, peer_hpa
from simulations.scaled_object import ClusterSpec, ScaledObjectSpec
from simulations.scenario import Behaviour
from simulations.timing import Timing
from tests.simulations.scrapes import replicas, scrape, view
from tests.simulations.small_fleet import model

KEDA = Version(2, 20, 2)
AT_ONCE = parse_behavior(
    {
        "scaleUp": {"tolerance": 0},
        "scaleDown": {"stabilizationWindowSeconds": 0, "tolerance": 0},
    }
)
SLOW = parse_behavior(
    {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
)


def context(**changes: object) -> Context:
    settings: dict[str, object] = {
        "model": model(),
        "config": PolicyConfig(),
        "scaled_object": ScaledObjectSpec(replicas_min=1, replicas_max=20, behavior=AT_ONCE),
        "cluster": ClusterSpec(),
        "timing": Timing(sync_phase_s=3.0),
        "seed": 0,
    }
    return Context(**{**settings, **changes})  # type: ignore[arg-type]


class _Law:
    """Wants what it is told."""

    def __init__(self, *wanted: int) -> None:
        self.wanted = list(wanted)
        self.seen: list[Seen] = []

    def __call__(self, seen: Seen) -> Sequence[Metric]:
        self.seen.append(seen)
        return [external(float(count), 1.0, KEDA) for count in self.wanted]


def _controller(law: _Law, behaviour: Behaviour = Behaviour.OURS) -> HpaController:
    made = context()
    controller = HpaController(law, hpa=peer_hpa(SLOW, behaviour, made), context=made)
    controller.scraped(scrape(0.0, {0: {}}), None)
    return controller


def test_a_sync_every_15_seconds_sets_the_largest_proposal() -> None:
    law = _Law(3, 5)
    controller = _controller(law)
    assert controller.next_at_s == 3.0
    assert controller.act(view(3.0, replicas(2))) == 5
    assert controller.next_at_s == 18.0
    assert law.seen[0].current == 2
    assert controller.decision is None


def test_the_bounds_are_those_of_the_scaled_object() -> None:
    law = _Law(99)
    controller = _controller(law)
    assert controller.act(view(3.0, replicas(15))) == 20
    law.wanted = [0]
    assert controller.act(view(18.0, replicas(20))) == 1


def test_its_own_behaviour_is_the_peers_and_ours_is_the_scaled_objects() -> None:
    # Own: one pod a minute.  Ours: the default policies of a given block, max(4 pods, 100 %).
    assert _controller(_Law(20), Behaviour.OWN).act(view(3.0, replicas(2))) == 3
    assert _controller(_Law(20), Behaviour.OURS).act(view(3.0, replicas(2))) == 6


def test_without_a_behavior_of_its_own_the_older_path_doubles() -> None:
    made = context()
    controller = HpaController(_Law(20), hpa=peer_hpa(None, Behaviour.OWN, made), context=made)
    controller.scraped(scrape(0.0, {0: {}}), None)
    assert [controller.act(view(3.0, replicas(1))), controller.act(view(18.0, replicas(4)))] == [
        4,
        8,
    ]


def test_the_tolerance_is_the_clusters_unless_the_behaviour_sets_it() -> None:
    # 11 of 10 is within 10 %; ours sets a tolerance of 0.
    assert _controller(_Law(11), Behaviour.OWN).act(view(3.0, replicas(10))) == 10
    assert _controller(_Law(11), Behaviour.OURS).act(view(3.0, replicas(10))) == 11


def test_nothing_is_changed_while_queries_fail() -> None:
    law = _Law(9)
    made = context()
    controller = HpaController(law, hpa=peer_hpa(None, Behaviour.OURS, made), context=made)
    assert controller.act(view(3.0, replicas(2))) == 2, "never scraped"
    controller.scraped(scrape(15.0, {0: {}}), None)
    down = NoData(cause=Cause.UNREACHABLE, detail="down")
    assert controller.act(view(18.0, replicas(2), down)) == 2
    other = NoData(cause=Cause.NO_MATCH, detail="empty results are results")
    assert controller.act(view(33.0, replicas(2), other)) == 6
    assert len(law.seen) == 1


def test_a_loop_runs_at_its_own_times_and_before_the_sync() -> None:
    @dataclasses.dataclass
    class Loop:
        next_at_s: float = 3.0
        ran: int = 0

        def run(self, seen: Seen) -> None:
            assert seen.now_s == self.next_at_s
            self.next_at_s += 10.0
            self.ran += 1

    loop, made = Loop(), context()
    controller = HpaController(
        lambda _seen: [external(float(loop.ran), 1.0, KEDA)],
        hpa=peer_hpa(None, Behaviour.OURS, made),
        context=made,
        loop=loop,
    )
    controller.scraped(scrape(0.0, {0: {}}), None)
    times, counts = [], []
    while controller.next_at_s < 30.0:
        times.append(controller.next_at_s)
        counts.append(controller.act(view(times[-1], replicas(1))))
    assert times == [3.0, 3.0, 13.0, 18.0, 23.0]
    assert counts == [None, 1, None, 2, None]


@pytest.mark.parametrize(
    ("value", "milli"), [(2.5, 2500), (0.0, 0), (-3.0, 0), (float("nan"), 0), (1 / 3, 333)]
)
def test_a_value_reaches_the_hpa_in_thousandths(value: float, milli: int) -> None:
    assert external(value, 0.8, KEDA, target_type=TargetType.VALUE) == ExternalMetric(
        target_type=TargetType.VALUE, target_milli=800, values_milli=(milli,)
    )
