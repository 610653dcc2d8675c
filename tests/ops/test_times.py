"""Times as people write them."""

import pytest

from scaler.errors import ConfigError
from scaler.ops.times import parsed, spelled

DAY = 1_800_000_000.0  # 2027-01-15T08:00:00Z


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("2027-01-15T09:30:00Z", DAY + 5400.0),
        ("2027-01-15T10:30:00+01:00", DAY + 5400.0),
        ("2027-01-15 09:30:00", DAY + 5400.0),  # without an offset: UTC
        ("09:30", DAY + 86400.0 + 5400.0),  # of the last day that has it
        ("09:30:15", DAY + 86400.0 + 5415.0),
        ("11:00:00", DAY + 3 * 3600.0),  # the last day ends at 10:00: the day before
        ("1800005400", DAY + 5400.0),
    ],
)
def test_a_time_on_a_daemons_clock(text: str, at_s: float) -> None:
    end_s = DAY + 86400.0 + 2 * 3600.0
    assert parsed("--at", text, begin_s=DAY, end_s=end_s) == at_s


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("5400", 5400.0),
        ("1:30:00", 5400.0),
        ("0:00", 0.0),
        ("25:30", 91800.0),
        ("25h30m05s", 91805.0),
    ],
)
def test_a_time_of_a_simulated_run_is_since_its_beginning(text: str, at_s: float) -> None:
    assert parsed("--at", text, begin_s=0.0, end_s=172_800.0) == at_s


def test_a_daemons_day_has_24_hours() -> None:
    with pytest.raises(ConfigError, match="must be an RFC 3339 time"):
        parsed("--at", "25:00", begin_s=DAY, end_s=DAY + 86400.0)


@pytest.mark.parametrize("text", ["yesterday", "", "0:99", "3:61", "2027-13-01T00:00:00Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--from = .*, must be an RFC 3339 time"):
        parsed("--from", text, begin_s=0.0, end_s=1.0)


@pytest.mark.parametrize("text", ["7201", "-1", "nan", "2:30"])
def test_a_time_outside_the_log_names_its_span(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be in \[0h00m00s, 2h00m00s\]"):
        parsed("--at", text, begin_s=0.0, end_s=7200.0)


def test_times_are_spelled_as_they_are_written() -> None:
    assert spelled(DAY) == "2027-01-15T08:00:00Z"
    assert spelled(3 * 3600.0 + 12 * 60.0 + 4.4) == "3h12m04s"
