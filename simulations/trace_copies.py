"""Shifted copies of a trace as one that is as long, with its full load from beginning to end.

Copy by copy, ``s`` being its shift: arrivals come ``s`` later, and those that would come after the
trace's last arrival are left out.  Before ``s`` is over the copy plays what the trace has between
``s`` and ``2 s``: what comes before that would be the first copy's bursts once more.  A trace that
ends before ``2 s`` is turned around instead, its end at the beginning.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from simulations.trace_chunks import Requests, join, merge, shifted


def superposed(
    chunks: Iterable[Sequence[Requests]], shifts_s: Sequence[float]
) -> Iterator[Requests]:
    """The sum of copies in order of arrival; each item holds the same chunk of every copy.

    The first copy is not shifted and has every arrival of the trace.  Memory is bounded by the
    longest shift.
    """
    early: list[Sequence[Requests]] = []  # all chunks, until the first that is yielded
    held: list[Requests] = []
    begin_s = last_s = 0.0
    begun = False
    for copies in chunks:
        begin_s = begin_s if early or begun else float(copies[0].arrival_s[0])
        last_s = float(copies[0].arrival_s[-1])
        for copy, shift_s in zip(copies, shifts_s, strict=True):
            held += [shifted(copy, by_s=shift_s), _filling(copy, begin_s=begin_s, shift_s=shift_s)]
        if not begun:
            early.append(copies)
            if last_s < begin_s + 2.0 * max(shifts_s):
                continue  # what fills the beginning is not all there yet
            begun = True
            early.clear()
        # Later chunks bring nothing earlier than the last arrival of this one.
        merged = merge(held)
        ready = int(np.searchsorted(merged.arrival_s, last_s, side="left"))
        held = [merged.pick(slice(ready, None))]
        if ready:
            yield merged.pick(slice(0, ready))
    rest = merge(held) if begun else _turned(early, shifts_s, begin_s=begin_s, last_s=last_s)
    rest = rest.pick(rest.arrival_s <= last_s)
    if len(rest):
        yield rest


def _filling(copy: Requests, *, begin_s: float, shift_s: float) -> Requests:
    """What a copy plays before its shift is over."""
    since_s = copy.arrival_s - begin_s
    return shifted(copy.pick((since_s >= shift_s) & (since_s < 2.0 * shift_s)), by_s=-shift_s)


def _turned(
    chunks: Sequence[Sequence[Requests]],
    shifts_s: Sequence[float],
    *,
    begin_s: float,
    last_s: float,
) -> Requests:
    """The copies of a short trace, each turned around by its shift."""
    span_s = last_s - begin_s
    turned = []
    for place, shift_s in enumerate(shifts_s):
        copy = join([copies[place] for copies in chunks])
        beyond = copy.arrival_s + shift_s % span_s > last_s if span_s > 0.0 else None
        if beyond is None or shift_s == 0.0:
            turned.append(copy)
            continue
        by_s = shift_s % span_s
        turned.append(shifted(copy.pick(~beyond), by_s=by_s))
        turned.append(shifted(copy.pick(beyond), by_s=by_s - span_s))
    return merge(turned)
