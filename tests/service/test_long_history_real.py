"""The past read back from the real program: its matchers, its ``or``, its stale series."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
import structlog

from scaler.service.long_history import SERIES, LongHistory, held_s
from scaler.service.registry import Entry, entry_id, watched_key
from scaler.signals.dcgm import DcgmReader
from scaler.signals.prometheus import PrometheusSource
from scaler.signals.readers import Readers
from scaler.signals.settings import PrometheusSettings
from scaler.signals.vllm import VllmReader
from tests.service.fakes import scaled, world
from tests.service.test_long_history import DAY_S, office
from tests.signals.real_prometheus import PROMETHEUS, RealPrometheus

PROMTOOL = shutil.which("promtool")
pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        (PROMETHEUS is None or PROMTOOL is None) and not os.environ.get("REQUIRE_EXTERNALS"),
        reason="the programs prometheus and promtool are not installed",
    ),
]

SPARSE = "sparse"  # scraped every four minutes: most minutes hold no sample of it
END_S = time.time() // 3600 * 3600 - 4 * 3600.0  # backfilled blocks end before the head begins


def lines() -> Iterator[str]:
    """Two days of two targets; of one, two daemons export for the last hours at a time."""
    yield f"# TYPE {SERIES} gauge"
    for name, instance, days, every_s in (
        ("chat", "old", 2.0, 60.0),
        ("chat", "new", 0.2, 60.0),
        (SPARSE, "old", 2.0, 240.0),
        ("other", "old", 2.0, 60.0),
    ):
        labels = (
            f'target_namespace="llm",target="deployment/{name}",instance="{instance}",'
            f'trigger="{entry_id(watched_key(scaled(name)))}"'
        )
        for place in range(int(days * DAY_S / every_s), 0, -1):
            at_s = END_S - place * every_s
            yield f"{SERIES}{{{labels}}} {office(at_s)} {at_s:.0f}"
    yield "# EOF"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPrometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    text = folder / "history.txt"
    text.write_text("\n".join(lines()) + "\n")
    server = RealPrometheus(folder, "127.0.0.1:9", [])
    assert PROMTOOL is not None
    subprocess.run(
        [PROMTOOL, "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder / "data")],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    with server:
        server.wait_for("vector(1)", 1)
        yield server


def test_two_days_of_the_real_program_prime_the_forecasts(prometheus: RealPrometheus) -> None:
    async def recall() -> list[Entry]:
        made = world("chat", SPARSE, "unknown")
        made.clock.at_s = time.time()
        settings = PrometheusSettings(url=prometheus.url, queries_in_flight=1)
        source = PrometheusSource(settings, Readers(engine=VllmReader(), gpu=DcgmReader()))
        history = LongHistory([source], made.clock, read_days=14.0)
        made.loop.sinks = (history,)
        await made.tick(2, every_s=0.5)
        await history.read()
        with structlog.testing.capture_logs() as lines:
            await made.tick(every_s=0.5)
        # Of the sparse one the last value stands for the minutes in between.
        assert [line["read_days"] for line in lines] == pytest.approx([2.0, 2.0], abs=0.02)
        await history.close()
        return [made.entry(name) for name in ("chat", SPARSE, "unknown")]

    chat, sparse, unknown = asyncio.run(recall())
    for entry in (chat, sparse):
        known = entry.state.forecast.known
        assert known is not None
        slots = known.day.slots
        # Half hours that lie well within the day and the night; two exporters are not added up.
        assert slots[18:38] == pytest.approx((5.0,) * 20)
        assert slots[:15] + slots[42:] == pytest.approx((1.0,) * 21)
        assert held_s(entry.state.forecast) >= DAY_S
    assert held_s(unknown.state.forecast) == 0.0
