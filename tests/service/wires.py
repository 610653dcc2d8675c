"""Wires that fail and clients that misbehave, as small real ones."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import trustme

from scaler.config import TlsConfig

SERVICE_NAME = "vllm-scaler.vllm-scaler.svc"
NAMED = (("grpc.ssl_target_name_override", SERVICE_NAME), ("grpc.use_local_subchannel_pool", 1))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x4, 0x6, 0x7
ACK = 0x1


@dataclass(slots=True)
class Wire:
    """A TCP proxy that can go silent without closing, as a lost node does."""

    address: str = ""
    silent: bool = False
    accepted: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.silent:
                writer.write(data)


@asynccontextmanager
async def wire_to(address: str) -> AsyncIterator[Wire]:
    """A wire in front of the server at ``address``."""
    wire = Wire()
    host, port = address.split(":")
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.accepted += 1
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        wire.writers += [writer, up_writer]
        for ends in ((reader, up_writer), (up_reader, writer)):
            tasks.add(asyncio.create_task(wire.copy(*ends)))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    wire.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        for writer in wire.writers:
            writer.close()


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One HTTP/2 frame (RFC 9113, section 4.1)."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


class BareClient:
    """An HTTP/2 client of bare frames, for what no proper client does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, address: str, *, window_bytes: int = 65535) -> "BareClient":
        """Connect; ``window_bytes`` is how much each stream may send us unasked."""
        host, port = address.split(":")
        client = cls(*await asyncio.open_connection(host, int(port)))
        setting = b"\x00\x04" + window_bytes.to_bytes(4, "big")  # SETTINGS_INITIAL_WINDOW_SIZE
        client._writer.write(PREFACE + frame(SETTINGS, setting))
        await client.frames_until(SETTINGS)
        client._writer.write(frame(SETTINGS, flags=ACK))
        return client

    def call(self, path: str, message: bytes) -> None:
        """Send one request on stream 1."""
        # HPACK (RFC 7541): 0x83 :method POST, 0x86 :scheme http, then literals without indexing.
        block = b"\x83\x86" + _literal(b"\x04", path.encode()) + _literal(b"\x01", b"scaler")
        block += b"\x00" + _text(b"te") + _text(b"trailers")
        block += b"\x00" + _text(b"content-type") + _text(b"application/grpc")
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        self._writer.write(frame(HEADERS, block, flags=0x4, stream=1))
        self._writer.write(frame(DATA, body, flags=0x1, stream=1))

    async def frames_until(self, wanted: int) -> list[int]:
        """Read frames up to one of kind ``wanted``, answering pings; the kinds that were seen."""
        seen: list[int] = []
        while wanted not in seen:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == PING and not head[4] & ACK:
                self._writer.write(frame(PING, payload, flags=ACK))
            seen.append(head[3])
        return seen

    def close(self) -> None:
        self._writer.close()


def _literal(name: bytes, value: bytes) -> bytes:
    return name + _text(value)


def _text(value: bytes) -> bytes:
    assert len(value) < 127, "longer ones need more than one byte of length"
    return bytes([len(value)]) + value


def write_tls_files(authority: trustme.CA, folder: Path) -> TlsConfig:
    """A certificate for the scaler's Service, its key, and the CA, written as files."""
    issued = authority.issue_cert(SERVICE_NAME)
    (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
    return TlsConfig(
        cert_file=str(folder / "cert.pem"),
        key_file=str(folder / "key.pem"),
        client_ca_file=str(folder / "ca.pem"),
    )


def client_credentials(roots: trustme.CA, issuer: trustme.CA | None) -> grpc.ChannelCredentials:
    """Credentials of KEDA: trusting ``roots``, with a certificate of ``issuer`` if any."""
    if issuer is None:
        return grpc.ssl_channel_credentials(roots.cert_pem.bytes())
    issued = issuer.issue_cert("keda-operator.keda.svc")
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    return grpc.ssl_channel_credentials(
        roots.cert_pem.bytes(), issued.private_key_pem.bytes(), chain
    )


async def answer_to_hello(address: str, newest: ssl.TLSVersion) -> bytes:
    """What a TLS server answers to a client that speaks every version up to ``newest``."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        _lax_context(newest).wrap_bio(incoming, outgoing).do_handshake()
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(outgoing.read())
    answer = await reader.read(4096)
    writer.close()
    return answer


def _lax_context(newest: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this side would refuse 1.0 and 1.1 first
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    return context
