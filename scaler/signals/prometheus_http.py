"""The connection to a Prometheus-compatible API: bounded threads, bounded time, bounded bodies.

``prometheus_api_client.PrometheusConnect`` holds the connection (address, session, credentials).
Its query methods are not used, because they drop warnings, wait without limit and put the query
into the URL: bodies are posted through its session and streamed here.

A server that hangs cannot hold a thread: when the time of an attempt is over, the socket under it
is shut down, which ends the blocking read at once, wherever in the answer it is.
"""

import asyncio
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import requests
from prometheus_api_client import PrometheusConnect
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from scaler.core.model import Cause
from scaler.signals.faults import SourceError, brief
from scaler.signals.settings import PrometheusSettings

T = TypeVar("T")
Body: TypeAlias = bytes | bytearray

_CHUNK_BYTES = 256 * 1024
_CONNECT_LIMIT_S = 3.0  # a handshake inside a cluster takes milliseconds
_ERROR_BODY_BYTES = 64 * 1024  # enough for any error JSON; the rest of an error page is not read
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may pass
_ERROR_JSON = frozenset({400, 422, 500, 503})  # statuses that carry Prometheus' error JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer; ``body`` is within the limit."""

    status: int
    content_type: str
    body: Body


class PrometheusHttp:
    """Requests to one API, each in a thread of a small pool of its own."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        self._credentials = _Credentials(settings)
        self._session = _session(settings)
        self._connect = _connect(settings, self._session)
        self._threads = ThreadPoolExecutor(
            max_workers=settings.queries_in_flight, thread_name_prefix=f"{settings.name}-query"
        )
        self._slots = asyncio.Semaphore(settings.queries_in_flight)
        self.attempts = 0

    async def post(
        self,
        path: str,
        form: Mapping[str, str],
        read: Callable[[Reply], T],
        *,
        until_s: float,
        attempts: int = 2,
    ) -> T:
        """Post a form and return what ``read`` makes of the reply (called in the thread).

        ``until_s`` is on the event loop's clock.  Only passing faults are tried again, after the
        back-off, while there is time.

        Raises:
            SourceError: after the last attempt.
        """
        for left in range(attempts - 1, -1, -1):
            try:
                return await self._attempt(path, form, read, until_s=until_s)
            except SourceError as fault:
                if left == 0 or not fault.passing or not self._may_wait(until_s):
                    raise
            await asyncio.sleep(self._settings.retry_backoff_s)
        raise AssertionError("the loop above returns or raises")

    async def run(self, work: Callable[[], T]) -> T:
        """Run something that takes long in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        """Close idle connections; threads end as their requests do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._connect.close()

    def _may_wait(self, until_s: float) -> bool:
        loop = asyncio.get_running_loop()
        return loop.time() + self._settings.retry_backoff_s < until_s

    async def _attempt(
        self, path: str, form: Mapping[str, str], read: Callable[[Reply], T], *, until_s: float
    ) -> T:
        loop = asyncio.get_running_loop()
        async with self._slots:
            limit_s = min(self._settings.attempt_timeout_s, until_s - loop.time())
            if limit_s <= 0.0:
                raise SourceError(Cause.UNREACHABLE, "no time was left in this collection")
            self.attempts += 1
            line = _Line()
            work = loop.run_in_executor(
                self._threads, self._exchange, line, path, form, read, limit_s
            )
            try:
                async with asyncio.timeout(limit_s):
                    return await work
            except TimeoutError:
                raise SourceError(
                    Cause.UNREACHABLE,
                    f"no whole answer from {self._settings.url} within {limit_s:.1f} s; "
                    "check its load, or raise attempt_timeout_s",
                    passing=True,
                ) from None
            finally:
                line.cut()
                # A fault's traceback leads here, and from here back to the fault: what the thread
                # had read of an answer, megabytes, would stay until the garbage collector comes.
                del work

    def _exchange(
        self,
        line: "_Line",
        path: str,
        form: Mapping[str, str],
        read: Callable[[Reply], T],
        limit_s: float,
    ) -> T:
        """One request, in a thread of the pool."""
        _this_thread.line = line
        try:
            reply = self._send(path, form, limit_s)
        finally:
            line.release()
            _this_thread.line = None
        _raise_for_status(reply, self._settings.url)
        return read(reply)

    def _send(self, path: str, form: Mapping[str, str], limit_s: float) -> Reply:
        try:
            with self._session.post(
                f"{self._connect.url}{path}",
                data=dict(form),
                headers={**self._connect.headers, **self._credentials.headers()},
                timeout=(min(limit_s, _CONNECT_LIMIT_S), limit_s),
                stream=True,
                allow_redirects=False,
            ) as response:
                return self._receive(response)
        except (requests.RequestException, HTTPError, OSError) as fault:
            raise _unreachable(fault, self._settings) from None

    def _receive(self, response: requests.Response) -> Reply:
        refused = response.status_code >= requests.codes.multiple_choices
        limit_bytes = _ERROR_BODY_BYTES if refused else self._settings.max_body_bytes
        body = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > limit_bytes:
                if refused:
                    break
                raise SourceError(
                    Cause.MALFORMED,
                    f"the answer is longer than {limit_bytes} bytes; raise max_body_bytes, "
                    "or install the recording rules",
                )
        return Reply(
            status=response.status_code,
            content_type=response.headers.get("Content-Type", ""),
            body=body,
        )


class _Line:
    """The socket under one attempt, so that another thread can end it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False

    def hold(self, sock: socket.socket | None) -> None:
        with self._lock:
            self._socket = sock
            over = self._over
        if over:
            self._shut()

    def cut(self) -> None:
        """End the attempt if it is still reading; does nothing after a whole answer."""
        with self._lock:
            self._over = True
        self._shut()

    def release(self) -> None:
        """The answer is read; the connection goes back to the pool alive."""
        with self._lock:
            self._socket = None

    def _shut(self) -> None:
        with self._lock:
            sock, self._socket = self._socket, None
        if sock is not None:
            try:
                # Past the TLS layer, whose own shutdown may not run beside a read.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                return  # it was closed meanwhile: nothing is left to end


