"""Debian's Chromium without a window, driven over the DevTools protocol."""

import asyncio
import base64
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
LIMIT_S = 30.0
POLL_S = 0.02


def program() -> str:
    """The path of Chromium; without it the test is skipped, or fails where REQUIRE_EXTERNALS=1."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "chromium is not installed"
        if os.environ.get("REQUIRE_EXTERNALS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Tab:
    """One page: commands, and everything it complained about in ``complaints``."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self.loaded = asyncio.Event()  # set whenever an answer has come in whole
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told["method"] == "Runtime.exceptionThrown":
                details = told["params"]["exceptionDetails"]
                self.complaints.append(str(details.get("exception", details)))
            elif told["method"] == "Log.entryAdded":
                self.complaints.append(told["params"]["entry"]["text"])
            elif told["method"] == "Network.requestWillBeSent":
                self.requested.append(told["params"]["request"]["url"])
            elif told["method"] == "Network.loadingFinished":
                self.loaded.set()
            elif told["method"] == "Page.javascriptDialogOpening":
                self.complaints.append(f"a dialog opened: {told['params']['message']}")

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        told = await asyncio.wait_for(answer, LIMIT_S)
        assert "error" not in told, f"{method}: {told['error']}"
        result: dict[str, Any] = told["result"]
        return result

    async def value(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        told = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, script: str) -> Any:
        """The first true value of an expression; fails naming it after the limit."""
        for _ in range(int(LIMIT_S / POLL_S)):
            found = await self.value(f"(it => it instanceof Node ? true : it)({script})")
            if found:
                return found
            await asyncio.sleep(POLL_S)
        raise AssertionError(f"never true: {script}")

    async def look(self, *, width: int, height: int, dark: bool = False) -> None:
        """Size of the window and the reader's colour scheme."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str) -> None:
        """One key, as a keyboard sends it."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "+": 187}
        sent: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        if key == "Enter":
            sent["text"] = "\r"
        await self.send("Input.dispatchKeyEvent", type="keyDown", **sent)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **sent)

    async def move(self, x: float, y: float) -> None:
        """The mouse to a place of the window."""
        await self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def click(self, selector: str) -> None:
        """A click in the middle of the first element that a selector finds."""
        x, y = await self.value(
            f"(() => {{ const box = document.querySelector({selector!r}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def picture(self, *, whole: bool = False) -> bytes:
        """A screenshot of the window, or of the whole page, as PNG."""
        told = await self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(told["data"])

    async def close(self) -> None:
        """End the connection."""
        await self._socket.close()
        await self._reader


@asynccontextmanager
async def tab(folder: Path) -> AsyncIterator[Tab]:
    """An empty page of a fresh Chromium whose profile is in ``folder``."""
    process = await asyncio.create_subprocess_exec(
        program(), *FLAGS, f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        port = await _port(folder / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [one for one in await answer.json() if one["type"] == "page"]
            url = pages[0]["webSocketDebuggerUrl"]
            async with session.ws_connect(url, max_msg_size=64 << 20) as socket:
                made = Tab(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await made.send(f"{domain}.enable")
                yield made
                await made.close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its helpers; the profile is thrown away
        await process.wait()


async def _port(file: Path) -> int:
    for _ in range(int(LIMIT_S / POLL_S)):
        if lines := _lines(file):
            return int(lines[0])
        await asyncio.sleep(POLL_S)
    raise AssertionError("chromium did not open its DevTools port")


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
