"""The history of one target from a Prometheus-compatible API: fetched in chunks, kept on disk.

The queries are those that the daemon asks at every tick, asked of a range with the tick as its
step: what a range query says of an instant is what an instant query would have said then.  Each
chunk is a file of its own, so that a recording that was killed goes on where it was.
"""

import contextlib
import gzip
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from scaler.errors import ConfigError, ScalerError, SignalError
from scaler.signals import promql
from scaler.signals.belonging import workload_of
from scaler.signals.profiles import PROFILES
from scaler.signals.prometheus import PrometheusSource
from scaler.signals.prometheus_queries import queries
from scaler.signals.promql import Scope
from scaler.signals.readers import Readers
from scaler.signals.samples import TargetRef
from scaler.signals.settings import PrometheusSettings

LENGTHS_EVERY_S = 300.0  # lengths are drawn from the requests that finished in as long
POINTS_MAX = 11_000  # of one series in one answer; Prometheus refuses more
_STATE = "state.json"
_QUERY_TIMEOUT_S = 600.0
_LOOKS = 100  # over the window, for the workload of a model

Rows = list[tuple[dict[str, str], list[tuple[float, float]]]]
"""Series: labels, and points of (time, value)."""

Told = Callable[[int, int], None]
"""Called with the chunks that are there and those that there will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What of the history is wanted; times are on the server's clock, ``to_s`` is not included."""

    target: TargetRef
    settings: PrometheusSettings
    from_s: float
    to_s: float
    tick_s: float
    chunk_s: float = 3600.0
    lengths_s: float = LENGTHS_EVERY_S  # of which lengths are the requests that finished
    lengths_every_s: float = LENGTHS_EVERY_S
    gpus_per_replica: int = 0  # 0 is not known: no counter of an engine tells

    def __post_init__(self) -> None:
        """Raise ConfigError for a window that cannot be fetched."""
        faults = []
        if not self.from_s < self.to_s:
            faults.append(f"--from = {self.from_s:.0f}, must be before --to, {self.to_s:.0f}")
        if not self.tick_s <= self.chunk_s <= (POINTS_MAX - 1) * self.tick_s:
            faults.append(
                f"--chunk-s = {self.chunk_s:g}, must be in"
                f" [{self.tick_s:g}, {(POINTS_MAX - 1) * self.tick_s:g}]: Prometheus gives no more"
                f" than {POINTS_MAX} points of a series"
            )
        if faults:
            raise ConfigError(*faults)

    @property
    def scope(self) -> Scope:
        """Where queries look."""
        return Scope(
            namespaces=(self.target.namespace,),
            namespace_label=self.settings.namespace_label,
            pod_label=self.settings.pod_label,
        )

    @property
    def chunks(self) -> int:
        """How many requests of each query there are."""
        return math.ceil(self.ticks / self._chunk_ticks)

    @property
    def ticks(self) -> int:
        """How many times the daemon would have looked."""
        return math.ceil((self.to_s - self.from_s) / self.tick_s - 1e-9)

    def ticks_of(self, chunk: int) -> tuple[float, ...]:
        """The times of a chunk."""
        first = chunk * self._chunk_ticks
        last = min(first + self._chunk_ticks, self.ticks)
        return tuple(self.from_s + place * self.tick_s for place in range(first, last))

    @property
    def _chunk_ticks(self) -> int:
        return max(int(self.chunk_s / self.tick_s), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """An expression and how often it is evaluated."""

    text: str
    step_s: float


def history_queries(asked: Asked, readers: Readers) -> dict[str, Query]:
    """Every query by the name of what it brings; the same for each chunk."""
    daemon = queries([asked.target], asked.scope, asked.settings, readers, recorded=False)
    texts = {
        name: getattr(daemon, name)
        for name in (
            "queue", "work", "kv_cache", "info", "times", "ttft", "itl", "gpu", "gpu_times",
        )
    }  # fmt: skip
    made = {name: Query(text=text, step_s=asked.tick_s) for name, text in texts.items() if text}
    made |= _length_queries(asked)
    return made | _replica_queries(asked)


def _length_queries(asked: Asked) -> dict[str, Query]:
    """Histograms of the lengths of requests that finished, and of nothing else: no gauges."""
    profile = PROFILES[asked.settings.engine]
    made = {}
    for name, sums in (
        ("prompt_lengths", profile.finished_prompt_tokens),
        ("output_lengths", profile.finished_output_tokens),
    ):
        if sums:
            histogram = tuple(item.removesuffix("_sum") for item in sums)
            text = promql.histogram(histogram, asked.scope, window_s=asked.lengths_s)
            made[name] = Query(text=text, step_s=asked.lengths_every_s)
    return made


_KUBE_METRICS: Mapping[str, tuple[str, str, str]] = {
    "deployment": (
        "kube_deployment_spec_replicas",
        "kube_deployment_status_replicas",
        "kube_deployment_status_replicas_ready",
    ),
    "statefulset": (
        "kube_statefulset_replicas",
        "kube_statefulset_status_replicas",
        "kube_statefulset_status_replicas_ready",
    ),
}  # of kube-state-metrics


def _replica_queries(asked: Asked) -> dict[str, Query]:
    """Counts by kube-state-metrics, and how long pods took from creation to ready."""
    target = asked.target
    names = _KUBE_METRICS.get(target.kind)
    if names is None:
        return {}
    where = (
        promql.matcher("namespace", (target.namespace,)),
        promql.matcher(target.kind, (target.name,)),
    )
    made = {
        name: Query(text=f"max({promql.selector((metric,), *where)})", step_s=asked.tick_s)
        for name, metric in zip(("wanted", "current", "ready"), names, strict=True)
    }
    pinned = promql.matcher("namespace", (target.namespace,))
    ready, created = (
        promql.selector((metric,), pinned)
        for metric in ("kube_pod_status_ready_time", "kube_pod_created")
    )
    text = f"max by (pod) ({ready}) - max by (pod) ({created})"
    return made | {"start_ups": Query(text=text, step_s=LENGTHS_EVERY_S)}


async def workload_of_model(asked: Asked, source: PrometheusSource, readers: Readers) -> str:
    """The one workload of the namespace whose pods report the target's model in the window.

    Raises:
        SignalError: there is none, or the API cannot be asked.
        ConfigError: there are several.
    """
    wanted, settings = asked.target.model_name, asked.settings
    text = promql.latest(readers.engine.names.times, asked.scope, by=("model_name",))
    step_s = max((asked.to_s - asked.from_s) / _LOOKS, asked.tick_s)
    tracks = await source.query_range(
        text, start_s=asked.from_s, end_s=asked.to_s, step_s=step_s, timeout_s=_QUERY_TIMEOUT_S
    )
    found: dict[str, set[str]] = {}
    for track in tracks:
        pod = track.labels.get(settings.pod_label, "")
        workloads = found.setdefault(track.labels.get("model_name", ""), set())
        workloads.add(workload_of(pod) or pod)
    if wanted not in found:
        seen = ", ".join(sorted(found)) or "no engine at all"
        raise SignalError(
            f"no pod of {asked.target.namespace} reports model {wanted!r} in the window;"
            f" seen: {seen}"
        )
    if len(found[wanted]) > 1:
        several = ", ".join(sorted(found[wanted]))
        raise ConfigError(f"--model-name = {wanted!r} is served by {several}: choose by --target")
    return found[wanted].pop()


class Store:
    """Chunks in a folder; a chunk is there whole or not at all."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Raise ConfigError where the folder holds chunks of something else."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / _STATE
        if state.exists():
            found = msgspec.json.decode(state.read_bytes(), type=dict[str, str])
            if found.get("fingerprint") != fingerprint:
                raise ConfigError(
                    f"{folder} holds an unfinished recording with other options;"
                    " give the same ones to go on with it, another --out, or remove that folder"
                )
        else:
            state.write_bytes(msgspec.json.encode({"fingerprint": fingerprint}))

    def has(self, chunk: int) -> bool:
        """Whether the chunk was fetched."""
        return self._path(chunk).exists()

    def put(self, chunk: int, rows: Mapping[str, Rows]) -> None:
        """Keep a chunk."""
        beside = self._path(chunk).with_suffix(".new")
        beside.write_bytes(gzip.compress(msgspec.msgpack.encode(rows), compresslevel=1))
        beside.replace(self._path(chunk))

    def get(self, chunk: int) -> dict[str, Rows]:
        """A chunk that is there.

        Raises:
            SignalError: its file is broken.
        """
        try:
            packed = self._path(chunk).read_bytes()
            return msgspec.msgpack.decode(gzip.decompress(packed), type=dict[str, Rows])
        except (OSError, EOFError, msgspec.DecodeError) as error:
            raise SignalError(f"{self._path(chunk)} cannot be read: {error}") from error

    @contextlib.contextmanager
    def used_up(self) -> Iterator[None]:
        """Removes everything after a use, also one that found the history wanting.

        What can be mended then is another window or target, for which nothing of it can be used.
        """
        try:
            yield
        except ScalerError:
            self.clear()
            raise
        self.clear()

    def clear(self) -> None:
        """Remove everything: the recording is finished."""
        for path in sorted(self._folder.iterdir()):
            path.unlink()
        self._folder.rmdir()

    def _path(self, chunk: int) -> Path:
        # Not JSON, which has no NaN: it must reach the readers, who tell it from a number.
        return self._folder / f"chunk-{chunk:05d}.gz"


def fingerprint(asked: Asked, made: Mapping[str, Query]) -> str:
    """What tells recordings apart: address, window, queries; never credentials."""
    parts = {
        "url": asked.settings.url,
        "window": [asked.from_s, asked.to_s, asked.tick_s, asked.chunk_s],
        "queries": {name: asdict(query) for name, query in made.items()},
    }
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


async def fetch(
    asked: Asked, source: PrometheusSource, readers: Readers, store: Store, told: Told
) -> None:
    """Fetch the chunks that are not there yet.

    Raises:
        SignalError: the API cannot be reached or refuses a query; what was fetched is kept.
    """
    made = history_queries(asked, readers)
    told(sum(store.has(chunk) for chunk in range(asked.chunks)), asked.chunks)
    for chunk in range(asked.chunks):
        if not store.has(chunk):
            ticks = asked.ticks_of(chunk)
            rows = {name: await _rows(source, query, ticks, asked) for name, query in made.items()}
            store.put(chunk, rows)
        told(chunk + 1, asked.chunks)


async def _rows(
    source: PrometheusSource, query: Query, ticks: tuple[float, ...], asked: Asked
) -> Rows:
    """One query over one chunk.  Lengths of a stretch are known at its end."""
    start_s, end_s = ticks[0], ticks[-1]
    if query.step_s != asked.tick_s:
        first = math.ceil((start_s - asked.from_s) / query.step_s - 1e-9)
        start_s = asked.from_s + first * query.step_s
        if start_s > end_s:
            return []
    tracks = await source.query_range(
        query.text, start_s=start_s, end_s=end_s, step_s=query.step_s, timeout_s=_QUERY_TIMEOUT_S
    )
    return [(track.labels, list(track.points)) for track in tracks]


def chunks(asked: Asked, store: Store) -> Iterator[tuple[tuple[float, ...], dict[str, Rows]]]:
    """The ticks and the rows of every chunk."""
    for chunk in range(asked.chunks):
        yield asked.ticks_of(chunk), store.get(chunk)
