"""What one decision costs: decide() for a target with all signals, and 1,000 targets in one tick.

python -m benchmarks.decide [--rounds 20000]
"""

import argparse
import json
import time

from scaler.core.config import CapacityConfig, PolicyConfig
from scaler.core.model import (
    Gpu,
    KvCache,
    Latency,
    Observation,
    Queue,
    Replicas,
    Work,
)
from scaler.core.policy import PolicyState, decide

TICK_S = 15.0
BOUNDS_S = (0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
TARGETS = 1000
READY = 10
KV_TOKENS = 400_000.0
PROMPT, OUTPUT = 1000.0, 200.0  # tokens of a request
SLOWER = 1.3  # its steps than the prior's: what there is to learn


def observation(at_s: float, place: int) -> Observation:
    """A busy target of ten replicas whose load moves a little from tick to tick.

    As engines do that have work, they step without a pause: the time that tokens leave is overhead.
    """
    rate = 40.0 + place % 7
    output_tokens, prompt_tokens = rate * TICK_S * OUTPUT, rate * TICK_S * PROMPT
    prior, context = CapacityConfig(), PROMPT + 0.5 * OUTPUT
    decode_s = prior.per_sequence_s + prior.per_kv_token_s * context
    tokens_s = output_tokens * decode_s + prompt_tokens * prior.per_prefill_token_s
    steps = (READY * TICK_S / SLOWER - tokens_s) / prior.overhead_s
    running = READY * output_tokens / steps
    usage = running * context / (READY * KV_TOKENS)
    counts = (rate * 30.0, rate * 20.0, rate * 5.0, rate, *(0.0,) * 9)
    latency = Latency(
        seen_at_s=at_s, coverage_ratio=1.0, window_s=60.0, bounds_s=BOUNDS_S, counts=counts
    )
    return Observation(
        seen_at_s=at_s,
        replicas=Replicas(
            seen_at_s=at_s, wanted=READY, current=READY, ready=READY, replicas_max=64
        ),
        queue=Queue(
            seen_at_s=at_s, coverage_ratio=1.0, requests_running=running, requests_waiting=1.0
        ),
        kv_cache=KvCache(
            seen_at_s=at_s, coverage_ratio=1.0, usage_mean_ratio=usage, usage_max_ratio=1.5 * usage,
            capacity_tokens=KV_TOKENS,
        ),
        ttft=latency,
        itl=latency,
        work=Work(
            seen_at_s=at_s, coverage_ratio=1.0, interval_s=TICK_S, replica_s=READY * TICK_S,
            requests_arrived=rate * TICK_S, requests_finished=rate * TICK_S,
            requests_rejected=0.0, prompt_tokens=prompt_tokens, cached_tokens=0.0,
            output_tokens=output_tokens, preemptions=0.0, engine_steps=steps,
            finished_prompt_tokens=prompt_tokens,
            finished_output_tokens=output_tokens,
        ),
        gpu=Gpu(
            seen_at_s=at_s, coverage_ratio=1.0, utilisation_mean_ratio=0.9,
            utilisation_max_ratio=1.0,
        ),
    )  # fmt: skip


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    given = parser.parse_args()
    config = PolicyConfig()
    seen = [observation(place * TICK_S, place) for place in range(given.rounds)]
    state = PolicyState()
    took_s = []
    for place, one in enumerate(seen):
        began_s = time.perf_counter()
        _, state = decide(one, state, config, place * TICK_S)
        took_s.append(time.perf_counter() - began_s)
    ordered = sorted(took_s[1000:])  # the first fill the forecast's memory
    states = [state] * TARGETS
    last_s = given.rounds * TICK_S
    ready = [observation(last_s, place) for place in range(TARGETS)]
    began_s = time.perf_counter()
    for place, one in enumerate(ready):
        _, states[place] = decide(one, states[place], config, last_s)
    print(
        json.dumps(
            {
                "decide_p50_us": round(ordered[len(ordered) // 2] * 1e6, 1),
                "decide_p99_us": round(ordered[int(len(ordered) * 0.99)] * 1e6, 1),
                "thousand_targets_s": round(time.perf_counter() - began_s, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
