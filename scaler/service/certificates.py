"""TLS of the gRPC server: certificates read from files, and read again when they change."""

import ssl
from collections.abc import Callable
from pathlib import Path

import grpc

from scaler.config import TlsConfig
from scaler.errors import ConfigError

_Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """The server's certificate, its key, and the CA that clients must come from (if any).

    gRPC asks before each handshake.  A rotated pair is taken when it is complete and matches;
    until then, and when it is broken, the last good one stays in use and ``on_fault`` is told once.
    gRPC asks from threads of its own, ``on_fault`` is called there.

    Raises:
        ConfigError: at construction, when the files cannot be used.
    """

    def __init__(self, config: TlsConfig, on_fault: Callable[[str], None]) -> None:
        self._config = config
        self._on_fault = on_fault
        self._fault = ""
        self._stamp = self._stamp_now()
        self._current = self._load()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files; TLS 1.2 is gRPC's own minimum."""
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            self.renewed,  # type: ignore[arg-type]  # None is allowed: "no change"
            require_client_authentication=bool(self._config.client_ca_file),
        )

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """The certificate for the next handshake; None for the one in use."""
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            self._current = self._load()
            if self._stamp_now() != stamp:  # changed while it was read: look again next time
                self._stamp = ()
        except ConfigError as error:
            self._tell_once(str(error))
            return None
        self._fault = ""
        return self._current

    def _tell_once(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            self._on_fault(fault)

    def _load(self) -> grpc.ServerCertificateConfiguration:
        tls = self._config
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert_file, tls.key_file)
        except (OSError, ssl.SSLError) as error:
            pair = f"grpc.tls.cert_file = {tls.cert_file}, grpc.tls.key_file = {tls.key_file}"
            raise ConfigError(f"{pair}: not a certificate and its key ({error})") from error
        roots = None
        if tls.client_ca_file:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(tls.client_ca_file)
            except (OSError, ssl.SSLError) as error:
                name = f"grpc.tls.client_ca_file = {tls.client_ca_file}"
                raise ConfigError(f"{name}: not a file of CA certificates ({error})") from error
            roots = _read("client_ca_file", tls.client_ca_file)
        pairs = [(_read("key_file", tls.key_file), _read("cert_file", tls.cert_file))]
        return grpc.ssl_server_certificate_configuration(pairs, root_certificates=roots)

    def _stamp_now(self) -> _Stamp:
        """What tells that a file was replaced or written."""
        tls = self._config
        stamps = []
        for name in filter(None, (tls.cert_file, tls.key_file, tls.client_ca_file)):
            try:
                found = Path(name).stat()
            except OSError as error:
                raise ConfigError(f"grpc.tls: {name} cannot be read: {error.strerror}") from error
            stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(stamps)


def _read(key: str, name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"grpc.tls.{key} = {name} cannot be read: {error.strerror}") from error
