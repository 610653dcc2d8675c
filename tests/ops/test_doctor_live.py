"""The doctor against a running daemon, an API and a Prometheus on loopback."""

import asyncio
import ssl
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
import yaml

from scaler.demo.kube_objects import deployment
from scaler.errors import ConfigError
from scaler.ops.doctor.daemon import GrpcTls, certificate
from scaler.ops.doctor.findings import UNCHECKED
from scaler.ops.doctor.gather import gather
from scaler.ops.doctor.run import Report, judge
from scaler.ops.lint.model import Severity
from tests.ops.doctor_installation import (
    NAMESPACE,
    Installation,
    Metrics,
    chat,
    hpa,
    installation,
)
from tests.service.wires import write_tls_files
from tests.signals.kube_fixture import until


async def examined(found: Installation, **changes: object) -> Report:
    return judge(await gather(found.request(**changes)))


def errors(report: Report) -> set[str]:
    return {one.rule.id for one in report.findings if one.severity is Severity.ERROR}


def rules(report: Report) -> set[str]:
    return {one.rule.id for one in report.findings}


def told(report: Report, rule: str) -> str:
    return " | ".join(
        f"{one.evidence} -> {one.fix}" for one in report.findings if one.rule.id == rule
    )


async def test_a_healthy_installation_has_nothing_to_find() -> None:
    async with installation() as found:
        report = await examined(found)
    assert [(one.rule.id, one.evidence) for one in report.findings] == []
    assert report.summary() == (
        "1 targets, 1 Prometheus, 1 daemons: 0 error, 0 warning, 0 info, 0 not checked"
    )


async def test_a_wrong_model_label_is_found_where_everything_answers() -> None:
    async with installation(chat(modelName="llama-3.1-70b")) as found:
        report = await examined(found)
    assert "wrong-model" in errors(report)
    evidence = told(report, "wrong-model")
    assert "2 of 2 ready pods" in evidence
    assert "'llama-3.1-70b'" in evidence
    assert "'llama-3.1-8b'" in evidence
    assert not errors(report) & {"source-unreachable", "query-failed", "no-engine-series"}


async def test_an_advisory_workload_is_examined_though_no_trigger_names_it() -> None:
    """An annotation is all that there is of it while the policy is tried beside another scaler."""
    async with installation() as found:
        advisory = {"vllm-scaler.io/advisory": "true"}
        found.store.apply(deployment(NAMESPACE, "code", replicas=2, annotations=advisory))
        await until(lambda: len(found.daemon.registry.entries) == 2)
        report = await examined(found)
        (alone,) = (await gather(found.request(target=f"{NAMESPACE}/code"))).targets
    assert report.targets == 2
    assert (alone.name, alone.scaled_object) == ("llm/deployment/code", None)


async def test_a_prometheus_that_is_gone_is_named_with_its_address() -> None:
    async with installation() as found:
        gone = found.config.sources[0].url.replace("127.0.0.1", "127.0.0.9")
        source = replace(found.config.sources[0], url=gone)
        report = await examined(found, config=replace(found.config, sources=(source,)))
    assert {"source-unreachable", "blind"} <= errors(report)
    assert gone in told(report, "source-unreachable")


async def test_missing_permissions_are_errors_where_the_daemon_cannot_do_without() -> None:
    async with installation() as found:
        found.api.denied = frozenset({("list", "pods"), ("create", "events")})
        report = await examined(found)
    missing = [one for one in report.findings if one.rule.id == "permission-missing"]
    assert [(one.place.path, one.severity) for one in missing] == [
        ("list pods", Severity.ERROR),
        ("create events", Severity.WARNING),
    ]


async def test_the_lease_is_asked_about_where_daemons_elect_a_leader() -> None:
    async with installation() as found:
        found.api.denied = frozenset({("update", "leases")})
        state = replace(found.config.state, lease_name="vllm-scaler")
        unknown = await examined(found, config=replace(found.config, state=state))
        state = replace(state, lease_namespace="vllm-scaler")
        denied = await examined(found, config=replace(found.config, state=state))
    assert "namespace is not known: give --service-account" in told(unknown, "not-checked")
    assert "may not update leases.coordination.k8s.io vllm-scaler in vllm-scaler" in told(
        denied, "permission-missing"
    )


