"""Step-time coefficients from measurements, by relative least squares without negative terms."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulations.replica import StepTime

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Coefficients by term, and the errors of the fit relative to each measurement."""

    coefficients: tuple[float, ...]
    error_mean_ratio: float  # MAPE
    error_p90_ratio: float
    rows: int


def fit_relative(
    terms: Sequence[Floats], measured: Floats, variances: Mapping[int, Floats] | None = None
) -> Fit:
    """Non-negative coefficients x that minimise sum(((terms . x - measured) / measured)^2).

    Where plain least squares are non-negative they are the solution.  Else, with at most eight
    terms, every set of terms kept above zero is tried and the best one whose plain least-squares
    solution is non-negative wins, which is the exact solution.

    ``variances`` are, by the place of a term, those of the errors that each row's term was measured
    with.  Such errors draw a coefficient towards zero; their share of the sums of squares is taken
    off (Fuller 1987, "Measurement Error Models", section 2.2).
    """
    assert len(terms) <= 8, "every subset of terms is tried"
    design = np.column_stack(terms) / measured[:, None]
    lengths = np.linalg.norm(design, axis=0)
    lengths[lengths == 0.0] = 1.0
    scaled = design / lengths
    errors_of = np.zeros(len(terms))
    for place, variance in (variances or {}).items():
        errors_of[place] = float(np.sum(variance / measured**2)) / lengths[place] ** 2
    best, best_loss = np.zeros(len(terms)), float(measured.size)
    everything = tuple(range(len(terms)))
    for size in range(len(terms), 0, -1):
        for kept in itertools.combinations(everything, size):
            part = _solved(scaled[:, kept], errors_of[list(kept)])
            if part is None:
                continue
            loss = float(np.sum((scaled[:, kept] @ part - 1.0) ** 2))
            loss -= float(np.dot(errors_of[list(kept)], part**2))
            if loss < best_loss - 1e-12 * abs(best_loss):
                best_loss = loss
                best = np.zeros(len(terms))
                best[list(kept)] = part
        if size == len(terms) and best_loss < measured.size:
            break  # with all of them no other set is better
    errors = np.abs(scaled @ best - 1.0)
    return Fit(
        coefficients=tuple((best / lengths).tolist()),
        error_mean_ratio=float(errors.mean()),
        error_p90_ratio=float(np.quantile(errors, 0.9)),
        rows=measured.size,
    )


def _solved(design: Floats, errors_of: Floats) -> Floats | None:
    """The coefficients of some terms; None where one is negative, or nothing but errors is left.

    Without errors the rows themselves are solved, which keeps twice the digits that their sums of
    squares do.
    """
    if not np.any(errors_of):
        part = np.linalg.lstsq(design, np.ones(len(design)), rcond=None)[0].astype(np.float64)
    else:
        squares = design.T @ design - np.diag(errors_of)
        if np.linalg.eigvalsh(squares)[0] <= 1e-12:  # of terms of length one
            return None
        part = np.linalg.solve(squares, design.sum(axis=0))
    return None if np.any(part < 0.0) else part


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFit:
    """A step model from measured engine steps, without the per-step overhead."""

    step: StepTime
    decode: Fit
    mixed: Fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Measured steps: a prefill chunk after its context, and decoding sequences with theirs."""

    prefill_tokens: Floats
    prefill_context_tokens: Floats
    decode_seqs: Floats
    decode_kv_tokens: Floats
    step_s: Floats

    def pick(self, which: npt.NDArray[np.bool_]) -> "Profile":
        """The steps of a mask."""
        return Profile(
            prefill_tokens=self.prefill_tokens[which],
            prefill_context_tokens=self.prefill_context_tokens[which],
            decode_seqs=self.decode_seqs[which],
            decode_kv_tokens=self.decode_kv_tokens[which],
            step_s=self.step_s[which],
        )


def fit_profile(profile: Profile, *, overhead_s: float = 0.0) -> ProfileFit:
    """Fit decode-only steps and steps with prefill apart, in the terms of ``StepTime``."""
    decodes = profile.pick(profile.prefill_tokens == 0)
    mixed = profile.pick(profile.prefill_tokens > 0)
    decode_fit = fit_relative(
        [np.ones(decodes.step_s.size), decodes.decode_seqs, decodes.decode_kv_tokens],
        decodes.step_s,
    )
    tokens = mixed.prefill_tokens
    mixed_fit = fit_relative(
        [
            np.ones(mixed.step_s.size),
            mixed.decode_seqs,
            mixed.decode_kv_tokens,
            tokens,
            tokens * (mixed.prefill_context_tokens + tokens / 2.0),
        ],
        mixed.step_s,
    )
    base_s, per_seq_s, per_kv_s = decode_fit.coefficients
    mixed_base_s, mixed_seq_s, mixed_kv_s, token_s, attention_s = mixed_fit.coefficients
    step = StepTime(
        overhead_s=overhead_s,
        decode_base_s=base_s,
        decode_per_seq_s=per_seq_s,
        decode_per_kv_token_s=per_kv_s,
        mixed_base_s=mixed_base_s,
        mixed_per_seq_s=mixed_seq_s,
        mixed_per_kv_token_s=mixed_kv_s,
        prefill_per_token_s=token_s,
        prefill_attention_s=attention_s,
    )
    return ProfileFit(step=step, decode=decode_fit, mixed=mixed_fit)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyStates:
    """Mean time per output token at a fixed number of concurrent requests of one size."""

    concurrency: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    tpot_s: Floats


def fit_steady_states(measured: SteadyStates) -> tuple[StepTime, Fit]:
    """A step model from steady states.

    B requests decode at a context of ``prompt + output / 2`` on average, and in the time of one
    step ``B / output`` of a prompt is computed, so

        tpot = base + per_seq * B + per_kv * B * (prompt + output / 2)
               + per_prefill_token * B * prompt / output.

    What a decode costs in a mixed step cannot be told from these, so it is the same.
    """
    batch, prompt, output = measured.concurrency, measured.prompt_tokens, measured.output_tokens
    fit = fit_relative(
        [np.ones(batch.size), batch, batch * (prompt + output / 2.0), batch * prompt / output],
        measured.tpot_s,
    )
    base_s, per_seq_s, per_kv_s, token_s = fit.coefficients
    return one_cost(base_s=base_s, per_seq_s=per_seq_s, per_kv_s=per_kv_s, token_s=token_s), fit


def one_cost(*, base_s: float, per_seq_s: float, per_kv_s: float, token_s: float) -> StepTime:
    """A decode costs the same in both kinds of step; no overhead, no attention within prompts."""
    return StepTime(
        overhead_s=0.0,
        decode_base_s=base_s,
        decode_per_seq_s=per_seq_s,
        decode_per_kv_token_s=per_kv_s,
        mixed_base_s=base_s,
        mixed_per_seq_s=per_seq_s,
        mixed_per_kv_token_s=per_kv_s,
        prefill_per_token_s=token_s,
        prefill_attention_s=0.0,
    )
