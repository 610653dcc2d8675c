"""Settings that cannot work are refused at once, all of them, without showing secrets."""

import dataclasses
from typing import Any

import pytest

from scaler.config import RecordingRules, SourceConfig
from scaler.errors import ConfigError
from scaler.signals.settings import (
    PrometheusSettings,
    ScrapeSettings,
    prometheus_settings,
    serves,
)


def test_every_fault_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        PrometheusSettings(
            url="prometheus:9090", timeout_s=0.0, cert_file="c", username="u", pod_label="a-b"
        )
    told = " ".join(caught.value.faults)
    assert len(caught.value.faults) == 5
    for part in ("url =", "timeout_s = 0.0, must be in [0.05, 300]", "key_file", "password_file"):
        assert part in told
    assert "pod_label = 'a-b'" in told


@pytest.mark.parametrize("url", ["http://me:s3cret@host", "ftp://me:s3cret@host"])
def test_credentials_in_a_url_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PrometheusSettings(url=url)
    assert "s3cret" not in str(caught.value)
    assert "password_file" in str(caught.value)


def test_a_header_that_would_split_the_request_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        PrometheusSettings(url="http://host", headers={"X-Scope-OrgID": "s3cret\r\nX-Other: y"})
    assert "headers.X-Scope-OrgID" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError):
        PrometheusSettings(url="http://host", headers={"bad name": "x"})


def test_headers_are_not_printed() -> None:
    given = PrometheusSettings(url="http://host", headers={"Authorization": "s3cret"})
    assert "s3cret" not in repr(given)


def test_two_kinds_of_authorization_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="one Authorization"):
        PrometheusSettings(url="http://host", token_file="t", username="u", password_file="p")


def test_the_shipped_rules_have_one_window() -> None:
    with pytest.raises(ConfigError, match="must be 60"):
        PrometheusSettings(url="http://host", recording_rules=RecordingRules.ALWAYS, window_s=120.0)


def test_scrape_settings() -> None:
    with pytest.raises(ConfigError) as caught:
        ScrapeSettings(path="metrics", pages_in_flight=0, dcgm_urls=("dcgm:9400",))
    assert len(caught.value.faults) == 3
    assert "dcgm_urls[0]" in str(caught.value)


BARE = SourceConfig(url="http://host")


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "https://other/prefix"},
        {"namespaces": ("team-*",)},
        {"engine": "another"},
        {"ca_file": "ca"},
        {"cert_file": "c", "key_file": "k"},
        {"token_file": "t"},
        {"username": "u", "password_file": "p"},
        {"headers": {"X-Scope-OrgID": "a"}},
        {"timeout_s": 5.0},
        {"window_s": 120.0},
        {"recording_rules": RecordingRules.NEVER},
    ],
)
def test_what_a_source_says_is_kept(changes: dict[str, Any]) -> None:
    before = prometheus_settings(BARE, "a")
    assert prometheus_settings(dataclasses.replace(BARE, **changes), "a") == dataclasses.replace(
        before, **changes
    )
    assert all(getattr(before, key) != value for key, value in changes.items())


def test_limits_are_those_of_whoever_asks() -> None:
    limits: dict[str, Any] = {
        "timeout_s": 120.0, "attempt_timeout_s": 60.0, "max_body_bytes": 1 << 30,
    }  # fmt: skip
    asked = prometheus_settings(BARE, "a", **limits)
    assert asked == dataclasses.replace(prometheus_settings(BARE, "a"), **limits)
    assert prometheus_settings(BARE, "a").timeout_s == BARE.timeout_s


@pytest.mark.parametrize(
    ("globs", "namespace", "served"),
    [
        (("*",), "llm", True),
        (("team-*", "x"), "team-a", True),
        (("team-*",), "Team-a", False),
        ((), "llm", False),
    ],
)
def test_namespaces_by_globs(globs: tuple[str, ...], namespace: str, served: bool) -> None:
    assert serves(globs, namespace) is served
