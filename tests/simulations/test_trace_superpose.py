"""The sum of several traces."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulations.trace_chunks import Requests, join
from simulations.trace_superpose import Superposed
from simulations.traces import TraceReader


@dataclass(slots=True, kw_only=True)
class Chunked(TraceReader):
    """A reader that has its requests already, in chunks of any size."""

    arrivals: Sequence[Sequence[int]]
    mark: int
    tenants: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Requests]:
        for chunk in self.arrivals:
            count = len(chunk)
            yield Requests(
                arrival_s=np.array(chunk, dtype=np.float64),
                prompt_tokens=np.full(count, self.mark, dtype=np.int32),
                output_tokens=np.ones(count, dtype=np.int32),
                tenant=np.zeros(count, dtype=np.int32),
            )


@st.composite
def traces(draw: st.DrawFn) -> list[list[list[int]]]:
    """Up to three traces of whole seconds, many of them equal, cut into chunks anywhere."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        arrivals = sorted(draw(st.lists(st.integers(0, 12), min_size=1, max_size=20)))
        cuts = sorted(draw(st.sets(st.integers(1, 19), max_size=4)) & set(range(1, len(arrivals))))
        edges = [0, *cuts, len(arrivals)]
        made.append([arrivals[a:b] for a, b in itertools.pairwise(edges)])
    return made


@given(traces())
def test_the_sum_is_all_requests_in_order_however_they_are_cut(
    chunked: list[list[list[int]]],
) -> None:
    readers = [
        Chunked(path=Path(f"{mark}.csv"), arrivals=chunks, mark=mark)
        for mark, chunks in enumerate(chunked)
    ]
    whole = join(list(Superposed(readers=readers)))
    got = list(zip(whole.arrival_s.tolist(), whole.prompt_tokens.tolist(), strict=True))
    expected = [
        (float(at), mark) for mark, chunks in enumerate(chunked) for at in itertools.chain(*chunks)
    ]
    assert got == sorted(expected, key=lambda row: row[0])  # stable: of equals the first reader's
