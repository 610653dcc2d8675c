"""Our own metrics: exactly those of the table, for exactly the targets there are."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from scaler.core.model import Cause, NoData
from scaler.reference import generate
from scaler.service.metrics_table import (
    PREFIX,
    PROCESS_METRICS,
    TARGET_LABELS,
    TARGET_METRICS,
    ProcessMetric,
    TargetMetric,
)
from scaler.service.telemetry import Telemetry
from scaler.signals.sources import Outcome
from tests.manifests.dashboards import expressions
from tests.manifests.rules import rules, selectors_in
from tests.service.fakes import HandClock, World, counted, scaled, world

Samples = list[tuple[str, Mapping[str, str], float]]
EVERY: tuple[TargetMetric | ProcessMetric, ...] = (*TARGET_METRICS, *PROCESS_METRICS)


def page(telemetry: Telemetry) -> str:
    return generate_latest(telemetry.registry).decode()


def samples(telemetry: Telemetry) -> Samples:
    families = text_string_to_metric_families(page(telemetry))
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def values(telemetry: Telemetry, name: str) -> dict[tuple[str, ...], float]:
    """Values of a metric by the labels that are not the target's, in the order of their names."""
    return {
        tuple(value for label, value in labels.items() if label not in TARGET_LABELS): value
        for found, labels, value in samples(telemetry)
        if found == PREFIX + name
    }


def metered(*names: str) -> tuple[World, Telemetry]:
    clock = HandClock()
    telemetry = Telemetry(clock)
    made = world(*names, sinks=(telemetry,))
    made.loop.clock = made.clock = clock
    return made, telemetry


async def everything() -> tuple[World, Telemetry]:
    """A world in which every metric has a value."""
    made, telemetry = metered()
    made.cluster.replicas["chat"] = counted(
        3, ready=2, starting_age_s=(5.0,), gpus_per_replica=4, gpus_allocatable=16
    )
    await made.tick(4)
    telemetry.observe_sources({"memory": Outcome(collections=4, attempts=5, samples=8)})
    telemetry.observe_call("GetMetrics", "OK", 0.0002)
    telemetry.counter("config_reloads_total").labels("taken").inc()
    return made, telemetry


async def test_what_is_exported_is_the_table_with_exactly_its_labels() -> None:
    _, telemetry = await everything()
    wanted = {PREFIX + one.name: {*TARGET_LABELS, *one.labels} for one in TARGET_METRICS}
    for metric in PROCESS_METRICS:
        name, labels = PREFIX + metric.name, set(metric.labels)
        if metric.kind == "histogram":
            wanted |= {name + "_sum": labels, name + "_count": labels}
            wanted[name + "_bucket"] = labels | {"le"}
        else:
            wanted[name] = labels
    found: dict[str, set[str]] = {}
    for name, given, _ in samples(telemetry):
        if not name.endswith("_created"):
            assert found.setdefault(name, set(given)) == set(given)
    assert found == wanted


async def test_kinds_are_those_of_the_table() -> None:
    _, telemetry = await everything()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page(telemetry), flags=re.MULTILINE))
    for metric in PROCESS_METRICS:
        assert kinds[PREFIX + metric.name] == metric.kind
    assert {kinds[PREFIX + metric.name] for metric in TARGET_METRICS} == {"gauge"}


def test_the_reference_is_the_table() -> None:
    text = (generate.HERE / "metrics.md").read_text(encoding="utf-8")
    assert text == generate.files()["metrics.md"]
    for metric in EVERY:
        assert f"| `{PREFIX}{metric.name}` |" in text
        assert metric.meaning in text


@pytest.mark.parametrize("metric", EVERY, ids=lambda one: one.name)
def test_names_follow_the_naming_page(metric: TargetMetric | ProcessMetric) -> None:
    name, kind = metric.name, getattr(metric, "kind", "gauge")
    assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name)
    assert name.endswith("_total") is (kind == "counter")
    assert not re.search(r"(milli|micro)?seconds_|_(ms|minutes|percent|pct|mb|gb|kb)(_|$)", name)
    if kind == "histogram":
        assert name.endswith("_seconds")


@pytest.mark.external
async def test_promtool_finds_no_fault_with_the_page() -> None:
    program = shutil.which("promtool")
    if program is None and not os.environ.get("REQUIRE_EXTERNALS"):
        pytest.skip("promtool is not installed")
    assert program is not None, "promtool is required and not installed"
    _, telemetry = await everything()
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs here
        [program, "check", "metrics"],
        input=page(telemetry), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def own_selectors() -> set[str]:
    """Every selector of ours in the shipped rules and dashboards."""
    texts = [rule["expr"] for rule in rules("record") + rules("alert")]
    texts += [expression for _, expression in expressions()]
    return {one for text in texts for one in selectors_in(text) if one.startswith(PREFIX)}


