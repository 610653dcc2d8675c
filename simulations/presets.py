"""Replica models of common model, GPU and tensor-parallel combinations, fitted to measurements.

``python -m benchmarks.fit_presets`` prints every fitted coefficient anew.  ``error_mean_ratio`` is
the mean relative error of the fit on the rows it was fitted to; ``source`` says what those are and
what was derived instead of measured.  KV blocks are those of ``gpu_memory_utilization`` 0.9 after
weights and 3 GB a GPU for activations and graphs.
"""

from dataclasses import dataclass

from simulations.replica import ReplicaModel, StartUp, StepTime, constant, lognormal


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A replica model, where its step time comes from, and how well it fits there."""

    model: ReplicaModel
    source: str
    error_mean_ratio: float


def _kv_blocks(
    *, gpus: int, gpu_bytes: float, weights_bytes: float, bytes_per_token: int, block_size: int = 16
) -> int:
    free_bytes = gpus * (0.9 * gpu_bytes - 3.0e9) - weights_bytes
    return int(free_bytes / (bytes_per_token * block_size))


# Phases from published start-ups (medians; the p95 of twice the median is an assumption): an 8B
# model with weights and compile cache on a volume takes 18 s for weights, 30 s for compilation and
# graphs and 34 s for the engine (tensorfuse.io, L40S); a 70B one at TP8 70 s and more for weights
# and 145 s for compilation and graphs (vLLM blog); images are taken to be on the node.
SMALL_START_UP = StartUp(
    scheduling=constant(2.0),
    image=constant(0.0),
    weights=lognormal(18.0, 36.0),
    compile=lognormal(64.0, 128.0),
)
LARGE_START_UP = StartUp(
    scheduling=constant(2.0),
    image=constant(0.0),
    weights=lognormal(84.0, 168.0),
    compile=lognormal(145.0, 220.0),
)

PROFILE = (
    "per-layer kernel profiles of vLLM 0.19.0, bf16 (LLMServingSim); overhead from the first half"
    " of a recorded run on the RTX PRO 6000"
)
STEADY = "mean TPOT of vLLM at fixed concurrency (aiconfigurator)"
SPLITWISE = (
    "prefill and decode steps of Llama-2-70B, a 2023 engine (splitwise-sim); Llama-3.1-70B has the"
    " same layers, heads and hidden size"
)

_LLAMA_8B_PROFILE = StepTime(
    overhead_s=0.002,
    decode_base_s=0.0112,
    decode_per_seq_s=1.94e-5,
    decode_per_kv_token_s=8.75e-8,
    mixed_base_s=0.0110,
    mixed_per_seq_s=2.82e-5,
    mixed_per_kv_token_s=1.70e-7,
    prefill_per_token_s=2.83e-5,
    prefill_attention_s=2.47e-9,
)
_LLAMA_70B_H100_TP4 = StepTime(
    overhead_s=0.0,
    decode_base_s=0.0288,
    decode_per_seq_s=2.96e-4,
    decode_per_kv_token_s=9.75e-8,
    mixed_base_s=0.0288,
    mixed_per_seq_s=2.96e-4,
    mixed_per_kv_token_s=9.75e-8,
    prefill_per_token_s=8.53e-5,
    prefill_attention_s=7.26e-9,
)


def _steady(
    *, base_s: float, per_seq_s: float, per_kv_token_s: float, per_token_s: float
) -> StepTime:
    """Steady states do not tell decode terms of mixed steps from those of others."""
    return StepTime(
        overhead_s=0.0,
        decode_base_s=base_s,
        decode_per_seq_s=per_seq_s,
        decode_per_kv_token_s=per_kv_token_s,
        mixed_base_s=base_s,
        mixed_per_seq_s=per_seq_s,
        mixed_per_kv_token_s=per_kv_token_s,
        prefill_per_token_s=per_token_s,
        prefill_attention_s=0.0,
    )


_ALL = (
    Preset(
        model=ReplicaModel(
            name="llama-3.1-8b-rtx-pro-6000-tp1",
            step=_LLAMA_8B_PROFILE,
            kv_blocks=_kv_blocks(
                gpus=1, gpu_bytes=102.6e9, weights_bytes=16.1e9, bytes_per_token=131_072
            ),
            start_up=SMALL_START_UP,
        ),
        source=PROFILE,
        error_mean_ratio=0.109,  # decode-only steps 0.012
    ),
    Preset(
        model=ReplicaModel(
            name="llama-3.1-8b-rtx-4090-tp1",
            step=StepTime(
                overhead_s=0.002,
                decode_base_s=0.0169,
                decode_per_seq_s=4.23e-5,
                decode_per_kv_token_s=1.39e-7,
                mixed_base_s=0.0152,
                mixed_per_seq_s=8.07e-5,
                mixed_per_kv_token_s=3.21e-7,
                prefill_per_token_s=7.26e-5,
                prefill_attention_s=5.08e-9,
            ),
            kv_blocks=_kv_blocks(
                gpus=1, gpu_bytes=25.8e9, weights_bytes=16.1e9, bytes_per_token=131_072
            ),
            max_model_len=16_384,
            start_up=SMALL_START_UP,
        ),
        source=PROFILE,
        error_mean_ratio=0.113,  # decode-only steps 0.013
    ),
    Preset(
        model=ReplicaModel(
            name="llama-3.1-8b-h100-tp1",
            step=StepTime(
                overhead_s=0.0,
                decode_base_s=0.00575,
                decode_per_seq_s=6.0e-6,
                decode_per_kv_token_s=4.7e-8,
                mixed_base_s=0.00575,
                mixed_per_seq_s=6.0e-6,
                mixed_per_kv_token_s=4.7e-8,
                prefill_per_token_s=1.73e-5,
                prefill_attention_s=0.0,
            ),
            kv_blocks=_kv_blocks(
                gpus=1, gpu_bytes=80.0e9, weights_bytes=16.1e9, bytes_per_token=131_072
            ),
            start_up=SMALL_START_UP,
        ),
        source=(
            "coefficients published by inference-sim, which have no context term; that one is"
            " derived: the RTX PRO 6000's by memory bandwidth, 8.75e-8 s * 1.79 / 3.35 TB/s"
        ),
        error_mean_ratio=float("nan"),  # published without
    ),
    Preset(
        model=ReplicaModel(
            name="llama-3.1-70b-h100-tp4",
            step=_LLAMA_70B_H100_TP4,
            kv_blocks=_kv_blocks(
                gpus=4, gpu_bytes=80.0e9, weights_bytes=141.2e9, bytes_per_token=327_680
            ),
            gpus_per_replica=4,
            start_up=LARGE_START_UP,
        ),
        source=SPLITWISE,
        error_mean_ratio=0.104,  # decode 0.015, prefill 0.104
    ),
    Preset(
        model=ReplicaModel(
            name="llama-2-70b-a100-tp4",
            step=StepTime(
                overhead_s=0.0,
                decode_base_s=0.0437,
                decode_per_seq_s=1.01e-4,
                decode_per_kv_token_s=3.48e-7,
                mixed_base_s=0.0437,
                mixed_per_seq_s=1.01e-4,
                mixed_per_kv_token_s=3.48e-7,
                prefill_per_token_s=2.23e-4,
                prefill_attention_s=6.58e-9,
            ),
            kv_blocks=_kv_blocks(
                gpus=4, gpu_bytes=80.0e9, weights_bytes=138.0e9, bytes_per_token=327_680
            ),
            max_model_len=4096,
            gpus_per_replica=4,
            start_up=LARGE_START_UP,
        ),
        source=SPLITWISE,
        error_mean_ratio=0.125,  # decode 0.015, prefill 0.125
    ),
    Preset(
        model=ReplicaModel(
            name="qwen2.5-72b-h100-tp4",
            # 72.7 billion parameters for 70.6: terms that read or multiply weights grow by 1.030.
            step=StepTime(
                overhead_s=0.0,
                decode_base_s=0.0297,
                decode_per_seq_s=3.05e-4,
                decode_per_kv_token_s=9.75e-8,
                mixed_base_s=0.0297,
                mixed_per_seq_s=3.05e-4,
                mixed_per_kv_token_s=9.75e-8,
                prefill_per_token_s=8.79e-5,
                prefill_attention_s=7.26e-9,
            ),
            kv_blocks=_kv_blocks(
                gpus=4, gpu_bytes=80.0e9, weights_bytes=145.4e9, bytes_per_token=327_680
            ),
            max_model_len=32_768,
            gpus_per_replica=4,
            start_up=LARGE_START_UP,
        ),
        source="derived from llama-3.1-70b-h100-tp4 by parameters; same layers and KV heads",
        error_mean_ratio=float("nan"),  # nothing measured to compare with
    ),
    Preset(
        model=ReplicaModel(
            name="llama-3.1-70b-fp8-h100-tp2",
            step=_steady(
                base_s=0.0167, per_seq_s=4.90e-5, per_kv_token_s=5.44e-8, per_token_s=6.34e-5
            ),
            kv_blocks=_kv_blocks(
                gpus=2, gpu_bytes=80.0e9, weights_bytes=70.6e9, bytes_per_token=327_680
            ),
            gpus_per_replica=2,
            start_up=LARGE_START_UP,
        ),
        source=STEADY,
        error_mean_ratio=0.009,
    ),
    Preset(
        model=ReplicaModel(
            name="llama-3.1-70b-fp8-h100-tp8",
            step=_steady(
                base_s=0.00886, per_seq_s=6.24e-5, per_kv_token_s=1.14e-8, per_token_s=2.98e-5
            ),
            kv_blocks=_kv_blocks(
                gpus=8, gpu_bytes=80.0e9, weights_bytes=70.6e9, bytes_per_token=327_680
            ),
            gpus_per_replica=8,
            start_up=LARGE_START_UP,
        ),
        source=STEADY,
        error_mean_ratio=0.026,
    ),
    Preset(
        model=ReplicaModel(
            name="llama-3.1-70b-fp8-h200-tp4",
            step=_steady(
                base_s=0.00923, per_seq_s=4.41e-5, per_kv_token_s=2.15e-8, per_token_s=4.16e-5
            ),
            kv_blocks=_kv_blocks(
                gpus=4, gpu_bytes=141.0e9, weights_bytes=70.6e9, bytes_per_token=327_680
            ),
            gpus_per_replica=4,
            start_up=LARGE_START_UP,
        ),
        source=STEADY,
        error_mean_ratio=0.037,
    ),
    Preset(
        model=ReplicaModel(
            name="llama-3.1-70b-fp8-b200-tp1",
            step=_steady(
                base_s=0.0157, per_seq_s=1.99e-5, per_kv_token_s=2.24e-8, per_token_s=6.78e-5
            ),
            kv_blocks=_kv_blocks(
                gpus=1, gpu_bytes=180.0e9, weights_bytes=70.6e9, bytes_per_token=327_680
            ),
            start_up=LARGE_START_UP,
        ),
        source=STEADY,
        error_mean_ratio=0.011,
    ),
    Preset(
        model=ReplicaModel(
            name="qwen3-32b-h100-tp2",
            step=_steady(
                base_s=0.0139, per_seq_s=4.88e-5, per_kv_token_s=6.42e-8, per_token_s=4.73e-5
            ),
            kv_blocks=_kv_blocks(
                gpus=2, gpu_bytes=80.0e9, weights_bytes=65.6e9, bytes_per_token=262_144
            ),
            max_model_len=40_960,
            gpus_per_replica=2,
            start_up=LARGE_START_UP,
        ),
        source=STEADY,
        error_mean_ratio=0.028,
    ),
    Preset(
        model=ReplicaModel(
            name="qwen3-32b-h100-tp4",
            step=_steady(
                base_s=0.00912, per_seq_s=6.11e-5, per_kv_token_s=2.60e-8, per_token_s=2.89e-5
            ),
            kv_blocks=_kv_blocks(
                gpus=4, gpu_bytes=80.0e9, weights_bytes=65.6e9, bytes_per_token=262_144
            ),
            max_model_len=40_960,
            gpus_per_replica=4,
            start_up=LARGE_START_UP,
        ),
        source=STEADY,
        error_mean_ratio=0.020,
    ),
    Preset(
        model=ReplicaModel(
            name="gpt-oss-120b-h100-tp2",
            step=_steady(
                base_s=0.00452, per_seq_s=1.33e-4, per_kv_token_s=6.08e-9, per_token_s=2.15e-5
            ),
            # 36 layers, 8 KV heads of 64: 2 * 36 * 8 * 64 * 2 bytes; 65 GB of MXFP4 weights.
            kv_blocks=_kv_blocks(
                gpus=2, gpu_bytes=80.0e9, weights_bytes=65.0e9, bytes_per_token=73_728
            ),
            gpus_per_replica=2,
            start_up=LARGE_START_UP,
        ),
        source=STEADY,
        error_mean_ratio=0.041,
    ),
    Preset(
        model=ReplicaModel(
            name="llama-3-70b-h100-tp2",
            step=StepTime(
                overhead_s=0.0,
                decode_base_s=0.0283,
                decode_per_seq_s=1.02e-4,
                decode_per_kv_token_s=9.21e-8,
                mixed_base_s=0.0353,
                mixed_per_seq_s=1.02e-4,
                mixed_per_kv_token_s=9.21e-8,
                prefill_per_token_s=6.17e-5,
                prefill_attention_s=0.0,
            ),
            kv_blocks=2371,
            max_model_len=8192,
            gpus_per_replica=2,
            start_up=LARGE_START_UP,
        ),
        source=(
            "fitted through the simulator to five rates of a real vLLM deployment on H100"
            " (llm-d-benchmark), two replicas, of which one seems to serve at the highest rates;"
            " TP2 is inferred from 38,000 tokens of KV cache beside 16-bit weights"
        ),
        error_mean_ratio=0.03,  # of median TPOT on the rates that were not fitted
    ),
    Preset(
        model=ReplicaModel(
            name="qwen3-30b-a3b-rtx-pro-6000-ep2-rank",
            step=StepTime(
                overhead_s=0.0,
                decode_base_s=0.0252,
                decode_per_seq_s=1.41e-4,
                decode_per_kv_token_s=1.62e-8,
                mixed_base_s=0.0505,
                mixed_per_seq_s=1.41e-4,
                mixed_per_kv_token_s=1.62e-8,
                prefill_per_token_s=3.27e-5,
                prefill_attention_s=2.33e-9,
            ),
            # The experts are shared between the two ranks: about half of the 61 GB on each.
            kv_blocks=_kv_blocks(
                gpus=1, gpu_bytes=102.6e9, weights_bytes=32.0e9, bytes_per_token=98_304
            ),
            max_num_seqs=128,
            max_model_len=40_960,
            start_up=LARGE_START_UP,
        ),
        source=(
            "fitted through the simulator to the first half of a recorded run of two"
            " data-parallel ranks; one rank here, so that a deployment has two of them"
        ),
        error_mean_ratio=0.017,  # of end-to-end times on the second half
    ),
)

PRESETS = {preset.model.name: preset for preset in _ALL}
