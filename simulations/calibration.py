"""A replica model from measurements, with what they leave open: intervals, errors, missing data.

Coefficients are those of ``replica.StepTime``, fitted by ``fitting.fit_relative``; intervals come
from a bootstrap over the rows (Efron 1979).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scaler.errors import ScenarioError
from simulations.fitting import (
    Fit,
    Profile,
    SteadyStates,
    fit_profile,
    fit_relative,
    fit_steady_states,
    one_cost,
)
from simulations.replica import StepTime
from simulations.streams import generator

Floats = npt.NDArray[np.float64]

RESAMPLES = 200
# Share of resamples within an interval of 90 %: percentiles of resamples of a few dozen rows hold
# the truth less often than their share (Davison and Hinkley 1997, section 5.3); of 94 % they hold
# it as often as is said, over the seeds of tests/simulations/test_calibration.py.
INTERVAL_RATIO = 0.94
ROWS_MIN = 20
CONDITION_MAX = 1e4  # of the terms at unit length: beyond it noise decides
LOOSE_RATIO = 0.25  # half an interval's width over its value, from which a coefficient is loose

WHAT_WOULD_TELL: Mapping[str, str] = {
    "base_s": "hours with few requests at a time",
    "per_seq_s": "many short requests at a time beside hours with few",
    "per_kv_token_s": "long contexts beside short ones at the same number of requests at a time",
    "prefill_per_token_s": "bursts of long prompts beside hours with hardly any",
    "prefill_attention_s": "prompts of very different lengths, or a profile with prefill_context",
}
"""By the end of a coefficient's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """A term of ``StepTime``, and an interval that holds it with 90 %."""

    name: str
    value: float
    low: float
    high: float

    @property
    def loose(self) -> bool:
        """Whether the data leave it open."""
        return self.looseness > 1.0

    @property
    def looseness(self) -> float:
        """The interval's width by that from which it is loose; infinite of a value of zero."""
        if self.value <= 0.0:
            return math.inf
        return (self.high - self.low) / (2.0 * LOOSE_RATIO * self.value)

    @property
    def advice(self) -> str:
        """What data would tighten it; empty where it is tight."""
        if not self.loose:
            return ""
        suffix = next(end for end in WHAT_WOULD_TELL if self.name.endswith(end))
        return f"{self.name} is poorly determined: {WHAT_WOULD_TELL[suffix]} would tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A step model; the errors are relative, of the fit on the rows it was made of."""

    step: StepTime
    coefficients: tuple[Coefficient, ...]
    error_mean_ratio: float
    error_p90_ratio: float
    rows: int

    @property
    def advice(self) -> tuple[str, ...]:
        """What data would tighten the model."""
        return tuple(item.advice for item in self.coefficients if item.advice)


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyWindows:
    """Stretches in which replicas were never idle: a row each, summed over the replicas.

    ``seq_steps`` and ``kv_token_steps`` are sums over the steps of the decoding sequences and of
    the tokens in their context; ``kv_token_variance`` is that of the latter's error, which is
    sampled.  ``prefill_tokens`` were computed, ``attention_tokens`` is the sum over them of the
    tokens in front of each (0 throughout where no histogram tells it).
    """

    span_s: Floats
    steps: Floats
    seq_steps: Floats
    kv_token_steps: Floats
    kv_token_variance: Floats
    prefill_tokens: Floats
    attention_tokens: Floats


def calibrate_windows(windows: BusyWindows, *, seed: int = 0) -> Calibration:
    """Step terms from counters of busy replicas.

    Step times add up to the time, so with one cost of decodes in both kinds of step

        span = base * steps + per_seq * seq_steps + per_kv * kv_token_steps
               + per_prefill_token * prefill_tokens + attention * attention_tokens.

    Long prompts make both the context of decodes and the attention within prompts: without the
    last term its time would be put down to the context.

    Raises:
        ScenarioError: there are too few windows.
    """
    names = [
        "decode_base_s", "decode_per_seq_s", "decode_per_kv_token_s", "prefill_per_token_s",
    ]  # fmt: skip
    terms = [windows.steps, windows.seq_steps, windows.kv_token_steps, windows.prefill_tokens]
    if np.any(windows.attention_tokens > 0.0):
        names.append("prefill_attention_s")
        terms.append(windows.attention_tokens)
    variances = {names.index("decode_per_kv_token_s"): windows.kv_token_variance}
    found = _fitted(names, terms, windows.span_s, variances, seed)
    base_s, per_seq_s, per_kv_s, token_s, *attention = found.fit.coefficients
    step = one_cost(base_s=base_s, per_seq_s=per_seq_s, per_kv_s=per_kv_s, token_s=token_s)
    if attention:
        step = dataclasses.replace(step, prefill_attention_s=attention[0])
    return found.calibration(step)


