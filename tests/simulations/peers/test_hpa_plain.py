"""Triggers as people write them, with the HPA's arithmetic done by hand."""

import pytest

from scaler.core.hpa import Version
from simulations.peers.hpa_plain import (
    OPERATOR_BEHAVIOR,
    SEED_HPA_BEHAVIOR,
    SEED_KEDA_BEHAVIOR,
    gpu_law,
    inference_scaler_law,
    operator_law,
    queue_kv_law,
    queue_law,
    running_law,
    seed_keda_corrected,
    seed_keda_shipped,
    waiting_pods_law,
)
from simulations.scrape_history import ScrapeHistory
from tests.simulations.scrapes import history, proposal, replicas, scrape, seen

KEDA = Version(2, 20, 2)


def _pages(count: int, **total: float) -> ScrapeHistory:
    """The totals on the first replica, the others idle."""
    return history(scrape(0.0, {uid: total if uid == 0 else {} for uid in range(count)}))


@pytest.mark.parametrize(
    ("waiting", "current", "replicas_wanted"),
    [
        (12, 2, 3),  # ceil(12 / 5)
        (11, 2, 2),  # 1.1: the edge of the tolerance
        (11, 1, 3),
        (10, 2, 2),  # at the target
        (9, 2, 2),  # 0.9: the edge of the tolerance
        (54, 10, 10),  # 1.08
        (56, 10, 12),  # 1.12: ceil(11.2)
        (1, 3, 1),  # ceil(0.2)
        (0, 3, 0),  # an empty queue asks for none; the HPA's minimum is 1
    ],
)
def test_keda_queue(waiting: int, current: int, replicas_wanted: int) -> None:
    of = replicas(current)
    metrics = queue_law(
        seen(of, _pages(current, requests_waiting=waiting)), threshold=5.0, keda=KEDA
    )
    assert proposal(metrics, of) == replicas_wanted


def test_no_series_is_an_empty_queue() -> None:
    """KEDA's ignoreNullValues: a query without a result is 0, and scales down."""
    of = replicas(4)
    metrics = queue_law(seen(of, history(scrape(0.0, {}))), threshold=5.0, keda=KEDA)
    assert proposal(metrics, of) == 0


@pytest.mark.parametrize(
    ("waiting", "blocks", "wanted"),
    [
        (0, (90, 90), 3),  # ceil(1.8 / 0.8) by the cache
        (16, (90, 90), 4),  # ceil(16 / 5) by the queue
        (0, (10, 20), 1),  # ceil(0.3 / 0.8)
        (0, (80, 70), 2),  # 1.5 / 1.6 = 0.94: held
    ],
)
def test_keda_queue_kv_takes_the_larger(waiting: int, blocks: tuple[int, int], wanted: int) -> None:
    pages = {0: {"requests_waiting": waiting, "blocks_used": blocks[0]}}
    pages[1] = {"blocks_used": blocks[1]}
    of = replicas(2)
    metrics = queue_kv_law(
        seen(of, history(scrape(0.0, pages))), waiting_target=5.0, kv_target_ratio=0.8, keda=KEDA
    )
    assert proposal(metrics, of) == wanted


def _gpus(*ratios: float) -> ScrapeHistory:
    past = ScrapeHistory()
    past.add(scrape(0.0, {uid: {} for uid in range(len(ratios))}), dict(enumerate(ratios)))
    return past


@pytest.mark.parametrize(
    ("ratios", "current", "wanted"),
    [
        ((1.0, 1.0), 2, 3),  # 1 / 0.7 * 2 = 2.86
        ((0.75, 0.72), 2, 2),  # 1.05: held
        ((0.2, 0.2), 2, 1),  # 0.57
        ((1.0, 1.0), 4, 4),  # two load their model: 2 / 4 = 0.5 turns, held
    ],
)
def test_hpa_gpu_util(ratios: tuple[float, ...], current: int, wanted: int) -> None:
    of = replicas(current, ready=len(ratios))
    assert proposal(gpu_law(seen(of, _gpus(*ratios)), target_ratio=0.7), of) == wanted


def test_a_pod_that_is_gone_since_the_scrape_does_not_count() -> None:
    of = replicas(1)
    # The mean of both is 0.6: 1; of the one that is left 0.2 / 0.7 = 0.29: 1; by 2 it would be 2.
    assert proposal(gpu_law(seen(of, _gpus(0.2, 1.0)), target_ratio=0.2), of) == 1


@pytest.mark.parametrize(("running", "wanted"), [(36, 3), (35, 2), (32, 2), (30, 2), (16, 1)])
def test_running_requests(running: int, wanted: int) -> None:
    of = replicas(2)
    metrics = running_law(seen(of, _pages(2, requests_running=running)), threshold=16.0, keda=KEDA)
    assert proposal(metrics, of) == wanted


