"""Trace-driven simulation of a vLLM fleet with the whole KEDA and HPA chain."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.frames import columns, table
    from simulations.peers import peer_policy
    from simulations.replica_files import load_replica_model
    from simulations.run import Result, simulate
    from simulations.scaled_object import parse_scaled_object
    from simulations.scenario import Scenario
    from simulations.traces import read_trace

__all__ = [
    "Result",
    "Scenario",
    "columns",
    "load_replica_model",
    "parse_scaled_object",
    "peer_policy",
    "read_trace",
    "simulate",
    "table",
]

_HOMES = {
    "Result": "run",
    "Scenario": "scenario",
    "columns": "frames",
    "load_replica_model": "replica_files",
    "parse_scaled_object": "scaled_object",
    "peer_policy": "peers",
    "read_trace": "traces",
    "simulate": "run",
    "table": "frames",
}


def __getattr__(name: str) -> Any:
    """Import on first use: numba and pyarrow are slow to load, and some users need only a part."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