def calibrate_profile(profile: Profile, *, overhead_s: float = 0.0, seed: int = 0) -> Calibration:
    """Step terms from measured steps; decode-only and mixed ones apart.

    Raises:
        ScenarioError: there are too few steps of a kind.
    """
    decodes = int(np.sum(profile.prefill_tokens == 0))
    for kind, rows in (("decode-only", decodes), ("prefill", profile.step_s.size - decodes)):
        if rows < ROWS_MIN:
            raise ScenarioError(
                f"the profile has {rows} {kind} steps, must have at least {ROWS_MIN}"
            )
    fit = fit_profile(profile, overhead_s=overhead_s)
    random = generator(seed, "calibrate")
    kinds = (
        np.flatnonzero(profile.prefill_tokens == 0),
        np.flatnonzero(profile.prefill_tokens > 0),
    )
    drawn = [
        fit_profile(
            profile.pick(np.concatenate([random.choice(rows, rows.size) for rows in kinds]))
        )
        for _ in range(RESAMPLES // 4)  # two fits each, the mixed one of five terms
    ]
    measured = [field.name for field in dataclasses.fields(StepTime) if field.name != "overhead_s"]
    coefficients = tuple(
        _coefficient(
            name, getattr(fit.step, name), np.array([getattr(one.step, name) for one in drawn])
        )
        for name in measured
    )
    worse = max(fit.decode, fit.mixed, key=lambda one: one.error_mean_ratio)
    return Calibration(
        step=fit.step,
        coefficients=coefficients,
        error_mean_ratio=worse.error_mean_ratio,
        error_p90_ratio=worse.error_p90_ratio,
        rows=profile.step_s.size,
    )


def calibrate_steady(measured: SteadyStates, *, seed: int = 0) -> Calibration:
    """Step terms from benchmarks at several concurrencies, by their mean time per output token.

    Raises:
        ScenarioError: there are too few results, or their lengths are too much alike.
    """
    if measured.tpot_s.size < 5:
        raise ScenarioError(
            f"{measured.tpot_s.size} bench results without details, must be at least 5 (of"
            " different concurrencies and lengths), or have --save-detailed"
        )
    _refuse_alike(measured)
    step, fit = fit_steady_states(measured)
    random = generator(seed, "calibrate")
    fields = [field.name for field in dataclasses.fields(SteadyStates)]
    drawn = []
    for _ in range(RESAMPLES):
        rows = random.integers(measured.tpot_s.size, size=measured.tpot_s.size)
        sample = SteadyStates(**{name: getattr(measured, name)[rows] for name in fields})
        drawn.append(fit_steady_states(sample)[0])
    names = ("decode_base_s", "decode_per_seq_s", "decode_per_kv_token_s", "prefill_per_token_s")
    coefficients = tuple(
        _coefficient(name, getattr(step, name), np.array([getattr(one, name) for one in drawn]))
        for name in names
    )
    return Calibration(
        step=step,
        coefficients=coefficients,
        error_mean_ratio=fit.error_mean_ratio,
        error_p90_ratio=fit.error_p90_ratio,
        rows=fit.rows,
    )


def _refuse_alike(measured: SteadyStates) -> None:
    """Results of two mixes of lengths fit many models exactly: no interval would show it."""
    batch, prompt, output = measured.concurrency, measured.prompt_tokens, measured.output_tokens
    terms = [np.ones(batch.size), batch, batch * (prompt + output / 2.0), batch * prompt / output]
    design = np.column_stack([term / np.linalg.norm(term) for term in terms])
    if np.linalg.cond(design) > CONDITION_MAX:
        raise ScenarioError(
            "the bench results do not tell the terms of a step apart, must be of at least three"
            " mixes of prompt and output lengths, each at several concurrencies"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    fit: Fit
    coefficients: tuple[Coefficient, ...]

    def calibration(self, step: StepTime) -> Calibration:
        return Calibration(
            step=step,
            coefficients=self.coefficients,
            error_mean_ratio=self.fit.error_mean_ratio,
            error_p90_ratio=self.fit.error_p90_ratio,
            rows=self.fit.rows,
        )


def _fitted(
    names: Sequence[str],
    terms: Sequence[Floats],
    measured: Floats,
    variances: Mapping[int, Floats],
    seed: int,
) -> _Fitted:
    """A fit and its intervals."""
    size = measured.size
    if size < ROWS_MIN:
        raise ScenarioError(
            f"{size} stretches of ten minutes in which no replica was idle, must be at least"
            f" {ROWS_MIN}: give a longer window, or one with more load"
        )
    fit = fit_relative(terms, measured, variances)
    random = generator(seed, "calibrate")
    drawn = np.empty((RESAMPLES, len(terms)))
    for row in drawn:
        picked = random.integers(size, size=size)
        row[:] = fit_relative(
            [term[picked] for term in terms],
            measured[picked],
            {place: variance[picked] for place, variance in variances.items()},
        ).coefficients
    # Residuals of a fit are smaller than errors by as much: Davison and Hinkley 1997, section 6.2.
    wider = np.sqrt(size / (size - len(terms)))
    centre = np.array(fit.coefficients)
    drawn = np.maximum(centre + wider * (drawn - centre), 0.0)
    coefficients = tuple(
        _coefficient(name, value, drawn[:, place])
        for place, (name, value) in enumerate(zip(names, fit.coefficients, strict=True))
    )
    return _Fitted(fit=fit, coefficients=coefficients)


def _coefficient(name: str, value: float, drawn: Floats) -> Coefficient:
    tail = (1.0 - INTERVAL_RATIO) / 2.0
    low, high = np.quantile(drawn, (tail, 1.0 - tail))
    return Coefficient(
        name=name, value=value, low=min(float(low), value), high=max(float(high), value)
    )
