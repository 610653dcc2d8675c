"""The files of the live page, and what the API tells the page of targets."""

import dataclasses
import re
import shutil
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from scaler import charts
from scaler.charts import NAMES
from scaler.core.model import Mode
from scaler.service.web import assets as module
from scaler.service.web.assets import assets
from tests.service.page_fleet import Fleet

CALM = {"ready": "2", "rate": "2", "running": "8", "min": "1", "max": "20"}
SVG_NAME = "http://www.w3.org/2000/svg"  # of the format: nothing is fetched from there
FOLDER = Path(str(resources.files("scaler.service.web")))
SHARED = Path(str(resources.files("scaler.charts")))
REPORTS = Path(str(resources.files("simulations.report_assets")))


@asynccontextmanager
async def client(fleet):
    async with (
        fleet.served() as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        yield session


def scripts():
    """Of the page's own, and of what they need of the charts."""
    paths = [*FOLDER.glob("*.js"), *(SHARED / name for name in NAMES if name.endswith(".js"))]
    return [path.read_text(encoding="utf-8") for path in paths]


async def test_every_file_of_the_page_is_served_and_only_those():
    referred = {"/", "/page.js", "/charts.css", "/page.css", "/icon.svg"}
    for text in scripts():
        referred |= {f"/{name}" for name in re.findall(r'from "\./(\w+\.js)"', text)}
    assert "/panels.js" in referred
    assert {asset.path for asset in assets()} == referred
    async with client(Fleet()) as session:
        for asset in assets():
            async with session.get(asset.path) as answer:
                assert answer.status == 200
                assert await answer.read() == asset.body
                policy = answer.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
                assert "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for path in ("/app.py", "/..%2fapp.py", "/__init__.py"):
            async with session.get(path) as answer:
                assert answer.status == 404


async def test_a_file_the_browser_has_is_not_sent_again():
    async with client(Fleet()) as session:
        async with session.get("/page.js") as first:
            tag = first.headers["ETag"]
        for header in (tag, f'"other", {tag}', "*"):
            async with session.get("/page.js", headers={"If-None-Match": header}) as again:
                assert again.status == 304
                assert await again.read() == b""
                assert again.headers["ETag"] == tag
        async with session.get("/page.css", headers={"If-None-Match": tag}) as other:
            assert other.status == 200


def test_a_missing_file_is_left_out(tmp_path, monkeypatch):
    package = tmp_path / "thin"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    shutil.copy(FOLDER / "index.html", package)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "__package__", "thin")
    assert [asset.path for asset in assets()] == ["/", *(f"/{name}" for name in NAMES)]
    monkeypatch.setattr(charts, "__package__", "thin")
    assert [asset.path for asset in assets()] == ["/"]


def test_nothing_of_the_page_comes_from_elsewhere_or_from_markup():
    paths = [*FOLDER.glob("*.[chj]*s*"), *SHARED.glob("*.[cj]*s"), *REPORTS.glob("*.[cj]*s")]
    sources = {path.name: path.read_text(encoding="utf-8") for path in paths}
    assert {"page.js", "detail.js", "charts.js", "dom.js", "page.css", "report.css"} <= set(sources)
    for name, text in sources.items():
        assert set(re.findall(r"https?://[^\s\"']+", text)) <= {SVG_NAME}, name
        markup = re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
        assert not markup, name
    index = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", index)


async def test_a_target_with_faults_is_faulty_whatever_was_decided():
    fleet = Fleet()
    entry = fleet.add("chat")
    fleet.tick({entry.key: CALM})
    async with client(fleet) as session:
        async with session.get("/api/targets") as answer:
            assert (await answer.json())["targets"][0]["status"] == "fresh"
        entry.faults = ("profile = 'gone', must be one of: chat",)
        async with session.get("/api/targets") as answer:
            told = (await answer.json())["targets"][0]
    assert told["status"] == "faulty"
    assert told["desired"] == 2  # 2 requests/s of half a second, 80 % busy at most: 1.25 replicas


async def test_ages_are_of_the_data_and_of_the_decision():
    fleet = Fleet()
    seeing, blind = fleet.add("seeing"), fleet.add("blind")
    fleet.tick({seeing.key: CALM, blind.key: {"ready": "2", "engines": "-stale"}})
    fleet.clock.at_s += 7.0
    async with client(fleet) as session, session.get("/api/targets") as answer:
        told = {target["name"]: target for target in (await answer.json())["targets"]}
    assert (told["seeing"]["age_s"], told["seeing"]["data_age_s"]) == (7.0, 7.0)
    assert (told["blind"]["age_s"], told["blind"]["data_age_s"]) == (7.0, None)


async def test_the_age_of_data_is_that_of_the_oldest_signal():
    fleet = Fleet()
    entry = fleet.add("chat")
    fleet.tick({entry.key: {**CALM, "kv": "0.4"}})
    seen = entry.decision.observation
    older = dataclasses.replace(seen.kv_cache, seen_at_s=seen.seen_at_s - 20.0)
    entry.decision = dataclasses.replace(
        entry.decision, observation=dataclasses.replace(seen, kv_cache=older)
    )
    async with client(fleet) as session, session.get("/api/targets") as answer:
        assert (await answer.json())["targets"][0]["data_age_s"] == 20.0


async def test_one_target_says_how_its_number_came_about():
    fleet = Fleet()
    entry = fleet.add("chat", mode=Mode.ADVISORY)
    for _ in range(30):
        fleet.tick({entry.key: {**CALM, "ready": "6", "rate": "4"}})
    async with client(fleet) as session, session.get("/api/targets/llm/chat") as answer:
        told = await answer.json()
    assert [step["replicas"] for step in told["steps"]][-1] == told["published"] == 6
    assert told["steps"][0]["reason"].startswith("work: arriving work ")
    assert told["desired"] == entry.decision.would_be
    assert told["bound_by"] == "work"
    assert len(told["history"]["rows"]) == 30
    assert (told["tick_s"], told["replicas_max"]) == (15.0, 20)


@pytest.mark.parametrize("name", ["<img src=x>", "a/b", "a?b#c", "{x}", "%2e%2e"])
async def test_any_name_has_an_address_here_and_through_a_follower(name):
    leading, following = Fleet(), Fleet()
    entry = leading.add(name)
    leading.tick({entry.key: CALM})
    escaped = "".join(f"%{byte:02X}" for byte in name.encode())
    url = URL(f"/api/targets/llm/{escaped}", encoded=True)
    async with leading.served() as port:
        following.leader = f"127.0.0.1:{port}"
        for asked in (leading, following):
            async with client(asked) as session, session.get(url) as answer:
                assert (answer.status, (await answer.json())["name"]) == (200, name)
