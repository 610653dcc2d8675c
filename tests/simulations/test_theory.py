"""Where theory has an answer the engine gives it: queues, Little's law, conservation.

Confidence intervals are of batch means: a long run is cut into batches whose means are close to
independent, and the theoretical value must lie within 4 standard errors of their mean (one false
alarm in 16,000 for normal batches; the seeds are fixed, so it either passes or does not).
"""

import math

import numpy as np
import numpy.typing as npt
import pytest

from simulations.cluster import Fleet
from simulations.engine_layout import Records
from simulations.replica import ReplicaModel, Routing, StepTime
from simulations.request_ring import RequestStatus

Floats = npt.NDArray[np.float64]

BATCHES = 40


def single_server(*, seqs: int = 1, per_kv_token_s: float = 0.0) -> ReplicaModel:
    """A step is 10 ms whatever it does: n output tokens are a service time of n * 10 ms."""
    step = StepTime(
        overhead_s=0.0,
        decode_base_s=0.01,
        decode_per_seq_s=0.0,
        decode_per_kv_token_s=per_kv_token_s,
        mixed_base_s=0.01,
        mixed_per_seq_s=0.0,
        mixed_per_kv_token_s=per_kv_token_s,
        prefill_per_token_s=0.0,
        prefill_attention_s=0.0,
    )
    return ReplicaModel(
        name="server",
        step=step,
        kv_blocks=1_000_000,
        max_num_seqs=seqs,
        max_num_batched_tokens=4096,
    )


def run(
    model: ReplicaModel,
    *,
    arrivals_s: Floats,
    outputs: npt.NDArray[np.int64],
    replicas: int = 1,
    routing: Routing = Routing.LEAST_REQUESTS,
) -> tuple[Fleet, Records]:
    fleet = Fleet(model=model, seed=2, routing=routing)
    fleet.start_warm(replicas)
    fleet.load(
        arrival_at_s=arrivals_s, prompt_tokens=np.ones(arrivals_s.size), output_tokens=outputs
    )
    fleet.advance(1e9)
    return fleet, fleet.take_outcomes()


def poisson(rate_per_s: float, count: int, seed: int) -> Floats:
    return np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate_per_s, count))


