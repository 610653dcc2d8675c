"""Idleness is what all who can see agree on."""

from dataclasses import replace

import pytest

from scaler.core.config import BoundsConfig, PolicyConfig
from scaler.core.idle import idle_proven, is_idle
from scaler.core.model import Cause, NoData
from tests.core.play import observation

CONFIG = PolicyConfig(bounds=BoundsConfig(replicas_min=0))
QUIET = {"at_s": "0", "gpu": "0.1", "gateway": "0"}
GONE = NoData(cause=Cause.STALE)


def test_nothing_moves_and_all_say_so() -> None:
    assert is_idle(observation(QUIET), CONFIG)
    assert is_idle(observation({"at_s": "0"}), CONFIG)  # neither GPUs nor a gateway to ask


@pytest.mark.parametrize(
    ("name", "value"),
    [("running", "1"), ("waiting", "1"), ("rate", "0.1"), ("gpu", "0.95"), ("gateway", "1")],
)
def test_one_witness_of_activity_is_enough(name: str, value: str) -> None:
    assert not is_idle(observation({**QUIET, name: value}), CONFIG)


def test_what_is_not_seen_is_not_idle() -> None:
    seen = observation(QUIET)
    assert not is_idle(replace(seen, queue=GONE), CONFIG)
    assert not is_idle(replace(seen, work=GONE), CONFIG)


def test_the_proof_takes_its_whole_time_and_a_minimum_of_zero() -> None:
    seen = observation(QUIET)
    assert not idle_proven(None, seen, CONFIG, 600.0)
    assert not idle_proven(0.0, seen, CONFIG, 599.0)
    assert idle_proven(0.0, seen, CONFIG, 600.0)
    assert not idle_proven(0.0, seen, PolicyConfig(), 600.0)
    assert not idle_proven(0.0, replace(seen, replicas=GONE), CONFIG, 600.0)
