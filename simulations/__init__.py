"""Trace-driven simulation of a vLLM fleet with the whole KEDA and HPA chain."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.run import Result, simulate
    from simulations.scenario import Scenario

__all__ = ["Result", "Scenario", "simulate"]

_HOMES = {"Result": "run", "Scenario": "scenario", "simulate": "run"}


def __getattr__(name: str) -> Any:
    """Import on first use: numba and pyarrow are slow to load, and some users need only a part."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