def assert_mean(values: Floats, expected: float) -> None:
    """The mean agrees with theory within 4 standard errors of its batch means, to 5 % at least."""
    usable = values[values.size // 20 :]  # the start is not stationary
    batches = usable[: usable.size // BATCHES * BATCHES].reshape(BATCHES, -1).mean(axis=1)
    error = batches.std(ddof=1) / math.sqrt(BATCHES)
    assert error < 0.05 * expected, "the run is too short to say anything"
    assert abs(batches.mean() - expected) < 4.0 * error


def test_m_d_1() -> None:
    """Constant service D: mean wait = rho * D / (2 (1 - rho)) (Pollaczek 1930, Khinchine 1932)."""
    service_s, load = 0.5, 0.8
    arrivals_s = poisson(load / service_s, 200_000, seed=1)
    _, rows = run(
        single_server(), arrivals_s=arrivals_s, outputs=np.full(200_000, 50)
    )  # 50 tokens of 10 ms
    wait_s = rows["scheduled_at_s"] - rows["arrival_at_s"]
    assert_mean(wait_s, load * service_s / (2.0 * (1.0 - load)))


def test_m_g_1() -> None:
    """Geometric service: mean wait = lambda E[S^2] / (2 (1 - rho)) (Pollaczek-Khinchine)."""
    random = np.random.default_rng(3)
    outputs = random.geometric(1.0 / 50.0, 300_000)
    # E[N] = 50, E[N^2] = (2 - p) / p^2 = 4950 for p = 1/50; times 10 ms squared.
    second_moment = 4950.0 * 0.01**2
    rate_per_s = 1.4  # rho = 1.4 * 0.5 = 0.7
    _, rows = run(single_server(), arrivals_s=poisson(rate_per_s, 300_000, seed=4), outputs=outputs)
    wait_s = rows["scheduled_at_s"] - rows["arrival_at_s"]
    assert_mean(wait_s, rate_per_s * second_moment / (2.0 * (1.0 - 0.7)))


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival waits in M/M/c (Erlang 1917)."""
    terms = [offered**n / math.factorial(n) for n in range(servers)]
    last = offered**servers / math.factorial(servers) / (1.0 - offered / servers)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.8), (8, 0.9)])
def test_m_m_c_within_one_replica(servers: int, load: float) -> None:
    """``max_num_seqs`` sequences in constant steps are c servers: the wait is Erlang's C formula.

    Lengths are geometric, the discrete exponential.  Admission happens at step ends only, so a
    request waits for the rest of the step under way (half of one on average while the replica is
    busy) and frees its place up to a step late; with 1,000 steps a service that is 0.1 % of it.
    """
    mean_tokens = 1000.0
    service_s = mean_tokens * 0.01
    random = np.random.default_rng(5)
    count = 400_000
    outputs = random.geometric(1.0 / mean_tokens, count)
    rate_per_s = load * servers / service_s
    _, rows = run(
        single_server(seqs=servers), arrivals_s=poisson(rate_per_s, count, seed=6), outputs=outputs
    )
    wait_s = rows["scheduled_at_s"] - rows["arrival_at_s"]
    expected = erlang_c(servers, load * servers) * service_s / (servers * (1.0 - load))
    assert_mean(wait_s - 0.005, expected)


def test_random_routing_makes_independent_queues() -> None:
    """Poisson arrivals split at random are Poisson: each of four replicas is an M/D/1 queue."""
    service_s, load = 0.5, 0.7
    arrivals_s = poisson(4 * load / service_s, 400_000, seed=7)
    _, rows = run(
        single_server(),
        arrivals_s=arrivals_s,
        outputs=np.full(400_000, 50),
        replicas=4,
        routing=Routing.RANDOM,
    )
    wait_s = rows["scheduled_at_s"] - rows["arrival_at_s"]
    assert_mean(wait_s, load * service_s / (2.0 * (1.0 - load)))
    shares = np.bincount(rows["replica_uid"]) / rows.size
    np.testing.assert_allclose(shares, 0.25, atol=4 * math.sqrt(0.25 * 0.75 / 400_000))


def test_least_requests_is_better_than_random() -> None:
    """Joining the shortest queue of c is between c queues of their own and one queue of c."""
    service_s, load, servers = 0.5, 0.9, 4
    arrivals_s = poisson(servers * load / service_s, 200_000, seed=8)
    _, rows = run(
        single_server(), arrivals_s=arrivals_s, outputs=np.full(200_000, 50), replicas=servers
    )
    wait_s = float(np.mean(rows["scheduled_at_s"] - rows["arrival_at_s"]))
    own_queues_s = load * service_s / (2.0 * (1.0 - load))
    # M/D/c waits about half as long as M/M/c (Lee and Longton 1959); a tenth less for the noise.
    one_queue_s = erlang_c(servers, load * servers) * service_s / (servers * (1.0 - load)) / 2.0
    assert 0.9 * one_queue_s < wait_s < 0.6 * own_queues_s


def test_littles_law_on_a_loaded_replica() -> None:
    """L = lambda * W (Little 1961), L integrated from what the gauges show every tick."""
    model = single_server(seqs=64, per_kv_token_s=2e-6)
    random = np.random.default_rng(9)
    count = 30_000
    arrivals_s = poisson(5.0, count, seed=10)
    fleet = Fleet(model=model, seed=2)
    fleet.start_warm(1)
    fleet.load(
        arrival_at_s=arrivals_s,
        prompt_tokens=random.integers(1, 400, count),
        output_tokens=random.integers(1, 300, count),
    )
    seen = []
    for tick in range(1, int(arrivals_s[-1])):
        fleet.advance(float(tick))
        values = fleet.counters().values
        seen.append(int(values["requests_running"][0] + values["requests_waiting"][0]))
    fleet.advance(1e9)
    rows = fleet.take_outcomes()
    residence_s = float(np.mean(rows["finished_at_s"] - rows["arrival_at_s"]))
    expected = 5.0 * residence_s
    # The gauges are up to one step (some 20 ms of 3 s) old: under one per cent.
    assert_mean(np.array(seen, dtype=np.float64), expected)


def test_requests_and_tokens_are_conserved_under_preemption() -> None:
    """Every request ends once, with the tokens it asked for, however often it was preempted."""
    random = np.random.default_rng(11)
    count = 20_000
    model = ReplicaModel(
        name="tight", step=single_server().step, kv_blocks=200, max_num_seqs=64,
        max_num_batched_tokens=512, scheduler_reserve_full_isl=False,
    )  # fmt: skip
    prompts, outputs = random.integers(1, 600, count), random.integers(1, 400, count)
    fleet = Fleet(model=model, seed=2)
    fleet.start_warm(3)
    fleet.load(
        arrival_at_s=poisson(8.0, count, seed=12), prompt_tokens=prompts, output_tokens=outputs
    )
    fleet.advance(1e9)
    rows = fleet.take_outcomes()
    values = fleet.counters().values
    assert values["preemptions"].sum() > 1000
    assert np.all(rows["status"] == RequestStatus.COMPLETED)
    assert values["finished_stop"].sum() == count
    assert values["generation_tokens"].sum() == outputs.sum()
    assert values["prompt_tokens"].sum() == prompts.sum()
    assert values["finished_prompt_tokens"].sum() == prompts.sum()
    # A preempted request is computed again: at least once each, more than that in all.
    assert values["prefill_tokens_computed"].sum() > prompts.sum()
    assert values["preemptions"].sum() == rows["preemptions"].sum()
    assert np.all(values["requests_running"] == 0)
    assert np.all(values["blocks_used"] == 0)
    seen = fleet.counters()
    assert seen.ttft_buckets.sum() == count
    assert seen.itl_buckets.sum() == outputs.sum() - count
    assert seen.e2e_buckets.sum() == seen.queue_buckets.sum() == count
    assert seen.iteration_buckets.sum() == values["iterations"].sum()


def test_times_of_a_request_are_in_order_and_looking_changes_nothing() -> None:
    random = np.random.default_rng(13)
    count = 3000
    load = {
        "arrival_at_s": poisson(20.0, count, seed=14),
        "prompt_tokens": random.integers(1, 3000, count),
        "output_tokens": random.integers(1, 200, count),
    }
    runs = []
    for ticks_s in (1e9, 0.37):
        fleet = Fleet(model=single_server(seqs=16, per_kv_token_s=1e-7), seed=2)
        fleet.start_warm(2)
        fleet.load(**load)
        while not fleet.idle:
            fleet.advance(fleet.now_s + ticks_s)
        runs.append(fleet.take_outcomes())
    assert runs[0].tobytes() == runs[1].tobytes()
    rows = runs[0]
    moments = ("arrival_at_s", "routed_at_s", "scheduled_at_s", "first_token_at_s", "finished_at_s")
    times = np.column_stack([rows[m] for m in moments])
    assert np.all(np.diff(times, axis=1) >= 0.0)
