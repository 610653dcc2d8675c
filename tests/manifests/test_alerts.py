"""Every alert in promtool: fires with its labels, stays quiet otherwise and without data."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.built import MANIFESTS, required
from tests.manifests.rules import names_in, rules

CASES = Path(__file__).resolve().parent / "alerts"
SEVERITIES = {"critical", "warning", "info"}
Series = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One evaluation: these series, and whether the alert fires at that minute."""

    alert: str
    name: str
    minutes: int
    series: Series
    fires: Mapping[str, str] | None  # the labels of the alert; None: it does not fire


def specified() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(CASES.glob("*.yaml")):
        found |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def cases_of(alert: str, given: Mapping[str, Any]) -> Iterator[Case]:
    labels = given["labels"]
    when = given["minutes"]
    yield Case(alert=alert, name="fires", minutes=when, series=given["series"], fires=labels)
    if "also" in given:
        other = given["also"]
        series, other_labels = other["series"], other["labels"]
        yield Case(alert=alert, name="also", minutes=when, series=series, fires=other_labels)
    absent = labels if given.get("without_data") == "fires" else None
    yield Case(alert=alert, name="no data at all", minutes=when, series={}, fires=absent)
    for name, change in given["quiet"].items():
        removed = {key for key, value in change.items() if value is None}
        assert removed <= set(given["series"]), f"{alert}, {name}: removes what is not there"
        merged = {**given["series"], **change}
        kept = {key: value for key, value in merged.items() if value is not None}
        yield Case(alert=alert, name=name, minutes=when, series=kept, fires=None)


def test_every_alert_has_cases_and_every_case_an_alert() -> None:
    assert {rule["alert"] for rule in rules("alert")} == set(specified())


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_it_must(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    assert _minutes(rule["for"]) >= 1, "shorter than two scrapes"
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"manifests/runbooks/{rule['alert']}.md"
    assert (MANIFESTS / "runbooks" / f"{rule['alert']}.md").is_file()
    used = set(re.findall(r"\$labels\.(\w+)", notes["summary"] + notes["description"]))
    assert used <= set(specified()[rule["alert"]]["labels"]), "a label the alert does not carry"


@pytest.mark.external
@pytest.mark.parametrize("alert", sorted(specified()))
def test_an_alert_fires_and_stays_quiet(alert: str, tmp_path: Path) -> None:
    cases = list(cases_of(alert, specified()[alert]))
    assert len(cases) >= 3
    done = _promtool(alert, [_promtool_test(case) for case in cases], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.external
@pytest.mark.parametrize("alert", sorted(specified()))
def test_the_text_of_an_alert_is_filled_in(alert: str, tmp_path: Path) -> None:
    """Promtool shows the rendered text of an alert that it was told not to expect."""
    firing, *_ = cases_of(alert, specified()[alert])
    unexpected = _promtool_test(firing)
    del unexpected["promql_expr_test"]
    at = f"{firing.minutes}m"
    unexpected["alert_rule_test"] = [{"alertname": alert, "eval_time": at, "exp_alerts": []}]
    done = _promtool(alert, [unexpected], tmp_path)
    (shown,) = re.findall(r"Annotations:\{(.*)\}", done.stdout + done.stderr)
    for broken in ("<no value>", "<error", "%!", "{{", '=""', "NaN"):
        assert broken not in shown, shown
    assert not re.search(r"\d[munk] (s|requests|replicas)\b", shown), "a milli-unit, not for people"


@pytest.mark.external
def test_promtool_accepts_every_rule(tmp_path: Path) -> None:
    groups = [{"name": "all", "rules": rules("record") + rules("alert")}]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    done = subprocess.run(
        [required("promtool"), "check", "rules", "--lint=all", "--lint-fatal", "rules.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _promtool(
    alert: str, tests: list[dict[str, Any]], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run unit tests of one alert and of what it reads."""
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": _needed(alert)}))
    given = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "group_eval_order": ["needed", "alert"],
        "tests": tests,
    }
    (folder / "test.yml").write_text(yaml.safe_dump(given))
    return subprocess.run(
        [required("promtool"), "test", "rules", "test.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _needed(alert: str) -> list[dict[str, Any]]:
    """The alert and the recording rules that it reads, as groups evaluated every minute."""
    (rule,) = [one for one in rules("alert") if one["alert"] == alert]
    read = names_in(rule["expr"])
    recording = [one for one in rules("record") if one["record"] in read]
    return [
        {"name": "needed", "rules": recording},
        {"name": "alert", "rules": [rule]},
    ]


def _promtool_test(case: Case) -> dict[str, Any]:
    """``ALERTS`` is compared rather than the rendered alert: labels exactly, text not."""
    (rule,) = [one for one in rules("alert") if one["alert"] == case.alert]
    own = {"alertname": case.alert, "alertstate": "firing", **rule["labels"]}
    expected = []
    if case.fires is not None:
        labels = ", ".join(f'{key}="{value}"' for key, value in {**own, **case.fires}.items())
        expected = [{"labels": f"ALERTS{{{labels}}}", "value": 1}]
    return {
        "interval": "1m",
        "input_series": [
            {"series": series, "values": str(values)} for series, values in case.series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}',
                "eval_time": f"{case.minutes}m",
                "exp_samples": expected,
            }
        ],
    }


def _minutes(duration: str) -> float:
    units = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}
    return float(duration[:-1]) * units[duration[-1]]
