"""Asking the daemons: their HTTP ports for what they see, their gRPC ports as KEDA asks them."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
from prometheus_client.parser import text_string_to_metric_families

from scaler._generated import externalscaler_pb2 as pb
from scaler._generated import externalscaler_pb2_grpc as stubs
from scaler.errors import ConfigError
from scaler.ops.doctor.evidence import Answer, Called, Certificate, Peer, Row, Trigger, Unseen
from scaler.service.replication import SNAPSHOT_PATH

_DECIDED = "vllm_scaler_last_decision_timestamp_seconds"
_DESIRED = "vllm_scaler_desired_replicas"
_OK, _UNAVAILABLE = 200, 503


async def peer(url: str, *, timeout_s: float) -> Peer:
    """One daemon's HTTP port; its faults are in the result."""
    base = url.rstrip("/")
    limits = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with aiohttp.ClientSession(timeout=limits, trust_env=False) as session:
            return await _peer(session, base)
    except (aiohttp.ClientError, TimeoutError, ValueError) as fault:
        return Peer(url=base, fault=f"{type(fault).__name__}: {fault}".rstrip(": "))


async def _peer(session: aiohttp.ClientSession, base: str) -> Peer:
    async with session.get(f"{base}/api/targets") as answer:
        if answer.status != _OK:
            return Peer(url=base, fault=f"/api/targets answered {answer.status}")
        listed: Any = await answer.json()
    async with session.get(f"{base}/readyz") as answer:
        ready = answer.status == _OK
    async with session.get(f"{base}{SNAPSHOT_PATH}") as answer:
        leads = {_OK: True, _UNAVAILABLE: False}.get(answer.status)
    async with session.get(f"{base}/metrics") as answer:
        text = await answer.text()
    return Peer(
        url=base,
        ready=ready,
        leads=leads,
        tick_s=float(listed["tick_s"]),
        rows=tuple(_row(one) for one in listed["targets"]),
        decided_at_s=_by_target(text, _DECIDED),
        desired=_by_target(text, _DESIRED),
    )


def _row(raw: Mapping[str, Any]) -> Row:
    return Row(
        name=f"{raw['namespace']}/{raw['name']}",
        target=raw["target"],
        status=raw["status"],
        ready=raw.get("ready"),
        mode=raw["mode"],
        faults=tuple(raw["faults"]),
        blind=tuple(raw.get("blind", ())),
        desired=raw.get("desired"),
        published=raw.get("published"),
        age_s=raw.get("age_s"),
        headline=raw.get("headline", ""),
    )


def _by_target(text: str, name: str) -> dict[str, float]:
    """One of the daemon's own metrics by ``namespace/kind/name``."""
    lines = "\n".join(line for line in text.split("\n") if line.startswith(f"{name}{{"))
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(f"{lines}\n"):
        for sample in family.samples:
            key = f"{sample.labels.get('target_namespace', '')}/{sample.labels.get('target', '')}"
            found[key] = max(sample.value, found.get(key, sample.value))
    return found


