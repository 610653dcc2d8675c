"""The learned capacity against the truth: what it believes of a fleet whose limits are measured.

    python -m benchmarks.capacity                 # the table of BENCHMARKS.md
    python -m benchmarks.capacity --replicas 1,4,16 --ttft 0.5 --model llama-3.1-8b-h100-tp1

The truth is the largest rate of Poisson arrivals at which a fleet of a fixed size attains 99 % of
what an idle replica attains, by bisection in the simulator, with prompts and outputs drawn in pairs
from a trace.  The learner sees what the daemon would see of the same fleet, every 15 s, and is told
nothing: its prior is that of the shipped settings, or wrong by a factor that is asked for.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks.perf_data import DATA
from scaler.core.capacity import CapacityState, capacity_of, carried, update_capacity
from scaler.core.config import CapacityConfig, DemandConfig, PolicyConfig, SloConfig
from scaler.core.demand import DemandState, demand_of, update_demand
from simulations.cluster import Fleet
from simulations.gpu_exporter import GpuExporter
from simulations.lifecycle import Phase
from simulations.observe import Observer
from simulations.presets import PRESETS
from simulations.replica import PrefixCache, ReplicaModel
from simulations.trace_chunks import Floats, Ints
from simulations.traces import read_trace

ATTAINED = 0.99
TICK_S = 15.0
PRECISION = 1.01
PROBE_S = 600.0  # of arrivals, or as many requests as this:
PROBE_REQUESTS = 200_000
TRACES = {
    "azure": "azure-2023-conv",
    "tenants": "servegen-tenants-48h",
    "large": "servegen-large-48h",
    "mooncake": "mooncake-conversation",
}
HIT_RATIO = {"mooncake": 0.5}  # of its prompts, so that the prefix cache has a part
MODELS = ("llama-3.1-70b-h100-tp4", "llama-3.1-8b-h100-tp1", "gpt-oss-120b-h100-tp2")
LENGTHS = 300_000  # rows of a trace that make the mix


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Lengths to draw from, in pairs."""

    prompt: Ints
    output: Ints

    def draw(self, count: int, model: ReplicaModel, seed: int) -> tuple[Ints, Ints]:
        """``count`` pairs that ``model`` can serve."""
        picked = np.random.default_rng(seed).integers(self.prompt.size, size=count)
        output = self.output[picked]
        longest = min(model.max_model_len, model.kv_capacity_tokens) - output - 8
        return np.minimum(self.prompt[picked], longest), output


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """A time of steady load: requests per second on each replica."""

    seconds: float
    mix: Mix
    per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What the learner holds at one time, in requests per second of one replica."""

    at_s: float
    per_s: float
    low_per_s: float
    high_per_s: float
    state: CapacityState


Hurt = Callable[[Fleet, float], None]


def trace_mix(name: str) -> Mix:
    """The lengths of a trace.  Raises ScenarioError where it is missing."""
    prompts, outputs, rows = [], [], 0
    for chunk in read_trace(DATA / "traces" / f"{TRACES[name]}.csv.gz"):
        prompts.append(chunk.prompt_tokens)
        outputs.append(chunk.output_tokens)
        rows += len(chunk)
        if rows > LENGTHS:
            break
    return Mix(prompt=np.concatenate(prompts), output=np.concatenate(outputs))


def lognormal_mix(*, prompt: float, output: float, sigma: float = 0.9, seed: int = 1) -> Mix:
    """Lognormal lengths with about these means, none above four times its mean (as Azure's are)."""
    random = np.random.default_rng(seed)
    shape = np.minimum(np.exp(random.standard_normal((2, 50_000)) * sigma), 4.0)
    lengths = shape / shape.mean(axis=1, keepdims=True) * [[prompt], [output]]
    whole = np.maximum(lengths, 1.0).astype(np.int32)
    return Mix(prompt=whole[0], output=whole[1])


def true_per_s(model: ReplicaModel, mix: Mix, *, replicas: int, ttft_s: float) -> float:
    """Requests per second that each of ``replicas`` carries within the objective."""
    idle = _attained(model, mix, 0.002 / _busy_s(model, mix), replicas=1, ttft_s=ttft_s)
    least = ATTAINED * idle
    high = 1.4 / _busy_s(model, mix)
    low = 0.01 * high
    while high / low > PRECISION:
        middle = math.sqrt(low * high) if high / low > 2.0 else 0.5 * (low + high)
        if _attained(model, mix, middle, replicas=replicas, ttft_s=ttft_s) >= least:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _busy_s(model: ReplicaModel, mix: Mix) -> float:
    """Replica time of a request beside the overhead: no replica carries more than one over it."""
    step, prompt, output = model.step, mix.prompt.astype(float), mix.output.astype(float)
    computed = prompt * (1.0 - model.prefix_cache.hit_ratio)
    decode = output * (step.decode_per_seq_s + (prompt + 0.5 * output) * step.decode_per_kv_token_s)
    return float((computed * step.prefill_per_token_s + decode).mean())


def _attained(
    model: ReplicaModel, mix: Mix, per_s: float, *, replicas: int, ttft_s: float
) -> float:
    """Share within the objective once the fleet has filled: always with the same random numbers."""
    count = min(max(20_000, int(PROBE_S * per_s * replicas)), PROBE_REQUESTS)
    prompt, output = mix.draw(count, model, seed=5)
    arrival_s = np.cumsum(np.random.default_rng(6).exponential(size=count)) / (per_s * replicas)
    fleet = Fleet(model=model, seed=1, max_slots=max(replicas, 2))
    fleet.start_warm(replicas)
    fleet.load(arrival_at_s=arrival_s, prompt_tokens=prompt, output_tokens=output)
    fleet.advance(float(arrival_s[-1]))
    ended = fleet.all_outcomes()
    judged = ended["arrival_at_s"] < arrival_s[-1] - 2.0 * ttft_s
    judged[: count // 6] = False
    waited_s = (ended["first_token_at_s"] - ended["arrival_at_s"])[judged]
    return float((waited_s <= ttft_s).mean())  # a first token that never came compares false


def prior_of(model: ReplicaModel, factors: Sequence[float]) -> CapacityConfig:
    """The replica's own decode terms and prefill, each wrong by its factor."""
    step = model.step
    overhead, sequence, context, prompt = factors
    return CapacityConfig(
        overhead_s=(step.overhead_s + step.decode_base_s) * overhead,
        per_sequence_s=step.decode_per_seq_s * sequence,
        per_kv_token_s=step.decode_per_kv_token_s * context,
        per_prefill_token_s=step.prefill_per_token_s * prompt,
    )


def learn_from(
    model: ReplicaModel,
    phases: Sequence[Spell],
    *,
    replicas: int,
    config: CapacityConfig,
    ttft_s: float = 2.0,
    demand: DemandConfig | None = None,
    hurt: Hurt | None = None,
    seed: int = 3,
) -> list[Belief]:
    """Run ``phases`` on a fleet and let the learner watch; ``hurt`` may harm it at every tick."""
    policy = PolicyConfig(
        capacity=config, slo=SloConfig(ttft_s=ttft_s), demand=demand or DemandConfig()
    )
    fleet = Fleet(model=model, seed=1, max_slots=max(replicas, 2))
    fleet.start_warm(replicas)
    _load(fleet, model, phases, replicas=replicas, seed=seed)
    observer, exporter = Observer(model, policy.freshness), GpuExporter()
    state, known, seen_s = CapacityState(), DemandState(), 0.0
    beliefs = []
    for at_s in np.arange(TICK_S, sum(phase.seconds for phase in phases), TICK_S).tolist():
        if hurt is not None:
            hurt(fleet, fleet.now_s)
        fleet.advance(at_s - 4.0)
        if round(at_s / TICK_S) % 2:
            exporter.collect(fleet.counters())
        observer.scrape(fleet.counters(), exporter.ratio)
        fleet.advance(at_s)
        status = fleet.replica_status(at_s, since_s=seen_s)
        seen_s = at_s
        ready = [view.uid for view in fleet.replicas() if view.phase is Phase.READY]
        observation = observer.observe(status, ready, at_s)
        known = update_demand(observation, known, policy.demand)
        state = update_capacity(observation, state, config, ttft_s=ttft_s)
        made = capacity_of(demand_of(observation, known, policy.demand), state, policy)
        per_s = carried(replicas, made, config) / replicas / made.request_cost_s
        beliefs.append(
            Belief(
                at_s=at_s,
                per_s=per_s,
                low_per_s=per_s * made.request_cost_s / made.request_cost_high_s,
                high_per_s=per_s * made.request_cost_s / made.request_cost_low_s,
                state=state,
            )
        )
    return beliefs


def _load(
    fleet: Fleet, model: ReplicaModel, phases: Sequence[Spell], *, replicas: int, seed: int
) -> None:
    """All arrivals of the phases."""
    random = np.random.default_rng(seed)
    began_s = 0.0
    for place, phase in enumerate(phases):
        count = int(random.poisson(phase.per_s * replicas * phase.seconds))
        prompt, output = phase.mix.draw(count, model, seed + place)
        arrival_s: Floats = np.sort(random.uniform(began_s, began_s + phase.seconds, count))
        fleet.load(arrival_at_s=arrival_s, prompt_tokens=prompt, output_tokens=output)
        began_s += phase.seconds


def at(beliefs: Sequence[Belief], at_s: float) -> Belief:
    """The belief nearest to ``at_s``."""
    return min(beliefs, key=lambda belief: abs(belief.at_s - at_s))


PRIORS = {
    "3x dear": (3.0, 3.0, 3.0, 3.0),
    "3x cheap": (1 / 3, 1 / 3, 1 / 3, 1 / 3),
    "3x crossed": (3.0, 1 / 3, 3.0, 1 / 3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    model: str
    mix: str
    replicas: int
    ttft_s: float
    share: float
    prior: str


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Every combination that is asked for; ``shipped`` is the settings' own prior."""
    for model in arguments.model:
        for mix in arguments.mix:
            for ttft_s in arguments.ttft:
                for replicas in arguments.replicas:
                    for share in arguments.share:
                        for prior in ("shipped", *PRIORS):
                            yield Case(
                                model=model, mix=mix, replicas=replicas, ttft_s=ttft_s,
                                share=share, prior=prior,
                            )  # fmt: skip


def row(case: Case) -> str:
    """Truth, and what is believed after ten minutes and an hour with its interval."""
    model, mix = _model(case.model, case.mix), _mix(case.mix)
    truth = _truth(case.model, case.mix, case.replicas, case.ttft_s)
    config = CapacityConfig() if case.prior == "shipped" else prior_of(model, PRIORS[case.prior])
    load = Spell(seconds=3600.0, mix=mix, per_s=case.share * truth)
    beliefs = learn_from(model, [load], replicas=case.replicas, config=config, ttft_s=case.ttft_s)
    cells = [case.model, case.mix, str(case.replicas), f"{case.ttft_s:g}", f"{case.share:.0%}",
             case.prior, f"{truth:.2f}"]  # fmt: skip
    for belief in (at(beliefs, 600.0), beliefs[-1]):
        cells.append(f"{belief.per_s / truth:.2f}")
        cells.append(f"{belief.low_per_s / truth:.2f} to {belief.high_per_s / truth:.2f}")
    return "| " + " | ".join(cells) + " |"


def _model(name: str, mix: str) -> ReplicaModel:
    cached = PrefixCache(hit_ratio=HIT_RATIO.get(mix, 0.0))
    return dataclasses.replace(PRESETS[name].model, prefix_cache=cached)


@cache
def _mix(name: str) -> Mix:
    return trace_mix(name)


@cache
def _truth(model: str, mix: str, replicas: int, ttft_s: float) -> float:
    return true_per_s(_model(model, mix), _mix(mix), replicas=replicas, ttft_s=ttft_s)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=list(MODELS), type=_words)
    parser.add_argument("--mix", default=["azure", "tenants", "large"], type=_words)
    parser.add_argument("--ttft", default=[0.5, 2.0, 5.0], type=_numbers)
    parser.add_argument("--share", default=[0.8, 0.1], type=_numbers)
    parser.add_argument("--replicas", default=[1, 4, 16], type=_counts)
    print(
        "| model | mix | n | TTFT | load | prior | truth/s | 10 min | interval | 1 h | interval |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case in cases(parser.parse_args()):
        print(row(case), flush=True)


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
