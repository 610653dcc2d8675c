"""The files of the live page, read once from the package; nothing is fetched from elsewhere."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import structlog
from aiohttp import web

from scaler import charts

log = structlog.get_logger(__name__)

_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_NAMES = ("index.html", "page.css", "page.js", "list.js", "detail.js", "why.js", "icon.svg")
_INDEX = "index.html"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for each time, answered 304: a new daemon's page at once
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file as it is served at ``path``; ``etag`` changes with its bytes."""

    path: str
    content_type: str
    body: bytes
    etag: str

    async def answer(self, request: web.Request) -> web.Response:
        """The file, or 304 when the browser has it."""
        known = request.if_none_match or ()
        if any(tag.value in (self.etag, "*") for tag in known):
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(
                body=self.body, content_type=self.content_type, charset="utf-8", headers=_HEADERS
            )
        response.etag = self.etag
        return response


def assets() -> tuple[Asset, ...]:
    """All files of the page; one that is not there is said and left out.

    A daemon without its page still scales: a broken package must not stop it from starting.
    """
    return tuple(_present())


def _present() -> Iterator[Asset]:
    own = resources.files(__package__)
    for name in (*_NAMES, *charts.NAMES):
        try:
            body = charts.asset(name) if name in charts.NAMES else own.joinpath(name).read_bytes()
        except OSError as error:
            log.warning("a file of the live page is missing", file=name, reason=str(error))
            continue
        yield Asset(
            path="/" if name == _INDEX else f"/{name}",
            content_type=_TYPES[name.rpartition(".")[2]],
            body=body,
            etag=hashlib.sha256(body).hexdigest()[:16],
        )
