"""What can be seen, and what used to be there."""

from dataclasses import replace

from scaler.core.config import FreshnessConfig
from scaler.core.model import Cause, NoData, Signal
from scaler.core.sight import look
from tests.core.play import observation

CONFIG = FreshnessConfig()
WHOLE = {"ready": "1", "rate": "1", "ttft": "9:0:0:0:0", "itl": "9:0:0:0", "gpu": "0.5"}


def test_where_every_signal_is_there_each_is_remembered_once() -> None:
    first = look(observation({"at_s": "0", **WHOLE}), (), CONFIG)
    again = look(observation({"at_s": "15", **WHOLE}), first.seen, CONFIG)
    assert {name for name, _ in first.seen} >= {Signal.WORK, Signal.QUEUE, Signal.GPU}
    assert again.seen == tuple((name, 15.0) for name, _ in first.seen)
    assert (again.blind, again.lost) == ((), 0)


def test_a_signal_that_goes_is_lost_as_long_as_it_is_expected() -> None:
    before = look(observation({"at_s": "0", **WHOLE}), (), CONFIG).seen
    for at_s, lost in ((15.0, 1), (CONFIG.expect_s, 1), (CONFIG.expect_s + 1.0, 0)):
        gone = replace(observation({"at_s": str(at_s), **WHOLE}), gpu=NoData(cause=Cause.STALE))
        sight = look(gone, before, CONFIG)
        assert sight.lost == lost
        assert [item.signal for item in sight.blind] == [Signal.GPU]
        assert dict(sight.seen)[Signal.GPU] == 0.0
