"""GPU-hours that a policy needs for an attainment, its one knob chosen in hindsight.

A search asks for knob values and is told what each came to.  It begins with a few of the declared
values, goes on inside the gap in which the target lies, and ends when the two runs between which it
interpolates are close.  Where no value asked so far reaches the target, or all exceed it, it goes
beyond the declared values as far as the knob may go: hindsight is not held back by a short list.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

REACHED_FROM = 0.003  # a target counts as reached from this far below it
CLOSE_ATTAINMENT = 0.002
CLOSE_GPU_HOURS = 0.01  # as a share
KNOB_CLOSE = 0.01  # knob values closer than this share are one
TRIES_MAX = 14
BEYOND_FACTOR = 4.0  # how far past either end of the declared values
FIRST_MAX = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one knob value came to."""

    knob: float
    attainment_ratio: float
    gpu_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A policy's main knob: the values to sweep, and how far it may go beyond them.

    ``whole`` knobs take whole numbers only.
    """

    name: str
    values: tuple[float, ...]
    low: float = 0.0
    high: float = math.inf
    whole: bool = False

    def __post_init__(self) -> None:
        """A knob has values, in order."""
        assert self.values, f"{self.name} has no value to sweep"
        object.__setattr__(self, "values", tuple(sorted(set(self.values))))


def envelope(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points that no other beats: attainment and GPU-hours both ascend."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.attainment_ratio, p.gpu_hours)):
        if not front or point.gpu_hours < front[-1].gpu_hours:
            front.append(point)
    return tuple(reversed(front))


def gpu_hours_at(points: Sequence[Point], attainment_ratio: float) -> float | None:
    """GPU-hours for an attainment, by linear interpolation on the envelope of ``points``.

    Below the envelope's first point its GPU-hours, since nothing cheaper was seen; from
    ``REACHED_FROM`` below the target its last one's; None where no point comes that near.
    """
    front = envelope(points)
    if not front or front[-1].attainment_ratio < attainment_ratio - REACHED_FROM:
        return None
    above = next((p for p in front if p.attainment_ratio >= attainment_ratio), None)
    if above is None:
        return front[-1].gpu_hours
    below = front[front.index(above) - 1] if above is not front[0] else above
    span = above.attainment_ratio - below.attainment_ratio
    share = (attainment_ratio - below.attainment_ratio) / span if span > 0.0 else 1.0
    return below.gpu_hours + share * (above.gpu_hours - below.gpu_hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The state of one search; ``ask`` and ``told`` alternate until nothing is asked.

    It begins with ``start`` where something is known already, and ends after ``tries_max`` values
    at the latest.
    """

    knob: Knob
    target: float
    start: tuple[float, ...] = ()
    tries_max: int = TRIES_MAX
    points: tuple[Point, ...] = ()
    failed: frozenset[float] = field(default_factory=frozenset)

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours at the target, None while no point reaches it."""
        return gpu_hours_at(self.points, self.target)

    @property
    def best(self) -> Point:
        """The cheapest point that reaches the target, or else the one that comes nearest."""
        reached = [p for p in self.points if p.attainment_ratio >= self.target - REACHED_FROM]
        if reached:
            return min(reached, key=lambda p: p.gpu_hours)
        return max(self.points, key=lambda p: (p.attainment_ratio, -p.gpu_hours))


def ask(search: Search) -> tuple[float, ...]:
    """The knob values to try next; none when the search is over."""
    if not search.points and not search.failed:
        return search.start or first_values(search.knob)
    if len(search.points) + len(search.failed) >= search.tries_max:
        return ()
    gap = _gap(search)
    value = _beyond(search) if gap is None else _inside(search, gap)
    return () if value is None or value in search.failed else (value,)


def told(search: Search, found: Mapping[float, Point | None]) -> Search:
    """The search with what the values asked for came to; None where one cannot be run."""
    points = [point for point in found.values() if point is not None]
    failed = [value for value, point in found.items() if point is None]
    return dataclasses.replace(
        search,
        points=tuple(sorted((*search.points, *points), key=lambda p: p.knob)),
        failed=search.failed | frozenset(failed),
    )


def near(knob: Knob, value: float) -> tuple[float, ...]:
    """Two declared values next to one, itself left out: where a search like another begins."""
    below = [declared for declared in knob.values if declared < value]
    above = [declared for declared in knob.values if declared > value]
    if not below or not above:
        return (*below[-2:], *above[:2])
    return below[-1], above[0]


def first_values(knob: Knob) -> tuple[float, ...]:
    """Both ends and what lies evenly between them."""
    count = len(knob.values)
    if count <= FIRST_MAX:
        return knob.values
    places = {round(place * (count - 1) / (FIRST_MAX - 1)) for place in range(FIRST_MAX)}
    return tuple(knob.values[place] for place in sorted(places))


def _gap(search: Search) -> tuple[Point, Point] | None:
    """The neighbours in knob value with the target between them, where it comes cheapest."""
    straddling = [
        pair
        for pair in itertools.pairwise(search.points)
        if (pair[0].attainment_ratio >= search.target)
        != (pair[1].attainment_ratio >= search.target)
    ]

    def price(pair: tuple[Point, Point]) -> float:
        return gpu_hours_at(pair, search.target) or math.inf

    return min(straddling, key=price, default=None)


def _inside(search: Search, gap: tuple[Point, Point]) -> float | None:
    """A value inside the gap, unless its ends are close."""
    return None if _close(search, gap) else _between(search.knob, gap)


def _close(search: Search, gap: tuple[Point, Point]) -> bool:
    """Whether to interpolate in the gap, or whether another point already beats all of it."""
    low, high = sorted(gap, key=lambda p: p.gpu_hours)
    best = search.gpu_hours
    return (
        abs(high.attainment_ratio - low.attainment_ratio) <= CLOSE_ATTAINMENT
        or high.gpu_hours - low.gpu_hours <= CLOSE_GPU_HOURS * high.gpu_hours
        or (best is not None and best < low.gpu_hours)
    )


def _between(knob: Knob, gap: tuple[Point, Point]) -> float | None:
    """A declared value inside the gap, the middle one, or else the middle of the gap itself."""
    low, high = sorted(point.knob for point in gap)
    declared = [value for value in knob.values if low < value < high]
    if declared:
        return declared[len(declared) // 2]
    middle = math.sqrt(low * high) if low > 0.0 else 0.5 * (low + high)
    if knob.whole:
        middle = float(round(middle))
    apart = KNOB_CLOSE * max(abs(low), abs(high))
    return middle if middle - low > apart and high - middle > apart else None


def _beyond(search: Search) -> float | None:
    """The next value past the end of what was tried at which the target is nearer."""
    knob, points = search.knob, search.points
    if len(points) < 2:  # which way the knob acts is not known
        tried = {point.knob for point in points} | search.failed
        return next((value for value in knob.values if value not in tried), None)
    first, last = points[0], points[-1]
    if first.attainment_ratio >= search.target:  # as all do: the cheaper end may be cheaper still
        low_end = first.gpu_hours < last.gpu_hours
    else:
        low_end = first.attainment_ratio > last.attainment_ratio
    return _lower(knob, first.knob) if low_end else _higher(knob, last.knob)


def _lower(knob: Knob, tried: float) -> float | None:
    """The next declared value below, or else half of what was tried, as far as it may go."""
    declared = [value for value in knob.values if value < tried]
    if declared:
        return declared[-1]
    value = math.floor(0.5 * tried) if knob.whole else 0.5 * tried
    value = max(value, knob.low, min(knob.values) / BEYOND_FACTOR)
    return value if value < tried else None


def _higher(knob: Knob, tried: float) -> float | None:
    """The next declared value above, or else twice what was tried, as far as it may go."""
    declared = [value for value in knob.values if value > tried]
    if declared:
        return declared[0]
    value = min(2.0 * tried, knob.high, max(knob.values) * BEYOND_FACTOR)
    return value if value > tried else None
