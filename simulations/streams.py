"""Named random streams from one seed: two policies meet the same arrivals and start-ups.

A stream depends on the seed, its name and its indices alone, never on what was drawn elsewhere: the
third replica of a run starts as slowly under one policy as under another.
"""

import hashlib

import numpy as np


def generator(seed: int, name: str, *indices: int) -> np.random.Generator:
    """The stream ``name`` of a scenario's ``seed``; ``indices`` such as a replica's number."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, name, *indices)))


def word(seed: int, name: str) -> int:
    """A 64-bit number for consumers that hash on their own, as the compiled kernel does."""
    return int(_sequence(seed, name).generate_state(1, np.uint64)[0])


def _sequence(seed: int, name: str, *indices: int) -> np.random.SeedSequence:
    assert seed >= 0, "a seed is not negative"
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.SeedSequence(
        entropy=seed, spawn_key=(int.from_bytes(digest[:8], "big"), *indices)
    )
