"""The report of a run: what its words say, what it carries, and that it stays small."""

import base64
import json
import re
import zlib

import numpy as np
import pytest

from scaler import charts
from scaler.core.explain import narrative
from scaler.core.policy import PolicyState, decide
from simulations import report, report_advisory, report_page, report_scoreboard, report_tune
from simulations.report import render_simulation, timeline_data
from simulations.report_page import TIME_CHARTS, XY_CHARTS, column, finite, joined, page
from simulations.report_records import HOLE, Records
from simulations.report_verdict import verdict
from simulations.run import Tick
from tests.core.play import CONFIG, TICK_S, observation
from tests.service.page_fleet import day
from tests.simulations.report_runs import GAP, lengthened, run, score, summary

SIZE_MAX = 6_000_000
DAYS_TICKS = 11_520  # 48 h at 15 s


def carried(html):
    packed = re.search(r'id="data">([^<]*)</script>', html).group(1)
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def decisions(ticks):
    state = PolicyState()
    for place, cells in enumerate(day(ticks)):
        at_s = TICK_S * (place + 1)
        made = observation({**cells, "at_s": str(at_s)})
        decision, state = decide(made, state, CONFIG, at_s)
        yield Tick(at_s=at_s, arrived=0, observation=made, decision=decision)


def told(summary_, **changed):
    known = {
        "ttft_slo_s": 2.0, "tpot_slo_s": 0.0, "target_ratio": 0.99, "gpus_per_replica": 4,
    } | changed  # fmt: skip
    return verdict(summary_, **known)


@pytest.fixture(scope="module")
def made():
    return run(960, faults=(GAP,))


def test_the_page_carries_the_run_and_asks_for_nothing(made):
    html = render_simulation(made.summary, made.scenario, made.result, made.records)
    found = carried(html)
    assert found["summary"]["slo_attainment_ratio"] == 0.9921
    assert "wall_s" not in found["summary"]  # depends on the machine
    assert len(found["timeline"]["at_s"]) == 960
    (gap,) = found["faults"]
    assert gap == {"at_s": 3000.0, "until_s": 3600.0, "kind": "fault", "label": "scrape gap"}
    assert len(found["changes"]) == len(made.result.changes) > 0
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", html)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html).group(1)
    assert policy.startswith("default-src &#x27;none&#x27;; script-src &#x27;sha256-")
    assert "unsafe" not in policy


def test_names_in_a_report_are_text(made):
    html = render_simulation(made.summary, made.scenario, made.result, made.records)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; day.csv" in html  # the title


def test_equal_runs_give_equal_bytes(made):
    again = run(960, faults=(GAP,))
    assert render_simulation(
        made.summary, made.scenario, made.result, made.records
    ) == render_simulation({**again.summary, "wall_s": 9.0}, again.scenario, again.result,
                           again.records)  # fmt: skip


