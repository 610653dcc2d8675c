"""The compiled kernel where no folder can be written: a read-only image, a home that is none."""

import pytest
from numba.core import caching

from simulations import engine


def test_it_is_compiled_anew_where_it_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_locator: object) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)

    def doubled(count: int) -> int:
        return 2 * count

    assert engine.compiled(doubled)(21) == 42