async def test_an_objective_inside_a_bucket_names_its_bounds_and_both_remedies() -> None:
    async with installation(chat(ttftSloSeconds="2")) as found:
        report = await examined(found)
    said = told(report, "slo-inside-bucket")
    assert "ttftSloSeconds = 2 s lies in the bucket (1, 2.5] s" in said
    assert 'set ttftSloSeconds: "1" or "2.5"' in said
    flag = """--custom-histogram-buckets '{"time_to_first_token": [1, 2, 2.5, 5]}'"""
    assert flag in said
    # All requests are below 1 s here: what lies between 1 and 2.5 s makes no difference.
    assert "100.00% to 100.00% are within, 99.00% are asked for" in said
    assert report.summary().endswith("0 error, 0 warning, 1 info, 0 not checked")


async def test_two_triggers_and_an_hpa_by_hand_are_found() -> None:
    async with installation(chat(triggers=2)) as found:
        found.store.apply(hpa(owner=""))
        report = await examined(found)
    assert "beside 0: 1: cpu" in told(report, "other-triggers")
    assert "HPA by-hand" in told(report, "two-autoscalers")


async def test_a_wrong_port_of_the_service_is_found_from_outside_the_cluster() -> None:
    async with installation(chat(service_port="9091")) as found:
        report = await examined(found)
    assert "port 9091; the Service has 9090, 8080" in told(report, "scaler-address-wrong")


async def test_what_the_api_server_dropped_is_compared_with_what_was_written() -> None:
    async with installation() as found:
        found.store.apply(hpa(tolerance=False, maxReplicas=10))
        report = await examined(found)
    assert "tolerance 0 is written, the HPA has none" in told(report, "tolerance-dropped")
    assert "HPA 1 to 10, ScaledObject 1 to 8" in told(report, "limits-differ")


async def test_series_of_another_namespace_and_rare_scrapes() -> None:
    async with installation() as found:
        found.metrics.scrapes_in_5m = 5.0  # every 60 s, longer than stale_after_s = 45
        report = await examined(found)
        found.metrics.age_s = 100.0
        late = await examined(found)
    assert "a scrape every 60 s, stale_after_s = 45" in told(report, "scrape-too-rare")
    assert "scrape-too-rare" in errors(report)
    assert "samples-stale" in errors(late)


async def test_no_label_of_the_namespace_is_told_from_no_series() -> None:
    metrics = Metrics(namespace="")
    async with installation(metrics=metrics) as found:
        report = await examined(found)
    assert "2 series without it" in told(report, "no-namespace-label")


async def test_without_a_service_for_its_questions_nothing_passes_in_silence() -> None:
    async with installation() as found:
        report = await examined(found, urls=(), scaler_address="")
    unseen = [one.evidence for one in report.findings if one.rule is UNCHECKED]
    assert len(unseen) == 2
    assert any("what the daemons see not checked: give --url" in one for one in unseen)
    assert any("does not resolve here" in one for one in unseen)


async def test_one_target_is_chosen_by_name_and_an_unknown_one_refused() -> None:
    async with installation() as found:
        report = await examined(found, target=f"{NAMESPACE}/chat")
        with pytest.raises(ConfigError, match="target = 'llm/chap', must be one of: llm/dep"):
            await gather(found.request(target="llm/chap"))
    assert report.targets == 1


