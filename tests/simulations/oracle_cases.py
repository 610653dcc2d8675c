"""Small scenarios in which every schedule on a coarse grid can be tried."""

import itertools
from dataclasses import dataclass

import numpy as np

from simulations.attainable import Objectives
from simulations.oracle_replay import Deployment, Replay, Step, replay
from simulations.replica import ReplicaModel, StartUp, StepTime, constant
from simulations.trace_chunks import Requests

PERIOD_S = 60.0
HIGHEST = 3

MODEL = ReplicaModel(
    name="small",
    step=StepTime(
        overhead_s=0.0,
        decode_base_s=0.08,
        decode_per_seq_s=0.01,
        decode_per_kv_token_s=1e-6,
        mixed_base_s=0.08,
        mixed_per_seq_s=0.01,
        mixed_per_kv_token_s=1e-6,
        prefill_per_token_s=2e-4,
        prefill_attention_s=0.0,
    ),
    kv_blocks=2000,
    max_num_seqs=8,
    gpus_per_replica=2,
    start_up=StartUp(scheduling=constant(5.0), weights=constant(10.0), compile=constant(15.0)),
    drain_grace_s=60.0,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Arrivals by period, all requests alike but for what the seed draws."""

    rates_per_s: tuple[float, ...]
    seed: int

    @property
    def requests(self) -> Requests:
        random = np.random.default_rng(self.seed)
        arrivals = [
            np.sort(random.uniform(period * PERIOD_S, (period + 1) * PERIOD_S, round(rate * 60)))
            for period, rate in enumerate(self.rates_per_s)
        ]
        count = sum(each.size for each in arrivals)
        return Requests(
            arrival_s=np.concatenate(arrivals),
            prompt_tokens=random.integers(50, 800, count).astype(np.int32),
            output_tokens=random.integers(5, 60, count).astype(np.int32),
            tenant=np.zeros(count, dtype=np.int32),
        )

    @property
    def deployment(self) -> Deployment:
        return Deployment(
            model=MODEL,
            objectives=Objectives(ttft_s=1.0),
            replicas_first=1,
            replicas_max=HIGHEST,
            seed=self.seed,
        )


def every_schedule(case: Case) -> list[tuple[tuple[Step, ...], Replay]]:
    """The replays of all schedules that change at whole periods."""
    requests, deployment = case.requests, case.deployment
    tried = []
    for counts in itertools.product(range(1, HIGHEST + 1), repeat=len(case.rates_per_s)):
        schedule = tuple((period * PERIOD_S, count) for period, count in enumerate(counts))
        tried.append((schedule, replay(requests, deployment, schedule, block_s=PERIOD_S)))
    return tried


def optimum_gpu_hours(tried: list[tuple[tuple[Step, ...], Replay]], attainment: float) -> float:
    """The cheapest of them that attains it; infinity where none does."""
    reached = [each.gpu_hours for _, each in tried if each.attainment_ratio >= attainment - 1e-12]
    return min(reached, default=float("inf"))


CASE_DEPLOYMENT = Case(rates_per_s=(1.0,), seed=0).deployment
