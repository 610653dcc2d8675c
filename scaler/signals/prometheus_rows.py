"""Rows of grouped queries, kept small: labels that many rows share are kept once.

Ten thousand pods have some 250,000 rows a collection.  A row is kept as three numbers, sorted by
pod: which name, which labels, what value; the dictionaries of the JSON live only while their slice
is read.
"""

from array import array
from collections.abc import Hashable, Iterator
from sys import intern
from typing import Generic, TypeVar

from scaler.signals.prometheus_answer import Answer, Cell, Notes, breathe, open_answer, reading
from scaler.signals.prometheus_http import Reply
from scaler.signals.readers import CompactRow, Labels, PodKey
from scaler.signals.turns import age

T = TypeVar("T", bound=Hashable)

# Label pairs of a GPU row, in the order in which they are believed (see promql.gpu).
_GPU_PAIRS = (
    ("exported_namespace", "exported_pod"),
    ("pod_namespace", "pod_name"),
    ("namespace", "pod_name"),
    ("namespace", "pod"),
)


class PodRows:
    """Rows by pod, from one answer or several."""

    def __init__(self) -> None:
        # Name, labels, value, name, labels, ... of each pod, the first two as places in a table.
        # Tuples or lists of rows are 750,000 references for the garbage collector to follow while
        # every thread waits; an array has none, and takes half the memory.
        self._rows: dict[PodKey, array[float]] = {}
        self._names: _Table[str] = _Table()
        self._labels: _Table[Labels] = _Table()
        self.notes = Notes()

    def add(self, key: PodKey, name: str, labels: dict[str, str], value: float) -> None:
        """Take in one row; ``labels`` are those beside the pod's and the metric's name."""
        rows = self._rows.get(key)
        if rows is None:
            namespace, pod = key  # of ten answers, and of the last collection: kept once
            rows = self._rows[intern(namespace), intern(pod)] = array("d")
        rows.append(self._names.place(name))
        rows.append(self._labels.place(tuple(labels.items())))
        rows.append(value)

    def take(self, key: PodKey) -> list[CompactRow]:
        """The rows of one pod, once.

        They are forgotten here: to free the rows of all pods in one go would hold up every thread.
        """
        flat = self._rows.pop(key, None)
        if flat is None:
            return []
        names, labels = self._names.items, self._labels.items
        return [
            (names[int(name)], labels[int(label)], value)
            for name, label, value in zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        ]

    def pods(self) -> Iterator[PodKey]:
        """Every pod with a row."""
        return iter(self._rows)


class _Table(Generic[T]):
    """What many rows share, each once, and its place."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self._places: dict[T, int] = {}

    def place(self, item: T) -> int:
        found = self._places.get(item)
        if found is None:
            found = self._places[item] = len(self.items)
            self.items.append(item)
        return found


def read_engine_rows(reply: Reply, *, namespace_label: str, pod_label: str) -> PodRows:
    """Read a grouped query of engine metrics; called in a thread."""
    rows = PodRows()
    with reading():
        answer = open_answer(reply)
        for cell in answer.cells():
            labels = cell.labels
            key = (labels.pop(namespace_label, ""), labels.pop(pod_label, ""))
            rows.add(key, labels.pop("__name__", ""), labels, cell.value)
    rows.notes = answer.notes
    return rows


def read_gpu_rows(reply: Reply) -> PodRows:
    """Read a grouped DCGM query, whichever labels name the pod; called in a thread."""
    rows = PodRows()
    with reading():
        answer = open_answer(reply)
        for cell in answer.cells():
            key = _gpu_key(cell)
            rows.add(key, cell.labels.get("__name__", ""), _gpu_identity(cell), cell.value)
    rows.notes = answer.notes
    return rows


def read_all(reply: Reply) -> tuple[list[Cell], Notes]:
    """Read a small answer whole; called in a thread."""
    with reading():
        answer: Answer = open_answer(reply)
        return list(answer.cells()), answer.notes


def in_slices(rows: PodRows, slice_pods: int) -> Iterator[PodKey]:
    """Every pod, with a pause for other threads after each slice."""
    for index, key in enumerate(list(rows.pods())):
        if index % slice_pods == slice_pods - 1:
            age()
            breathe()
        yield key


def _gpu_key(cell: Cell) -> PodKey:
    for namespace, pod in _GPU_PAIRS:
        if named := cell.labels.get(pod):
            return cell.labels.get(namespace, ""), named
    return "", ""


def _gpu_identity(cell: Cell) -> dict[str, str]:
    """What tells GPUs of a pod apart; never which pod it was."""
    pod_labels = {label for pair in _GPU_PAIRS for label in pair}
    return {
        label: value
        for label, value in cell.labels.items()
        if label not in pod_labels and label != "__name__"
    }
