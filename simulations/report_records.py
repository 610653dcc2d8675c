"""The arithmetic of every decision of a run, kept small enough to be carried in its report.

The daemon's own words for a decision (``scaler.core.explain``) repeat themselves: what changes
from tick to tick are the numbers in them.  So the words are kept once, with a hole for each number,
and each tick keeps the place of its words and its numbers.
"""

import re
from dataclasses import dataclass
from typing import Any

from scaler.core.explain import narrative
from scaler.core.model import Decision, Signal
from simulations.run import Tick

RECORDS_MAX = 12_000
"""48 h of ticks of 15 s are 11,520; of a longer run every second, third, ... tick is explained."""
HOLE = "\x00"
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?")
_SIGNALS = tuple(Signal)


@dataclass(slots=True)
class _Kept:
    at_s: float
    words: int
    numbers: tuple[str, ...]
    proposals: tuple[int | None, ...]
    changed: bool


class Records:
    """A ``Watch`` of a run: explains each decision while the run goes on.

    Memory is bounded: with ``records_max`` explained, every second one is forgotten, and from
    then on only every second tick is explained.  A tick in which another stage decided or the
    count changed is always explained.
    """

    def __init__(self, records_max: int = RECORDS_MAX) -> None:
        self._records_max = records_max
        self._words: dict[str, int] = {}
        self._kept: list[_Kept] = []
        self._stride = 1
        self._seen = 0
        self._last: tuple[int, str] | None = None

    def __call__(self, tick: Tick) -> None:
        """Take in one tick; ticks without a decision of ours have nothing to explain."""
        if tick.decision is None:
            return
        decision = tick.decision
        result = (decision.would_be, decision.decided_by.value)
        changed = result != self._last
        self._last = result
        self._seen += 1
        if changed or self._seen % self._stride == 0:
            self._kept.append(self._explained(decision, changed=changed))
        if len(self._kept) >= self._records_max:
            self._thin()

    def as_data(self) -> dict[str, Any]:
        """For the report: words with holes, and columns by tick."""
        return {
            "words": list(self._words),
            "at_s": [round(one.at_s, 3) for one in self._kept],
            "word": [one.words for one in self._kept],
            "numbers": [" ".join(one.numbers) for one in self._kept],
            "proposals": {
                signal.value: [one.proposals[place] for one in self._kept]
                for place, signal in enumerate(_SIGNALS)
            },
            "every": self._stride,
        }

    def _explained(self, decision: Decision, *, changed: bool) -> _Kept:
        text = "\n".join(narrative(decision))
        numbers: list[str] = []

        def hole(found: re.Match[str]) -> str:
            numbers.append(found.group())
            return HOLE

        words = _NUMBER.sub(hole, text)
        asked = {proposal.signal: proposal.replicas for proposal in decision.proposals}
        return _Kept(
            at_s=decision.at_s,
            words=self._words.setdefault(words, len(self._words)),
            numbers=tuple(numbers),
            proposals=tuple(asked.get(signal) for signal in _SIGNALS),
            changed=changed,
        )

    def _thin(self) -> None:
        """Forget every second one; changes last, and only where they alone are too many."""
        self._stride *= 2
        half = [one for place, one in enumerate(self._kept) if one.changed or place % 2 == 0]
        if len(half) > self._records_max * 3 // 4:
            half = half[::2]
        self._kept = half
