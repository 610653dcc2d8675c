"""Reading, scaling, slicing, generating and summing up traces."""

import dataclasses
import gzip
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.errors import ScenarioError
from simulations import traces
from simulations.trace_chunks import Requests, join
from simulations.trace_generate import Lengths, Shape, TraceSpec, generate
from simulations.trace_stats import stats_of
from simulations.traces import cut_out, read_trace, scale, write_trace

HEADER = "arrival_s,prompt_tokens,output_tokens"
DATA = Path(os.environ.get("VLLM_SCALER_DATA", Path(__file__).parents[3] / "shared"))


def text_file(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def rows_of(path: Path, *, skip_bad_rows: bool = False) -> list[tuple[float, int, int, int]]:
    whole = join(list(read_trace(path, skip_bad_rows=skip_bad_rows)))
    columns = (whole.arrival_s, whole.prompt_tokens, whole.output_tokens, whole.tenant)
    return list(zip(*(c.tolist() for c in columns), strict=True))


def some_requests(count: int, seed: int = 0) -> Requests:
    random = np.random.default_rng(seed)
    return Requests(
        arrival_s=np.round(np.cumsum(random.exponential(0.5, count)), 3).astype(np.float64),
        prompt_tokens=random.integers(1, 5000, count).astype(np.int32),
        output_tokens=random.integers(1, 900, count).astype(np.int32),
        tenant=random.integers(0, 3, count).astype(np.int32),
    )


def test_classes_are_numbered_in_order_of_appearance(tmp_path: Path) -> None:
    path = text_file(tmp_path, f"{HEADER},class\n0.5,10,2,blue\n0.5,11,3,amber\n2,12,4,blue\n")
    reader = read_trace(path)
    assert rows_of(path) == [(0.5, 10, 2, 0), (0.5, 11, 3, 1), (2.0, 12, 4, 0)]
    list(reader)
    assert reader.tenants == {"blue": 0, "amber": 1}


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    requests = some_requests(1000)
    path = tmp_path / f"trace{suffix}"
    assert write_trace(path, [requests.pick(slice(0, 400)), requests.pick(slice(400, None))],
                       tenants=["a", "b", "c"]) == 1000  # fmt: skip
    again = join(list(read_trace(path)))
    np.testing.assert_array_equal(again.arrival_s, requests.arrival_s)
    np.testing.assert_array_equal(again.prompt_tokens, requests.prompt_tokens)
    np.testing.assert_array_equal(again.output_tokens, requests.output_tokens)
    # Numbers go by first appearance, so they are a renaming of those written.
    renamed = {int(old): int(new) for old, new in zip(requests.tenant, again.tenant, strict=True)}
    np.testing.assert_array_equal(again.tenant, [renamed[int(old)] for old in requests.tenant])


@pytest.mark.parametrize(
    ("rows", "line", "fault"),
    [
        ("0,10,5\n1,x,5\n", 3, "prompt_tokens = 'x', must be a whole number"),
        ("0,10,5\n1,10.5,5\n", 3, "prompt_tokens = 10.5, must be a whole number"),
        ("0,10,5\n1,10,-4\n", 3, "output_tokens = -4, must be in [1, 1073741824]"),
        ("0,10,0\n", 2, "output_tokens = 0, must be in [1, 1073741824]"),
        ("0,10,5\n1,10\n", 3, "has 2 columns, must have 3"),
        ("0,10,5\n1,10,5,6\n", 3, "has 4 columns, must have 3"),
        ("nan,10,5\n", 2, "arrival_s = nan, must be finite and >= 0"),
        ("-1,10,5\n", 2, "arrival_s = -1, must be finite and >= 0"),
        ("soon,10,5\n", 2, "arrival_s = 'soon', must be a number of seconds"),
        ("0,10,5\n5,10,5\n4,10,5\n", 4, "arrival_s = 4.0, must not be before 5.0"),
        ("0,10,5\n5,10,5\n\n4,10,5\n", 5, "arrival_s = 4.0, must not be before 5.0"),
    ],
)
def test_a_bad_row_is_named_by_line_and_fault(
    tmp_path: Path, rows: str, line: int, fault: str
) -> None:
    path = text_file(tmp_path, f"{HEADER}\n{rows}")
    with pytest.raises(ScenarioError) as caught:
        rows_of(path)
    assert f"trace.csv: line {line}: {fault}" in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_dates_are_counted_from_the_first(tmp_path: Path, suffix: str) -> None:
    """Arrivals in seconds since 1970; a trace that begins some days late stays as it is."""
    began_s = 1_700_000_000.5
    path = tmp_path / f"trace{suffix}"
    chunks = [
        Requests(
            arrival_s=began_s + np.arange(first, first + 3),
            prompt_tokens=np.full(3, 10, dtype=np.int32),
            output_tokens=np.full(3, 5, dtype=np.int32),
            tenant=np.zeros(3, dtype=np.int32),
        )
        for first in (0, 3)
    ]
    write_trace(path, chunks)
    reader = read_trace(path)
    for _ in range(2):  # each iteration reads anew
        assert join(list(reader)).arrival_s.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert reader.counted_from_s == began_s
    late = read_trace(text_file(tmp_path, f"{HEADER}\n400000,10,5\n400001,10,5\n"))
    assert join(list(late)).arrival_s.tolist() == [400000.0, 400001.0]
    assert late.counted_from_s == 0.0


def test_dates_in_a_bad_order_are_named_as_they_stand(tmp_path: Path) -> None:
    path = text_file(tmp_path, f"{HEADER}\n1700000005,10,5\n1700000004,10,5\n")
    with pytest.raises(ScenarioError, match=r"= 1700000004\.0, must not be before 1700000005"):
        rows_of(path)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("1700000000123,10,5\n", "line 2: .*1700000000123, must be in seconds, .*milliseconds"),
        ("0,10,5\n1700000000,10,5\n", r"line 3: arrival_s = 1.7e\+09, must be within 1e\+08 s"),
        ("0,10,5\n1e300,10,5\n", "line 3: .*must be within"),
    ],
)
def test_times_that_nobody_means_are_named(tmp_path: Path, rows: str, fault: str) -> None:
    with pytest.raises(ScenarioError, match=fault):
        rows_of(text_file(tmp_path, f"{HEADER}\n{rows}"))


