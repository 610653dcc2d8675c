"""Requests to the Kubernetes API: connection and credentials by ``kubernetes``, bodies as raw JSON.

``kubernetes.aio`` rather than its thread-based twin: a watch that hangs is cancelled instead of
leaving a
blocked thread behind, and the daemon has aiohttp loaded already (measured: the import costs 11 MiB
beyond the sync client).  Bodies are never turned into the package's typed models: 10,000 of those
for pods cost hundreds of megabytes.

Every request has a time limit.  Nothing is retried here: who asks knows when to ask again.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from scaler.errors import ConfigError, SignalError
from scaler.signals.kube.wire import Status

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LINE_MAX_BYTES = 8 * 2**20  # etcd refuses objects above 1.5 MiB; anything longer is not an event
BODY_MAX_BYTES = 256 * 2**20  # a page of 500 pods is about 5 MB
CONNECTIONS_MAX = 128  # watches are held open, one connection each
REFUSAL_MAX_BYTES = 16 * 2**10  # of the body of a refusal
DETAIL_MAX_CHARS = 300  # of its words that go into an error

Query = Sequence[tuple[str, str]]


class KubeError(SignalError):
    """The API server refused, failed or did not answer.

    ``status`` is the HTTP status (0: no answer, or one that cannot be read).
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Access(StrEnum):
    """Where the API server and the credentials come from."""

    IN_CLUSTER = "in_cluster"  # the pod's service account
    KUBECONFIG = "kubeconfig"
    EXPLICIT = "explicit"  # url, CA file and token file from the daemon's configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach the API server, and how long to wait for it.

    ``url``, ``ca_file``, ``token_file`` belong to EXPLICIT; ``kubeconfig`` (empty: the usual place)
    and
    ``context`` to KUBECONFIG.  Token files are read for every request, because service account
    tokens
    are replaced about once an hour.
    """

    access: Access
    url: str = ""
    ca_file: str = ""
    token_file: str = ""
    kubeconfig: str = ""
    context: str = ""
    request_timeout_s: float = 10.0
    verify_tls: bool = True


def in_cluster(environ: Mapping[str, str] = os.environ) -> Connection | None:
    """The connection of a pod to its own cluster; None outside of one."""
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    port = environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        return None
    return Connection(
        access=Access.IN_CLUSTER,
        url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ca_file=str(SERVICE_ACCOUNT / "ca.crt"),
        token_file=str(SERVICE_ACCOUNT / "token"),
    )


class KubeClient:
    """JSON requests and watches against one API server.  Opened lazily, reopened after a 401."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._api: Any = None  # an ApiClient; the package is only half typed
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Load the credentials now, so that an operator's mistake is told at start.

        Raises ConfigError; requests made later turn the same mistake into a KubeError.
        """
        await self._client()

    async def get(self, path: str, query: Query = ()) -> bytes:
        """The body of ``GET path``.  Raises KubeError."""
        return await self._call("GET", path, query=query)

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        """``POST path``: the object as created.  Raises KubeError (409: it exists)."""
        return await self._call("POST", path, body=body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> bytes:
        """``PUT path``: the object as stored.  Raises KubeError (409: it has changed meanwhile)."""
        return await self._call("PUT", path, body=body)

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        """``PATCH path`` with a JSON merge patch: the object as stored.  Raises KubeError."""
        return await self._call("PATCH", path, body=body)

    @contextlib.asynccontextmanager
    async def watch(
        self, path: str, query: Query, *, silence_max_s: float, total_max_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a watch, from the moment the server has accepted it.

        Leaving the context closes the connection.  Raises KubeError when the server refuses, when
        nothing arrives for ``silence_max_s`` or when the watch lasts longer than ``total_max_s``.
        """
        limits = aiohttp.ClientTimeout(
            total=total_max_s, sock_connect=self._limit_s, sock_read=silence_max_s
        )
        with _faults_as_kube_errors("WATCH", path):
            async with asyncio.timeout(self._limit_s):
                response = await self._open("GET", path, query=query, body=None, limits=limits)
        try:
            yield _lines(response, path)
        finally:
            response.close()  # a watch is never read to its end, so its connection is not reused

    async def close(self) -> None:
        """Close all connections."""
        api, self._api = self._api, None
        if api is not None:
            await api.close()

    @property
    def _limit_s(self) -> float:
        return self._connection.request_timeout_s

    async def _call(
        self, method: str, path: str, *, query: Query = (), body: Mapping[str, Any] | None = None
    ) -> bytes:
        limits = aiohttp.ClientTimeout(total=self._limit_s)
        with _faults_as_kube_errors(method, path):
            async with asyncio.timeout(self._limit_s):
                response = await self._open(method, path, query=query, body=body, limits=limits)
                async with response:
                    return await _limited_body(response)

    async def _open(
        self,
        method: str,
        path: str,
        *,
        query: Query,
        body: Mapping[str, Any] | None,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send one request; the response has a status below 300, its body is unread."""
        api = await self._client()
        headers = {"Accept": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        request = await api.param_serialize(
            method,
            path,
            query_params=list(query),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = await api.call_api(*request, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            await self._refuse(method, path, response)
        return response

    async def _refuse(self, method: str, path: str, response: aiohttp.ClientResponse) -> None:
        """Raise what the server said; after a 401 the credentials are loaded anew next time."""
        async with response:
            text = _words(await response.content.read(REFUSAL_MAX_BYTES))
        if response.status == HTTPStatus.UNAUTHORIZED:
            await self.close()
        message = f"{method} {path}: HTTP {response.status}: {text}"
        raise KubeError(message, status=response.status)

    async def _client(self) -> Any:
        async with self._opening:
            if self._api is None:
                self._api = await _connect(self._connection)
            return self._api


async def _connect(connection: Connection) -> Any:
    """A client of the package.  Raises ConfigError when the connection's files are wrong."""
    # Imported here: a daemon without a Kubernetes API never pays the 25 MiB of the package.
    from kubernetes.aio.client.api_client import ApiClient  # noqa: PLC0415
    from kubernetes.aio.client.configuration import Configuration  # noqa: PLC0415

    configuration: Any = Configuration(
        host=connection.url or None,
        ssl_ca_cert=connection.ca_file or None,
        connection_pool_maxsize=CONNECTIONS_MAX,
        verify_ssl=connection.verify_tls,
    )
    if connection.access is Access.KUBECONFIG:
        await _load_kubeconfig(connection, configuration)
    elif connection.token_file:
        _follow_token_file(Path(connection.token_file), configuration)
    try:
        return ApiClient(configuration)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"kubernetes.ca_file = {connection.ca_file}: {error}") from error


