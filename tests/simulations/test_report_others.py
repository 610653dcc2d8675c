"""What the reports of comparisons, searches and advisory days say of their input."""

import math

import pytest

from simulations import report_advisory, report_scoreboard, report_tune
from simulations.report_scoreboard import hours_at_target, means, standings
from tests.simulations.report_inputs import advisory, entry, front, scoreboard
from tests.simulations.test_report import carried


def test_ours_stands_against_the_best_of_each_group():
    found = {(one.trace, one.variant): one for one in standings(scoreboard())}
    day = found["day.csv.gz", "shipped"]
    assert (day.ours, day.metric, day.metric_by) == (120.0, 160.0, "keda-queue (frontier)")
    assert day.metric_ratio == pytest.approx(0.75)  # 120 / 160
    assert (day.profile, day.profile_by) == (130.0, "token-rate (frontier)")
    assert day.oracle_ratio == pytest.approx(1.2)  # 120 / 100
    assert found["day.csv.gz", "frontier"].ours == pytest.approx(114.0)  # 0.95 * 120
    assert [one.variant for one in standings(scoreboard())][:2] == ["shipped", "frontier"]


def test_means_are_geometric_and_need_every_trace():
    entries = scoreboard()
    found = means(standings(entries))
    # 120 / 160 = 0.75 and 220 / 300 = 0.7333; the root of their product.
    assert found["shipped"]["metric"] == pytest.approx(math.sqrt(0.75 * 220 / 300))
    assert found["shipped"]["profile"] == pytest.approx(math.sqrt(120 / 130 * 220 / 210))
    missed = [
        {**one, "target_reached": False}
        if (one["policy"], one["variant"], one["trace"]) == ("predictive", "shipped", "day.csv.gz")
        else one
        for one in entries
    ]
    assert means(standings(missed))["shipped"]["metric"] is None


def test_a_run_that_misses_its_target_needs_no_hours_for_it():
    assert hours_at_target(entry("day.csv.gz", "x", "metric", 90.0, attained=0.9)) is None
    assert hours_at_target(entry("day.csv.gz", "x", "metric", 90.0)) == 90.0
    assert (
        hours_at_target({**entry("day.csv.gz", "x", "ours", 90.0), "gpu_hours_at_target": None})
        is None
    )


def test_the_scoreboard_is_summed_up_in_words():
    found = carried(report_scoreboard.render(scoreboard()))
    least, kept, metric, profile, oracle = found["sentences"]
    assert least == "Fewest GPU-hours for the target: predictive (frontier) on 2 of 2 traces."
    assert found["badge"] == ["good", "ours needs least"]
    assert kept == "predictive, as shipped, reached the target on 2 of 2 traces."
    # The root of 0.75 * 0.7333 is 0.742; the worse of the two is 0.75.
    assert metric == (
        "It took 26 % fewer GPU-hours than the best metric-driven peer; at worst 0.75 times."
    )
    # The root of 0.923 * 1.048 is 0.983.
    assert "2 % fewer GPU-hours than the best peer that is given" in profile
    assert "15 % more GPU-hours than the best schedule" in oracle  # 1.2 and 1.1
    assert found["traces"] == ["day.csv.gz", "burst.csv.gz"]


def test_another_that_needs_less_and_a_target_that_nobody_reaches_are_said():
    day, burst = "day.csv.gz", "burst.csv.gz"
    entries = [
        entry(day, "predictive", "ours", 120.0), entry(day, "token-rate", "profile", 100.0),
        entry(day, "oracle", "bound", 90.0),
        entry(burst, "predictive", "ours", 40.0, attained=0.9),
        entry(burst, "keda-queue", "metric", 200.0, attained=0.95),
    ]  # fmt: skip
    found = carried(report_scoreboard.render(entries))
    assert found["sentences"][0] == (
        "Fewest GPU-hours for the target: token-rate (shipped) on 1 of 2 traces."
    )
    assert found["sentences"][1] == (
        "On burst.csv.gz nobody reached the target: keda-queue (shipped), 95 % for 200 GPU-hours"
        " came nearest; predictive (shipped), 90 % for 40 GPU-hours."
    )
    assert found["badge"] == ["bad", "another needs less"]
    nobody = carried(report_scoreboard.render(entries[3:]))
    assert nobody["badge"] == ["plain", "target out of reach"]
    entries.append(entry(burst, "reactive", "ours", 70.0))
    assert carried(report_scoreboard.render(entries))["badge"] == [
        "plain", "ours needs least on 1 of 2",
    ]  # fmt: skip
    peers = carried(report_scoreboard.render(entries[1:2]))
    assert peers["badge"] is None


