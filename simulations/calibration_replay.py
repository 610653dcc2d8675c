"""A replica model from measured requests: the terms whose simulation is most like them."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scaler.errors import ScenarioError
from simulations.calibration import Calibration, Coefficient
from simulations.cluster import Fleet
from simulations.replica import ReplicaModel, StepTime

Floats = npt.NDArray[np.float64]

REQUESTS_MIN = 50
BATCHES = 20  # of consecutive requests: neighbours are alike, so that errors are taken by batch
_FAR_S = 1e9
_TERMS = (
    "decode_base_s", "decode_per_seq_s", "decode_per_kv_token_s", "mixed_base_s",
    "prefill_per_token_s", "prefill_attention_s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRequests:
    """Requests of one replica in order of arrival, and what became of each."""

    arrival_s: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    ttft_s: Floats
    e2e_s: Floats

    @property
    def tpot_s(self) -> Floats:
        """Mean time per output token after the first; NaN for a single token."""
        with np.errstate(divide="ignore", invalid="ignore"):
            tpot_s = (self.e2e_s - self.ttft_s) / (self.output_tokens - 1.0)
        return np.where(self.output_tokens > 1.0, tpot_s, np.nan)

    def pick(self, which: npt.NDArray[np.bool_]) -> "MeasuredRequests":
        """The requests of a mask."""
        fields = dataclasses.fields(self)
        return MeasuredRequests(**{f.name: getattr(self, f.name)[which] for f in fields})


def replayed(requests: MeasuredRequests, model: ReplicaModel) -> MeasuredRequests:
    """The same requests through one simulated replica."""
    fleet = Fleet(model=model, seed=0)
    fleet.start_warm(1)
    fleet.load(
        arrival_at_s=requests.arrival_s - requests.arrival_s[0],
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
    )
    fleet.advance(_FAR_S)
    rows = fleet.take_outcomes()
    return MeasuredRequests(
        arrival_s=requests.arrival_s,
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        ttft_s=rows["first_token_at_s"] - rows["arrival_at_s"],
        e2e_s=rows["finished_at_s"] - rows["arrival_at_s"],
    )


def calibrate_requests(
    runs: Sequence[MeasuredRequests], limits: ReplicaModel, *, told: Callable[[int], None]
) -> Calibration:
    """Step terms from measured requests; the limits and all else are those of ``limits``.

    What is least is the mean of |ln(simulated / measured)| over TTFT and end-to-end time.  The
    interval of a term is where that loss, the other terms kept, is within one standard error of the
    best, by batches of consecutive requests.  ``told`` is called with the simulations so far.

    Raises:
        ScenarioError: there are too few requests.
    """
    count = sum(run.arrival_s.size for run in runs)
    if count < REQUESTS_MIN:
        raise ScenarioError(f"{count} measured requests, must be at least {REQUESTS_MIN}")
    search = _Search(runs, limits, told)
    best = search.best(_start(runs))
    errors = search.errors(best)
    band = float(np.mean(errors)) + _standard_error(errors)
    coefficients = tuple(
        search.interval(best, place, band, name) for place, name in enumerate(_TERMS)
    )
    return Calibration(
        step=_step(best),
        coefficients=coefficients,
        error_mean_ratio=float(np.expm1(np.mean(errors) / 2.0)),
        error_p90_ratio=float(np.expm1(np.quantile(errors, 0.9) / 2.0)),
        rows=count,
    )


def _start(runs: Sequence[MeasuredRequests]) -> Floats:
    """Steps of the shortest usual time per token, and costs that are small beside it."""
    tpot_s = np.concatenate([run.tpot_s for run in runs])
    ttft_s = np.concatenate([run.ttft_s for run in runs])
    prompt = np.concatenate([run.prompt_tokens for run in runs])
    base_s = max(float(np.nanquantile(tpot_s, 0.1)), 1e-4)
    token_s = max(float(np.quantile(ttft_s / np.maximum(prompt, 1.0), 0.1)) / 2.0, 1e-7)
    return np.array([base_s, base_s / 100.0, base_s / 1e6, base_s, token_s, token_s / 1e4])


def _step(terms: Floats) -> StepTime:
    base_s, per_seq_s, per_kv_s, mixed_base_s, token_s, attention_s = terms.tolist()
    return StepTime(
        overhead_s=0.0,
        decode_base_s=base_s,
        decode_per_seq_s=per_seq_s,
        decode_per_kv_token_s=per_kv_s,
        mixed_base_s=mixed_base_s,
        mixed_per_seq_s=per_seq_s,
        mixed_per_kv_token_s=per_kv_s,
        prefill_per_token_s=token_s,
        prefill_attention_s=attention_s,
    )


class _Search:
    """Simulates and compares."""

    def __init__(
        self,
        runs: Sequence[MeasuredRequests],
        limits: ReplicaModel,
        told: Callable[[int], None],
    ) -> None:
        self._runs = runs
        self._limits = limits
        self._told = told
        self._done = 0

    def errors(self, terms: Floats) -> Floats:
        """Of each request."""
        model = dataclasses.replace(self._limits, step=_step(terms))
        found = []
        for run in self._runs:
            simulated = replayed(run, model)
            ttft = np.abs(np.log(simulated.ttft_s / run.ttft_s))
            found.append(ttft + np.abs(np.log(simulated.e2e_s / run.e2e_s)))
        self._done += 1
        self._told(self._done)
        every: Floats = np.nan_to_num(np.concatenate(found), nan=10.0)
        return every

    def best(self, start: Floats) -> Floats:
        """Each term is multiplied and divided in turn, ever less (a pattern search)."""
        best, loss, factor = start, float(np.mean(self.errors(start))), 2.0
        while factor > 1.005:
            improved = False
            for place in range(start.size):
                for move in (factor, 1.0 / factor):
                    tried = _moved(best, place, move)
                    tried_loss = float(np.mean(self.errors(tried)))
                    if tried_loss < loss:
                        best, loss, improved = tried, tried_loss, True
            if not improved:
                factor = float(np.sqrt(factor))
        return best

    def interval(self, best: Floats, place: int, band: float, name: str) -> Coefficient:
        """How far the term goes before the loss leaves the band, by steps of an eighth."""
        ends = []
        for move in (1.0 / 1.125, 1.125):
            reached, factor = 1.0, move
            while 1.0 / 8.0 < factor < 8.0:
                if float(np.mean(self.errors(_moved(best, place, factor)))) > band:
                    break
                reached, factor = factor, factor * move
            ends.append(float(best[place] * reached))
        return Coefficient(name=name, value=float(best[place]), low=ends[0], high=ends[1])


def _moved(terms: Floats, place: int, factor: float) -> Floats:
    moved = terms.copy()
    moved[place] *= factor
    return moved


def _standard_error(errors: Floats) -> float:
    batches = [float(np.mean(batch)) for batch in np.array_split(errors, BATCHES)]
    return float(np.std(batches, ddof=1) / np.sqrt(BATCHES))