def test_classes_of_any_characters_come_back_from_parquet(tmp_path: Path) -> None:
    names = ["a,b", 'c"d', "e\nf", "plain"]
    path = tmp_path / "trace.parquet"
    requests = Requests(
        arrival_s=np.arange(4.0),
        prompt_tokens=np.full(4, 10, dtype=np.int32),
        output_tokens=np.full(4, 5, dtype=np.int32),
        tenant=np.arange(4, dtype=np.int32),
    )
    write_trace(path, [requests], tenants=names)
    reader = read_trace(path)
    assert join(list(reader)).tenant.tolist() == [0, 1, 2, 3]
    assert list(reader.tenants) == names


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("long.csv", f"{HEADER}\n0,{'1' * 200_000},5\n".encode(), "line 2: is not CSV: field"),
        ("deep.jsonl", b'{"timestamp": ' + b"[" * 100_000, "line 1: keys must include"),
        (
            "digits.jsonl",
            b'{"timestamp": 0, "input_length": 1, "output_length": 5}\n{"timestamp": 1'
            + b"0" * 6000 + b"}",
            "line 2: has a number too long",
        ),
        (
            "bench.jsonl",
            b'{"start_times": 3, "input_lens": [1], "output_lens": [1]}',
            "line 1: start_times, input_lens and output_lens must be lists",
        ),
        (
            "torn.csv.gz",
            gzip.compress(f"{HEADER}\n0,10,5\n".encode(), mtime=0)[:12] + b"\xff" * 40,
            "cannot be read: ",
        ),
        ("torn.parquet", b"PAR1" + b"\x00" * 40 + b"\x08\x00\x00\x00PAR1", "cannot be read: "),
    ],
)  # fmt: skip
def test_a_file_that_no_parser_survives_has_a_fault(
    tmp_path: Path, name: str, content: bytes, fault: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ScenarioError, match=fault):
        rows_of(path)