def test_an_empty_scoreboard_is_a_page():
    assert carried(report_scoreboard.render([]))["entries"] == []


def test_a_search_says_what_it_found_elsewhere_and_how_it_had_flattered_itself():
    found = carried(report_tune.render(front()))
    assert found["kept"] is True
    assert found["lead"] == front()["advice"]
    assert found["lead"].startswith("Apply the patch of trial 10: on the held-out part 99.05 %")
    reached, saved, flattered, carries = found["sentences"]
    assert carries == "The front carries over."
    assert reached == (
        "Trial 10 reached 99.05 % on days it had not seen (98.89 % to 99.31 % with 90 % confidence;"
        " 99 % asked for), for 2,350 GPU-hours (2,210 to 2,500)."
    )
    assert "2,600 GPU-hours there for 99.1 %: 9.6 % saved" in saved  # 1 - 2350 / 2600
    # Searched: 0.98 + 0.012 / 1.5 = 0.988, 4600 / 96 = 47.9; held out: 0.9905, 2350 / 48 = 49.0.
    assert "0.25 points worse, with 47.9 GPUs in the mean against 49.0" in flattered


def test_a_search_without_a_trial_that_holds_says_so():
    nothing = front()
    nothing["recommended"] = None
    found = carried(report_tune.render(nothing))
    assert found["kept"] is None
    assert found["sentences"] == ["The front carries over."]
    untried = front()
    untried["trials"] = [{**one, "held_out": None} for one in untried["trials"]]
    assert "was not tried elsewhere" in carried(report_tune.render(untried))["sentences"][0]


def test_a_search_that_does_not_hold_elsewhere_is_said_to():
    overfit = front()
    for one in overfit["trials"]:
        if one["held_out"] is not None:
            one["held_out"]["slo_attainment_ratio"] = 0.97
    assert carried(report_tune.render(overfit))["kept"] is False


def test_front_json_is_read_entry_by_entry():
    assert report_tune.as_front({**front(), "other": 1}) == front()
    with pytest.raises(KeyError, match="patches"):
        report_tune.as_front({k: v for k, v in front().items() if k != "patches"})


def test_advice_sums_targets_up():
    found = carried(report_advisory.render(advisory()))
    assert found["verdict"] == "no-go"
    # 300 + 500 against 400 + 400.
    assert found["lead"] == ("Over 2.0 days, 2 targets would have taken 800 GPU-hours against 800.")
    assert (
        "missed the objective in 8 minutes; the live scaler missed it in 12."
        in (found["sentences"][0])
    )
    assert found["sentences"][-1] == "Ready to go active: 1 of 2."
    assert len(found["targets"][0]["at_s"]) == 11_520


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [(("go", "go"), "go"), (("go", "undecided"), "undecided"), (("undecided", "no-go"), "no-go")],
)
def test_all_go_together_or_not(verdicts, together):
    made = advisory()
    made["targets"] = [
        {**one, "verdict": said} for one, said in zip(made["targets"], verdicts, strict=True)
    ]
    assert report_advisory.verdict(made) == together


def test_no_target_is_a_page():
    nothing = {**advisory(), "targets": []}
    assert report_advisory.verdict(nothing) == "undecided"
    assert "No target" in carried(report_advisory.render(nothing))["lead"]
