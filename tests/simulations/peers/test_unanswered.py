"""What the loops of llm-d's operator publish while nothing is read: the present count.

A label mismatch made the operator republish the current count (llm-d/llm-d pull request 2310), and
so does a failed read.
"""

import math
from typing import Protocol

import pytest

from scaler.core.config import PolicyConfig
from scaler.core.hpa import Tolerances
from scaler.core.model import Cause, NoData
from simulations.controller import Context
from simulations.peers.hpa_controller import Seen
from simulations.peers.inferno import InfernoLoop, Lengths, Targets, fit
from simulations.peers.tokens import come
from simulations.peers.wva_tokens import TokenAnalyser, TokenLimits, TokenLoop
from simulations.presets import PRESETS
from simulations.scaled_object import ClusterSpec, ScaledObjectSpec
from simulations.scrape_history import ScrapeHistory
from simulations.timing import Timing
from tests.simulations.scrapes import history, replicas, scrape, view

MODEL = PRESETS["llama-3.1-8b-h100-tp1"].model
CONTEXT = Context(
    model=MODEL,
    config=PolicyConfig(),
    scaled_object=ScaledObjectSpec(),
    cluster=ClusterSpec(),
    timing=Timing(),
    seed=1,
)
DOWN = NoData(cause=Cause.UNREACHABLE)
BUSY = {
    "requests_running": 60.0, "requests_waiting": 40.0, "blocks_used": 95.0, "finished_stop": 600.0,
    "finished_prompt_tokens": 600_000.0, "finished_output_tokens": 120_000.0,
}  # fmt: skip


class Published(Protocol):
    desired: int | None

    def run(self, seen: Seen) -> None: ...


def _loop(name: str) -> Published:
    if name == "wva-tokens":
        return TokenLoop(TokenAnalyser(MODEL, TokenLimits()), TokenLimits(), CONTEXT)
    lengths = Lengths(prompt_tokens=1000.0, output_tokens=200.0)
    targets = Targets(ttft_s=2.0, itl_s=math.inf)
    time = fit(MODEL, lengths)
    return InfernoLoop(time, targets, load_ratio=0.1, requests=come, context=CONTEXT)


def _past() -> ScrapeHistory:
    empty = dict.fromkeys(BUSY, 0.0)
    return history(scrape(15.0, {0: empty, 1: empty}), scrape(60.0, {0: BUSY, 1: BUSY}))


def _seen(count: int, past: ScrapeHistory, failure: NoData | None = None) -> Seen:
    shown = view(61.0, replicas(count, ready=2), failure)
    return Seen(now_s=61.0, view=shown, history=past, tolerances=Tolerances())


@pytest.mark.parametrize("name", ["wva-tokens", "inferno"])
def test_an_unanswered_loop_publishes_what_is_there(name: str) -> None:
    loop = _loop(name)
    loop.run(_seen(2, ScrapeHistory()))
    assert loop.desired is None, "before its first result it publishes nothing"
    loop.run(_seen(2, _past()))
    assert loop.desired is not None
    assert loop.desired > 2
    loop.run(_seen(3, _past(), DOWN))
    assert loop.desired == 3


def test_replicas_without_series_are_not_read_as_idle() -> None:
    loop = _loop("wva-tokens")
    loop.run(_seen(2, _past()))
    loop.run(_seen(4, history(scrape(60.0, {}))))
    assert loop.desired == 4
