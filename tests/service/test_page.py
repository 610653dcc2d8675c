"""The live page in a real browser: what it shows, what it keeps, what it never does."""

import json
from contextlib import asynccontextmanager

import aiohttp
import pytest

from scaler.core.model import Mode
from scaler.service.loop import TickReport
from tests.service.browser import tab
from tests.service.page_fleet import Fleet, day

pytestmark = [pytest.mark.external, pytest.mark.slow]

BLIND = {"ready": "3", "engines": "-stale", "min": "1", "max": "20"}
CALM = {"ready": "2", "rate": "2", "running": "8", "kv": "0.3", "gpu": "0.4", "ttft": "99:1:0:0:0"}
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</title><script>alert(2)</script>",
    "'\"><svg/onload=alert(3)>",
    "javascript:alert(4)",
    "__proto__",
    "a/b?c#d%zz",
    "\u202egnp.exe",
    "x" * 253,
)
ABSENT = "\N{EN DASH}"
ROWS = "[...document.querySelectorAll('tr[data-id]')]"
DRAWN = "document.querySelector('.charts[data-window]')"
WINDOW = "document.querySelector('.charts').dataset.window.split(' ').map(Number)"
DESIRED = "[data-panel=Replicas] [data-key=desired] b"


@asynccontextmanager
async def shown(fleet, folder, path="", *, width=1280, height=800, dark=False):
    """The page of a fleet in a browser, once it has had its first answer."""
    async with fleet.served() as port, tab(folder / "profile") as page:
        page.port = port
        await page.look(width=width, height=height, dark=dark)
        await page.send("Page.navigate", url=f"http://127.0.0.1:{port}/{path}")
        await page.until("document.querySelector('#health time')?.textContent")
        yield page


async def text(page, selector):
    return await page.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")


async def names(page):
    return await page.value(f"{ROWS}.map(row => row.querySelector('a').textContent)")


async def ink(page, panel, tone):
    """The columns of a panel's canvas, in pixels, that have something of a tone's colour."""
    return await page.value(f"""(() => {{
      const probe = document.body.appendChild(document.createElement('i'));
      probe.style.color = 'var({tone})';
      const wanted = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
      probe.remove();
      const canvas = document.querySelector('[data-panel="{panel}"] canvas');
      const {{ width, height }} = canvas;
      const copy = Object.assign(document.createElement('canvas'), {{ width, height }});
      const context = copy.getContext('2d', {{ willReadFrequently: true }});
      context.drawImage(canvas, 0, 0);
      const {{ data }} = context.getImageData(0, 0, width, height);
      const found = new Set();
      for (let place = 0; place < data.length; place += 4) {{
        const near = wanted.every((part, index) => Math.abs(part - data[place + index]) < 24);
        if (near && data[place + 3] > 150) found.add((place / 4) % width);
      }}
      return [...found].sort((a, b) => a - b);
    }})()""")


