"""Several traces at once, as one: how classes that were recorded apart share a fleet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from simulations.trace_chunks import Ints, Requests, join, merge
from simulations.traces import TraceReader


@dataclass(slots=True, kw_only=True)
class Superposed:
    """Iterates over the sum of ``readers``, chunk by chunk in order of arrival.

    Classes of one name are one class; ``tenants`` numbers them in order of appearance.  Requests of
    a trace without classes get the name of its file, where another trace has classes.
    """

    readers: Sequence[TraceReader]
    tenants: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Requests]:
        """The chunks, in order of arrival; of equal arrivals the earlier reader's first."""
        self.tenants.clear()
        sources = [iter(reader) for reader in self.readers]
        held = [self._next(place, source) for place, source in enumerate(sources)]
        live = [place for place, chunk in enumerate(held) if len(chunk)]
        while live:
            # What a live source still has comes at or after the last arrival it gave.
            known_s = min(float(held[place].arrival_s[-1]) for place in live)
            places = [int(np.searchsorted(c.arrival_s, known_s, side="left")) for c in held]
            ready = merge([c.pick(slice(0, k)) for c, k in zip(held, places, strict=True)])
            held = [c.pick(slice(k, None)) for c, k in zip(held, places, strict=True)]
            for place in tuple(live):
                if held[place].arrival_s[-1] == known_s:
                    following = self._next(place, sources[place])
                    held[place] = join([held[place], following])
                    if not len(following):
                        live.remove(place)
            if len(ready):
                yield ready
        yield merge(held)

    def _next(self, place: int, source: Iterator[Requests]) -> Requests:
        """The next chunk of a source, classes numbered as here; empty at its end."""
        chunk = next(source, None)
        if chunk is None:
            return join([])
        names = list(self.readers[place].tenants) or [self._name(place)]
        numbers = [self.tenants.setdefault(name, len(self.tenants)) for name in names]
        renamed: Ints = np.array(numbers, dtype=np.int32)[chunk.tenant]
        return Requests(
            arrival_s=chunk.arrival_s,
            prompt_tokens=chunk.prompt_tokens,
            output_tokens=chunk.output_tokens,
            tenant=renamed,
        )

    def _name(self, place: int) -> str:
        return self.readers[place].path.name.split(".")[0]
