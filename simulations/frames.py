"""A run's timeline as arrays or data frames, for notebooks and other programs."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulations.timeline import COLUMNS, Timeline

if TYPE_CHECKING:
    import pyarrow as pa

WORDS = ("decided_by", "faults")


def columns(timeline: Timeline) -> dict[str, npt.NDArray[Any]]:
    """One array a column, a value a tick: the numbers of ``COLUMNS`` (NaN is not seen), then words.

    The numbers are views of the timeline, not copies.
    """
    made: dict[str, npt.NDArray[Any]] = {name: timeline.column(name) for name in COLUMNS}
    return made | {name: getattr(timeline, name) for name in WORDS}


def table(timeline: Timeline) -> "pa.Table":
    """The same as an Arrow table, in which what was not seen is null.

    pandas, polars and DuckDB take one without copying: ``table(timeline).to_pandas()``.

    Raises:
        ImportError: pyarrow is not installed; it is in the extra ``sim``.
    """
    import pyarrow as pa  # noqa: PLC0415 - a quarter of a second that most users do not need

    made = {}
    for name, values in columns(timeline).items():
        unseen = np.isnan(values) if values.dtype.kind == "f" else None
        made[name] = pa.array(np.ascontiguousarray(values), mask=unseen)
    return pa.table(made)