async def again(page):
    """Let the page ask once more and show the answer."""
    page.loaded.clear()
    await page.value("document.dispatchEvent(new Event('visibilitychange'))")
    await page.loaded.wait()
    await page.value("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def small_fleet():
    """Healthy, blind beyond the grace, faulty, undecided, advisory: one target each."""
    fleet = Fleet()
    chat, code = fleet.add("chat"), fleet.add("code")
    fleet.add("broken", metadata={"ttftSloSeconds": "quick"})
    fleet.add("new")
    advised = fleet.add("advised", mode=Mode.ADVISORY)
    for row in day(60):
        fleet.tick({chat.key: row, code.key: CALM, advised.key: {**row, "ready": "9"}})
    for _ in range(20):
        fleet.tick({chat.key: CALM, code.key: BLIND, advised.key: {**CALM, "ready": "9"}})
    return fleet


async def test_the_list_says_what_needs_a_person_first(tmp_path):
    async with shown(small_fleet(), tmp_path) as page:
        await page.until(f"{ROWS}.length === 5")
        cells = await page.value(
            f"{ROWS}.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
        assert [row[:2] for row in cells] == [
            ["llm/broken", "faulty"],
            ["llm/code", "floored"],
            ["llm/new", "pending"],
            ["llm/advised", "fresh"],
            ["llm/chat", "fresh"],
        ]
        by_name = {row[0]: row for row in cells}
        assert "ttftSloSeconds" in by_name["llm/broken"][-1]
        # Blind beyond the grace, three replicas: they are kept.
        assert by_name["llm/code"][2:5] == ["3", "3", "3"]
        assert "stale: work, queue" in by_name["llm/code"][-1]
        assert by_name["llm/new"][2] == ABSENT
        # Advisory: nine run and are published, fewer would be.
        assert by_name["llm/advised"][3] == "9"
        assert int(by_name["llm/advised"][2]) < 9
        assert await text(page, ".tally") == "5 targets"
        assert page.complaints == []
        assert {url.split("/")[2] for url in page.requested} == {f"127.0.0.1:{page.port}"}


async def test_one_target_is_drawn_and_explained(tmp_path):
    async with shown(small_fleet(), tmp_path, "#/llm/chat", height=1200) as page:
        await page.until(DRAWN)
        for panel, tone in (("Replicas", "--desired"), ("TTFT p95", "--ttft"), ("Use", "--kv"),
                            ("Forecast", "--load")):  # fmt: skip
            assert len(await ink(page, panel, tone)) > 300, panel
        status, told = await fetched(page, "/api/targets/llm/chat")
        assert status == 200
        for step in told["steps"]:
            assert step["reason"] in await text(page, ".steps")
        lines = await page.value("document.querySelector('.why pre').textContent")
        assert lines == "\n".join(told["explanation"])
        shown_signals = await page.value(
            "[...document.querySelectorAll('.proposals tbody tr')].map(r =>"
            " [r.cells[0].firstChild.textContent.replaceAll(' ', '_'), r.cells[1].textContent])"
        )
        proposed = {p["signal"]: str(p["replicas"]) for p in told["decision"]["proposals"]}
        silent = {item["signal"]: ABSENT for item in told["decision"]["blind"]}
        assert dict(shown_signals) == {**silent, **proposed}
        assert len(await ink(page, "TTFT p95", "--limit")) > 300  # the SLO's line
        named = await page.value("[...document.querySelectorAll('.legend [data-stage]')]"
                                 ".map(one => one.dataset.stage)")  # fmt: skip
        decided = told["history"]["columns"].index("decided_by")
        places = {int(row[decided]) for row in told["history"]["rows"]}
        assert set(named) == {told["history"]["stages"][place] for place in places}
        assert await page.value("document.title") == "llm/chat · vllm-scaler"
        assert page.complaints == []


async def test_lines_break_where_nothing_was_seen(tmp_path):
    fleet = Fleet()
    entry = fleet.add("chat")
    for place in range(30):
        fleet.tick({entry.key: BLIND if 10 <= place < 14 else CALM})
    async with shown(fleet, tmp_path, "#/llm/chat") as page:
        await page.until(DRAWN)
        width = await page.value("document.querySelector('.stack').clientWidth")
        places = await ink(page, "Requests", "--running")
        # Between the axis (46 pixels) and the right margin (14 pixels) lie 29 steps of a tick.
        pixels = [46 + (width - 60) * place / 29 for place in range(30)]
        assert not [x for x in places if pixels[9] + 2 < x < pixels[14] - 2]  # four blind ticks
        assert len([x for x in places if x < pixels[9]]) > 0.9 * (pixels[9] - 46)
        assert len([x for x in places if x > pixels[14]]) > 0.9 * (pixels[29] - pixels[14])
        # Kubernetes was there all the time.
        wanted = await ink(page, "Replicas", "--desired")
        assert len([x for x in wanted if pixels[9] < x < pixels[14]]) > 50


async def test_the_cursor_shows_the_values_of_its_time_and_stays_at_it(tmp_path):
    fleet = small_fleet()
    async with shown(fleet, tmp_path, "#/llm/chat", height=1200) as page:
        await page.until(DRAWN)
        _, told = await fetched(page, "/api/targets/llm/chat")
        columns, rows = told["history"]["columns"], told["history"]["rows"]
        assert (await text(page, ".when")).startswith("Latest")
        x, y, width = await page.value(
            "(() => { const b = document.querySelector('.stack').getBoundingClientRect();"
            " return [b.x, b.y, b.width]; })()"
        )
        # Half of the way between the axis (46 pixels) and the right margin (14 pixels).
        await page.move(x + 46 + (width - 60) / 2, y + 60)
        middle = rows[round((len(rows) - 1) / 2)]
        await page.until("document.querySelector('.when').textContent.startsWith('At')")
        assert await text(page, DESIRED) == str(int(middle[columns.index("desired")]))
        running = float(await text(page, "[data-panel=Requests] [data-key=running] b"))
        assert running == pytest.approx(middle[columns.index("running")], rel=0.01)
        at = await text(page, ".when")
        fleet.tick({entry: CALM for entry in fleet.registry.entries if entry.name == "chat"})
        await again(page)
        assert await text(page, ".when") == at
        assert await text(page, DESIRED) == str(int(middle[columns.index("desired")]))


async def test_a_click_on_a_past_time_shows_the_arithmetic_of_then(tmp_path):
    fleet = small_fleet()
    async with shown(fleet, tmp_path, "#/llm/chat", height=1200) as page:
        await page.until(DRAWN)
        x, y, width = await page.value(
            "(() => { const box = document.querySelector('.stack').getBoundingClientRect();"
            " return [box.x, box.y, box.width]; })()"
        )
        at_x = x + 46 + (width - 60) * 0.6
        for kind in ("mousePressed", "mouseReleased"):
            await page.send("Input.dispatchMouseEvent", type=kind, x=at_x, y=y + 40, button="left",
                            clickCount=1)  # fmt: skip
        await page.until("!document.querySelector('.then').hidden")
        address = await page.value("location.hash")
        status, told = await fetched(page, f"/api/targets/llm/chat?{address.partition('?')[2]}")
        assert status == 200
        assert told["at_s"] < fleet.clock.at_s - 20 * 15.0
        lines = await page.value("document.querySelector('.why pre').textContent")
        assert lines == "\n".join(told["explanation"])
        for step in told["steps"]:
            assert step["reason"] in await text(page, ".steps")
        assert (await text(page, ".why h2")).startswith(f"Why {told['desired']} at ")
        assert told["headline"] in await text(page, ".then")
        await again(page)  # an update leaves it in place
        assert await page.value("document.querySelector('.why pre').textContent") == lines
        # The address leads others to the same moment; "Back to now" leads back.
        await page.send("Page.navigate", url=f"http://127.0.0.1:{page.port}/")
        await page.until("document.querySelector('.targets')")
        await page.send("Page.navigate", url=f"http://127.0.0.1:{page.port}/{address}")
        await page.until(
            "document.querySelector('.then') && !document.querySelector('.then').hidden"
        )
        assert await page.value("document.querySelector('.why pre').textContent") == lines
        await page.click(".then button")
        await page.until("document.querySelector('.then').hidden")
        _, latest = await fetched(page, "/api/targets/llm/chat")
        now = "\n".join(latest["explanation"])
        assert await page.value("document.querySelector('.why pre').textContent") == now
        assert await page.value("location.hash") == "#/llm/chat"
        assert page.complaints == []


async def test_a_time_that_is_not_remembered_is_said(tmp_path):
    fleet = small_fleet()
    fleet.moments.take(
        TickReport(at_s=0.0, tick=0, duration_s=0.0, decide_s=0.0, entries=(), changed=(),
                   dropped=tuple(fleet.registry.entries))
    )  # fmt: skip
    async with shown(fleet, tmp_path, "#/llm/chat", height=1200) as page:
        await page.until(DRAWN)
        await page.click(".stack")
        await page.until("!document.querySelector('.then').hidden")
        assert "scaler explain --log" in await text(page, ".then")
        assert (await text(page, ".why h2")) == "Why this number"


async def test_the_charts_are_reached_and_read_by_keyboard(tmp_path):
    async with shown(small_fleet(), tmp_path, "#/llm/chat") as page:
        await page.until(DRAWN)
        for _ in range(20):
            await page.press("Tab")
            if await page.value("document.activeElement.getAttribute('role') === 'slider'"):
                break
        assert await page.value("document.activeElement.className") == "stack"
        last = await page.value("Number(document.activeElement.ariaValueMax)")
        assert last == 79  # eighty rows
        await page.press("ArrowLeft")
        assert await page.value("Number(document.activeElement.ariaValueNow)") == last - 1
        await page.press("Home")
        assert await page.value("Number(document.activeElement.ariaValueNow)") == 0
        assert "ready" in await page.value("document.activeElement.ariaValueText")
        assert (await text(page, ".when")).startswith("At")
        await page.press("Escape")
        assert (await text(page, ".when")).startswith("Latest")


async def test_a_long_past_is_shown_by_its_last_hours_which_follow_the_present(tmp_path):
    fleet = Fleet()
    entry = fleet.add("chat")
    for row in day(1600):  # 6 h 40 min: 90 minutes by tick, the rest by five minutes
        fleet.tick({entry.key: row})
    async with shown(fleet, tmp_path, "#/llm/chat", height=1200) as page:
        await page.until(DRAWN)
        first, last = await page.value(WINDOW)
        assert last - first == 3 * 3600
        assert abs(last - fleet.clock.at_s) <= 1
        columns = await ink(page, "Requests", "--running")
        width = await page.value("document.querySelector('.stack').clientWidth")
        assert len(columns) > 0.8 * (width - 60)  # no hole where five minutes meet ticks
        fleet.tick({entry.key: CALM})
        await again(page)
        assert await page.value(WINDOW) == [first + 15, last + 15]
        await page.click(".tools [title^=Everything]")
        await page.until(f"({WINDOW})[1] - ({WINDOW})[0] > 6 * 3600")
        whole = await page.value(WINDOW)
        fleet.tick({entry.key: CALM})
        await again(page)
        assert (await page.value(WINDOW))[1] == whole[1] + 15


async def test_a_forecast_is_drawn_at_the_time_it_speaks_of(tmp_path):
    async with shown(Fleet(), tmp_path) as page:
        found = await page.value(
            "import('./series.js').then(({ forTime }) => [...forTime("
            "Float64Array.of(0, 10, 20, 30, 40, 50), Float64Array.of(20, 20, 10, 10, NaN, 10),"
            "Float64Array.of(1, 2, 3, 4, 5, 6))].map(one => Number.isNaN(one) ? null : one))"
        )
        # Made at 0 for 20, at 10 and then at 20 for 30, at 30 for 40; at 40 without a lead, at 50
        # for a time that has not come.
        assert found == [None, None, 1, 3, 4, None]


async def test_events_say_what_happened_and_where_advice_differed(tmp_path):
    fleet = Fleet()
    entry = fleet.add("chat", mode=Mode.ADVISORY)
    for place in range(60):
        fleet.tick({entry.key: {**CALM, "ready": "9" if place < 30 else "8"}})
    async with shown(fleet, tmp_path, "#/llm/chat", height=1400) as page:
        await page.until(DRAWN)
        x, y, width = await page.value(
            "(() => { const b = document.querySelector('.lane').getBoundingClientRect();"
            " return [b.x, b.y, b.width]; })()"
        )
        await page.move(x + 46 + (width - 60) * 29.5 / 59, y + 5)
        await page.until("document.querySelector('.told').textContent.includes('replicas 9 to 8')")
        assert "wants fewer" in await text(page, ".told")


async def test_the_reader_may_choose_light_or_dark(tmp_path):
    async with shown(small_fleet(), tmp_path, "#/llm/chat") as page:
        await page.until(DRAWN)
        for choice, ground in (("light", "255, 255, 255"), ("dark", "13, 17, 23")):
            await page.click(".theme")
            assert await page.value("document.documentElement.dataset.theme") == choice
            found = await page.value("getComputedStyle(document.body).backgroundColor")
            assert found == f"rgb({ground})"
        await page.send("Page.reload")
        await page.until(DRAWN)
        assert await page.value("document.documentElement.dataset.theme") == "dark"


async def test_hostile_names_are_text(tmp_path):
    fleet = Fleet()
    entries = [fleet.add(name, namespace=name[:60]) for name in HOSTILE]
    fleet.add("faulty", metadata={"<b>bold</b>": "<img src=x onerror=alert(5)>"})
    fleet.tick({entry.key: CALM for entry in entries})
    async with shown(fleet, tmp_path, height=1400) as page:
        await page.until(f"{ROWS}.length === {len(HOSTILE) + 1}")
        assert set(await names(page)) == {f"{n[:60]}/{n}" for n in HOSTILE} | {"llm/faulty"}
        for name in HOSTILE:
            label = json.dumps(f"{name[:60]}/{name}")
            await page.value(f"{ROWS}.find(r => r.cells[0].title === {label})"
                             ".querySelector('a').click()")  # fmt: skip
            await page.until("document.querySelector('.steps li')")
            assert await page.value("document.querySelector('h1').textContent") == json.loads(label)
            assert await page.value("document.title") == f"{json.loads(label)} · vllm-scaler"
            await page.value("history.back()")
            await page.until(f"{ROWS}.length")
        assert (
            await page.value("document.querySelectorAll('img, b b, h1 script, svg svg').length")
            == 0
        )
        assert page.complaints == []


async def test_an_update_keeps_scroll_order_filter_focus_and_selection(tmp_path):
    fleet = Fleet()
    entries = [fleet.add(f"chat-{place:04d}") for place in range(300)]
    fleet.tick({entry.key: CALM for entry in entries})
    async with shown(fleet, tmp_path) as page:
        await page.click("th[data-name=target] button")
        await page.click("th[data-name=target] button")  # descending
        await page.value("document.querySelector('.filter').focus()")
        await page.send("Input.insertText", text="chat-0")
        await page.value("scrollTo(0, 3000)")
        await page.until("scrollY === 3000")
        await page.until(f"{ROWS}.some(row => row.textContent.includes('chat-0200'))")
        await page.value(
            "(() => { const row = " + ROWS + ".find(r => r.textContent.includes('chat-0210'));"
            " row.querySelector('a').focus({preventScroll: true});"
            " getSelection().selectAllChildren(row.querySelector('.name')); })()"
        )
        before = await names(page)
        for _ in range(2):
            fleet.tick({entry.key: {**CALM, "rate": "9", "waiting": "30"} for entry in entries})
            await again(page)
        assert await names(page) == before
        assert await page.value("scrollY") == 3000
        assert await page.value("String(getSelection())") == "chat-0210"
        assert "chat-0210" in await page.value("document.activeElement.textContent")
        assert await page.value("document.querySelector('.filter').value") == "chat-0"
        heading = "document.querySelector('th[data-name=target]').ariaSort"
        assert await page.value(heading) == "descending"
        changed = await page.value(f"{ROWS}[0].cells[2].textContent")
        assert int(changed) > 2  # and yet the numbers are new: 9 * 0.5 / 0.8 needs six

        await page.value("document.activeElement.click()")  # to the target and back again
        for back in ("document.querySelector('.back').click()", "history.back()"):
            await page.until("document.querySelector('.detail .steps li')")
            await page.value(back)
            await page.until(f"{ROWS}.length")
            await page.until("scrollY === 3000")
            assert await names(page) == before
            await page.value(f"{ROWS}[20].querySelector('a').click()")


async def test_a_thousand_targets_cost_what_is_in_view(tmp_path):
    fleet = Fleet()
    entries = [fleet.add(f"chat-{place:04d}") for place in range(1000)]
    fleet.tick({entry.key: CALM for entry in entries})
    async with shown(fleet, tmp_path) as page:
        await page.until(f"{ROWS}.length")
        assert await text(page, ".tally") == "1000 targets"
        seen = set()
        for top in range(0, 40_000, 700):
            await page.value(
                f"new Promise(done => {{ scrollTo(0, {top}); requestAnimationFrame(() =>"
                " requestAnimationFrame(done)); })"
            )
            found = await names(page)
            assert len(found) < 60
            seen |= set(found)
        assert len(seen) == 1000
        end = await page.value("document.documentElement.scrollHeight - innerHeight - scrollY")
        assert end == 0  # the last row is the end of the page
        await page.value("document.querySelector('.filter').focus()")
        await page.send("Input.insertText", text="0999 fresh")
        assert await names(page) == ["llm/chat-0999"]
        assert await text(page, ".tally") == "1 of 1000 targets"


@pytest.mark.parametrize("width", [360, 768, 1000, 1100, 1280])
async def test_a_long_list_fills_the_window(tmp_path, width):
    fleet = Fleet()
    entries = [fleet.add(f"chat-{place:04d}") for place in range(200)]
    fleet.tick({entry.key: CALM for entry in entries})
    async with shown(fleet, tmp_path, width=width) as page:
        await page.until(f"{ROWS}.length")
        heads = await page.value(
            "[...document.querySelectorAll('th')].filter(head => head.checkVisibility())"
            ".map(head => [head.getBoundingClientRect().right, head.offsetWidth,"
            " head.firstChild.scrollWidth])"
        )
        assert all(width >= needed for _, width, needed in heads)  # no heading is cut
        right = await page.value("document.querySelector('main').getBoundingClientRect().right")
        assert 8 <= right - heads[-1][0] <= 24  # the margin of the page


async def test_arrow_keys_walk_through_all_targets(tmp_path):
    fleet = Fleet()
    entries = [fleet.add(f"chat-{place:04d}") for place in range(120)]
    fleet.tick({entry.key: CALM for entry in entries})
    async with shown(fleet, tmp_path) as page:
        await page.until(f"{ROWS}.length")
        await page.value(f"{ROWS}[0].querySelector('a').focus()")
        for _ in range(119):
            await page.press("ArrowDown")
        assert await page.value("document.activeElement.textContent") == "llm/chat-0119"
        await page.press("Enter")
        await page.until("document.querySelector('h1').textContent === 'llm/chat-0119'")


async def test_statuses_and_columns_order_and_filter(tmp_path):
    async with shown(small_fleet(), tmp_path) as page:
        await page.until(f"{ROWS}.length === 5")
        await page.click("th[data-name=desired] button")
        wanted = f"{ROWS}.map(row => row.cells[2].textContent)"
        ascending = await page.value(wanted)
        await page.click("th[data-name=desired] button")
        descending = await page.value(wanted)
        assert ascending[3:] == descending[3:] == [ABSENT, ABSENT]  # not known: last either way
        assert ascending[:3] == sorted(ascending[:3], key=int) == descending[2::-1]
        assert len(set(ascending[:3])) > 1
        await page.click(".chip[data-status=floored]")
        assert await names(page) == ["llm/code"]
        address = await page.value("location.hash")
        assert address == "#/?status=floored&sort=-desired"
        await page.click(".chip[data-status=floored]")
        assert len(await names(page)) == 5


async def test_a_daemon_that_is_gone_is_said_and_its_return_noticed(tmp_path):
    fleet = small_fleet()
    async with tab(tmp_path / "profile") as page:
        await page.look(width=1280, height=800)
        async with fleet.served() as port:
            await page.send("Page.navigate", url=f"http://127.0.0.1:{port}/")
            await page.until(f"{ROWS}.length === 5")
            assert await page.value("document.querySelector('#banner').hidden")
        await page.value("document.dispatchEvent(new Event('visibilitychange'))")
        said = await page.until("document.querySelector('#banner').textContent")
        assert said.startswith("The daemon cannot be reached. What is shown is from ")
        assert await page.value("document.querySelector('#banner').role") == "alert"
        assert len(await names(page)) == 5  # the last answer stays
        async with small_fleet().served(port):
            await page.value("document.dispatchEvent(new Event('visibilitychange'))")
            await page.until("document.querySelector('#banner').hidden")
            assert await page.value("!document.body.classList.contains('stale')")


async def test_a_daemon_that_decides_no_more_is_said(tmp_path):
    fleet = small_fleet()
    fleet.clock.at_s += 60.0  # four ticks of 15 s
    async with shown(fleet, tmp_path) as page:
        said = await page.until("document.querySelector('#banner').textContent")
        assert said == "The daemon answers, and has decided nothing for 1 min."


async def test_a_target_that_is_gone_or_undecided_or_faulty_has_a_page(tmp_path):
    async with shown(small_fleet(), tmp_path, "#/llm/nowhere") as page:
        assert "no target llm/nowhere" in await text(page, ".detail .empty")
        await page.value("location.hash = '#/llm/new'")
        await page.until("document.querySelector('.badge').textContent === 'pending'")
        assert "Nothing is decided yet" in await text(page, ".headline")
        assert await page.value("!document.querySelector('.why').checkVisibility()")
        await page.value("location.hash = '#/llm/broken'")
        await page.until("document.querySelector('.badge').textContent === 'faulty'")
        assert "ttftSloSeconds" in await text(page, ".notes [data-kind=fault]")
        await page.value("location.hash = '#/llm/advised'")
        note = await page.until("document.querySelector('.notes [data-kind=advice]')?.textContent")
        assert "against 9 now" in note
        assert all("404" in complaint for complaint in page.complaints)


async def test_nothing_moves_while_values_change(tmp_path):
    fleet = small_fleet()
    async with shown(fleet, tmp_path, "#/llm/chat") as page:
        await page.until(DRAWN)
        await page.value(
            "new Promise(done => setTimeout(done, 50)).then(() => { window.shift = 0;"
            " new PerformanceObserver(list => { for (const one of list.getEntries())"
            " window.shift += one.value; }).observe({type: 'layout-shift'}); })"
        )
        chat = next(key for key in fleet.registry.entries if key.name == "chat")
        for row in list(day(40))[24:28]:
            fleet.tick({chat: row})
            await again(page)
        await page.move(400, 500)
        await page.value("new Promise(done => setTimeout(done, 50))")
        assert await page.value("window.shift") < 0.01


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1440])
async def test_it_fits_every_window_in_both_schemes(tmp_path, width, dark):
    fleet = small_fleet()
    pinned = f"#/llm/chat?at={fleet.clock.at_s - 600.0}"
    async with shown(fleet, tmp_path, width=width, dark=dark) as page:
        for view in ("#/", "#/llm/chat", "#/llm/code", pinned):
            await page.value(f"location.hash = {view!r}")
            await page.value("new Promise(done => setTimeout(done, 100))")
            if view is pinned:
                await page.until("document.querySelector('.then')?.hidden === false")
                await page.value("document.querySelector('.menu').open = true")
                inside = (
                    "[...document.querySelectorAll('.then *, .menu *')].every(one => {"
                    " const { left, right } = one.getBoundingClientRect();"
                    " return left >= 0 && right <= innerWidth; })"
                )
                assert await page.value(inside)
            assert await page.value("document.body.scrollWidth") <= width
            assert await page.value("document.documentElement.scrollWidth") <= width
            faint = await page.value(CONTRAST)
            assert faint == []


CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const over = (layers) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const layer of layers) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(byte => {
      const share = byte / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
  };
  const light = ([red, green, blue]) => 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  const faint = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(kid => kid.nodeType === 3 && kid.data.trim());
    if (!own || !node.checkVisibility() || node.closest('svg, noscript, .unseen, .skip')) continue;
    const grounds = [];
    for (let at = node; at; at = at.parentElement) {
      grounds.unshift(getComputedStyle(at).backgroundColor);
    }
    const ink = light(over([...grounds, getComputedStyle(node).color]));
    const ground = light(over(grounds));
    const ratio = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    if (ratio < 4.5) faint.push(`${node.className} ${node.textContent.slice(0, 20)} ${ratio}`);
  }
  return faint;
})()"""


async def fetched(page, path):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{page.port}{path}") as answer,
    ):
        return answer.status, await answer.json()
