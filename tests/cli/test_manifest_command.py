"""``scaler manifest`` as people start it."""

from pathlib import Path

import pytest
import yaml

from scaler import cli

BASE = ("manifest", "deployment/vllm-a", "-n", "llm")


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]  # a function of the test
    def run(*arguments: str) -> tuple[int, str, list[str]]:
        monkeypatch.setattr("sys.argv", ["scaler", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err.splitlines()

    return run


def test_options_become_metadata(run) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run(
        *BASE, "--model-name", "a", "--ttft-slo-s", "2", "--tpot-slo-s", "0.05", "--attainment",
        "0.999", "--role", "decode", "--set", "holdDownWindowSeconds=120", "--min-replicas", "2",
        "--max-replicas", "5", "--push", "--scaler-address", "a.b:1",
    )  # fmt: skip
    assert status == 0
    spec = yaml.safe_load(out)["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 5)
    assert spec["fallback"]["replicas"] == 2
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "external-push"
    assert trigger["metadata"] == {
        "scalerAddress": "a.b:1",
        "modelName": "a",
        "ttftSloSeconds": "2",
        "tpotSloSeconds": "0.05",
        "sloAttainmentTarget": "0.999",
        "role": "decode",
        "holdDownWindowSeconds": "120",
    }


def test_alerts_follow_in_the_same_stream(run) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run(*BASE, "--with-alerts")
    assert status == 0
    assert [one["kind"] for one in yaml.safe_load_all(out)] == ["ScaledObject", "PrometheusRule"]


def test_the_profile_is_checked_against_the_daemons_settings(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "config.yaml"
    path.write_text("profiles: {chat: {gateway_query: sum(a_total)}}\n")
    zero = (*BASE, "--scale-to-zero", "--model-name", "a", "--config", str(path))
    status, out, _ = run(*zero, "--profile", "chat")
    assert (status, yaml.safe_load(out)["spec"]["minReplicaCount"]) == (0, 0)
    status, out, said = run(*zero, "--profile", "other")
    assert (status, out) == (2, "")
    assert said == ["error: profile = 'other', must be one of: chat"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ttft-slo-s", "x"), "ttftSloSeconds = 'x', must be a number in [0.01, 600]"),
        (("--kubernetes-version", "new"), "version = 'new', must look like 1.33 or v1.33.2"),
        (("--set", "a"), "--set 'a', must be KEY=VALUE"),
        (("--role", "mixed", "--set", "role=decode"), "role = 'decode', must be given once"),
        (("--min-replicas", "0"), "minReplicaCount = 0, must be at least 1"),
        (("--max-replicas", "x"), "--max-replicas"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(run, arguments, said) -> None:  # type: ignore[no-untyped-def]
    status, out, lines = run(*BASE, *arguments)
    assert (status, out, len(lines)) == (2, "", 1)
    assert said in lines[0]


def test_help_has_an_example(run) -> None:  # type: ignore[no-untyped-def]
    status, out, _ = run("manifest", "--help")
    assert status == 0
    assert "Example: scaler manifest" in out