def test_rules_and_dashboards_use_labels_that_exist() -> None:
    known = {PREFIX + one.name: {*TARGET_LABELS, *one.labels} for one in TARGET_METRICS}
    known |= {PREFIX + one.name: set(one.labels) for one in PROCESS_METRICS}
    outside = {"namespace", "pod", "job", "instance", "le"}  # those of the scrape
    selectors = own_selectors()
    assert len(selectors) > 25
    for selector in selectors:
        name, _, matchers = selector.partition("{")
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= known[name if name in known else base] | outside, selector


async def test_series_of_a_dropped_target_vanish() -> None:
    made, telemetry = metered("chat", "other")
    await made.tick(2)
    assert {labels["target"] for _, labels, _ in samples(telemetry) if "target" in labels} == {
        "deployment/chat", "deployment/other",
    }  # fmt: skip
    made.cluster.facts[:] = [scaled("chat")]
    await made.tick(1, every_s=601.0)
    assert {labels["target"] for _, labels, _ in samples(telemetry) if "target" in labels} == {
        "deployment/chat"
    }


async def test_a_daemon_that_follows_exports_no_targets_and_is_no_leader() -> None:
    leads = True
    telemetry = Telemetry(HandClock(), leads=lambda: leads)
    made = world(sinks=(telemetry,))
    await made.tick(1)
    assert values(telemetry, "leader") == {(): 1.0}
    assert values(telemetry, "desired_replicas") == {(): 2.0}
    leads = False
    assert values(telemetry, "leader") == {(): 0.0}
    assert values(telemetry, "desired_replicas") == {}


async def test_values_are_those_of_the_decision() -> None:
    made, telemetry = await everything()
    decision = made.entry().decision
    assert decision is not None
    assert decision.capacity is not None
    assert values(telemetry, "desired_replicas") == {(): float(decision.would_be)}
    assert values(telemetry, "wanted_replicas") == {(): 3.0}
    assert values(telemetry, "ready_replicas") == {(): 2.0}
    assert values(telemetry, "gpus_desired") == {(): 4.0 * decision.would_be}
    assert values(telemetry, "gpus_allocatable") == {(): 16.0}
    assert values(telemetry, "blind") == {(): 0.0}
    assert values(telemetry, "mode_info") == {
        ("active",): 1.0,
        ("advisory",): 0.0,
        ("frozen",): 0.0,
    }
    assert values(telemetry, "capacity_requests_per_second")["mean",] == pytest.approx(
        decision.capacity.requests_per_s
    )
    low, mean, high = (
        values(telemetry, "capacity_requests_per_second")[bound,]
        for bound in ("low", "mean", "high")
    )
    assert low < mean < high
    made.clock.at_s += 7.0
    assert values(telemetry, "signal_age_seconds")["queue",] == 7.0
    assert values(telemetry, "tick_duration_seconds_count") == {(): 4.0}
    assert sum(values(telemetry, "decisions_total").values()) == 4.0


async def test_blindness_is_told_by_signal_and_cause() -> None:
    made, telemetry = metered()
    await made.tick(1)
    made.source.fleets["chat"].fault = NoData(cause=Cause.UNREACHABLE)
    await made.tick(1)
    assert values(telemetry, "blind") == {(): 1.0}
    assert values(telemetry, "signal_blind")["unreachable", "queue"] == 1.0


def test_sources_are_counted_from_their_own_counters() -> None:
    telemetry = Telemetry(HandClock())
    first = Outcome(collections=1, failures=0, attempts=3, samples=20, duration_s=0.5)
    second = Outcome(collections=2, failures=1, attempts=7, samples=32, duration_s=0.25)
    for outcome in (first, second, second):
        telemetry.observe_sources({"p": outcome})
    assert values(telemetry, "source_collections_total") == {("p",): 2.0}
    assert values(telemetry, "source_failures_total") == {("p",): 1.0}
    assert values(telemetry, "source_requests_total") == {("p",): 7.0}
    assert values(telemetry, "source_samples") == {("p",): 0.0}  # none since the second
    assert values(telemetry, "source_duration_seconds") == {("p",): 0.25}


async def test_faulty_triggers_are_counted_and_have_no_series() -> None:
    made, telemetry = metered("chat")
    made.cluster.facts.append(scaled("bad", metadata={"ttftSloSeconds": "x"}))
    await made.tick(1)
    assert values(telemetry, "targets") == {(): 2.0}
    assert values(telemetry, "targets_faulty") == {(): 1.0}
    assert len(values(telemetry, "desired_replicas")) == 1
