"""The gRPC server: listening, TLS, health, limits, and an orderly end."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from scaler._generated import externalscaler_pb2, externalscaler_pb2_grpc
from scaler.config import GrpcConfig
from scaler.errors import ConfigError
from scaler.service.certificates import Certificates
from scaler.service.external_scaler import ExternalScaler
from scaler.service.guard import Guard

SERVICE = externalscaler_pb2.DESCRIPTOR.services_by_name["ExternalScaler"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Bounds of the server; the defaults fit KEDA, tests shorten the times.

    A connection past its age (``GrpcConfig.connection_age_max_s``) gets a GOAWAY: new calls go to a
    new connection, chosen by the client's round robin, and the streams may stay for
    ``connection_grace_s``, which must exceed their term, for they are cut without an OK after it.
    """

    unary_s: float = 2.0  # answers take microseconds; HPA workers and poll loops wait for them
    drain_s: float = 5.0  # within a pod's usual 30 s of termination grace
    keepalive_s: float = 30.0  # a ping to a silent client: KEDA sets none of its own
    keepalive_timeout_s: float = 10.0
    connection_grace_s: float = 7500.0
    request_bytes_max: int = 1 << 18  # a ScaledObject's metadata takes a few hundred
    calls_max: int = 20_000  # at a time, streams included

    def options(self, connection_age_max_s: float) -> list[tuple[str, Any]]:
        """As arguments of the gRPC core."""
        return [
            ("grpc.so_reuseport", 0),  # else a second daemon would share the port in silence
            ("grpc.max_connection_age_ms", _milliseconds(connection_age_max_s)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(self.connection_grace_s)),
            ("grpc.keepalive_time_ms", _milliseconds(self.keepalive_s)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self.keepalive_timeout_s)),
            # What the server in fact waits for an answer to a ping: 60 s unless said, whatever the
            # line above says (seen with grpcio 1.85).
            ("grpc.http2.ping_timeout_ms", _milliseconds(self.keepalive_timeout_s)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),  # a quiet stream carries none for hours
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ("grpc.max_receive_message_length", self.request_bytes_max),
            ("grpc.max_concurrent_streams", self.calls_max),
        ]


class ScalerServer:
    """The server KEDA calls: the scaler's service, health, and reflection where asked for.

    Health is NOT_SERVING until ``set_serving``.  ``on_fault`` is told of faults that leave the
    server running (a rotated certificate that cannot be used), possibly from another thread.
    """

    def __init__(
        self,
        servicer: ExternalScaler,
        config: GrpcConfig,
        *,
        limits: ServerLimits | None = None,
        on_fault: Callable[[str], None] = lambda _fault: None,
    ) -> None:
        self._servicer = servicer
        self._config = config
        self._limits = limits or ServerLimits()
        self._on_fault = on_fault
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in its stubs
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listen and serve.

        Returns:
            The port, which the system chose where the address says port 0.

        Raises:
            ConfigError: when the address is taken or malformed, a certificate is unusable, or
                reflection is asked for and not installed.
        """
        assert self._server is None, "a server is started once"
        server = grpc.aio.server(
            interceptors=[Guard(self._limits.unary_s)],
            options=self._limits.options(self._config.connection_age_max_s),
            maximum_concurrent_rpcs=self._limits.calls_max,
        )
        externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._config.reflection:
            _reflect(server)
        await self.set_serving(serving=False)
        port = self._listen(server)
        await server.start()
        self._server = server
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """Say by the health service whether answers are real."""
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if serving else states.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, state)

    async def stop(self) -> None:
        """End in order: unhealthy, streams ended with OK, GOAWAY, calls in flight finished.

        Takes at most ``ServerLimits.drain_s``; whatever is still open then is cut.
        """
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        self._servicer.end_streams()
        await self._server.stop(self._limits.drain_s)

    def _listen(self, server: grpc.aio.Server) -> int:
        address, tls = self._config.address, self._config.tls
        certificates = Certificates(tls, self._on_fault) if tls.cert_file else None
        if not _bindable(address):  # gRPC itself takes 99999 for 34463
            raise ConfigError(f"grpc.address = {address!r}, must be host:port, port in [0, 65535]")
        try:
            if certificates is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, certificates.credentials())
        except RuntimeError as error:  # all that gRPC says of any failure to bind
            raise ConfigError(
                f"grpc.address = {address!r}, must be a free host:port of this machine"
            ) from error


def _reflect(server: grpc.aio.Server) -> None:
    """Let clients such as grpcurl list the services."""
    try:
        from grpc_reflection.v1alpha import reflection  # noqa: PLC0415 (an extra, off by default)
    except ImportError as error:
        raise ConfigError(
            "grpc.reflection = true, must be false unless vllm-scaler[reflection] is installed"
        ) from error
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


def _bindable(address: str) -> bool:
    """Whether ``address`` is host:port with a port there is; IPv6 hosts are in brackets."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.%\w]+\]|[^:\[\]/\s]+):(\d{1,5})", address)
    return found is not None and int(found[2]) <= 65535


def _milliseconds(seconds: float) -> int:
    """The unit of gRPC's channel arguments."""
    return round(seconds * 1000)