def test_a_row_years_later_is_skipped_alone(tmp_path: Path) -> None:
    text = f"{HEADER},class\n0,10,5,a\n1e12,11,5,b\n2,12,5,a\n"
    reader = read_trace(text_file(tmp_path, text), skip_bad_rows=True)
    assert join(list(reader)).prompt_tokens.tolist() == [10, 12]
    assert (reader.rows_skipped, list(reader.tenants)) == (1, ["a"])


def test_bad_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    text = f"{HEADER}\n0,10,5\n1,x,5\n2,11,6\n1.5,99,9\n3,12,-7\n4,13,8\n"
    reader = read_trace(text_file(tmp_path, text), skip_bad_rows=True)
    whole = join(list(reader))
    assert whole.prompt_tokens.tolist() == [10, 11, 13]
    assert reader.rows_skipped == 3  # a word, an arrival before its predecessor, a negative


def test_a_fault_in_a_later_block_keeps_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "BLOCK_BYTES", 64)
    lines = [f"{i},10,5" for i in range(50)]
    lines[37] = "37,10,zero"
    path = text_file(tmp_path, "\n".join([HEADER, *lines]))
    with pytest.raises(ScenarioError, match=r"line 39: output_tokens = 'zero'"):
        rows_of(path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        (f"{HEADER}\n", "holds no requests"),
        ("when,in,out\n0,1,1\n", "line 1: columns when,in,out, must include"),
        ('{"a": 1}\n', "line 1: keys must include timestamp,input_length,output_length"),
    ],
)
def test_a_file_that_is_no_trace_says_why(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        rows_of(text_file(tmp_path, text))
    assert fault in str(caught.value)


def test_a_file_that_cannot_be_opened_or_unpacked_says_so(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        rows_of(tmp_path / "missing.csv")
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(gzip.compress(f"{HEADER}\n0,1,1\n".encode() * 999)[:-30])
    with pytest.raises(ScenarioError, match="cannot be read"):
        rows_of(torn)


def test_a_parquet_row_with_a_null_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    table = {"arrival_s": [0.0, 1.0], "prompt_tokens": [5, None], "output_tokens": [5, 5]}
    pa_parquet.write_table(pa.table(table), path)
    with pytest.raises(ScenarioError, match=r"line 3: prompt_tokens = ''"):
        rows_of(path)


# The public formats, each in the form its publisher gives it


def test_azure_times_become_seconds_from_the_first_and_are_sorted(tmp_path: Path) -> None:
    path = text_file(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:51.9951690,396,109\n"
        "2023-11-16 18:15:50.9951690,879,55\n",
    )
    # 51.995169 - 46.680590 = 5.314579 s
    expected = [(0.0, 374, 44, 0), (4.314579, 879, 55, 0), (5.314579, 396, 109, 0)]
    assert [pytest.approx(row, abs=1e-5) for row in expected] == rows_of(path)


def test_azure_2024_times_with_a_zone(tmp_path: Path) -> None:
    path = text_file(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,2162,5\n"
        "2024-05-10 00:00:01+00:00,2399,6\n",
    )
    assert rows_of(path)[1][0] == pytest.approx(0.99007, abs=1e-5)


def test_burstgpt_has_its_model_as_class(tmp_path: Path) -> None:
    path = text_file(
        tmp_path,
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n",
    )
    assert rows_of(path) == [(0.0, 472, 18, 0), (40.0, 1087, 230, 1)]


def test_servegen_output(tmp_path: Path) -> None:
    path = text_file(
        tmp_path, "request_id,timestamp,input_tokens,output_tokens\n0,0.5,100,20\n1,0.7,50,9\n"
    )
    assert [row[1:3] for row in rows_of(path)] == [(100, 20), (50, 9)]


def test_mooncake_milliseconds(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 3000, "input_length": 7000, "output_length": 20, "hash_ids": [1, 2]},
        {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0]},
    ]
    path = text_file(tmp_path, "\n".join(map(json.dumps, lines)), "trace.jsonl")
    assert rows_of(path) == [(0.0, 6758, 500, 0), (3.0, 7000, 20, 0)]


