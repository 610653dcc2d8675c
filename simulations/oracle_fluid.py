"""The trace as a fluid, and the cheapest counts for it by dynamic programming.

A cell of time brings requests that are all alike, with the mean lengths around that time.  With n
requests in each replica, a request's work of p seconds of prefill, o output tokens and a step of
``base + a * n``, each replica completes::

    mu(n) = n / (o * (base + a * n) + n * p)        requests a second

up to ``full``, the least of max_num_seqs, what the KV cache holds, and what the token budget lets
in (n decode tokens and ``n * prompt / o`` prefill tokens are in each step).  What is beyond waits.
Which share of arrivals misses at which load, and where the fluid drifts from what it stands for, is
learned from replays.

State: replicas and requests in the fleet.  Cost: replica-seconds, a start-up for each replica
added, ``DRAIN_S`` for each removed, and a price for each miss.  Since the whole future is known, a
replica is ready when it is wanted; only before the first start-up is over none can be added.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulations.attainable import Objectives, cached_tokens
from simulations.replica import ReplicaModel
from simulations.trace_chunks import Floats, Requests

Ints = npt.NDArray[np.int64]

DRAIN_S = 15.0
POINTS = 160  # of the number of requests in the fleet
LEVELS_MAX = 64  # of the number of replicas
MIX_CELLS = 4  # over which lengths are averaged
LATE_AT = np.linspace(0.0, 1.6, 33)  # loads, as shares of ``full``, at which misses are known
LATE_ARRIVALS_MIN = 100.0  # below, a load was not seen often enough
NONE = 1e-9  # in place of no replica at all: whatever is held then is too much
FLOOD_CELLS = 4  # how long arrivals crowd at a replica that has come


@dataclass(frozen=True, slots=True, kw_only=True)
class Fluid:
    """A trace in cells of ``cell_s``: arrivals, and what a replica makes of their mix."""

    cell_s: float
    arrivals: Floats
    prefill_s: Floats  # of a request
    output_tokens: Floats
    per_seq_s: Floats  # a: what a sequence adds to a step
    base_s: float
    full: Floats  # requests at which a replica completes most
    at_once: Floats  # requests whose prompts one empty replica computes within the objective
    late_ratio: Floats  # share of arrivals that miss, by requests in a replica: at LATE_AT of full
    drift: Floats  # requests that stay beyond what the fluid would have, seen in a replay


def fluid_of(
    requests: Requests, model: ReplicaModel, objectives: Objectives, *, cell_s: float
) -> Fluid:
    """The trace as a fluid."""
    step = model.step
    cells = int(requests.arrival_s[-1] // cell_s) + 2
    cell = (requests.arrival_s // cell_s).astype(np.int64)
    prompt = requests.prompt_tokens.astype(np.float64)
    computed = prompt - cached_tokens(requests, model)
    output = requests.output_tokens.astype(np.float64)
    arrivals = np.bincount(cell, minlength=cells).astype(np.float64)

    def mean(values: Floats) -> Floats:
        """Over the requests around each cell; over all where there are none."""
        window = np.ones(MIX_CELLS)
        total = np.convolve(np.bincount(cell, values, minlength=cells), window, "same")
        count = np.convolve(arrivals, window, "same")
        return np.where(count > 0.5, total / np.maximum(count, 1.0), values.mean())

    attention = step.prefill_attention_s * 0.5 * (prompt**2 - (prompt - computed) ** 2)
    prefill_s = mean(step.prefill_per_token_s * computed + attention)
    mean_output = mean(output)
    context = mean(output * (prompt + 0.5 * output)) / mean_output
    per_seq_s = step.mixed_per_seq_s + step.mixed_per_kv_token_s * context
    base_s = step.overhead_s + step.mixed_base_s
    budget = model.max_num_batched_tokens * mean_output / (mean_output + mean(computed))
    full = np.minimum(np.minimum(model.max_num_seqs, model.kv_capacity_tokens / context), budget)
    prompt_s = prefill_s + base_s * mean(computed) / model.max_num_batched_tokens
    if objectives.tpot_s > 0.0:
        slope_s = per_seq_s + prefill_s / mean_output
        full = np.clip((objectives.tpot_s - base_s) / slope_s, 1.0, full)
    return Fluid(
        cell_s=cell_s,
        arrivals=arrivals,
        prefill_s=prefill_s,
        output_tokens=mean_output,
        per_seq_s=per_seq_s,
        base_s=base_s,
        full=full,
        at_once=objectives.ttft_s / prompt_s,
        drift=np.zeros(cells),
        late_ratio=np.clip((LATE_AT - 0.95) / 0.1, 0.0, 1.0),
    )


def learned(fluid: Fluid, *, ready: Floats, held: Floats, misses: Floats) -> Fluid:
    """The fluid with the share of misses at each load as replays had it, never falling with load.

    The arrays hold a replay's cells one after the other, any number of replays.  Cells in which or
    shortly before which a replica came are left out: those misses have their own price.
    """
    cells = np.arange(held.size) % (fluid.arrivals.size - 1)
    arrivals, full = fluid.arrivals[cells], fluid.full[cells]
    came = np.diff(ready, prepend=ready[0]) > 0.0
    crowded = np.convolve(came, np.ones(FLOOD_CELLS), "full")[: ready.size] > 0.0
    use = ~crowded & (ready > 0.0)
    load = np.clip(held[use] / (ready[use] * full[use]), 0.0, LATE_AT[-1])
    point = np.round(load / LATE_AT[1]).astype(np.int64)
    count = np.bincount(point, arrivals[use], minlength=LATE_AT.size)
    missed = np.bincount(point, misses[use], minlength=LATE_AT.size)
    known = count >= LATE_ARRIVALS_MIN
    if not known.any():
        return fluid
    share: Floats = np.interp(LATE_AT, LATE_AT[known], missed[known] / count[known])
    return dataclasses.replace(fluid, late_ratio=np.maximum.accumulate(np.minimum(share, 1.0)))


def corrected(fluid: Fluid, *, ready: Floats, held: Floats) -> Fluid:
    """The fluid with the drift that leads it through the requests ``held`` after each cell.

    A replay knows what chance did; near the schedule that was replayed it will do the same again.
    """
    drift = np.zeros_like(fluid.drift)
    plain = dataclasses.replace(fluid, drift=drift)
    before = np.concatenate(([0.0], held[:-1]))
    after, _ = through(plain, np.arange(held.size), np.maximum(ready, 1.0), before)
    drift[: held.size] = held - after
    return plain


def through(
    fluid: Fluid, cell: int | Ints, replicas: Floats, held: Floats
) -> tuple[Floats, Floats]:
    """Requests in the fleet after a cell that began with ``held``, and the misses in it.

    The step is that of the linearised equation, which does not overshoot however long it is.
    """
    full = fluid.full[cell]
    output, prefill_s = fluid.output_tokens[cell], fluid.prefill_s[cell]
    each = held / np.maximum(replicas, NONE)
    running = np.minimum(each, full)
    idle_s = output * fluid.base_s
    busy_s = idle_s + running * (output * fluid.per_seq_s[cell] + prefill_s)
    rate = running / busy_s
    decay = np.where(each < full, idle_s / busy_s**2, 0.0) * fluid.cell_s
    length = np.where(decay > 1e-9, -np.expm1(-decay) / np.maximum(decay, 1e-9), 1.0)
    change = fluid.arrivals[cell] - replicas * rate * fluid.cell_s
    late = np.interp(each / full, LATE_AT, fluid.late_ratio)
    after = np.maximum(held + change * length, 0.0) + fluid.drift[cell]
    return np.maximum(after, 0.0), fluid.arrivals[cell] * late


@dataclass(frozen=True, slots=True, kw_only=True)
class FluidTask:
    """What the fluid is to be served with."""

    replicas_first: int
    replicas_min: int
    replicas_max: int
    start_up_s: float
    miss_price_s: float
    floods: bool = False  # whether a router sends all arrivals to an empty replica


def cheapest_counts(fluid: Fluid, task: FluidTask) -> Ints:
    """Replicas that should be ready in each cell."""
    return _Program(fluid, task).solve()


class _Program:
    """Backward over the cells, then forward along the best choices."""

    def __init__(self, fluid: Fluid, task: FluidTask) -> None:
        self._fluid = fluid
        self._task = task
        self._levels = _levels(task)
        top = float(self._levels[-1]) * float(fluid.full.max()) * LATE_AT[-1]
        self._held = np.linspace(0.0, top, POINTS)
        self._gap = top / (POINTS - 1)
        self._lead_cells = int(np.ceil(task.start_up_s / fluid.cell_s))

    def solve(self) -> Ints:
        cells = self._fluid.arrivals.size
        cost = np.zeros((self._levels.size, POINTS))
        choices = np.zeros((cells, *cost.shape), dtype=np.uint8)
        for cell in range(cells - 1, -1, -1):
            after, missed = through(
                self._fluid,
                cell,
                self._levels[:, None],
                self._held[None, :],
            )
            spent = self._levels[:, None] * self._fluid.cell_s + self._task.miss_price_s * missed
            cost, choices[cell] = self._switched(spent + self._at(cost, after), cell)
        return self._forward(choices)

    def _at(self, cost: Floats, held: Floats) -> Floats:
        """The cost of the cells to come, between the points of the grid."""
        place = np.minimum(held / self._gap, POINTS - 1.000001)
        low = place.astype(np.int64)
        part = place - low
        row = np.arange(cost.shape[0])[:, None]
        between: Floats = cost[row, low] * (1.0 - part) + cost[row, low + 1] * part
        return between

    def _switched(self, cost: Floats, cell: int) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """The best level to go to from each, and what it costs from there."""
        down = self._levels[:, None] * DRAIN_S
        lower, lower_at = _lowest(cost - down)
        best, at = lower + down, lower_at
        if cell >= self._lead_cells:
            up = self._added(cell)
            higher, higher_at = _lowest((cost + up)[::-1])
            higher, higher_at = higher[::-1] - up, cost.shape[0] - 1 - higher_at[::-1]
            at = np.where(higher < best, higher_at, at)
            best = np.minimum(best, higher)
        return best, at.astype(np.uint8)

    def _added(self, cell: int) -> Floats:
        """What it costs to have come to each level from none, one replica after the other.

        A router that looks for the fewest requests sends an empty replica all arrivals until it has
        as many as the others; those that it cannot begin in time miss.
        """
        each = np.full((self._levels.size, POINTS), self._task.start_up_s)
        if self._task.floods:
            held = self._held[None, :] / np.maximum(self._levels, 1.0)[:, None]
            each += self._task.miss_price_s * np.maximum(held - self._fluid.at_once[cell], 0.0)
        return np.cumsum(each * np.diff(self._levels, prepend=0.0)[:, None], axis=0)

    def _forward(self, choices: npt.NDArray[np.uint8]) -> Ints:
        level = int(np.argmin(np.abs(self._levels - self._task.replicas_first)))
        held = np.zeros((1, 1))
        counts = np.zeros(choices.shape[0], dtype=np.int64)
        for cell in range(choices.shape[0]):
            place = min(round(float(held[0, 0]) / self._gap), POINTS - 1)
            level = int(choices[cell, level, place])
            counts[cell] = int(self._levels[level])
            held, _ = through(self._fluid, cell, self._levels[level].reshape(1, 1), held)
        return counts


def _levels(task: FluidTask) -> Floats:
    step = -(-(task.replicas_max - task.replicas_min + 1) // LEVELS_MAX)
    levels = np.arange(task.replicas_min, task.replicas_max + 1, step)
    return np.append(levels[levels < task.replicas_max], task.replicas_max).astype(np.float64)


def _lowest(cost: Floats) -> tuple[Floats, Ints]:
    """The running minimum over the levels from the first on, and where it is."""
    lowest = np.minimum.accumulate(cost, axis=0)
    index = np.where(cost <= lowest, np.arange(cost.shape[0])[:, None], 0)
    return lowest, np.maximum.accumulate(index, axis=0)
