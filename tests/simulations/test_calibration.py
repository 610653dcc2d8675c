"""Step terms from counted windows: given back, and within their intervals as often as is said."""

import dataclasses

import numpy as np
import pytest

from scaler.ops.calibrate_stretches import missed_share
from simulations.calibration import BusyWindows, calibrate_windows

TRUE = {
    "decode_base_s": 0.0288,
    "decode_per_seq_s": 2.96e-4,
    "decode_per_kv_token_s": 9.75e-8,
    "prefill_per_token_s": 8.53e-5,
    "prefill_attention_s": 7.26e-9,
}
SEEN = 0.75  # of the requests, at a scrape: they run for 11 s of 15 s


def windows(seed: int, rows: int = 60) -> BusyWindows:
    """Stretches of ten minutes of different loads whose requests are drawn one by one.

    The context is that of the requests that a scrape met, as ``ops.calibrate_stretches`` has it;
    the time is what the true terms make of all of them, and half a percent of noise.
    """
    random = np.random.default_rng(seed)
    made: dict[str, list[float]] = {field.name: [] for field in dataclasses.fields(BusyWindows)}
    for _ in range(rows):
        count = int(random.uniform(600, 3000))
        prompts = random.lognormal(random.normal(6.5, 0.2), 0.9, count).clip(8, 16_000)
        outputs = random.lognormal(5.0, 0.7, count).clip(2, 2000)
        steps, seq_steps = random.uniform(8000, 14_000), float(outputs.sum())
        context = float(np.dot(outputs, prompts + outputs / 2.0))
        met = random.random(count) < SEEN
        even = met & (random.random(count) < 0.5)
        means = [
            float(np.dot(outputs[which], (prompts + outputs / 2.0)[which]) / outputs[which].sum())
            for which in (met, even, met & ~even)
        ]
        row = {
            "steps": steps,
            "seq_steps": seq_steps,
            "kv_token_steps": context,
            "prefill_tokens": float(prompts.sum()),
            "attention_tokens": float((prompts**2).sum() / 2.0),
        }
        row["span_s"] = sum(
            value * row[name]
            for value, name in zip(TRUE.values(), row, strict=True)
        ) * random.normal(1.0, 0.002)  # fmt: skip
        row["kv_token_steps"] = means[0] * seq_steps
        told = ((means[1] - means[2]) * seq_steps / 2.0) ** 2
        row["kv_token_variance"] = told * (1.0 - SEEN)
        for name, value in row.items():
            made[name].append(value)
    return BusyWindows(**{name: np.array(values) for name, values in made.items()})


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 40 intervals of 90 % fewer than 32 hold it by chance once in 24 (binomial)."""
    held = dict.fromkeys(TRUE, 0)
    for seed in range(40):
        for item in calibrate_windows(windows(seed), seed=seed).coefficients:
            held[item.name] += item.low <= TRUE[item.name] <= item.high
    assert min(held.values()) >= 32, held


def test_what_a_gauge_misses_between_scrapes_does_not_shrink_its_term() -> None:
    """Means of 20 fits; as if the context had been counted, it comes out a good deal too small."""
    fits = [windows(seed, rows=150) for seed in range(20)]
    blind = [dataclasses.replace(one, kv_token_variance=np.zeros_like(one.span_s)) for one in fits]
    found, plain = (
        float(np.mean([calibrate_windows(one).step.decode_per_kv_token_s for one in some]))
        for some in (fits, blind)
    )
    assert found == pytest.approx(TRUE["decode_per_kv_token_s"], rel=0.05)
    assert plain < 0.8 * TRUE["decode_per_kv_token_s"]


def test_without_lengths_attention_is_no_term() -> None:
    told = windows(1)
    untold = dataclasses.replace(told, attention_tokens=np.zeros_like(told.span_s))
    fit = calibrate_windows(untold)
    assert [item.name for item in fit.coefficients] == [*TRUE][:-1]
    assert fit.step.prefill_attention_s == 0.0


@pytest.mark.parametrize("intervals", [0.2, 0.7, 1.3, 2.6, 7.4])
def test_the_missed_share_is_that_of_a_drawn_phase(intervals: float) -> None:
    """Requests of one length at random phases: the variance of their count, simulated."""
    phase = np.random.default_rng(3).random(200_000)
    count = np.floor(intervals + phase)  # scrapes at whole numbers that [phase, + intervals) meets
    odd = float(np.mean(count % 2.0))  # then even and odd samples differ by one
    assert missed_share(np.array([intervals])) == pytest.approx(np.var(count) / odd, rel=0.02)
