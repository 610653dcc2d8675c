"""What several tests of commands share."""

import pytest

from scaler.cli import progress


@pytest.fixture
def no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of progress, however slow the machine: standard error has only what went wrong."""
    monkeypatch.setattr(progress, "SHOW_AFTER_S", 24 * 3600.0)
