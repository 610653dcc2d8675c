"""Reading the metric pages of pods and DCGM exporters directly.

Every page is fetched over a connection of its own: vLLM closes idle connections after five seconds,
so that a kept one would be dead at most ticks.  Pages are parsed in one thread, one after the other
with a pause between them, so that the event loop waits for one page at most.
"""

import asyncio
import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import aiohttp
from yarl import URL

from scaler.core.model import Cause, NoData, Signal
from scaler.signals.belonging import expected, of_model
from scaler.signals.faults import SourceError, brief
from scaler.signals.prometheus_answer import breathe, reading
from scaler.signals.readers import PodKey, Readers
from scaler.signals.samples import GpuSample, PodRef, PodSample, TargetRef, TargetSamples
from scaler.signals.settings import ScrapeSettings

T = TypeVar("T")

_CHUNK_BYTES = 64 * 1024
_OK = 200


class ScrapeSource:
    """Scrapes pods whose addresses are known; see ``ScrapeSettings``.

    A static endpoint is a pod of ``settings.pods``: it stands in for targets of which no Kubernetes
    API says which pods they have.
    """

    def __init__(self, settings: ScrapeSettings, readers: Readers) -> None:
        self.name = settings.name
        self.attempts = 0
        self._settings = settings
        self._readers = readers
        self._session: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(settings.pages_in_flight)
        self._parser = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{self.name}-parse")

    def serves(self, target: TargetRef) -> bool:
        """Whether this source is asked about the target."""
        return self._settings.serves(target)

    async def collect(
        self, targets: Sequence[TargetRef], now_s: float
    ) -> Mapping[str, TargetSamples]:
        """Samples by key for every target, within ``timeout_s``; faults are in the result."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        until_s = began_s + self._settings.timeout_s
        # The loop's clock only measures what has passed since the caller read its own.
        clock = _Clock(now_s=now_s, began_s=began_s)
        pods = {target.key: self._pods(target) for target in targets if self.serves(target)}
        pages, gpus = await asyncio.gather(
            self._scrape_pods([pod for of in pods.values() for pod in of or ()], clock, until_s),
            self._scrape_gpus(clock, until_s),
        )
        return {
            target.key: self._of(target, pods.get(target.key), pages, gpus, now_s)
            for target in targets
        }

    async def close(self) -> None:
        """Close connections and the thread."""
        self._parser.shutdown(wait=False, cancel_futures=True)
        if self._session is not None:
            await self._session.close()

    def _pods(self, target: TargetRef) -> tuple[PodRef, ...] | None:
        if target.pods is not None:
            return tuple(expected(target))
        return self._settings.pods or None

    async def _scrape_pods(
        self, pods: Iterable[PodRef], clock: "_Clock", until_s: float
    ) -> Mapping[PodRef, PodSample | NoData]:
        """A pod of several targets is asked once."""
        distinct = list(dict.fromkeys(pods))
        samples = await asyncio.gather(*(self._scrape_pod(pod, clock, until_s) for pod in distinct))
        return dict(zip(distinct, samples, strict=True))

    async def _scrape_pod(self, pod: PodRef, clock: "_Clock", until_s: float) -> PodSample | NoData:
        try:
            url = _pod_url(pod, self._settings.path)
            read = partial(self._readers.engine.from_page, pod=pod.name)
            return await self._page(url, clock, read, until_s=until_s)
        except SourceError as fault:
            if pod.ready:
                return fault.no_data()
            # The port of a loading engine is closed: that is a start, not an outage.
            return NoData(cause=Cause.REFUSED, detail=f"{pod.name} is not ready: {fault.detail}")

    async def _scrape_gpus(
        self, clock: "_Clock", until_s: float
    ) -> Sequence[Mapping[PodKey, GpuSample] | NoData]:
        """One result for each exporter."""
        return await asyncio.gather(
            *(self._scrape_gpu(URL(url), clock, until_s) for url in self._settings.dcgm_urls)
        )

    async def _scrape_gpu(
        self, url: URL, clock: "_Clock", until_s: float
    ) -> Mapping[PodKey, GpuSample] | NoData:
        try:
            return await self._page(url, clock, self._readers.gpu.from_page, until_s=until_s)
        except SourceError as fault:
            return fault.no_data()

    async def _page(
        self, url: URL, clock: "_Clock", read: Callable[..., T], *, until_s: float
    ) -> T:
        """Fetch a page and return what ``read`` makes of its text and time, in the thread."""
        loop = asyncio.get_running_loop()
        async with self._slots:
            limit_s = min(self._settings.pod_timeout_s, until_s - loop.time())
            if limit_s <= 0.0:
                raise SourceError(Cause.UNREACHABLE, "no time was left in this collection")
            try:
                async with asyncio.timeout(limit_s):
                    text = await self._fetch(url)
            except TimeoutError:
                detail = f"{url} sent no whole page within {limit_s:.1f} s"
                raise SourceError(Cause.UNREACHABLE, detail) from None
            at_s = clock.at_s(loop.time())
        return await loop.run_in_executor(self._parser, _parsed, read, text, at_s)

    async def _fetch(self, url: URL) -> str:
        """The text of a page; aiohttp itself repeats a GET once where the connection is cut off."""
        self.attempts += 1
        try:
            async with self._connected().get(url, allow_redirects=False) as response:
                if response.status != _OK:
                    detail = f"{url} answered {response.status}; is it the metrics port and path?"
                    raise SourceError(Cause.UNREACHABLE, detail)
                return await self._text(url, response)
        except aiohttp.ClientConnectorError as fault:
            raise _not_connected(url, fault) from None
        except (aiohttp.ClientError, OSError) as fault:
            detail = f"{url} broke off: {type(fault).__name__} {brief(str(fault), 80)}"
            raise SourceError(Cause.UNREACHABLE, detail) from None

    async def _text(self, url: URL, response: aiohttp.ClientResponse) -> str:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._settings.max_page_bytes:
                limit = self._settings.max_page_bytes
                detail = f"{url} is longer than {limit} bytes; raise max_page_bytes"
                raise SourceError(Cause.MALFORMED, detail)
        try:
            return body.decode()
        except UnicodeDecodeError as fault:
            detail = f"{url} is not UTF-8 text at byte {fault.start}"
            raise SourceError(Cause.MALFORMED, detail) from None

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._settings.pages_in_flight, force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _of(
        self,
        target: TargetRef,
        pods: tuple[PodRef, ...] | None,
        pages: Mapping[PodRef, PodSample | NoData],
        gpus: Sequence[Mapping[PodKey, GpuSample] | NoData],
        now_s: float,
    ) -> TargetSamples:
        if pods is None:
            return TargetSamples(target=target, at_s=now_s, failure=_unknown_pods(target))
        samples = {pod.name: _for_target(pages[pod], target) for pod in pods}
        if target.pods is None:
            samples = _of_the_model(samples)
        faults = [page for page in gpus if isinstance(page, NoData)]
        return TargetSamples(
            target=target,
            at_s=now_s,
            pods=samples,
            gpus=_gpus_of(target, samples, gpus),
            faults={Signal.GPU: faults[0]} if faults else {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """The caller's clock, carried on by the event loop's."""

    now_s: float
    began_s: float

    def at_s(self, loop_s: float) -> float:
        return self.now_s + (loop_s - self.began_s)


def _parsed(read: Callable[..., T], text: str, at_s: float) -> T:
    """Parse one page, in the thread."""
    with reading():
        result = read(text, at_s=at_s)
        breathe()
    return result


def _pod_url(pod: PodRef, path: str) -> URL:
    if not pod.address:
        raise SourceError(Cause.UNREACHABLE, f"{pod.name} has no address yet")
    try:
        return URL.build(scheme="http", host=pod.address, port=pod.port, path=path)
    except ValueError:
        detail = f"{pod.name} has the address {brief(pod.address, 60)!r}, which is no host"
        raise SourceError(Cause.UNREACHABLE, detail) from None


def _not_connected(url: URL, fault: aiohttp.ClientConnectorError) -> SourceError:
    refused = fault.os_error.errno == errno.ECONNREFUSED
    what = "refuses connections" if refused else f"cannot be reached: {brief(str(fault), 120)}"
    return SourceError(Cause.UNREACHABLE, f"{url} {what}")


def _for_target(sample: PodSample | NoData, target: TargetRef) -> PodSample | NoData:
    return sample if isinstance(sample, NoData) else of_model(sample, target)


def _of_the_model(samples: dict[str, PodSample | NoData]) -> dict[str, PodSample | NoData]:
    """Static endpoints of other models are other targets' pods, unless none is of this one."""
    mine = {
        pod: sample
        for pod, sample in samples.items()
        if isinstance(sample, PodSample) or sample.cause is not Cause.NO_MATCH
    }
    return mine if any(isinstance(sample, PodSample) for sample in mine.values()) else samples


def _gpus_of(
    target: TargetRef,
    samples: Mapping[str, PodSample | NoData],
    pages: Sequence[Mapping[PodKey, GpuSample] | NoData],
) -> dict[str, GpuSample | NoData]:
    """GPU samples of a target's pods, its groups' workers included."""
    names = {pod.name for pod in target.pods or ()} | set(samples)
    found: dict[str, GpuSample | NoData] = {}
    for page in pages:
        if isinstance(page, NoData):
            continue
        for name in names:
            if sample := page.get((target.namespace, name)):
                found[name] = sample
    return found


def _unknown_pods(target: TargetRef) -> NoData:
    return NoData(
        cause=Cause.UNSUPPORTED,
        detail=f"the pods of {target.key} are not known: direct scraping needs the Kubernetes API "
        "or static endpoints",
    )