class _ThisThread(threading.local):
    line: _Line | None = None


_this_thread = _ThisThread()


class _HttpConnection(HTTPConnection):
    """Shows its socket to the attempt that waits on it."""

    def getresponse(self) -> Any:
        if _this_thread.line is not None:
            _this_thread.line.hold(self.sock)
        return super().getresponse()


class _HttpsConnection(HTTPSConnection):
    """The same over TLS."""

    def getresponse(self) -> Any:
        if _this_thread.line is not None:
            _this_thread.line.hold(self.sock)
        return super().getresponse()


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    """An adapter whose connections can be cut."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class _Credentials:
    """What identifies us, read again from its file when the file changes."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._username = settings.username
        self._token = _SecretFile("token_file", settings.token_file)
        self._password = _SecretFile("password_file", settings.password_file)

    def headers(self) -> dict[str, str]:
        if self._username:
            pair = f"{self._username}:{self._password.read()}"
            return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        token = self._token.read()
        return {"Authorization": f"Bearer {token}"} if token else {}


class _SecretFile:
    """One line of text in a file that may be replaced at any time (a projected token)."""

    def __init__(self, key: str, path: str) -> None:
        self._key = key
        self._path = Path(path) if path else None
        self._seen: tuple[int, int, int] | None = None
        self._text = ""

    def read(self) -> str:
        if self._path is None:
            return ""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._text = self._checked(self._path.read_text(encoding="utf-8").strip())
                self._seen = seen
        except (OSError, UnicodeDecodeError) as fault:
            reason = fault.strerror if isinstance(fault, OSError) else "not UTF-8"
            raise SourceError(
                Cause.UNREACHABLE, f"{self._key} {self._path} cannot be read: {reason}"
            ) from None
        return self._text

    def _checked(self, text: str) -> str:
        # A control character would end up in the message of an exception together with the secret.
        if not text or not text.isprintable() or not text.isascii():
            raise SourceError(
                Cause.UNREACHABLE, f"{self._key} {self._path} must hold one line of printable ASCII"
            )
        return text


def _session(settings: PrometheusSettings) -> requests.Session:
    session = requests.Session()
    # Proxies, .netrc and CA bundles of the environment must not redirect a request with a token.
    session.trust_env = False
    session.verify = settings.ca_file or True
    if settings.cert_file:
        session.cert = (settings.cert_file, settings.key_file)
    return session


def _connect(settings: PrometheusSettings, session: requests.Session) -> Any:
    url = settings.url.rstrip("/")
    never = Retry(total=0, redirect=0, status=0, raise_on_status=False)
    connect = PrometheusConnect(
        url=url,
        headers={"Accept": "application/json", **settings.headers},
        session=session,
        retry=never,
        method="POST",
        timeout=settings.attempt_timeout_s,
    )
    session.mount(
        url,
        _Adapter(
            pool_connections=1,
            pool_maxsize=settings.queries_in_flight,
            pool_block=False,
            max_retries=never,
        ),
    )
    return connect


def _unreachable(fault: Exception, settings: PrometheusSettings) -> SourceError:
    if isinstance(fault, requests.exceptions.SSLError):
        return SourceError(
            Cause.UNREACHABLE,
            f"TLS with {settings.url} failed: {_root(fault)}; check ca_file, cert_file, key_file",
        )
    if isinstance(fault, requests.exceptions.ContentDecodingError):
        return SourceError(
            Cause.MALFORMED, f"the answer of {settings.url} cannot be unpacked: {_root(fault)}"
        )
    if isinstance(fault, requests.exceptions.Timeout):
        return SourceError(
            Cause.UNREACHABLE, f"{settings.url} did not answer in time", passing=True
        )
    return SourceError(
        Cause.UNREACHABLE,
        f"{settings.url} cannot be reached: {_root(fault)}; check url and network policy",
        passing=True,
    )


def _root(fault: BaseException) -> str:
    """The innermost reason: requests and urllib3 wrap it three times over."""
    while isinstance(inner := fault.__context__ or fault.__cause__, BaseException):
        fault = inner
    return brief(f"{type(fault).__name__}: {fault}", 160)


def _raise_for_status(reply: Reply, url: str) -> None:
    status = reply.status
    if status < requests.codes.multiple_choices or status in _ERROR_JSON:
        return  # the reader of the body says what an error JSON holds
    passing = status in _AGAIN
    raise SourceError(Cause.UNREACHABLE, f"{url} answered {status}{_hint(status)}", passing=passing)


def _hint(status: int) -> str:
    if status in (401, 403):
        return ": the credentials were refused; check token_file, username, headers"
    if status == requests.codes.not_found:
        return ": no Prometheus API at this address; check the path in url"
    if status < requests.codes.bad_request:
        return ": a redirect is not followed; url must name the API itself"
    return ""
