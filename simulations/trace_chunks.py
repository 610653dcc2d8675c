"""A chunk of a trace, and what is done to chunks; needs numpy alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """A chunk of a trace: arrays of equal length, ascending in ``arrival_s``.

    ``tenant`` numbers the trace's classes in order of appearance (0 where it has none).
    """

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    tenant: Ints

    def __len__(self) -> int:
        """Number of requests."""
        return int(self.arrival_s.size)

    def pick(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> "Requests":
        """The requests that a mask, an index array or a slice picks."""
        return Requests(
            arrival_s=self.arrival_s[which],
            prompt_tokens=self.prompt_tokens[which],
            output_tokens=self.output_tokens[which],
            tenant=self.tenant[which],
        )


def join(chunks: Sequence[Requests]) -> Requests:
    """One chunk of all, in the order given."""
    return Requests(
        arrival_s=np.concatenate([c.arrival_s for c in chunks] or [np.empty(0)]),
        prompt_tokens=np.concatenate([c.prompt_tokens for c in chunks] or [_no_tokens()]),
        output_tokens=np.concatenate([c.output_tokens for c in chunks] or [_no_tokens()]),
        tenant=np.concatenate([c.tenant for c in chunks] or [_no_tokens()]),
    )


def _no_tokens() -> Ints:
    return np.empty(0, dtype=np.int32)


def shifted(requests: Requests, *, by_s: float) -> Requests:
    """The same requests, later by ``by_s``."""
    return Requests(
        arrival_s=requests.arrival_s + by_s,
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
        tenant=requests.tenant,
    )


def merge(chunks: Sequence[Requests]) -> Requests:
    """All of them, in order of arrival; of equal arrivals the earlier chunk's first."""
    whole = join(chunks)
    return whole.pick(np.argsort(whole.arrival_s, kind="stable"))