async def _load_kubeconfig(connection: Connection, configuration: Any) -> None:
    from kubernetes.aio import config  # noqa: PLC0415 - as in _connect

    load: Any = config.load_kube_config
    try:
        await load(
            config_file=connection.kubeconfig or None,
            context=connection.context or None,
            client_configuration=configuration,
            persist_config=False,
        )
    except (config.ConfigException, OSError, ValueError) as error:
        where = connection.kubeconfig or "the default place"
        raise ConfigError(f"kubernetes.kubeconfig = {where}: {error}") from error


def _follow_token_file(path: Path, configuration: Any) -> None:
    """Read the token for every request, so that a replaced one is used at once."""

    def refresh(current: Any) -> None:
        current.api_key["BearerToken"] = path.read_text(encoding="utf-8").strip()

    configuration.api_key_prefix["BearerToken"] = "Bearer"
    configuration.api_key["BearerToken"] = ""  # the key must be there for the hook to be asked
    configuration.refresh_api_key_hook = refresh


def _words(body: bytes) -> str:
    """What a refusal says: the message of its Status object, else the beginning of its text."""
    try:
        text = msgspec.json.decode(body, type=Status).message
    except msgspec.DecodeError:  # a proxy in front of the server
        text = body.decode(errors="replace")
    return " ".join(text.split())[:DETAIL_MAX_CHARS]


@contextlib.contextmanager
def _faults_as_kube_errors(method: str, path: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise KubeError(f"{method} {path}: no answer in time") from error
    except (aiohttp.ClientError, ConfigError, OSError, ValueError) as error:
        raise KubeError(f"{method} {path}: {type(error).__name__}: {error}") from error
    except RuntimeError as error:  # aiohttp, when a 401 of another request has closed the session
        raise KubeError(f"{method} {path}: {type(error).__name__}: {error}") from error


async def _limited_body(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size_bytes = 0
    async for part in response.content.iter_any():
        size_bytes += len(part)
        if size_bytes > BODY_MAX_BYTES:
            raise ValueError(f"answer longer than {BODY_MAX_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


async def _lines(response: aiohttp.ClientResponse, path: str) -> AsyncIterator[bytes]:
    """Whole lines; an unfinished line at the end of the stream is not an event and is dropped."""
    rest = b""
    with _faults_as_kube_errors("WATCH", path):
        async for part in response.content.iter_any():
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > LINE_MAX_BYTES:
                raise ValueError(f"line longer than {LINE_MAX_BYTES} bytes")
            for line in lines:
                if line.strip():
                    yield line
