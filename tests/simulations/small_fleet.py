"""A fleet whose every step takes 0.1 s, for tests that reckon by hand."""

from collections.abc import Sequence

from simulations.cluster import Fleet
from simulations.engine_layout import Records
from simulations.lifecycle import GpuPool, Phase
from simulations.replica import (
    ReplicaModel,
    StartUp,
    StepTime,
    constant,
)
from simulations.request_ring import RequestStatus

STEP = StepTime(
    overhead_s=0.0,
    decode_base_s=0.1,
    decode_per_seq_s=0.0,
    decode_per_kv_token_s=0.0,
    mixed_base_s=0.1,
    mixed_per_seq_s=0.0,
    mixed_per_kv_token_s=0.0,
    prefill_per_token_s=0.0,
    prefill_attention_s=0.0,
)  # every step takes 0.1 s, so a request of n output tokens takes n * 0.1 s


def model(**changes: object) -> ReplicaModel:
    start_up = StartUp(
        scheduling=constant(5.0),
        image=constant(20.0),
        weights=constant(30.0),
        compile=constant(45.0),
    )
    settings = {
        "name": "steady",
        "step": STEP,
        "kv_blocks": 1001,
        "max_num_seqs": 8,
        "gpus_per_replica": 4,
        "start_up": start_up,
        "drain_grace_s": 10.0,
    }
    return ReplicaModel(**{**settings, **changes})  # type: ignore[arg-type]


def fleet(warm: int = 0, gpus: GpuPool | None = None, **changes: object) -> Fleet:
    made = Fleet(model=model(**changes), seed=1, gpus=gpus, max_slots=2)
    made.start_warm(warm)
    return made


def phases(made: Fleet) -> list[Phase]:
    return [r.phase for r in made.replicas()]


def load(made: Fleet, at_s: Sequence[float], output: int = 10, prompt: int = 10) -> None:
    count = len(at_s)
    made.load(arrival_at_s=at_s, prompt_tokens=[prompt] * count, output_tokens=[output] * count)


def statuses(rows: Records) -> list[RequestStatus]:
    return [RequestStatus(row["status"]) for row in rows]
