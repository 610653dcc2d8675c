"""``scaler trace`` as people start it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from scaler import cli
from simulations.trace_chunks import Requests, join
from simulations.traces import read_trace

pytestmark = pytest.mark.usefixtures("no_progress")

HEADER = "arrival_s,prompt_tokens,output_tokens"


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]  # a function of the test
    def run(*arguments: object) -> tuple[int, str, list[str]]:
        monkeypatch.setattr("sys.argv", ["scaler", "trace", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err.splitlines()

    return run


def whole(path: Path) -> Requests:
    return join(list(read_trace(path)))


def text_file(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_stats_for_people_and_for_scripts(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [f"{i},{10 * i + 10},5,{'ab'[i % 2]}" for i in range(121)]
    path = text_file(tmp_path, "\n".join([f"{HEADER},class", *rows, ""]))
    status, printed, errors = run("stats", path)
    assert (status, errors) == (0, [])
    assert "121 requests in 0.03 h" in printed
    assert "classes    2: a, b" in printed
    status, printed, _ = run("stats", path, "--json")
    found = json.loads(printed)
    assert status == 0
    assert found["requests"] == 121
    assert found["span_s"] == 120.0
    assert found["mean_per_s"] == pytest.approx(121 / 120)
    assert found["prompt_tokens"] == {"p50": 610.0, "p95": 1150.0, "p99": 1200.0}
    assert found["classes"] == ["a", "b"]
    assert found["rows_skipped"] == 0


def test_what_a_message_quotes_stays_in_its_line(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "mac.csv"
    path.write_bytes(f"{HEADER}\r0,10,5\r\x1b[2J1,10,5\r".encode())
    status, _, errors = run("stats", path)
    assert status == 2
    (line,) = errors
    assert line.startswith("error: ")
    assert line.isprintable()


def test_dates_are_said_to_be_dates(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = "\n".join(f"{1_700_000_000 + at},10,5" for at in range(61))
    path = text_file(tmp_path, f"{HEADER}\n{rows}\n")
    _, printed, _ = run("stats", path)
    assert "61 requests in 0.02 h" in printed
    assert "began      2023-11-14 22:13:20+00:00; arrival_s are dates" in printed
    assert json.loads(run("stats", path, "--json")[1])["counted_from_s"] == 1_700_000_000.0
    out = tmp_path / "cut.csv"
    status, printed, _ = run("slice", path, "--from-s", "30", "--until-s", "50", "--out", out)
    assert status == 0
    assert "counted from the first: 2023-11-14 22:13:20+00:00" in printed
    assert whole(out).arrival_s.tolist() == [float(at) for at in range(20)]


def test_a_single_request_has_no_rate_of_billions(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = text_file(tmp_path, f"{HEADER}\n0,30,5\n")
    found = json.loads(run("stats", path, "--json")[1])
    # One request, 30 prompt and 5 output tokens, over the one second that counts at least.
    rates = (found["mean_per_s"], found["prompt_tokens_per_s"], found["output_tokens_per_s"])
    assert (found["span_s"], *rates) == (0.0, 1.0, 30.0, 5.0)


def test_a_bad_row_is_named_and_may_be_left_out(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = text_file(tmp_path, f"{HEADER}\n0,10,5\n1,10,-4\n2,x,5\n3,10,5\n")
    for arguments in (("stats", path), ("convert", path, "--out", tmp_path / "out.csv")):
        status, printed, errors = run(*arguments)
        assert (status, printed, len(errors)) == (2, "", 1)
        assert "trace.csv: line 3: output_tokens = -4, must be in [1, " in errors[0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["trace.csv"], "nothing half written"
    assert "left out   2 bad rows" in run("stats", path, "--skip-bad-rows")[1]
    status, printed, _ = run("convert", path, "--out", tmp_path / "out.csv", "--skip-bad-rows")
    assert printed == f"2 requests written to {tmp_path / 'out.csv'}; 2 bad rows left out\n"
    assert whole(tmp_path / "out.csv").arrival_s.tolist() == [0.0, 3.0]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_a_public_trace_becomes_a_native_one(run, tmp_path: Path, suffix: str) -> None:  # type: ignore[no-untyped-def]
    path = text_file(
        tmp_path,
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n",
    )
    out = tmp_path / f"out{suffix}"
    assert run("convert", path, "--out", out)[0] == 0
    reader = read_trace(out)
    made = join(list(reader))
    assert made.arrival_s.tolist() == [0.0, 40.0]
    assert made.prompt_tokens.tolist() == [472, 1087]
    assert reader.tenants == {"ChatGPT": 0, "GPT-4": 1}


def test_traces_are_superposed_with_their_classes(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    one = text_file(tmp_path, f"{HEADER},class\n0,1,1,a\n2,2,1,b\n9,3,1,a\n", "one.csv")
    other = text_file(tmp_path, f"{HEADER}\n1,4,1\n2,5,1\n", "night.csv")
    out = tmp_path / "sum.csv"
    assert run("convert", one, other, "--out", out)[0] == 0
    reader = read_trace(out)
    made = join(list(reader))
    assert made.arrival_s.tolist() == [0.0, 1.0, 2.0, 2.0, 9.0]
    assert made.prompt_tokens.tolist() == [1, 4, 2, 5, 3]
    names = list(reader.tenants)
    assert [names[i] for i in made.tenant] == ["a", "night", "b", "night", "a"]


def test_a_slice_is_scaled(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [f"{i},{i + 1},5" for i in range(1000)]
    path = text_file(tmp_path, "\n".join([HEADER, *rows, ""]))
    out = tmp_path / "part.csv"
    assert run("slice", path, "--from-s", 100, "--until-s", 300, "--out", out)[0] == 0
    part = whole(out)
    assert part.arrival_s.tolist() == [float(i) for i in range(200)]
    assert part.prompt_tokens[0] == 101
    half = tmp_path / "half.csv"
    arguments = ("slice", path, "--until-s", 1000, "--load-factor", 0.5, "--out", half)
    assert run(*arguments)[0] == 0
    # Binomial(1000, 0.5): standard deviation 16 requests, five of them are 80.
    assert abs(len(whole(half)) - 500) <= 80


def test_equal_seeds_give_equal_bytes(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    made = {}
    for name, seed in (("one", 4), ("same", 4), ("other", 5)):
        out = tmp_path / name / "made.csv.gz"
        out.parent.mkdir()
        run("generate", "constant", "--duration-s", 600, "--seed", seed, "--out", out)
        made[name] = out.read_bytes()
    assert made["one"] == made["same"] != made["other"]
    assert gzip.decompress(made["one"]).startswith(HEADER.encode())


@pytest.mark.parametrize(
    ("shape", "options", "spans"),
    [
        ("step", ("--at-s", 1000), ((0, 1000), (1000, 2000))),
        ("ramp", (), ((0, 500), (1500, 2000))),
        ("on-off", ("--period-s", 1000, "--hold-s", 200), ((200, 1000), (0, 200))),
        ("flash-crowd", ("--at-s", 500, "--hold-s", 100), ((0, 500), (500, 600))),
        ("diurnal", ("--period-s", 2000), ((0, 300), (850, 1150))),
    ],
)
def test_a_generated_trace_has_its_shape(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, shape: str, options: tuple[object, ...], spans: tuple[tuple[int, int], ...]
) -> None:
    quiet, busy = spans
    out = tmp_path / "made.parquet"
    common = ("--duration-s", 2000, "--rate-per-s", 2, "--peak-per-s", 20, "--out", out)
    assert run("generate", shape, *common, *options)[0] == 0
    arrivals = whole(out).arrival_s

    def rate_per_s(span: tuple[int, int]) -> float:
        return np.count_nonzero((arrivals >= span[0]) & (arrivals < span[1])) / (span[1] - span[0])

    # The quiet spans have 2 to 7 a second, the busy ones 12 to 20.
    assert rate_per_s(busy) > 1.7 * rate_per_s(quiet) > 0.0


def test_a_mix_shift_takes_its_lengths_from_the_options(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "made.csv"
    lengths = ("--prompt-tokens", "50,50", "--later-prompt-tokens", "900,900,800")
    run("generate", "mix-shift", "--duration-s", 2000, "--hold-s", 1, "--out", out, *lengths)
    made = whole(out)
    assert set(made.prompt_tokens[made.arrival_s < 1000.0].tolist()) == {50}
    assert set(made.prompt_tokens[made.arrival_s > 1001.0].tolist()) == {800}, "cut to the longest"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("generate", "wave", "--out", "x.csv"), ("'wave'", "on-off")),
        (("generate", "step", "--rate-per-s", "-1", "--out", "x.csv"), ("rate_per_s = -1.0",)),
        (
            ("generate", "step", "--prompt-tokens", "9", "--out", "x.csv"),
            ("--prompt-tokens = '9'",),
        ),
        (("generate", "step", "--prompt-tokens", "9,4", "--out", "x.csv"), ("median <= p95",)),
        (("generate", "step", "--at-s", "nan", "--out", "x.csv"), ("at_s = nan",)),
        (("generate", "step", "--out", "x.txt"), ("--out = x.txt", ".parquet")),
        (("stats", "nowhere.csv"), ("nowhere.csv",)),
    ],
)
def test_wrong_input_is_one_line_and_status_2(  # type: ignore[no-untyped-def]
    run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    arguments: tuple[str, ...], parts: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, printed, errors = run(*arguments)
    assert (status, printed, len(errors)) == (2, "", 1)
    for part in parts:
        assert part in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_an_empty_slice_is_refused_and_leaves_an_old_file_alone(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = text_file(tmp_path, f"{HEADER}\n0,10,5\n")
    out = text_file(tmp_path, "precious", "out.csv")
    status, _, errors = run("slice", path, "--from-s", 5, "--until-s", 9, "--out", out)
    assert (status, errors) == (2, [f"error: {out}: there are no requests to write"])
    assert out.read_text() == "precious"
    status, _, errors = run("slice", path, "--from-s", 9, "--until-s", 5, "--out", out)
    assert (status, len(errors)) == (2, 1)


@pytest.mark.parametrize("name", ["stats", "convert", "generate", "slice"])
def test_help_has_an_example(run, name: str) -> None:  # type: ignore[no-untyped-def]
    status, printed, _ = run(name, "--help")
    assert status == 0
    assert f"Example: scaler trace {name}" in printed


def test_a_folder_that_is_not_there_is_the_worlds_fault(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = text_file(tmp_path, f"{HEADER}\n0,10,5\n")
    status, _, errors = run("convert", path, "--out", tmp_path / "nowhere" / "x.csv")
    assert (status, len(errors)) == (1, 1)
