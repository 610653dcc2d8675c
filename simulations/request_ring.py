"""The ring of requests that a fleet holds: appended in order of arrival, taken once they ended."""

from collections.abc import Callable
from enum import IntEnum

import numpy as np

from scaler.errors import ScenarioError
from simulations import engine
from simulations.engine_layout import REQUEST, Floats, Ints, Records, State, grow_ring, raw

TOKENS_MAX = 2**30
_NO_SESSIONS = np.empty(0, dtype=np.int64)


class RequestStatus(IntEnum):
    """What became of a request; the values are the kernel's."""

    PENDING = engine.PENDING
    COMPLETED = engine.COMPLETED
    REJECTED = (
        engine.REJECTED
    )  # by the admission limit, or at the gateway for want of a ready replica
    CUT = engine.CUT  # by the end of a drain's grace
    TOO_LONG = engine.TOO_LONG  # longer than max_model_len or the whole KV cache: HTTP 400


def append(
    state: State,
    *,
    now_s: float,
    arrival_at_s: Floats,
    prompt_tokens: Ints,
    output_tokens: Ints,
    session: Ints | None,
) -> State:
    """The state with these requests behind those it has; the ring grows where it must.

    Raises ScenarioError for arrivals that do not ascend and for token counts out of range.
    """
    count = arrival_at_s.size
    if count == 0:
        return state
    clock = state.clock[0]
    first = int(clock["arrivals_loaded"])
    if not engine.fit(
        arrival_at_s, prompt_tokens, output_tokens, _last_s(state, now_s), TOKENS_MAX
    ):
        _check_order(arrival_at_s, last_s=_last_s(state, now_s))
        _check_tokens("prompt_tokens", prompt_tokens)
        _check_tokens("output_tokens", output_tokens)
    held = first + count - int(clock["outcomes_taken"])
    if held > state.requests.shape[0]:
        state = grow_ring(state, room_for=held)
    sessions = _NO_SESSIONS if session is None else session
    engine.append(state.requests, first, arrival_at_s, prompt_tokens, output_tokens, sessions)
    clock["arrivals_loaded"] = first + count
    return state


def _last_s(state: State, now_s: float) -> float:
    """Nothing may arrive before the last arrival that is to come, or before now."""
    loaded, routed = int(state.clock[0]["arrivals_loaded"]), int(state.clock[0]["arrivals_routed"])
    if loaded == routed:
        return now_s
    return float(state.requests[(loaded - 1) & (state.requests.shape[0] - 1)]["arrival_at_s"])


def _check_order(arrival_at_s: Floats, *, last_s: float) -> None:
    ascending = arrival_at_s[0] >= last_s and bool(np.all(np.diff(arrival_at_s) >= 0.0))
    if not ascending or not np.isfinite(arrival_at_s[-1]):
        raise ScenarioError(
            f"arrival_at_s = {arrival_at_s[0]} .., must ascend from {last_s} and be finite"
        )


def _check_tokens(name: str, tokens: Ints) -> None:
    if tokens.min() < 1 or tokens.max() > TOKENS_MAX:
        raise ScenarioError(
            f"{name} = {tokens.min()} .. {tokens.max()}, must be in [1, {TOKENS_MAX}]"
        )


def hand_ended(state: State, take: Callable[[Records], None]) -> None:
    """Show ``take`` the rows that ended, up to the first that has not; the ring forgets them.

    It gets one or two parts of the ring itself, in order, and must not keep them.
    """
    ring = state.requests
    begin = int(state.clock["outcomes_taken"][0])
    ended = engine.count_ended(state)
    first = begin & (ring.shape[0] - 1)
    fitting = min(ended, ring.shape[0] - first)
    take(ring[first : first + fitting])
    if fitting < ended:
        take(ring[: ended - fitting])
    state.clock["outcomes_taken"] = begin + ended


def take_ended(state: State) -> Records:
    """Copies of the rows that ``hand_ended`` shows."""
    parts: list[Records] = []
    hand_ended(state, lambda part: parts.append(raw(part).copy()))
    return np.concatenate(parts).view(REQUEST)


def untaken(state: State) -> Records:
    """Copies of all rows from the first that was not taken, ended or not."""
    ring = state.requests
    clock = state.clock[0]
    live = np.arange(int(clock["outcomes_taken"]), int(clock["arrivals_loaded"]))
    rows: Records = ring[live & (ring.shape[0] - 1)]
    return rows