# As KEDA calls


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcTls:
    """Files for calls over TLS, as KEDA has them from its TriggerAuthentication.

    ``ca_file`` is caCert, ``cert_file`` and ``key_file`` are tlsClientCert and tlsClientKey.  The
    name that is checked is the host of the trigger's scalerAddress, whatever is called: so does
    KEDA, and there is no setting for another one.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @property
    def given(self) -> bool:
        """Whether there is anything to call with."""
        return bool(self.ca_file or self.cert_file)

    def channel(self, peer_address: str, named: str) -> grpc.aio.Channel:
        """A channel that verifies the server as ``named``.

        Raises:
            OSError: a file cannot be read.
        """
        ca, key, cert = (
            Path(name).read_bytes() if name else None
            for name in (self.ca_file, self.key_file, self.cert_file)
        )
        return grpc.aio.secure_channel(
            peer_address,
            grpc.ssl_channel_credentials(ca, key, cert),
            options=(("grpc.ssl_target_name_override", named),),
        )


async def call(
    trigger: Trigger,
    *,
    namespace: str,
    name: str,
    override: str,
    tls: GrpcTls,
    timeout_s: float,
) -> Called:
    """Ask every address behind the trigger's scalerAddress what KEDA asks.

    ``override`` is called instead where it is given (a port-forward).
    """
    address = override or trigger.address
    if uses_tls(trigger) and not tls.given:
        reason = (
            "the trigger uses TLS: give --grpc-ca, and --grpc-cert with --grpc-key where the"
            " daemon asks for a client's certificate (the trigger's TriggerAuthentication names"
            " the Secret that has them)"
        )
        return Called(address=address, answers=Unseen(reason=reason))
    try:
        peers = await _resolved(address, timeout_s)
    except (OSError, TimeoutError, ValueError) as fault:
        inside = bool(os.environ.get("KUBERNETES_SERVICE_HOST")) or override
        said = f"{address} does not resolve here ({fault})"
        if inside:
            return Called(address=address, fault=said)
        reason = f"{said}: outside of the cluster; give --scaler-address with a port-forward"
        return Called(address=address, answers=Unseen(reason=reason))
    ref = pb.ScaledObjectRef(name=name, namespace=namespace, scalerMetadata=dict(trigger.metadata))
    named = host_of(trigger.address)
    try:
        channels = [
            tls.channel(one, named) if uses_tls(trigger) else grpc.aio.insecure_channel(one)
            for one in peers
        ]
    except OSError as fault:
        raise ConfigError(f"{fault.filename} cannot be read: {fault.strerror}") from fault
    answers = await asyncio.gather(
        *(_answer(*pair, ref, timeout_s) for pair in zip(peers, channels, strict=True))
    )
    return Called(address=address, answers=tuple(answers))


def host_of(address: str) -> str:
    """The host of a gRPC address: what KEDA verifies a certificate for."""
    return address.rsplit("/", maxsplit=1)[-1].rpartition(":")[0].strip("[]")


def uses_tls(trigger: Trigger) -> bool:
    """Whether KEDA calls over TLS."""
    return trigger.authenticated or trigger.metadata.get("enableTLS", "").lower() == "true"


async def _resolved(address: str, timeout_s: float) -> Sequence[str]:
    """Every ``ip:port`` behind a gRPC address."""
    host, _, port = address.rsplit("/", maxsplit=1)[-1].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("must be host:port")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    hosts = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts]


async def _answer(
    peer_address: str, channel: grpc.aio.Channel, ref: Any, timeout_s: float
) -> Answer:
    """GetMetricSpec, GetMetrics, IsActive in KEDA's order, each within the limit."""
    faults: dict[str, str] = {}
    slowest_s = 0.0

    async def ask(method: str, work: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal slowest_s
        began_s = time.monotonic()
        try:
            return await work()
        except grpc.aio.AioRpcError as error:
            faults[method] = f"{error.code().name}: {error.details()}"
            return None
        finally:
            slowest_s = max(slowest_s, time.monotonic() - began_s)

    async with channel:
        stub = stubs.ExternalScalerStub(channel)
        specs = await ask("GetMetricSpec", lambda: stub.GetMetricSpec(ref, timeout=timeout_s))
        spec = specs.metricSpecs[0] if specs and specs.metricSpecs else None
        if specs is not None and spec is None:
            faults["GetMetricSpec"] = "an empty list of metrics"
        name = spec.metricName if spec else ""
        request = pb.GetMetricsRequest(scaledObjectRef=ref, metricName=name)
        read = await ask("GetMetrics", lambda: stub.GetMetrics(request, timeout=timeout_s))
        active = await ask("IsActive", lambda: stub.IsActive(ref, timeout=timeout_s))
    answer = Answer(
        peer=peer_address,
        took_s=slowest_s,
        faults=faults,
        metric_name=name,
        target_size=(spec.targetSizeFloat or float(spec.targetSize)) if spec else 0.0,
        active=None if active is None else bool(active.result),
    )
    if read is None:
        return answer
    if len(read.metricValues) != 1:
        said = f"{len(read.metricValues)} values, must be one"
        return replace(answer, faults={**faults, "GetMetrics": said})
    value = read.metricValues[0]
    return replace(answer, value=value.metricValueFloat or float(value.metricValue))


# TLS


async def certificate(
    url: str, *, of: str, setting: str, ca_file: str, timeout_s: float
) -> Certificate:
    """The certificate of an https server, verified with the CA that the daemon is given."""
    bare = url.partition("://")[2].partition("/")[0]
    host, _, port = bare.rpartition(":") if not bare.endswith("]") else (bare, "", "")
    if not port.isdecimal():
        host, port = bare, "443"
    host = host.strip("[]")
    tls = GrpcTls(ca_file=ca_file)
    return await _handshake(
        host, int(port), named=host, tls=tls, of=of, setting=setting, timeout_s=timeout_s
    )


async def grpc_certificate(
    address: str, *, named: str, tls: GrpcTls, timeout_s: float
) -> Certificate:
    """The certificate of the gRPC server at ``address``, for ``named`` as KEDA verifies it."""
    return await _handshake(
        host_of(address),
        int(address.rpartition(":")[2]),
        named=named,
        tls=tls,
        of=f"gRPC {address} as {named}",
        setting="grpc.tls.cert_file, and caCert of the TriggerAuthentication",
        timeout_s=timeout_s,
    )


async def _handshake(
    host: str, port: int, *, named: str, tls: GrpcTls, of: str, setting: str, timeout_s: float
) -> Certificate:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
        context.set_alpn_protocols(["h2", "http/1.1"])  # gRPC refuses whoever does not offer h2
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=named
            )
        told = writer.get_extra_info("peercert") or {}
        writer.close()
    except (OSError, TimeoutError) as fault:  # ssl.SSLError is an OSError
        return Certificate(of=of, setting=setting, fault=f"{type(fault).__name__}: {fault}")
    ends = told.get("notAfter")
    if ends is None:
        return Certificate(of=of, setting=setting, fault="the certificate names no end")
    return Certificate(
        of=of, setting=setting, expires_in_s=ssl.cert_time_to_seconds(ends) - time.time()
    )
