"""How a setting is declared: default, range, reason, and whether the tuner may move it."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is declared of one setting beside its type and default."""

    low: float | None
    high: float | None
    tune: bool
    why: str
    key: str  # name in trigger metadata; empty: derived from the path


def setting(
    default: Any,
    *,
    why: str,
    low: float | None = None,
    high: float | None = None,
    tune: bool = False,
    key: str = "",
) -> Any:
    """Declare a setting: a dataclass field with range, reason and tunability in its metadata."""
    declared = Setting(low=low, high=high, tune=tune, why=why, key=key)
    metadata = {"setting": declared}
    if isinstance(default, dict):  # a mutable default: each instance gets its own
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One setting of a tree, found by ``declared``."""

    path: str  # dotted
    default: Any
    type: Any
    setting: Setting

    @property
    def metadata_key(self) -> str:
        """The key in trigger metadata: ``hold_down.window_s`` becomes holdDownWindowSeconds."""
        if self.setting.key:
            return self.setting.key
        words = self.path.replace(".", "_").split("_")
        if words[-1] == "s":
            words[-1] = "seconds"
        return words[0] + "".join(word.capitalize() for word in words[1:])

    def fault(self, value: object) -> str | None:
        """``path = value, must be in [low, high]`` when a number is out of range, else None."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        low = -math.inf if self.setting.low is None else self.setting.low
        high = math.inf if self.setting.high is None else self.setting.high
        if low <= value <= high:
            return None
        return f"{self.path} = {value}, must be in [{low:g}, {high:g}]"


def declared(tree: Any, prefix: str = "") -> tuple[Declared, ...]:
    """Every setting under a settings dataclass (instance), depth first, in order of declaration."""
    found: list[Declared] = []
    for item in dataclasses.fields(tree):
        path = f"{prefix}{item.name}"
        if "setting" in item.metadata:
            found.append(
                Declared(
                    path=path,
                    default=getattr(tree, item.name),
                    type=item.type,
                    setting=item.metadata["setting"],
                )
            )
        elif dataclasses.is_dataclass(child := getattr(tree, item.name)):
            found.extend(declared(child, f"{path}."))
    return tuple(found)


def tunable(tree: Any) -> tuple[Declared, ...]:
    """The tuner's search space: exactly the settings with ``tune=True``."""
    return tuple(item for item in declared(tree) if item.setting.tune)
