"""Replica models: ranges, files, presets, distributions; fits of step times; named streams."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from scaler.errors import ScenarioError
from simulations.fitting import (
    Profile,
    SteadyStates,
    fit_profile,
    fit_relative,
    fit_steady_states,
)
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
from simulations.replica_files import dump_replica_model, load_replica_model
from simulations.streams import generator, word

STEP = StepTime(
    overhead_s=0.002,
    decode_base_s=0.011,
    decode_per_seq_s=2e-5,
    decode_per_kv_token_s=9e-8,
    mixed_base_s=0.012,
    mixed_per_seq_s=3e-5,
    mixed_per_kv_token_s=1.7e-7,
    prefill_per_token_s=2.8e-5,
    prefill_attention_s=2.5e-9,
)
WHOLE_FILE = """
step: {overhead_s: 0.002, decode_base_s: 0.011, decode_per_seq_s: 2e-5,
       decode_per_kv_token_s: 9.0e-8, mixed_base_s: 0.012, mixed_per_seq_s: 3.0e-5,
       mixed_per_kv_token_s: 1.7e-7, prefill_per_token_s: 2.8e-5, prefill_attention_s: 2.5e-9}
kv_blocks: 5000
max_num_seqs: 64
prefix_cache: {hit_ratio: 0.25, per_session: true}
start_up:
  weights: 45
  compile: {median_s: 60, p95_s: 110}
  image: {values_s: [0, 0, 180]}
  crash_ratio: 0.1
