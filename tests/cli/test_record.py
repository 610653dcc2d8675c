"""``scaler record`` against an API that answers wrongly, partly, or not at all."""

import gzip
import json
from pathlib import Path

import pytest

from scaler import cli
from scaler.core.model import Replicas, Work
from scaler.ops.replay import read_log
from scaler.service.codec import DecisionRecord
from tests.signals.fake_prometheus import Canned, FakePrometheus, Fault, Seen, success

START_S = 1_760_000_000.0
TICKS = 40  # ten minutes
POD = "vllm-chat-5d7c9bdf88-bbbbb"
NOTHING = success("matrix", [])


class _Engine:
    """One pod with two requests a second, scraped at every tick; some of it may be missing."""

    def __init__(
        self, *, pod: str = POD, without: str = "", silent: range = range(0), kube: str = ""
    ) -> None:
        self._pod = pod
        self._without = without
        self._silent = silent
        self._kube_state = kube
        self.broken_after = 10**9
        self.asked = 0

    def __call__(self, seen: Seen) -> Canned:
        self.asked += 1
        if self.asked > self.broken_after:
            return Canned(fault=Fault.RESET)
        query = seen.query
        if "DCGM" in query:
            return NOTHING
        if "kube_" in query:
            return self._kube(seen)
        start_s, end_s = float(seen.form["start"]), float(seen.form["end"])
        step_s = float(seen.form["step"])
        count = round((end_s - start_s) / step_s) + 1
        ticks = [start_s + step_s * place for place in range(count)]
        ticks = [at_s for at_s in ticks if (at_s - START_S) // 15 not in self._silent]
        if "timestamp(" in query:
            return self._series({"": [(at_s, at_s) for at_s in ticks]})
        if "_bucket" in query:
            return self._lengths(ticks) if "request_" in query else NOTHING
        named = {
            name: [(at_s, self._value(name, at_s)) for at_s in ticks]
            for name in _VALUES
            if f"vllm:{name}" in query and name != self._without
        }
        return self._series(named)

    def _kube(self, seen: Seen) -> Canned:
        """What kube-state-metrics says, where there is one."""
        counts = {"spec_replicas": 3, "status_replicas_ready": 1, "status_replicas{": 2}
        for name, count in counts.items():
            if self._kube_state and name in seen.query:
                values = [[float(seen.form["start"]) + 15.0 * n, str(count)] for n in range(TICKS)]
                return success("matrix", [{"metric": {}, "values": values}])
        return NOTHING

    def _value(self, name: str, at_s: float) -> float:
        start, per_s = _VALUES[name]
        return start + per_s * (at_s - START_S)

    def _series(self, named: dict[str, list[tuple[float, float]]]) -> Canned:
        return success(
            "matrix",
            [
                {"metric": self._labels(name), "values": [[at, str(v)] for at, v in points]}
                for name, points in named.items()
                if points
            ],
        )

    def _labels(self, name: str) -> dict[str, str]:
        labels = {"namespace": "llm", "pod": self._pod, "model_name": "m"}
        return labels | ({"__name__": f"vllm:{name}"} if name else {})

    def _lengths(self, ticks: list[float]) -> Canned:
        """All requests have 100 to 200 tokens."""
        rows = []
        for bound, count in (("100.0", 0), ("200.0", 600), ("+Inf", 600)):
            metric = {"namespace": "llm", "workload": "vllm-chat", "model_name": "m", "le": bound}
            rows.append({"metric": metric, "values": [[at_s, str(count)] for at_s in ticks]})
        return success("matrix", rows)


_VALUES = {
    "num_requests_running": (4.0, 0.0),
    "num_requests_waiting": (0.0, 0.0),
    "kv_cache_usage_perc": (0.2, 0.0),
    "request_success_total": (1000.0, 2.0),
    "prompt_tokens_total": (9000.0, 300.0),
    "generation_tokens_total": (9000.0, 240.0),
    "request_prompt_tokens_sum": (9000.0, 300.0),
    "request_generation_tokens_sum": (9000.0, 240.0),
}  # at the start, and growth a second


def _run(
    monkeypatch: pytest.MonkeyPatch, url: str, out: Path, *more: str, target: str = "llm/vllm-chat"
) -> int:
    window = ("--from", f"{START_S:.0f}", "--to", f"{START_S + TICKS * 15:.0f}")
    asked = ("--prometheus-url", url, "--target", target, *window, "--out", str(out))
    monkeypatch.setattr("sys.argv", ["scaler", "record", *asked, *more])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def _trace(out: Path) -> list[tuple[float, int, int]]:
    rows = gzip.decompress((out / "trace.csv.gz").read_bytes()).decode().splitlines()[1:]
    return [(float(a), int(p), int(o)) for a, p, o in (row.split(",") for row in rows)]


def test_arrivals_and_lengths_are_those_of_the_counters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 requests/s over 39 intervals of 15 s: 1,170, of 150 prompt and 120 output tokens each."""
    with FakePrometheus(_Engine()) as fake:
        assert _run(monkeypatch, fake.url, tmp_path) == 0
    rows = _trace(tmp_path)
    assert len(rows) == 1170
    assert sum(row[1] for row in rows) == pytest.approx(1170 * 150, abs=2)
    assert sum(row[2] for row in rows) == pytest.approx(1170 * 120, abs=2)
    arrivals = [row[0] for row in rows]
    assert arrivals == sorted(arrivals)
    assert all(sum(at // 15 == place for at in arrivals) == 30 for place in range(TICKS - 1))
    summary = json.loads((tmp_path / "record.json").read_text())
    assert (summary["requests"], summary["ticks"], summary["gaps"]) == (1170, TICKS, [])
    log = list(read_log(tmp_path / "decisions.jsonl.gz"))
    assert [one.kind for one in log[:2]] == ["state", "decision"]
    assert len(log) == TICKS + 1
    last = log[-1]
    assert isinstance(last, DecisionRecord)
    work = last.decision.observation.work
    assert isinstance(work, Work)
    assert work.requests_arrived == 30.0


def test_the_same_seed_draws_the_same_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakePrometheus(_Engine()) as fake:
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
            assert _run(monkeypatch, fake.url, tmp_path / name, "--seed", seed) == 0
    a, b, c = ((tmp_path / name / "trace.csv.gz").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_recording_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = _Engine()
    with FakePrometheus(engine) as fake:
        assert _run(monkeypatch, fake.url, tmp_path / "whole", "--chunk-s", "150") == 0
        each = engine.asked // 4  # ten minutes in four chunks
        engine.asked, engine.broken_after = 0, 2 * each + 3
        out = tmp_path / "cut"
        assert _run(monkeypatch, fake.url, out, "--chunk-s", "150") == 1
        assert "cannot be reached" in capsys.readouterr().err
        assert not (out / "trace.csv.gz").exists()
        engine.asked, engine.broken_after = 0, 10**9
        assert _run(monkeypatch, fake.url, out, "--chunk-s", "300") == 2  # not the same recording
        assert "with other options" in capsys.readouterr().err
        engine.asked = 0
        assert _run(monkeypatch, fake.url, out, "--chunk-s", "150") == 0
        assert engine.asked <= 2 * each + 2  # of the third and the fourth chunk
    for name in ("trace.csv.gz", "decisions.jsonl.gz"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_gap_is_said_and_is_not_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ticks 10 to 19 have no sample."""
    with FakePrometheus(_Engine(silent=range(10, 20))) as fake:
        assert _run(monkeypatch, fake.url, tmp_path) == 0
    (gap,) = json.loads((tmp_path / "record.json").read_text())["gaps"]
    assert gap["from_s"] - START_S == 150.0
    assert gap["to_s"] - START_S == 300.0
    assert "gaps: 1, 150 s in all" in capsys.readouterr().out


def test_counts_are_those_of_kube_state_metrics_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakePrometheus(_Engine(kube="yes")) as fake:
        assert _run(monkeypatch, fake.url, tmp_path) == 0
    last = list(read_log(tmp_path / "decisions.jsonl.gz"))[-1]
    assert isinstance(last, DecisionRecord)
    seen = last.decision.observation.replicas
    assert isinstance(seen, Replicas)
    assert (seen.wanted, seen.current, seen.ready, seen.inferred) == (3, 2, 1, False)


@pytest.mark.parametrize(("model", "status"), [("m", 0), ("n", 1)])
def test_a_workload_is_found_by_its_model(
    model: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    window = ("--from", f"{START_S:.0f}", "--to", f"{START_S + TICKS * 15:.0f}")
    with FakePrometheus(_Engine()) as fake:
        asked = ("--prometheus-url", fake.url, "-n", "llm", "--model-name", model, *window)
        arguments = ["scaler", "record", *asked, "--out", str(tmp_path)]
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert int(ended.value.code or 0) == status
    said = capsys.readouterr()
    if status:
        assert "no pod of llm reports model 'n' in the window; seen: m" in said.err
    else:
        assert said.out.startswith("llm/deployment/vllm-chat, ")
        assert len(_trace(tmp_path)) == 1170


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (_Engine(pod="other-5d7c9bdf88-bbbbb"), "series of llm come from other"),
        (_Engine(silent=range(TICKS)), "no engine series with namespace='llm'"),
        (_Engine(without="request_success_total"), "no counter of finished requests"),
    ],
)
def test_what_is_missing_is_named(
    engine: _Engine,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakePrometheus(engine) as fake:
        assert _run(monkeypatch, fake.url, tmp_path) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "trace.csv.gz").exists()
    assert not (tmp_path / ".parts").exists()  # or another target would be refused in this folder


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--to", "1760000000"), "--from = 1760000000, must be before --to, 1760000000"),
        (("--from", "yesterday"), "--from = 'yesterday', must be RFC 3339 with a zone"),
        (("--chunk-s", "200000"), "no more than 11000 points of a series"),
        (("--target", "chat"), "--target = 'chat', must be NAMESPACE/NAME"),
        (("--set", "ttftSloSeconds=x"), "ttftSloSeconds"),
    ],
)
def test_wrong_options_are_named(
    more: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run(monkeypatch, "http://127.0.0.1:1", tmp_path, *more) == 2
    assert said in capsys.readouterr().err