@pytest.mark.parametrize(
    ("running", "generated", "prompt", "wanted"),
    [
        (12, 0, 0, 3),  # ceil(12 / 5)
        (1, 350 * 60, 0, 4),  # 350 tokens/s
        (1, 0, 1250 * 60, 13),
        (1, 0, 0, 1),
    ],
)
def test_the_operators_three_triggers(
    running: int, generated: int, prompt: int, wanted: int
) -> None:
    """Rates over a minute whose counters begin at a high number, so that it is stretched whole."""
    base = {"generation_tokens": 1e9, "prompt_tokens": 1e9}
    grown = {"generation_tokens": 1e9 + generated * 0.75, "prompt_tokens": 1e9 + prompt * 0.75}
    past = history(
        scrape(10.0, {0: base}), scrape(25.0, {0: base}), scrape(40.0, {0: base}),
        scrape(55.0, {0: {**grown, "requests_running": running}}),
    )  # fmt: skip
    of = replicas(2)
    metrics = operator_law(seen(of, past, now_s=60.0), threshold=5.0, keda=KEDA)
    assert proposal(metrics, of) == wanted


@pytest.mark.parametrize("current", [1, 2, 4, 8])
def test_keda_inference_scaler_as_shipped_never_asks_for_more_than_two_by_its_cache(
    current: int,
) -> None:
    of = replicas(current)
    past = history(scrape(0.0, {uid: {"blocks_used": 100} for uid in range(current)}))
    metrics = inference_scaler_law(seen(of, past), waiting_target=3.0, per_replica=False, keda=KEDA)
    assert proposal(metrics, of) == 2  # ceil(1 / 0.7)
    metrics = inference_scaler_law(seen(of, past), waiting_target=3.0, per_replica=True, keda=KEDA)
    assert proposal(metrics, of) == -(-current * 10 // 7)  # ceil(current / 0.7)


def test_keda_inference_scaler_by_its_queue() -> None:
    of = replicas(2)
    past = _pages(2, requests_waiting=10)
    metrics = inference_scaler_law(seen(of, past), waiting_target=3.0, per_replica=False, keda=KEDA)
    assert proposal(metrics, of) == 4  # ceil(10 / 3)
    nobody = history(scrape(0.0, {}))
    metrics = inference_scaler_law(
        seen(of, nobody), waiting_target=3.0, per_replica=True, keda=KEDA
    )
    assert proposal(metrics, of) == 0


@pytest.mark.parametrize("current", [1, 2, 4, 8])
def test_seed_keda_as_shipped_asks_for_two_at_most(current: int) -> None:
    """Full GPUs and any number of requests: avg 100 / (80 n), so ceil(100 / 80) = 2."""
    of = replicas(current)
    past = ScrapeHistory()
    past.add(
        scrape(0.0, {uid: {"requests_running": 256} for uid in range(current)}),
        dict.fromkeys(range(current), 1.0),
    )
    assert proposal(seed_keda_shipped(seen(of, past), keda=KEDA), of) == 2


@pytest.mark.parametrize(
    ("running", "busy", "wanted"),
    [
        (600, 0.0, 5),  # ceil(600 / 128)
        (10, 1.0, 5),  # ceil(400 / 80)
        (10, 0.1, 1),  # ceil(40 / 80)
        (500, 0.8, 4),  # 0.98 and 1.0: held
    ],
)
def test_seed_keda_corrected_sums(running: int, busy: float, wanted: int) -> None:
    of = replicas(4)
    past = ScrapeHistory()
    pages = {0: {"requests_running": running}, 1: {}, 2: {}, 3: {}}
    past.add(scrape(0.0, pages), dict.fromkeys(range(4), busy))
    assert proposal(seed_keda_corrected(seen(of, past), threshold=128.0, keda=KEDA), of) == wanted


@pytest.mark.parametrize(
    ("waiting", "wanted"),
    [((20, 14), 4), ((11, 10), 2), ((3, 2), 1), ((0, 0), 0)],  # 17 / 10 * 2 = 3.4
)
def test_seed_hpa(waiting: tuple[int, int], wanted: int) -> None:
    of = replicas(2)
    past = history(scrape(0.0, {uid: {"requests_waiting": n} for uid, n in enumerate(waiting)}))
    assert proposal(waiting_pods_law(seen(of, past), target=10.0), of) == wanted


def test_behaviours_are_those_of_the_files() -> None:
    assert OPERATOR_BEHAVIOR is not None
    assert SEED_KEDA_BEHAVIOR is not None
    assert SEED_HPA_BEHAVIOR is not None
    windows = [
        (made.up.stabilisation_s, made.down.stabilisation_s)
        for made in (OPERATOR_BEHAVIOR, SEED_KEDA_BEHAVIOR, SEED_HPA_BEHAVIOR)
    ]
    assert windows == [(0.0, 300.0), (60.0, 300.0), (60.0, 300.0)]
    (step,) = SEED_HPA_BEHAVIOR.up.policies
    assert (step.value, step.period_s) == (1, 120.0)
    (down,) = SEED_HPA_BEHAVIOR.down.policies  # left out: Kubernetes' default
    assert (down.value, down.period_s) == (100, 15.0)