async def test_the_command_ends_with_the_status_that_scripts_read(tmp_path: Path) -> None:
    async with installation() as found:
        kubernetes = {"use": "always", "server": found.api.url}
        sources = [{"name": "main", "url": found.prometheus.url, "timeout_s": 3}]
        config = tmp_path / "scaler.yaml"
        config.write_text(yaml.safe_dump({"kubernetes": kubernetes, "sources": sources}))
        healthy = await command(found, config, "--json")
        found.api.denied = frozenset({("watch", "scaledobjects")})
        denied = await command(found, config)
    assert healthy == (0, "[]\n")
    assert denied[0] == 1
    lines = denied[1].splitlines()
    assert lines[0].startswith("error: cluster RBAC watch scaledobjects.keda.sh: ")
    assert "fix: kubectl apply -k manifests/scaler" in lines[0]
    assert lines[-1].endswith("1 error, 0 warning, 0 info, 0 not checked")


async def command(found: Installation, config: Path, *more: str) -> tuple[int, str]:
    asked = found.request()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from scaler.cli import main; main()",
        "doctor", "--config", str(config), "--url", asked.urls[0],
        "--scaler-address", asked.scaler_address, *more,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.mark.parametrize("known", [True, False])
async def test_a_certificate_is_verified_and_its_end_is_told(tmp_path: Path, known: bool) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ends = datetime.now(UTC) + timedelta(days=10)
    authority.issue_cert("127.0.0.1", not_after=ends).configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    port = server.sockets[0].getsockname()[1]
    async with server:
        seen = await certificate(
            f"https://127.0.0.1:{port}/prometheus",
            of="x",
            setting="y",
            ca_file=str(ca_file) if known else "",
            timeout_s=5.0,
        )
    if known:
        assert seen.expires_in_s == pytest.approx(10 * 86400.0, abs=60.0)
    else:
        assert seen.expires_in_s is None
        assert "verify failed" in seen.fault


@pytest.fixture
def keda_tls(tmp_path: Path) -> tuple[Mapping[str, str], GrpcTls]:
    """The daemon's files, and those of a client that it knows."""
    authority = trustme.CA()
    config = write_tls_files(authority, tmp_path)
    issued = authority.issue_cert("keda-operator.keda.svc")
    cert, key = tmp_path / "client.pem", tmp_path / "client.key"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    known = GrpcTls(ca_file=str(tmp_path / "ca.pem"), cert_file=str(cert), key_file=str(key))
    return asdict(config), known


async def test_a_daemon_behind_mutual_tls_is_called_as_keda_calls_it(
    keda_tls: tuple[Mapping[str, str], GrpcTls],
) -> None:
    files, known = keda_tls
    async with installation(chat(enableTLS="true"), tls=files) as found:
        healthy = await examined(found, grpc_tls=known)
        untold = await examined(found)
        stranger = await examined(found, grpc_tls=GrpcTls(ca_file=known.ca_file))
    assert [(one.rule.id, one.evidence) for one in healthy.findings] == []
    assert "the trigger uses TLS: give --grpc-ca" in told(untold, "not-checked")
    assert "scaler-does-not-answer" in errors(stranger)  # no certificate of a client


async def test_a_certificate_for_another_name_or_of_another_authority_is_found(
    keda_tls: tuple[Mapping[str, str], GrpcTls], tmp_path: Path
) -> None:
    """KEDA verifies the host of scalerAddress; the port-forward that is called does not matter."""
    files, known = keda_tls
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    renamed = chat(enableTLS="true", scalerAddress="vllm-scaler.elsewhere.svc:9090")
    async with installation(renamed, tls=files) as found:
        names = await examined(found, grpc_tls=known)
    async with installation(chat(enableTLS="true"), tls=files) as found:
        authority = await examined(found, grpc_tls=replace(known, ca_file=str(other)))
    for report, why in ((names, "not valid for"), (authority, "verify failed")):
        assert {"certificate", "scaler-does-not-answer"} <= errors(report)
        assert why in told(report, "certificate")


async def test_another_service_at_the_scalers_address_is_told() -> None:
    async with installation() as found:
        http = f"127.0.0.1:{found.daemon.http_port}"
        report = await examined(found, scaler_address=http)
        closed = await examined(found, scaler_address="127.0.0.1:1")
    assert "GetMetricSpec: " in told(report, "scaler-does-not-answer")
    assert "UNAVAILABLE" in told(closed, "scaler-does-not-answer")
