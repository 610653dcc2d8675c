"""The seam of a run: any controller moves the count, sees what it may, and leaves a timeline."""

import dataclasses
import pickle
from collections.abc import Mapping

import numpy as np
import pytest

from scaler.core.config import PolicyConfig
from scaler.core.model import NoData
from scaler.errors import ScenarioError
from simulations import Scenario, simulate
from simulations.controller import NEVER_S, Context, Controller, StillController, View
from simulations.fleet_counters import FleetCounters
from simulations.peers import CORRECTED, PEERS, Behaviour, Setting, controller_for, peer_policy
from simulations.replica import StartUp, constant
from simulations.run import Tick
from simulations.scaled_object import ScaledObjectSpec
from simulations.scenario import Policy
from simulations.timing import Timing
from simulations.trace_chunks import Requests
from tests.simulations.small_fleet import model as steady_model

NONE = constant(0.0)
MODEL = steady_model(
    start_up=StartUp(scheduling=NONE, image=NONE, weights=constant(30.0), compile=NONE)
)


def _requests(count: int = 100, output: int = 10) -> Requests:
    """One a second from 0.5 s on; an engine step takes 0.1 s."""
    return Requests(
        arrival_s=np.arange(count, dtype=np.float64) + 0.5,
        prompt_tokens=np.full(count, 10, dtype=np.int32),
        output_tokens=np.full(count, output, dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )


def _scenario(policy: Policy, **changes: object) -> Scenario:
    settings: dict[str, object] = {
        "requests": [_requests()],
        "model": MODEL,
        "scaled_object": ScaledObjectSpec(replicas_min=1, replicas_max=9),
        "policy": policy,
        "timing": Timing(scrape_phase_s=5.0, dcgm_phase_s=2.0, tick_phase_s=12.0),
    }
    return Scenario(**{**settings, **changes})  # type: ignore[arg-type]


class _Steps:
    """Sets the next of ``counts`` every 20 s, and remembers what it was shown."""

    decision = None

    def __init__(self, context: Context, counts: tuple[int | None, ...]) -> None:
        self.context = context
        self.next_at_s = 20.0
        self.views: list[View] = []
        self.scrapes: list[float] = []
        self._counts = list(counts)

    def scraped(self, counters: FleetCounters, gpu_ratio: Mapping[int, float] | None) -> None:
        assert gpu_ratio is None or counters.at_s > 32.0  # two collections, at 2 and at 32 s
        self.scrapes.append(counters.at_s)

    def act(self, view: View) -> int | None:
        self.views.append(view)
        self.next_at_s = view.now_s + 20.0 if len(self._counts) > 1 else NEVER_S
        return self._counts.pop(0)


def _policy(*counts: int | None) -> tuple[Policy, list[_Steps]]:
    made: list[_Steps] = []

    def factory(context: Context) -> Controller:
        made.append(_Steps(context, counts))
        return made[-1]

    return Policy(name="steps", config=PolicyConfig(), controller=factory), made


def test_a_controller_moves_the_count_when_it_says_so() -> None:
    policy, made = _policy(3, None, 3, 1)
    result = simulate(_scenario(policy))
    assert [(c.at_s, c.before, c.after) for c in result.changes] == [(20.0, 1, 3), (80.0, 3, 1)]
    (steps,) = made
    assert [view.now_s for view in steps.views] == [20.0, 40.0, 60.0, 80.0]


def test_a_view_is_what_can_be_seen_then() -> None:
    policy, made = _policy(3, None, None, None)
    simulate(_scenario(policy))
    (steps,) = made
    first, second, third, fourth = steps.views
    assert steps.scrapes[:3] == [5.0, 20.0, 35.0]
    assert first.scrape is not None
    assert first.scrape.at_s == 20.0, "scraped at the same instant, before it acts"
    assert second.scrape is not None
    assert second.scrape.at_s == 35.0
    assert first.gpu_ratio is None
    assert second.gpu_ratio is not None
    assert second.live().at_s > 100.0, "live is the fleet's own clock"
    assert (first.replicas.wanted, second.replicas.wanted) == (1, 3)
    assert (second.replicas.current, second.replicas.ready) == (3, 1)
    assert list(first.ready) == [0]
    assert sorted(third.ready) == [0, 1, 2]
    # Two starts of 30 s, asked for at 20 s: seen once, by the first that acts after 50 s.
    starts = [view.replicas.start_up_s for view in (first, second, third, fourth)]
    assert starts == [(), (), (30.0, 30.0), ()]


def test_every_policy_leaves_a_row_a_tick() -> None:
    policy, _ = _policy(3)
    ticks: list[Tick] = []
    result = simulate(_scenario(policy), watch=ticks.append)
    timeline = result.timeline
    assert timeline.column("at_s").tolist() == [12.0, 27.0, 42.0, 57.0, 72.0, 87.0, 102.0]
    assert set(timeline.decided_by.tolist()) == {"steps"}
    assert timeline.column("replicas_desired").tolist() == [1.0] + 6 * [3.0]
    assert timeline.column("replicas_starting").tolist() == [0.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    assert [tick.at_s for tick in ticks] == timeline.column("at_s").tolist()
    assert all(tick.decision is None for tick in ticks)
    assert not isinstance(ticks[-1].observation.queue, NoData)
    assert [tick.arrived for tick in ticks[-2:]] == [87, 100]


def test_rows_that_nobody_reads_are_not_made_and_change_nothing() -> None:
    for name in ("predictive", "keda-queue"):
        scenario = _scenario(peer_policy(name, PolicyConfig()))
        full = simulate(scenario)
        bare = simulate(dataclasses.replace(scenario, timeline=False))
        assert len(full.timeline.decided_by) > 5
        assert len(bare.timeline.decided_by) == 0
        assert bare.score == full.score
        assert bare.changes == full.changes
        ticks: list[Tick] = []
        simulate(dataclasses.replace(scenario, timeline=False), watch=ticks.append)
        assert len(ticks) == len(full.timeline.decided_by), "a watcher reads them"


def test_a_still_controller_never_acts() -> None:
    still = StillController()
    assert still.next_at_s == NEVER_S
    policy = Policy(name="still", config=PolicyConfig(), controller=lambda _context: still)
    result = simulate(_scenario(policy, replicas_first=2))
    assert result.changes == ()
    assert result.score.replicas_mean == 2.0


def _context() -> Context:
    return Context(
        model=MODEL,
        config=PolicyConfig(),
        scaled_object=ScaledObjectSpec(replicas_min=1, replicas_max=9),
        cluster=_scenario(Policy(name="x", config=PolicyConfig())).cluster,
        timing=Timing(),
        seed=3,
    )


def test_a_policy_is_built_in_the_form_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Setting] = []

    def build(setting: Setting, _context: Context) -> Controller:
        asked.append(setting)
        return StillController()

    peer = dataclasses.replace(PEERS["seed-keda"], build=build)
    monkeypatch.setattr("simulations.peers.PEERS", {"seed-keda": peer})
    config = PolicyConfig()
    controller_for(peer_policy("seed-keda", config), _context())
    form = peer_policy("seed-keda", config, variant=CORRECTED, knob=16.0, behaviour=Behaviour.OURS)
    controller_for(form, _context())
    assert asked == [
        Setting(knob=128.0),
        Setting(knob=16.0, variant=CORRECTED, behaviour=Behaviour.OURS),
    ]


@pytest.mark.parametrize(
    ("form", "fault"),
    [
        ({"name": "nobody"}, "policy = nobody"),
        ({"name": "keda-queue", "variant": CORRECTED}, "variant = corrected, keda-queue has ship"),
        ({"name": "kubeai", "behaviour": Behaviour.OURS}, "behaviour = ours, kubeai has own"),
    ],
)
def test_a_form_that_there_is_not_is_refused(form: dict[str, object], fault: str) -> None:
    with pytest.raises(ScenarioError, match=fault):
        peer_policy(config=PolicyConfig(), **form)  # type: ignore[arg-type]


def test_policies_can_be_sent_to_another_process() -> None:
    for name in ("predictive", "fixed:3", *PEERS):
        policy = peer_policy(name, PolicyConfig())
        assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301 - made on the line itself


def test_every_peer_is_described_in_full() -> None:
    for name, peer in PEERS.items():
        assert name == peer.name
        assert peer.knob
        assert list(peer.knob_values) == sorted(set(peer.knob_values))
        assert peer.knob_default in peer.knob_values
        assert peer.variants[0] == "shipped"
        assert peer.behaviours[0] is Behaviour.OWN