def test_mooncake_fault_is_named(tmp_path: Path) -> None:
    good = json.dumps({"timestamp": 0, "input_length": 1, "output_length": 1})
    path = text_file(tmp_path, f'{good}\n{{"timestamp": 1, "input_length": 2}}\n', "trace.jsonl")
    with pytest.raises(ScenarioError, match=r"line 2: has no output_length"):
        rows_of(path)


def test_vllm_bench_leaves_failed_requests_out(tmp_path: Path) -> None:
    run = {
        "model_id": "m",
        "input_lens": [100, 200, 300],
        "output_lens": [10, 0, 30],
        "start_times": [1000.0, 1000.5, 1002.0],
    }
    path = text_file(tmp_path, json.dumps(run) + "\n", "bench.jsonl")
    assert rows_of(path) == [(0.0, 100, 10, 0), (2.0, 300, 30, 0)]
    del run["start_times"]
    path = text_file(tmp_path, json.dumps(run) + "\n", "bench.jsonl")
    with pytest.raises(ScenarioError, match="has no start_times"):
        rows_of(path)


# Scaling


def in_chunks(requests: Requests, sizes: list[int]) -> list[Requests]:
    cuts = [0, *(np.cumsum(sizes) % (len(requests) + 1)).tolist(), len(requests)]
    cuts = sorted(set(cuts))
    return [requests.pick(slice(a, b)) for a, b in itertools.pairwise(cuts)]


