"""Replica models by name or from a YAML file.

::

    preset: llama-3.1-8b-h100-tp1     # optional: what is not said below is as there
    name: ours
    kv_blocks: 27000
    step: {overhead_s: 0.002, decode_base_s: 0.011, ...}
    prefix_cache: {hit_ratio: 0.3}
    start_up:
      weights: 45                     # always 45 s
      compile: {median_s: 60, p95_s: 110}
      image: {values_s: [0, 0, 180]}  # one of these
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scaler.errors import ScenarioError
from simulations.presets import PRESETS
from simulations.replica import (
    Distribution,
    DistributionKind,
    PrefixCache,
    ReplicaModel,
    StartUp,
    StepTime,
    constant,
    lognormal,
)

_PHASES = ("scheduling", "image", "weights", "compile")


def load_replica_model(path_or_name: str) -> ReplicaModel:
    """A preset by its name, or the model in a YAML file.

    Raises ScenarioError naming key, value and allowed range.
    """
    if path_or_name in PRESETS:
        return PRESETS[path_or_name].model
    path = Path(path_or_name)
    if not path.is_file():
        raise ScenarioError(
            f"replica_model = {path_or_name}, must be a file or one of {', '.join(sorted(PRESETS))}"
        )
    try:
        entries = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
    try:
        return _model(_mapping("the file", entries), default_name=path.stem)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def dump_replica_model(model: ReplicaModel) -> str:
    """The model as YAML that ``load_replica_model`` reads back to an equal one."""
    entries = dataclasses.asdict(model)
    entries["start_up"] = {
        phase: _distribution_entry(getattr(model.start_up, phase)) for phase in _PHASES
    }
    entries["start_up"]["crash_ratio"] = model.start_up.crash_ratio
    return yaml.safe_dump(entries, sort_keys=False)


def _model(entries: Mapping[str, Any], *, default_name: str) -> ReplicaModel:
    values = dict(entries)
    base = values.pop("preset", None)
    if base is not None and base not in PRESETS:
        raise ScenarioError(f"preset = {base}, must be one of {', '.join(sorted(PRESETS))}")
    known = {f.name: f for f in dataclasses.fields(ReplicaModel)}
    _refuse_unknown(values, known, prefix="")
    values.setdefault("name", default_name)
    preset = PRESETS[base].model if base is not None else None
    if preset is None:
        for required in ("step", "kv_blocks"):
            if required not in values:
                raise ScenarioError(f"{required} is missing (give it, or a preset)")
    parsed = {name: _value(name, value, preset) for name, value in values.items()}
    if preset is not None:
        return dataclasses.replace(preset, **parsed)
    return ReplicaModel(**parsed)


def _value(name: str, value: object, preset: ReplicaModel | None) -> Any:
    match name:
        case "step":
            terms = _mapping("step", value)
            known = [f.name for f in dataclasses.fields(StepTime)]
            _refuse_unknown(terms, known, prefix="step.")
            start = dataclasses.asdict(preset.step) if preset is not None else {}
            missing = [k for k in known if k not in terms and k not in start]
            if missing:
                raise ScenarioError(f"step.{missing[0]} is missing")
            return StepTime(**{**start, **{k: _number(f"step.{k}", v) for k, v in terms.items()}})
        case "prefix_cache":
            cache = _mapping("prefix_cache", value)
            _refuse_unknown(cache, ("hit_ratio", "per_session"), prefix="prefix_cache.")
            return PrefixCache(
                hit_ratio=_number("prefix_cache.hit_ratio", cache.get("hit_ratio", 0.0)),
                per_session=_truth("prefix_cache.per_session", cache.get("per_session", False)),
            )
        case "start_up":
            return _start_up(_mapping("start_up", value), preset)
        case "name":
            return str(value)
        case "scheduler_reserve_full_isl":
            return _truth(name, value)
        case "watermark_ratio" | "drain_grace_s":
            return _number(name, value)
        case _:
            return _whole(name, value)


def _start_up(entries: Mapping[str, Any], preset: ReplicaModel | None) -> StartUp:
    _refuse_unknown(entries, (*_PHASES, "crash_ratio"), prefix="start_up.")
    start = preset.start_up if preset is not None else StartUp()
    changed: dict[str, Any] = {
        phase: _distribution(f"start_up.{phase}", entries[phase])
        for phase in _PHASES
        if phase in entries
    }
    if "crash_ratio" in entries:
        changed["crash_ratio"] = _number("start_up.crash_ratio", entries["crash_ratio"])
    return dataclasses.replace(start, **changed)


def _distribution(key: str, entry: object) -> Distribution:
    if not isinstance(entry, Mapping):
        return constant(_number(key, entry))
    if set(entry) == {"median_s", "p95_s"}:
        return lognormal(
            _number(f"{key}.median_s", entry["median_s"]), _number(f"{key}.p95_s", entry["p95_s"])
        )
    if set(entry) == {"values_s"} and isinstance(entry["values_s"], list):
        values = tuple(_number(f"{key}.values_s", value) for value in entry["values_s"])
        return Distribution(kind=DistributionKind.EMPIRICAL, values_s=values)
    raise ScenarioError(
        f"{key} = {dict(entry)}, must be seconds, median_s and p95_s, or a list values_s"
    )


def _distribution_entry(distribution: Distribution) -> object:
    match distribution.kind:
        case DistributionKind.CONSTANT:
            return distribution.values_s[0]
        case DistributionKind.LOGNORMAL:
            median_s, p95_s = distribution.values_s
            return {"median_s": median_s, "p95_s": p95_s}
        case DistributionKind.EMPIRICAL:
            return {"values_s": list(distribution.values_s)}


def _refuse_unknown(entries: Mapping[str, Any], known: Any, *, prefix: str) -> None:
    for key in entries:
        if key not in known:
            raise ScenarioError(f"{prefix}{key} is unknown, must be one of {', '.join(known)}")


def _mapping(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ScenarioError(f"{key} must be a mapping of keys to values")
    return value


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ScenarioError(f"{key} = {value}, must be a number")
    try:
        return float(value)  # YAML reads 1e-5, without a dot, as text
    except ValueError:
        raise ScenarioError(f"{key} = {value}, must be a number") from None


def _whole(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ScenarioError(f"{key} = {value}, must be a whole number")
    return value


def _truth(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ScenarioError(f"{key} = {value}, must be true or false")
    return value
