"""Conversations: which requests belong together, for routing and for a cache that is kept.

Traces seldom say so.  A number of conversations is open at a time; each request is the next turn of
one of them, drawn at random, and begins a new one in its place with the probability that makes a
conversation as long as asked for on average.  Turns of one conversation are therefore apart by the
number of open ones over the rate of arrivals, on average.
"""

from dataclasses import dataclass

import numpy as np

from scaler.errors import ScenarioError
from simulations.engine_layout import Ints
from simulations.streams import generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """``open_count`` conversations at a time, of ``turns_mean`` requests each on average."""

    open_count: int
    turns_mean: float

    def __post_init__(self) -> None:
        """Raise ScenarioError for what cannot be."""
        if not 1 <= self.open_count <= 10_000_000:
            raise ScenarioError(f"sessions open = {self.open_count}, must be in [1, 10000000]")
        if not 1.0 <= self.turns_mean <= 1e6:
            raise ScenarioError(f"session turns = {self.turns_mean:g}, must be in [1, 1e6]")


class SessionStream:
    """Numbers the conversations of requests in order of arrival."""

    def __init__(self, sessions: Sessions, *, seed: int) -> None:
        self._sessions = sessions
        self._places = generator(seed, "session.places")
        self._renewals = generator(seed, "session.renewals")
        self._renewed = np.zeros(sessions.open_count, dtype=np.int64)

    def draw(self, count: int) -> Ints:
        """The conversations of the next ``count`` requests; chunks make no difference."""
        open_count = self._sessions.open_count
        places = (self._places.random(count) * open_count).astype(np.int64)
        fresh = self._renewals.random(count) * self._sessions.turns_mean < 1.0
        order = np.argsort(places, kind="stable")
        sorted_places = places[order]
        so_far = np.cumsum(fresh[order])
        begins = np.flatnonzero(np.diff(sorted_places, prepend=-1))
        before: Ints = np.repeat(
            so_far[begins] - fresh[order][begins], np.diff(begins, append=count)
        )
        renewed = self._renewed[sorted_places] + so_far - before
        numbers = np.empty(count, dtype=np.int64)
        numbers[order] = renewed * open_count + sorted_places
        self._renewed += np.bincount(places, weights=fresh, minlength=open_count).astype(np.int64)
        return numbers