@given(
    st.lists(st.integers(1, 300), max_size=5),
    st.sampled_from([0.3, 1.0, 2.0, 2.5, 4.0]),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_scaling_does_not_depend_on_the_chunks(
    sizes: list[int], load_factor: float, seed: int
) -> None:
    requests = some_requests(500)
    # Whole seconds: many arrive at one instant, also across the edge of two chunks.
    requests = dataclasses.replace(requests, arrival_s=np.floor(requests.arrival_s))
    at_once = join(list(scale([requests], load_factor=load_factor, seed=seed)))
    chunked = join(list(scale(in_chunks(requests, sizes), load_factor=load_factor, seed=seed)))
    np.testing.assert_array_equal(chunked.arrival_s, at_once.arrival_s)
    np.testing.assert_array_equal(np.sort(chunked.prompt_tokens), np.sort(at_once.prompt_tokens))
    np.testing.assert_array_equal(chunked.prompt_tokens, at_once.prompt_tokens)
    assert np.all(np.diff(chunked.arrival_s) >= 0.0)
    assert chunked.arrival_s[-1] <= requests.arrival_s[-1], "the sum is as long as the trace"


@pytest.mark.parametrize("load_factor", [2.0, 4.0])
def test_a_sum_has_its_full_load_from_the_first_minute_to_the_last(load_factor: float) -> None:
    """Ten arrivals a second: 600 a minute, times the factor, in each minute of two hours."""
    requests = _steady(span_s=7200)
    scaled = join(list(scale(in_chunks(requests, [997] * 71), load_factor=load_factor, seed=3)))
    minutes = np.bincount((scaled.arrival_s // 60.0).astype(np.int64))
    assert minutes[120:].sum() <= 1, "the very last arrival is at 7200 s"
    minutes = minutes[:120]
    assert minutes.min() >= 0.98 * 600 * load_factor
    assert minutes.max() <= 1.02 * 600 * load_factor


@pytest.mark.parametrize("span_s", [0, 1, 59, 400, 1199, 1201])
def test_a_trace_shorter_than_the_shifts_is_multiplied_too(span_s: int) -> None:
    requests = _steady(span_s=span_s)
    scaled = join(list(scale([requests], load_factor=4.0, seed=3)))
    assert len(scaled) == pytest.approx(4 * len(requests), rel=0.01)
    assert scaled.arrival_s[0] >= 0.0
    assert scaled.arrival_s[-1] <= requests.arrival_s[-1]
    assert np.all(np.diff(scaled.arrival_s) >= 0.0)


def test_a_copys_beginning_is_not_the_first_copys_once_more() -> None:
    """Prompts tell requests apart: in the first minute of a sum no request is played twice."""
    requests = _steady(span_s=7200)
    numbered = dataclasses.replace(
        requests, prompt_tokens=np.arange(1, len(requests) + 1, dtype=np.int32)
    )
    scaled = join(list(scale([numbered], load_factor=4.0, seed=3)))
    first = scaled.prompt_tokens[scaled.arrival_s < 60.0]
    assert len(np.unique(first)) == len(first)


def _steady(*, span_s: int) -> Requests:
    """Ten arrivals a second."""
    count = 10 * span_s + 1
    return Requests(
        arrival_s=np.arange(count) / 10.0,
        prompt_tokens=np.full(count, 10, dtype=np.int32),
        output_tokens=np.full(count, 5, dtype=np.int32),
        tenant=np.zeros(count, dtype=np.int32),
    )


@pytest.mark.parametrize("load_factor", [0.25, 1.75, 3.0])
def test_scaling_multiplies_the_load(load_factor: float) -> None:
    requests = some_requests(20_000)
    scaled = join(list(scale([requests], load_factor=load_factor, seed=7)))
    # Thinning 20,000 rows: standard deviation at most sqrt(20000 / 4) = 71 rows, 5 of them are 354.
    assert abs(len(scaled) - load_factor * 20_000) <= 354
    assert np.mean(scaled.prompt_tokens) == pytest.approx(np.mean(requests.prompt_tokens), rel=0.03)


def test_factor_one_changes_nothing_and_zero_is_refused() -> None:
    requests = some_requests(100)
    same = join(list(scale([requests], load_factor=1.0, seed=1)))
    np.testing.assert_array_equal(same.arrival_s, requests.arrival_s)
    with pytest.raises(ScenarioError, match=r"load_factor = 0, must be in \(0, 1000\]"):
        list(scale([requests], load_factor=0, seed=1))


def test_a_slice_is_counted_from_its_beginning() -> None:
    requests = some_requests(1000)
    whole = requests.arrival_s
    inside = whole[(whole >= 100.0) & (whole < 200.0)]
    cut = join(list(cut_out(in_chunks(requests, [100, 300]), from_s=100.0, until_s=200.0)))
    np.testing.assert_allclose(cut.arrival_s, inside - 100.0, atol=1e-9)


# Statistics and generators


def test_stats_of_a_trace_that_can_be_counted_by_hand() -> None:
    # Two whole minutes with 30 and 90 arrivals, then one arrival that opens a third.
    arrivals = np.concatenate([np.linspace(0.0, 59.0, 30), np.linspace(60.0, 119.0, 90), [120.0]])
    requests = Requests(
        arrival_s=arrivals,
        prompt_tokens=np.arange(1, 122, dtype=np.int32),
        output_tokens=np.full(121, 7, dtype=np.int32),
        tenant=np.zeros(121, dtype=np.int32),
    )
    stats = stats_of(in_chunks(requests, [50, 20]))
    assert stats.requests == 121
    assert stats.peak_minute_per_s == pytest.approx(90 / 60)
    assert stats.minute_cv == pytest.approx(30 / 60)  # deviation 30 around a mean of 60 a minute
    assert stats.prompt_quantiles_tokens == (61.0, 115.0, 120.0)  # ranks ceil(q * 121)
    assert stats.output_tokens_per_s == pytest.approx(7 * 121 / 120)


@pytest.mark.parametrize("shape", list(Shape))
def test_generated_arrivals_follow_their_rate(shape: Shape) -> None:
    spec = TraceSpec(
        shape=shape, duration_s=7200.0, rate_per_s=2.0, peak_per_s=8.0, at_s=3000.0,
        hold_s=500.0, period_s=1800.0,
    )  # fmt: skip
    made = join(list(generate(spec, seed=5)))
    assert np.all(np.diff(made.arrival_s) >= 0.0)
    seconds = np.arange(0.5, 7200.0)
    for begin in range(0, 7200, 900):
        expected = float(spec.rate_at(seconds)[begin : begin + 900].sum())
        got = np.count_nonzero((made.arrival_s >= begin) & (made.arrival_s < begin + 900))
        assert abs(got - expected) < 5.0 * np.sqrt(expected)  # five Poisson deviations


def test_a_mix_shift_changes_the_lengths() -> None:
    spec = TraceSpec(
        shape=Shape.MIX_SHIFT, duration_s=7200.0, rate_per_s=4.0, at_s=3000.0, hold_s=600.0,
        prompt=Lengths(median_tokens=100.0, p95_tokens=300.0),
        later_prompt=Lengths(median_tokens=2000.0, p95_tokens=6000.0),
    )  # fmt: skip
    made = join(list(generate(spec, seed=5)))
    before = made.prompt_tokens[made.arrival_s < 3000.0]
    after = made.prompt_tokens[made.arrival_s > 3600.0]
    assert np.median(before) == pytest.approx(100.0, rel=0.05)
    assert np.median(after) == pytest.approx(2000.0, rel=0.05)
    assert np.quantile(before, 0.95) == pytest.approx(300.0, rel=0.1)


def test_the_same_seed_gives_the_same_trace_and_another_another() -> None:
    spec = TraceSpec(shape=Shape.CONSTANT, duration_s=600.0, rate_per_s=5.0)
    one, same, other = (join(list(generate(spec, seed=s))) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.arrival_s, same.arrival_s)
    np.testing.assert_array_equal(one.prompt_tokens, same.prompt_tokens)
    assert one.arrival_s.size != other.arrival_s.size or np.any(one.arrival_s != other.arrival_s)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rate_per_s": -1.0}, r"rate_per_s = -1.0, must be in \[0, 1e6\]"),
        ({"duration_s": 0.0}, r"duration_s = 0.0, must be in \(0, 1e9\]"),
        ({"rate_per_s": 0.0}, r"rate_per_s = 0.0, must be above 0"),
    ],
)
def test_a_spec_that_makes_no_trace_is_refused(change: dict[str, float], fault: str) -> None:
    with pytest.raises(ScenarioError, match=fault):
        dataclasses.replace(
            TraceSpec(shape=Shape.CONSTANT, duration_s=60.0, rate_per_s=1.0),
            **change,  # type: ignore[arg-type]
        )


@pytest.mark.data
def test_a_published_trace_has_its_published_statistics() -> None:
    path = DATA / "traces" / "azure-2023-conv.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    stats = stats_of(read_trace(path))
    # From traces/README.md: 19,366 rows, 5.53 req/s, peak 8.45, p50/p95/p99.
    assert stats.requests == 19_366
    assert stats.mean_per_s == pytest.approx(5.53, abs=0.01)
    assert stats.peak_minute_per_s == pytest.approx(8.45, abs=0.05)
    assert stats.prompt_quantiles_tokens == (1020.0, 4083.0, 4142.0)
    assert stats.output_quantiles_tokens == (129.0, 451.0, 601.0)