def test_two_days_are_small(made):
    records = Records()
    for place, tick in enumerate(decisions(DAYS_TICKS // 4)):
        for quarter in range(4):  # four quarters of numbers that differ from tick to tick
            records(Tick(at_s=TICK_S * (place + quarter * DAYS_TICKS // 4), arrived=0,
                         observation=tick.observation, decision=tick.decision))  # fmt: skip
    long = lengthened(made, DAYS_TICKS // 960)
    html = render_simulation(long.summary, long.scenario, long.result, records)
    assert len(carried(html)["timeline"]["at_s"]) == DAYS_TICKS
    assert len(html) < SIZE_MAX


def test_a_peers_run_has_no_records(made):
    html = render_simulation(made.summary, made.scenario, made.result)
    assert carried(html)["records"] is None


def test_long_runs_are_shown_by_every_second_row(made):
    found = timeline_data(made.result.timeline, rows_max=500)
    assert (found["every"], len(found["at_s"])) == (2, 480)
    assert found["at_s"][1] - found["at_s"][0] == 2 * TICK_S


# Records


def test_the_words_of_a_decision_come_back_as_they_were():
    records, said = Records(), []
    for tick in decisions(120):
        records(tick)
        said.append("\n".join(narrative(tick.decision)))
    data = records.as_data()
    for place, text in enumerate(said):
        numbers = iter(data["numbers"][place].split(" "))
        words = data["words"][data["word"][place]]
        assert re.sub(HOLE, lambda _: next(numbers), words) == text  # noqa: B023 - used at once
        assert next(numbers, None) in (None, "")
    assert len(data["words"]) < 40  # that is why it is small
    asked = [tick.decision.proposals[0] for tick in decisions(120)]
    assert data["proposals"][asked[60].signal.value][60] == asked[60].replicas


def test_of_too_many_decisions_changes_are_kept_first():
    records = Records(records_max=500)
    changes, last = [], None
    for tick in decisions(960):
        records(tick)
        result = (tick.decision.would_be, tick.decision.decided_by)
        if result != last:
            changes.append(tick.at_s)
        last = result
    data = records.as_data()
    assert len(data["at_s"]) < 500
    assert data["every"] > 1
    assert len(changes) < 300  # they fit
    assert set(changes) <= set(data["at_s"])


def test_ticks_that_another_policy_decides_explain_nothing():
    records = Records()
    for tick in decisions(3):
        records(Tick(at_s=tick.at_s, arrived=0, observation=tick.observation, decision=None))
    assert records.as_data()["at_s"] == []


# Words


def test_a_kept_objective_is_said_with_what_it_saved():
    result = run(40).result
    known = {**summary(result), "duration_s": 36_000.0, "oracle_gpu_hours": 320.0,
             "gpu_hours_over_oracle": 1.25, "slo_attainable_ratio": 0.99996}  # fmt: skip
    made = told(known)
    assert made.kept is True
    assert made.lead == (
        "99.21 % of 1,000,000 requests had a first token within 2 s (99 % asked for),"
        " for 400.0 GPU-hours."
    )
    # 9 replicas for 10 h on 4 GPUs: 360 GPU-hours, fewer than the 400 that were spent.
    assert dict(made.bars) == {"predictive": 400.0, "best clairvoyant schedule found": 320.0,
                               "always 9 replicas": 360.0}  # fmt: skip
    words = " ".join(made.sentences)
    assert "would take 360.0 GPU-hours: 11 % more" in words  # 400 / 360 = 1.111
    assert "this run took 1.25 times that" in words
    assert "99.996 % could have been reached" in words
    assert "changed 24 times, 5 of them" in words
    assert "1,000 requests were rejected." in words


@pytest.mark.parametrize(
    ("attained", "kept", "said"),
    [
        (0.988, True, "(99 % asked for, kept from 98.7 %)"),  # 0.003 below still counts
        (0.9869, False, "98.69 % of"),
        (0.999996, True, "over 99.999 % of"),  # never rounded up to all
        (1.0, True, "100 % of"),
    ],
)
def test_attainment_is_said_as_it_is_judged(attained, kept, said):
    result = run(40, attained=attained).result
    made = told(summary(result))
    assert made.kept is kept
    assert said in made.lead


def test_a_cold_start_and_what_is_too_long_are_said():
    """Of 1,000,000 requests at 99.21 % 20,000 came in the first hour, 18,000 of them in time."""
    first = {"replicas": 1, "requests": 20_000, "slo_attainment_ratio": 0.9}
    known = {**summary(run(40).result), "first_hour": first, "too_long": 400,
             "replica_model": "big", "request_tokens_max": 8192}  # fmt: skip
    made = told(known)
    # 992,100 good requests less 18,000 of the first hour, of 980,000.
    assert made.sentences[0] == (
        "The first hour had 90 %, the rest 99.4 %: the run began with 1 of up to 9 replicas"
        " (--initial-replicas sets how many)."
    )
    words = " ".join(made.sentences)
    assert "400 requests are longer than big takes, 8,192 tokens of prompt and output" in words
    assert "600 requests were rejected." in words
    for warm in ({**first, "replicas": 9}, {**first, "slo_attainment_ratio": 0.99}):
        assert "first hour" not in " ".join(told({**known, "first_hour": warm}).sentences)


def test_a_run_that_nothing_could_save_has_no_verdict():
    known = {**summary(run(40).result), "too_long": 1_000_000, "replica_model": "big",
             "request_tokens_max": 8192}  # fmt: skip
    made = told(known)
    assert made.kept is None
    assert made.lead == (
        "All 1,000,000 requests are longer than big takes, 8,192 tokens of prompt and output"
        " together: no count of replicas can serve them."
    )
    assert made.bars == ()


def test_no_request_is_no_verdict():
    nothing = {**summary(run(40).result), "slo_attainment_ratio": float("nan"), "requests": 0}
    assert told(nothing).kept is None


# The page


@pytest.mark.parametrize(
    ("kit", "scripts"),
    [
        (TIME_CHARTS, report.SCRIPTS),
        (TIME_CHARTS, report_advisory.SCRIPTS),
        (XY_CHARTS, report_scoreboard.SCRIPTS),
        (XY_CHARTS, report_tune.SCRIPTS),
    ],
)
def test_joined_modules_import_nothing_and_name_everything_once(kit, scripts):
    texts = [charts.asset(name).decode() for name in kit]
    texts += [report_page._own(name) for name in scripts]
    script = joined(texts)
    assert not re.search(r"^\s*(import|export)\s", script, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:const|let|class|function\*?)\s+(\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names)), {name for name in names if names.count(name) > 1}
    given = set()
    for text in texts:
        wanted = re.findall(r'from "\./([\w.]+)"', text)
        assert set(wanted) <= given, wanted  # each sees those before it
        given.add([*kit, *scripts][len(given)])


def test_data_that_is_not_finite_is_null():
    assert finite({"a": float("nan"), "b": [1.0, float("inf")]}) == {"a": None, "b": [1.0, None]}
    values = np.array([1.0, np.nan, 0.123456789, 1e9])
    assert column(values) == [1, None, 0.12346, 1_000_000_000]


def test_data_cannot_end_its_element():
    html = page(title="x", data={"name": "</script><img>"}, kit=TIME_CHARTS, scripts=("frame.js",))
    assert "<img>" not in html
    assert carried(html) == {"name": "</script><img>"}


def test_the_score_of_these_tests_is_one_a_run_can_have():
    made = score(0.99)
    assert made.completed + made.rejected + made.cut_by_scale_down == made.requests