"""


def written(folder: Path, text: str) -> str:
    path = folder / "ours.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_gives_the_model_it_describes(tmp_path: Path) -> None:
    expected = ReplicaModel(
        name="ours",
        step=STEP,
        kv_blocks=5000,
        max_num_seqs=64,
        prefix_cache=PrefixCache(hit_ratio=0.25, per_session=True),
        start_up=StartUp(
            weights=constant(45.0),
            compile=lognormal(60.0, 110.0),
            image=Distribution(kind=DistributionKind.EMPIRICAL, values_s=(0.0, 0.0, 180.0)),
            crash_ratio=0.1,
        ),
    )
    assert load_replica_model(written(tmp_path, WHOLE_FILE)) == expected


def test_a_file_may_start_from_a_preset(tmp_path: Path) -> None:
    preset = PRESETS["llama-3.1-70b-h100-tp4"].model
    text = "preset: llama-3.1-70b-h100-tp4\nkv_blocks: 999\nstep: {overhead_s: 0.005}\n"
    changed = load_replica_model(written(tmp_path, text))
    assert changed == dataclasses.replace(
        preset, name="ours", kv_blocks=999, step=dataclasses.replace(preset.step, overhead_s=0.005)
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_load_by_name_and_survive_a_file(name: str, tmp_path: Path) -> None:
    model = load_replica_model(name)
    assert load_replica_model(written(tmp_path, dump_replica_model(model))) == model
    assert PRESETS[name].source
    # No preset is slower than 60 ms or faster than 2 ms for one sequence at 1,000 tokens.
    step = model.step
    alone_s = step.overhead_s + step.decode_base_s + 1000 * step.decode_per_kv_token_s
    assert 0.002 < alone_s < 0.06
    assert model.kv_capacity_tokens >= 16_000


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kv_blocks: 5000\n", "step is missing"),
        (WHOLE_FILE + "kv_block: 3\n", "kv_block is unknown, must be one of name, step"),
        (WHOLE_FILE + "block_size: 24\n", "block_size = 24, must be a power of two"),
        (WHOLE_FILE + "max_num_batched_tokens: 8\n", "must be at least max_num_seqs, 64"),
        (WHOLE_FILE + "drain_grace_s: -1\n", r"drain_grace_s = -1.0, must be in [0, 86400]"),
        (WHOLE_FILE + "gpus_per_replica: two\n", "gpus_per_replica = two, must be a whole number"),
        (WHOLE_FILE + "watermark_ratio: lots\n", "watermark_ratio = lots, must be a number"),
        (
            WHOLE_FILE + "scheduler_reserve_full_isl: false\n",
            "prefix_cache.per_session = true, must go with scheduler_reserve_full_isl = true",
        ),
        (
            WHOLE_FILE.replace("overhead_s: 0.002", "overhead_s: -1"),
            "step.overhead_s = -1.0, must be in [0, 100]",
        ),
        (
            WHOLE_FILE.replace("prefill_attention_s: 2.5e-9", "attention: 1"),
            "step.attention is unknown",
        ),
        (WHOLE_FILE.replace("hit_ratio: 0.25", "hit_ratio: 25"), "prefix_cache.hit_ratio = 25.0"),
        (
            WHOLE_FILE.replace("p95_s: 110", "p95_s: 50"),
            "median_s, p95_s = 60.0, 50.0, must be 0 < median < p95",
        ),
        (WHOLE_FILE.replace("p95_s: 110", "p99_s: 110"), "must be seconds, median_s and p95_s"),
        ("preset: gpt-5\n", "preset = gpt-5, must be one of"),
        ("- 1\n", "the file must be a mapping"),
        ("a: [1\n", "cannot be read"),
    ],
)
def test_faults_name_file_key_value_and_range(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_replica_model(written(tmp_path, text))
    assert fault in str(caught.value)
    assert "ours.yaml" in str(caught.value)


def test_a_name_that_is_neither_preset_nor_file_lists_the_presets() -> None:
    with pytest.raises(ScenarioError, match="replica_model = llama, must be a file or one of gpt-"):
        load_replica_model("llama")


def test_a_step_that_takes_no_time_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"step\.decode_base_s = 0\.0, must be at least 1e-06"):
        dataclasses.replace(STEP, overhead_s=0.0, decode_base_s=0.0)


def test_a_lognormal_has_the_median_and_p95_it_was_given() -> None:
    drawn = [lognormal(60.0, 110.0).draw_s(generator(1, "t", i)) for i in range(4000)]
    # Standard errors: the median's is 1.25 * sigma / sqrt(n) = 0.7 %, the p95's about 1.3 %.
    assert np.median(drawn) == pytest.approx(60.0, rel=0.03)
    assert np.quantile(drawn, 0.95) == pytest.approx(110.0, rel=0.06)


def test_an_empirical_distribution_draws_its_values_only() -> None:
    sample = Distribution(kind=DistributionKind.EMPIRICAL, values_s=(1.0, 2.0, 9.0))
    assert {sample.draw_s(generator(1, "t", i)) for i in range(50)} == {1.0, 2.0, 9.0}


# Fits


def made_profile(step: StepTime, seed: int = 0) -> Profile:
    random = np.random.default_rng(seed)
    count = 400
    prefill = np.where(random.random(count) < 0.5, 0.0, random.integers(1, 2048, count))
    context = random.integers(0, 4000, count).astype(np.float64)
    seqs = random.integers(1, 128, count).astype(np.float64)
    kv_tokens = seqs * random.integers(10, 3000, count)
    decode_s = (
        step.decode_base_s + step.decode_per_seq_s * seqs + step.decode_per_kv_token_s * kv_tokens
    )
    mixed_s = (
        step.mixed_base_s
        + step.mixed_per_seq_s * seqs
        + step.mixed_per_kv_token_s * kv_tokens
        + step.prefill_per_token_s * prefill
        + step.prefill_attention_s * prefill * (context + prefill / 2)
    )
    return Profile(
        prefill_tokens=prefill,
        prefill_context_tokens=context,
        decode_seqs=seqs,
        decode_kv_tokens=kv_tokens,
        step_s=np.where(prefill > 0, mixed_s, decode_s),
    )


def test_a_profile_made_from_a_model_gives_the_model_back() -> None:
    fit = fit_profile(made_profile(STEP), overhead_s=STEP.overhead_s)
    for field in dataclasses.fields(StepTime):
        assert getattr(fit.step, field.name) == pytest.approx(getattr(STEP, field.name), rel=1e-6)
    assert fit.decode.error_mean_ratio < 1e-9


def test_steady_states_made_from_a_model_give_the_model_back() -> None:
    batch, prompt, output = (
        g.ravel() for g in np.meshgrid([4.0, 16.0, 64.0], [256.0, 1024.0, 8192.0], [128.0, 1024.0])
    )
    tpot_s = (
        0.011
        + 2e-5 * batch
        + 9e-8 * batch * (prompt + output / 2)
        + 2.8e-5 * batch * prompt / output
    )  # the docstring's formula
    step, fit = fit_steady_states(
        SteadyStates(concurrency=batch, prompt_tokens=prompt, output_tokens=output, tpot_s=tpot_s)
    )
    assert step.decode_base_s == pytest.approx(0.011)
    assert step.decode_per_seq_s == pytest.approx(2e-5, rel=1e-6)
    assert step.decode_per_kv_token_s == pytest.approx(9e-8)
    assert step.prefill_per_token_s == pytest.approx(2.8e-5)
    assert fit.error_mean_ratio < 1e-9


def test_no_coefficient_is_negative_and_no_other_choice_of_terms_is_better() -> None:
    random = np.random.default_rng(4)
    terms = [np.ones(60), random.random(60), random.random(60)]
    # The third term's true coefficient is negative, so its best non-negative one is zero.
    measured = 2.0 + terms[1] - 0.8 * terms[2] + 0.05 * random.random(60)
    fit = fit_relative(terms, measured)
    assert min(fit.coefficients) == 0.0

    def loss(coefficients: tuple[float, ...]) -> float:
        predicted = sum(c * t for c, t in zip(coefficients, terms, strict=True))
        return float(np.sum((predicted / measured - 1.0) ** 2))

    for _ in range(200):
        other = tuple(max(0.0, c + random.normal(0, 0.1)) for c in fit.coefficients)
        assert loss(other) >= loss(fit.coefficients)


# Streams


def test_streams_depend_on_seed_name_and_index_alone() -> None:
    base = generator(1, "start_up", 3).random(4)
    np.testing.assert_array_equal(base, generator(1, "start_up", 3).random(4))
    others = [generator(2, "start_up", 3), generator(1, "crash", 3), generator(1, "start_up", 4)]
    for other in others:
        assert not np.any(base == other.random(4))
    assert word(1, "routing") != word(1, "other")
    assert 0 <= word(1, "routing") < 2**64


def test_a_stream_keeps_its_numbers_over_versions() -> None:
    # Recorded: numpy promises that PCG64 seeded by a SeedSequence gives these bits for ever, and
    # a change here would change every result of every scenario.
    assert generator(1, "start_up", 0).bit_generator.random_raw() == 17_046_716_726_524_395_323
