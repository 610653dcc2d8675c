"""``scaler doctor`` as people and scripts start it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scaler import cli

Run = Callable[..., tuple[int, str, list[str]]]
GUIDE = Path(__file__).resolve().parents[1] / "data" / "guides" / "004.yaml"


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr("sys.argv", ["scaler", "doctor", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err.splitlines()

    return run


@pytest.fixture(name="guide")
def _guide(tmp_path: Path) -> str:
    below = tmp_path / "some" / "where"
    below.mkdir(parents=True)
    (below / "guide.yml").write_text(GUIDE.read_text(encoding="utf-8"), encoding="utf-8")
    return str(tmp_path)


def test_errors_end_with_1_and_a_summary(run: Run, guide: str) -> None:
    status, out, said = run("--manifests", guide)
    assert (status, said) == (1, [])
    lines = out.splitlines()
    assert lines[-1] == "1 files, 3 objects: 2 error, 6 warning, 0 info"
    assert len(lines) == 9
    assert lines[0].startswith("error: some/where/guide.yml HorizontalPodAutoscaler/vllm-hpa ")
    assert "\x1b" not in out, "no colours where there is no terminal"


def test_a_list_for_scripts(run: Run, guide: str) -> None:
    status, out, _ = run("--manifests", guide, "--json")
    rows = json.loads(out)
    assert status == 1
    assert len(rows) == 8
    assert {row["file"] for row in rows} == {"some/where/guide.yml"}
    assert all(row["evidence"] and row["fix"] and row["rule"] for row in rows)


def test_warnings_alone_end_with_0(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Secret\nmetadata: {name: a}\ndata: {a: aGZfYWJj}\n")
    status, out, _ = run("--manifests", str(tmp_path))
    assert (status, out.splitlines()[-1]) == (0, "1 files, 1 objects: 0 error, 1 warning, 0 info")
    (tmp_path / "a.yaml").write_text("kind: Service\nmetadata: {name: a}\n")
    status, out, _ = run("--manifests", str(tmp_path), "--json")
    assert (status, json.loads(out)) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --manifests DIR, or --config, --target, --url of an installation"),
        (("--json",), "give --manifests DIR"),
        (("--manifests", "{empty}", "--target", "all"), "give it without live options"),
        (("--manifests", "{empty}", "--grpc-ca", "ca.pem"), "give it without live options"),
        (("--target", "all", "--grpc-cert", __file__), "--grpc-key must be given together"),
        (("--target", "all", "--grpc-ca", "{empty}/ca.pem"), "ca.pem is not a file"),
        (("--target", "chat"), "target = 'chat', must be namespace/name or all"),
        (("--url", "localhost:8080"), "url = 'localhost:8080', must begin with http://"),
        (("--service-account", "scaler"), "'scaler', must be namespace:name"),
        (("--kubeconfig", "{empty}/none"), "kubernetes.kubeconfig = "),
        (("--manifests", "nowhere"), "manifests = 'nowhere', must be a directory"),
        (("--manifests", "{empty}"), "must hold a file that ends in .yaml, .yml, .json"),
        (("--manifests", "{empty}", "--gpus-total", "x"), "--gpus-total"),
        (("--manifests", "{empty}", "--gpus-total", "-1"), "gpus-total = -1, must be at least 0"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    status, out, lines = run(*(one.format(empty=tmp_path) for one in arguments))
    assert (status, out, len(lines)) == (2, "", 1)
    assert said in lines[0]


def test_help_has_an_example(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert "Example: scaler doctor --manifests" in out


def test_an_installation_of_which_nothing_can_be_seen_is_not_passed_in_silence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no kubeconfig there
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    status, out, said = run("--target", "all")
    assert (status, said) == (0, [])
    lines = out.splitlines()
    assert lines[-1].startswith("0 targets, 0 Prometheus, 0 daemons: 0 error, 1 warning, 0 info, ")
    assert lines[-1].endswith(" 3 not checked")
    assert any("KEDA objects, HPAs not checked: no Kubernetes API" in line for line in lines)
    _, text, _ = run("--target", "all", "--json")
    assert {row["checked"] for row in json.loads(text)} == {True, False}


def test_a_daemon_that_does_not_answer_is_an_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    status, out, _ = run("--url", "http://127.0.0.1:1")
    assert status == 1
    assert out.startswith("error: daemon http://127.0.0.1:1: ")
    assert "[daemon-unreachable]" in out
