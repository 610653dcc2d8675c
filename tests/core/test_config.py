"""Every setting is declared once, with a range that holds its default and a reason."""

import dataclasses
import enum
import math
from collections import Counter
from typing import Any

import pytest

from scaler.core.config import HoldDownConfig, PolicyConfig
from scaler.core.settings import Declared, declared, setting, tunable

EVERY = declared(PolicyConfig())
EACH = pytest.mark.parametrize("item", EVERY, ids=lambda item: item.path)


def test_every_field_of_the_tree_is_declared() -> None:
    def leaves(tree: Any) -> int:
        children = [getattr(tree, item.name) for item in dataclasses.fields(tree)]
        return sum(leaves(c) if dataclasses.is_dataclass(c) else 1 for c in children)

    assert len(EVERY) == leaves(PolicyConfig())
    assert len({item.path for item in EVERY}) == len(EVERY)


def test_metadata_keys_are_unique_and_camel_case() -> None:
    keys = Counter(item.metadata_key for item in EVERY)
    assert [key for key, count in keys.items() if count > 1] == []
    assert all(key.isalnum() and key[0].islower() for key in keys)


@EACH
def test_a_setting_has_a_reason(item: Declared) -> None:
    assert len(item.setting.why.split()) >= 2, f"{item.path}: a reason, not {item.setting.why!r}"


@EACH
def test_a_number_has_a_range_around_its_default(item: Declared) -> None:
    if isinstance(item.default, bool | enum.Enum):
        assert item.setting.low is None
        return
    low, high = item.setting.low, item.setting.high
    assert low is not None
    assert high is not None
    assert low <= item.default <= high
    assert item.fault(item.default) is None
    assert item.fault(low - 1e-6) == f"{item.path} = {low - 1e-6}, must be in [{low:g}, {high:g}]"
    assert item.fault(high + 1e6) is not None
    assert item.fault(math.nan) is not None


@EACH
def test_a_unit_is_in_the_name(item: Declared) -> None:
    """What is neither a duration, a ratio nor an amount of something named is not a number."""
    if not isinstance(item.default, float):
        return
    suffixes = ("_s", "_ratio", "_tokens", "_factor", "_gain", "_max", "_min", "_requests")
    assert item.path.endswith(suffixes), item.path


def test_the_metadata_keys_that_product_promises() -> None:
    by_path = {item.path: item.metadata_key for item in EVERY}
    assert by_path["slo.ttft_s"] == "ttftSloSeconds"
    assert by_path["slo.tpot_s"] == "tpotSloSeconds"
    assert by_path["slo.attainment_target_ratio"] == "sloAttainmentTarget"
    assert by_path["role"] == "role"
    assert by_path["freshness.wake_when_blind"] == "wakeWhenBlind"
    assert by_path["signals.gpu_util_target_ratio"] == "gpuUtilTargetRatio"
    assert by_path["hold_down.window_s"] == "holdDownWindowSeconds"


def test_the_tuner_sees_exactly_what_it_may_move() -> None:
    assert {item.path for item in tunable(PolicyConfig())} == {
        item.path for item in EVERY if item.setting.tune
    }
    assert {"budget.price_factor", "forecast.quantile_ratio"} <= {
        item.path for item in tunable(PolicyConfig())
    }
    assert all(isinstance(item.default, float) for item in tunable(PolicyConfig()))


def test_defaults_come_from_the_instance_that_is_asked() -> None:
    tree = PolicyConfig(hold_down=HoldDownConfig(window_s=60.0))
    found = {item.path: item.default for item in declared(tree)}
    assert found["hold_down.window_s"] == 60.0


def test_what_is_no_number_has_no_range_to_leave() -> None:
    item = next(item for item in EVERY if item.path == "freshness.wake_when_blind")
    assert item.fault(True) is None
    assert item.fault("yes") is None


def test_a_range_may_be_open_at_one_end() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Open:
        least: float = setting(1.0, low=0.0, why="open above")
        most: float = setting(1.0, high=2.0, why="open below")
        names: dict[str, str] = setting({"a": "b"}, why="each instance has its own")

    least, most, names = declared(Open())
    assert least.fault(-1.0) == "least = -1.0, must be in [0, inf]"
    assert most.fault(3.0) == "most = 3.0, must be in [-inf, 2]"
    assert names.default == {"a": "b"}
    assert Open().names is not Open().names


def test_a_plain_field_is_no_setting() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Mixed:
        plain: int = 3
        hold_down: HoldDownConfig = dataclasses.field(default_factory=HoldDownConfig)

    assert [item.path for item in declared(Mixed())] == [
        "hold_down.window_s",
        "hold_down.level_s",
        "hold_down.start_up_factor",
        "hold_down.margin_ratio",
        "hold_down.sigma_min_factor",
        "hold_down.release_s",
        "hold_down.ease_spent_ratio",
        "hold_down.ease_min_ratio",
        "hold_down.drift_ratio",
        "hold_down.scatter_factor",
    ]
