"""The reports in a real browser, opened from a file: what they show; they ask for nothing."""

import asyncio
import json
import re
import struct
from contextlib import asynccontextmanager
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from simulations import report_advisory, report_scoreboard, report_tune
from simulations.report import render_simulation
from simulations.report_records import Records
from tests.service.browser import tab
from tests.service.test_page import CONTRAST, ink
from tests.simulations.report_inputs import advisory, front, scoreboard
from tests.simulations.report_runs import GAP, TRACE, lengthened, run
from tests.simulations.test_report import decisions

pytestmark = [pytest.mark.external, pytest.mark.slow]

DRAWN = "document.querySelector('.charts[data-window]')"
WINDOW = "document.querySelector('.charts').dataset.window.split(' ').map(Number)"
BOX = """(() => {{ const b = document.querySelector('{}').getBoundingClientRect();
          return [b.x, b.y, b.width, b.height]; }})()"""
LATER = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
SWEPT = """(() => {
  const scatter = document.querySelector('.scatter'), tip = document.querySelector('.tip');
  const box = scatter.getBoundingClientRect(), places = {};
  for (let x = 90; x < box.width; x += 14)
    for (let y = 20; y < box.height - 44; y += 24) {
      const [clientX, clientY] = [box.x + x, box.y + y];
      scatter.dispatchEvent(new PointerEvent('pointermove', { clientX, clientY }));
      if (!tip.hidden) places[tip.firstElementChild.textContent] ??= [clientX, clientY];
    }
  return places;
})()"""  # whose point a reader of the scatter is told of, and a place where
TICKS = 960


def simulation():
    made = run(TICKS, faults=(GAP,))
    return render_simulation(made.summary, made.scenario, made.result, made.records)


def compared():
    return report_scoreboard.render(scoreboard())


def tuned():
    return report_tune.render(front())


def advised():
    return report_advisory.render(advisory())


@asynccontextmanager
async def opened(html, folder, *, width=1440, height=1000, dark=False):
    """A report in a browser, opened from a file as a reader would."""
    file = folder / "report.html"
    file.write_text(html, encoding="utf-8")
    async with tab(folder / "profile") as page:
        await page.look(width=width, height=height, dark=dark)
        await page.send("Page.navigate", url=file.as_uri())
        await page.until("document.querySelector('.verdict')")
        await page.value(LATER)
        yield page
        assert page.complaints == []
        assert page.requested == [file.as_uri()]  # nothing but the file itself


async def ink_of(page, tone):
    """Columns of the scatter that have a tone."""
    await page.value(LATER)
    await page.value("document.querySelector('.scatter').setAttribute('data-panel', 'scatter')")
    return await ink(page, "scatter", tone)


async def text(page, selector):
    return await page.value(f"document.querySelector({selector!r})?.innerText ?? null")


async def drag(page, begin, end, *, modifiers=0):
    told = {"button": "left", "buttons": 1, "clickCount": 1, "modifiers": modifiers}
    for kind, (x, y) in (("mousePressed", begin), ("mouseMoved", end), ("mouseReleased", end)):
        await page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **told)
    await page.value(LATER)


async def cells(page, table, column):
    return await page.value(
        f"[...document.querySelectorAll('table[aria-label=\"{table}\"] tbody tr')]"
        f".map(row => row.cells[{column}].innerText)"
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("made", [simulation, compared, tuned, advised])
async def test_every_report_fits_and_can_be_read(tmp_path, made, width, dark):
    async with opened(made(), tmp_path, width=width, dark=dark) as page:
        assert await page.value("document.documentElement.scrollWidth") <= width
        assert await page.value(CONTRAST) == []
        assert len(await text(page, ".lead")) > 40


async def test_a_run_is_summed_up_drawn_and_named_as_it_is(tmp_path):
    async with opened(simulation(), tmp_path) as page:
        await page.until(DRAWN)
        assert await text(page, "h1") == f"predictive on {TRACE}"  # markup in a name is text
        assert await text(page, ".badge") == "objective kept"
        assert "99.21 % of 1,000,000 requests" in await text(page, ".lead")
        for panel, tone in (("Replicas", "--desired"), ("Use", "--kv"),
                            ("TTFT p95", "--ttft"), ("TTFT p95", "--limit"), ("Queue", "--waiting"),
                            ("Forecast", "--load"), ("Requests", "--running")):  # fmt: skip
            assert len(await ink(page, panel, tone)) > 300, (panel, tone)
        assert "floor" in await text(page, ".legend")  # blind for longer than the grace


async def test_the_share_within_the_objective_is_drawn_with_the_wanted_line(tmp_path):
    async with opened(simulation(), tmp_path) as page:
        await page.until(DRAWN)
        panel = "Within the objective"
        for tone in ("--good", "--limit"):
            assert len(await ink(page, panel, tone)) > 300, tone
        # A quarter of a half hour in the middle of four hours is late: 75 %, below what is drawn.
        x, y, width, _ = await page.value(BOX.format(".stack"))
        for share, shown in ((0.25, "100 %"), (0.56, "75 %"), (0.9, "100 %")):
            await page.move(x + 46 + (width - 60) * share, y + 60)
            await page.value(LATER)
            assert await text(page, f"[data-panel='{panel}'] [data-key=within] b") == shown


async def test_at_first_the_worst_moment_is_explained(tmp_path):
    made = run(TICKS)
    html = render_simulation(made.summary, made.scenario, made.result, made.records)
    async with opened(html, tmp_path) as page:
        await page.until(DRAWN)
        worst = int(np.nanargmax(made.result.timeline.column("ttft_p95_s")))
        assert await page.value("Number(document.querySelector('.stack').ariaValueNow)") == worst
        assert "The worst moment" in await text(page, ".why")
        assert "replicas wanted" in await text(page, ".why .steps")


async def test_what_was_not_seen_is_a_gap(tmp_path):
    async with opened(simulation(), tmp_path) as page:
        await page.until(DRAWN)
        places = await ink(page, "Requests", "--running")
        width = await page.value("document.querySelector('.stack').clientWidth")
        # Blind for 40 ticks from a third on, between the axis (46) and the margin (14 pixels).
        begin, end = (46 + (width - 60) * (TICKS / 3 + tick) / TICKS for tick in (0, 39))
        assert not [x for x in places if begin + 2 < x < end - 2]
        assert [x for x in places if x < begin]
        assert [x for x in places if x > end]


async def test_hovering_shows_values_and_a_click_the_arithmetic(tmp_path):
    made = run(TICKS)
    html = render_simulation(made.summary, made.scenario, made.result, made.records)
    async with opened(html, tmp_path) as page:
        await page.until(DRAWN)
        x, y, width, _ = await page.value(BOX.format(".stack"))
        at_x = x + 46 + (width - 60) / 2
        await page.move(at_x, y + 60)
        await page.value(LATER)
        place = await page.value("Number(document.querySelector('.stack').ariaValueNow)")
        assert abs(place - TICKS / 2) <= 1
        desired = made.result.timeline.column("replicas_desired")[place]
        assert await text(page, "[data-panel=Replicas] [data-key=desired] b") == str(int(desired))
        running = made.result.timeline.column("running")[place]
        shown = await text(page, "[data-panel=Requests] [data-key=running] b")
        assert int(shown) == round(running)
        for kind in ("mousePressed", "mouseReleased"):
            await page.send("Input.dispatchMouseEvent", type=kind, x=at_x, y=y + 60, button="left",
                            clickCount=1)  # fmt: skip
        await page.move(5, 5)
        assert (await text(page, ".when")).startswith("Pinned at day 1, 02:0")  # half of four hours
        words = await text(page, ".why .steps")
        assert f"{int(desired)} replicas wanted" in words
        assert "alone would ask for" in await text(page, ".why .asks")
        await page.press("Escape")
        assert (await text(page, ".when")).startswith("Latest")


async def test_all_charts_zoom_and_move_together(tmp_path):
    async with opened(simulation(), tmp_path) as page:
        await page.until(DRAWN)
        x, y, width, _ = await page.value(BOX.format(".stack"))
        whole = await page.value(WINDOW)
        assert whole == [15, 15 * TICKS]
        left, right = x + 46 + (width - 60) * 0.25, x + 46 + (width - 60) * 0.5
        await drag(page, (left, y + 60), (right, y + 60))
        first, last = await page.value(WINDOW)
        assert first == pytest.approx(15 * TICKS * 0.25, rel=0.02)
        assert last == pytest.approx(15 * TICKS * 0.5, rel=0.02)
        # Shift and drag to the left by an eighth of the width: later by an eighth of the window.
        await drag(page, (right, y + 60), (right - (width - 60) / 8, y + 60), modifiers=8)
        moved, _ = await page.value(WINDOW)
        assert moved - first == pytest.approx((last - first) / 8, rel=0.05)
        await page.value("document.querySelector('.stack').focus()")
        await page.press("Home")  # the cursor leaves the window, which follows
        await page.value(LATER)
        assert (await page.value(WINDOW))[0] == 15
        await page.click(".tools [title^=Everything]")
        await page.value(LATER)
        assert await page.value(WINDOW) == whole
        box = await page.value(BOX.format(".overview"))
        await drag(page, (box[0] + 300, box[1] + 20), (box[0] + 500, box[1] + 20))
        first, last = await page.value(WINDOW)
        assert (last - first) / (15 * TICKS) == pytest.approx(200 / (box[2] - 60), rel=0.05)


async def test_rows_lead_to_their_moment_and_tables_sort(tmp_path):
    async with opened(simulation(), tmp_path) as page:
        await page.until(DRAWN)
        ascending = await cells(page, "Replica changes", 0)
        assert ascending == sorted(ascending)
        await page.value("document.querySelector('[aria-label=\"Replica changes\"]"
                         " th[data-name=by] button').click()")  # fmt: skip
        by = [
            int(cell.replace("\N{MINUS SIGN}", "-"))
            for cell in await cells(page, "Replica changes", 3)
        ]
        assert by == sorted(by)
        at = (await cells(page, "Replica changes", 0))[0]
        await page.value("document.querySelector('[aria-label=\"Replica changes\"]"
                         " tbody tr').click()")  # fmt: skip
        await page.value(LATER)
        first, last = await page.value(WINDOW)
        assert last - first <= 3600
        assert (await text(page, ".when")).removeprefix("Pinned at ")[:12] == at[:12]


async def test_colours_follow_the_system_and_the_button(tmp_path):
    async with opened(simulation(), tmp_path, dark=True) as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        assert await page.value(ground) == "rgb(13, 17, 23)"
        for choice, colour in (("light", "255, 255, 255"), ("dark", "13, 17, 23")):
            await page.click(".theme")
            assert await page.value("document.documentElement.dataset.theme") == choice
            assert await page.value(ground) == f"rgb({colour})"
            await page.value(LATER)
            assert len(await ink(page, "Replicas", "--desired")) > 300  # drawn in its new colour


async def saved(page, folder, name):
    """The file that a click on a button of that name brings."""
    await page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    await page.value(f"document.querySelector('.save[aria-label={json.dumps(name)}]').click()")
    for _ in range(1000):
        found = [one for one in folder.iterdir() if one.suffix in (".svg", ".png")]
        if found and found[0].stat().st_size:
            return found[0]
        await asyncio.sleep(0.02)
    raise AssertionError(f"nothing was saved by {name}")


async def test_a_chart_is_saved_as_svg_with_key_and_times(tmp_path):
    made = run(TICKS, faults=(GAP,))
    html = render_simulation(made.summary, made.scenario, made.result, made.records)
    folder = tmp_path / "saved"
    folder.mkdir()
    async with opened(html, tmp_path) as page:
        await page.until(DRAWN)
        sample = "document.querySelector('[data-panel=Replicas] [data-key=desired] i')"
        colour = await page.value(f"getComputedStyle({sample}).borderTopColor")
        file = await saved(page, folder, "Save Replicas as SVG")
        file = file.rename(tmp_path / "replicas.svg")
        whole = await saved(page, folder, "Save All charts as SVG")
    picture = ET.parse(file).getroot()  # noqa: S314 - made here
    space = "{http://www.w3.org/2000/svg}"
    words = [one.text for one in picture.iter(f"{space}text")]
    assert {"ready", "starting", "wanted", "load", "desired"} <= set(words)
    assert "Replicas, and load in their worth" in words
    assert "02:00" in words  # a chart by itself has its times below it
    lines = [one for one in picture.iter(f"{space}path") if one.get("stroke") == colour]
    longest = max(lines, key=lambda one: len(one.get("d")))
    assert longest.get("d").count("L") > 40  # the count, with every step
    assert f"{space}clipPath" in {one.tag for one in picture.iter()}
    assert whole.name.endswith("all-charts.svg")
    together = ET.parse(whole).getroot()  # noqa: S314 - made here
    titles = [one.text for one in together.iter(f"{space}text")]
    assert {"Queue, requests waiting", "Decided by"} <= set(titles)


async def test_a_curve_is_saved_with_its_turned_words_as_png_and_svg(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    name = "Attainment against GPU-hours, a curve for each policy"
    async with opened(compared(), tmp_path) as page:
        png = await saved(page, folder, f"Save {name} as PNG")
        width = await page.value("document.querySelector('.scatter').clientWidth")
        head = png.read_bytes()[:24]
        png.unlink()
        svg = (await saved(page, folder, f"Save {name} as SVG")).read_text(encoding="utf-8")
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">I", head[16:20])[0] == 2 * (width + 24)  # twice the screen, and a margin
    # What is turned is clipped by a group that is not: a clip would turn with it.
    assert re.search(r'<g clip-path="[^"]+"><text [^>]*rotate\(-90\)[^>]*>[^<]*bound', svg)


async def test_saving_is_reached_by_keyboard_and_pins_nothing(tmp_path):
    async with opened(simulation(), tmp_path) as page:
        await page.until(DRAWN)
        before = await text(page, ".when")
        await page.value("document.querySelector('.menu summary').focus()")
        await page.press("Enter")
        await page.until("document.querySelector('.menu').open")
        await page.press("Tab")
        assert await page.value("document.activeElement.ariaLabel") == "Save All charts as SVG"
        await page.press("Escape")
        assert not await page.value("document.querySelector('.menu').open")
        assert await page.value("document.activeElement.tagName") == "SUMMARY"
        assert await text(page, ".when") == before


async def test_two_days_are_drawn_whole_and_zoomed(tmp_path):
    made = lengthened(run(TICKS), 12)
    html = render_simulation(made.summary, made.scenario, made.result, made.records)
    async with opened(html, tmp_path) as page:
        await page.until(DRAWN)
        assert await page.value("Number(document.querySelector('.stack').ariaValueMax)") == 11_519
        assert len(await ink(page, "Replicas", "--desired")) > 300
        await page.value("document.querySelector('.stack').focus()")
        for _ in range(6):
            await page.press("+")
        await page.value(LATER)  # the window shown is that of the last frame drawn
        first, last = await page.value(WINDOW)
        assert last - first < 172_800 / 10  # six times 1.6
        assert len(await ink(page, "Replicas", "--desired")) > 300


async def test_of_a_run_too_long_to_explain_whole_every_time_has_an_account(tmp_path):
    made, records = run(TICKS), Records(records_max=400)
    for tick in decisions(TICKS):
        records(tick)
    assert records.as_data()["every"] > 1
    html = render_simulation(made.summary, made.scenario, made.result, records)
    async with opened(html, tmp_path) as page:
        await page.until(DRAWN)
        assert len(await ink(page, "Proposals", "--kv")) > 300  # a line, not dots
        x, y, width, _ = await page.value(BOX.format(".stack"))
        for share in (0.2, 0.5, 0.8):
            for kind in ("mousePressed", "mouseReleased"):
                await page.send("Input.dispatchMouseEvent", type=kind, x=x + width * share,
                                y=y + 60, button="left", clickCount=1)  # fmt: skip
            assert "replicas wanted" in await text(page, ".why .steps")


async def test_a_scoreboard_sorts_filters_and_changes_its_trace(tmp_path):
    async with opened(compared(), tmp_path) as page:
        assert (
            await cells(page, "Standings", 0)
            == ["day", "day", "burst", "burst"] + ["geometric mean"] * 2
        )
        assert (await cells(page, "Policies", 0))[:2] == ["oracle", "predictive"]  # fewest first
        await page.click("[data-filter=metric]")
        assert set(await cells(page, "Policies", 0)) == {"keda-queue", "hpa-gpu-util"}
        await page.click("[data-filter=metric]")
        await page.value("document.querySelector('.filter').focus()")
        await page.send("Input.insertText", text="token")
        assert await cells(page, "Policies", 0) == ["token-rate"]
        await page.value(
            "(() => { const filter = document.querySelector('.filter'); filter.value = '';"
            " filter.dispatchEvent(new Event('input')); })()"
        )
        await page.click("[role=tab][title='burst.csv.gz']")
        assert set(await cells(page, "Policies", 3)) == {"burst"}
        await page.value("document.querySelector('[aria-label=Policies] th[data-name=gpu_hours]"
                         " button').click()")  # fmt: skip
        hours = [float(cell) for cell in await cells(page, "Policies", 7)]
        assert hours == sorted(hours)


async def test_who_needs_least_is_ranked_for_the_trace_that_is_looked_at(tmp_path):
    ranked = "[...document.querySelectorAll('.ranked li')].map(row => row.innerText.split('\\n'))"
    async with opened(compared(), tmp_path) as page:
        rows = await page.value(ranked)
        assert [row[0].split()[0] for row in rows] == [
            "predictive", "token-rate", "keda-queue", "hpa-gpu-util",
        ]  # fmt: skip
        hours = [float(row[1].split()[0]) for row in rows[:3]]
        assert hours == sorted(hours)
        assert (rows[0][2], rows[3][2]) == ("the least", "95 %: missed the target")
        await page.click("[role=tab][title='burst.csv.gz']")
        assert await page.value(ranked) != rows
        assert await text(page, ".badge") == "ours needs least"


async def test_a_search_of_many_settings_draws_those_that_mattered(tmp_path):
    made = front()
    first = made["settings"][0]
    more = [{**first, "name": f"idle.s{n}", "importance_ratio": 0.0} for n in range(20)]
    made["settings"] = [*more, *made["settings"]]
    for trial in (made["defaults"], *made["trials"]):
        trial["settings"] = {**trial["settings"], **{one["name"]: 1.0 for one in more}}
    async with opened(report_tune.render(made), tmp_path) as page:
        assert "The 12 of 22 that moved the result most" in await text(page, "main")
        assert "idle.s3" not in await text(page, ".bars")  # nothing that did not matter
        wide = await page.value("document.querySelector('.parallel').scrollWidth")
        assert wide <= await page.value("document.querySelector('main').clientWidth")


async def test_where_nothing_better_was_found_the_shipped_settings_are_shown(tmp_path):
    made = {**front(), "recommended": None, "patches": {}}
    async with opened(report_tune.render(made), tmp_path) as page:
        assert "shipped settings" in await text(page, ".tiles")
        held = made["defaults"]["held_out"]["slo_attainment_ratio"]
        assert f"{held * 100:.4g} %" in await text(page, ".tiles")


async def test_a_point_of_the_scoreboard_says_whose_it_is(tmp_path):
    async with opened(compared(), tmp_path) as page:
        await page.value("document.querySelector('.scatter').scrollIntoView({block: 'center'})")
        # Swept inside of the page, as two thousand moves of the mouse take half a minute.
        places = await page.value(SWEPT)
        assert {"predictive", "keda-queue", "token-rate", "oracle"} <= set(places)
        for name, (x, y) in places.items():
            await page.move(x, y)
            assert not await page.value("document.querySelector('.tip').hidden"), name
            assert await text(page, ".tip b") == name


async def test_far_off_policies_are_shown_on_request(tmp_path):
    entries = scoreboard()
    entries.append({**entries[3], "policy": "wasteful", "gpu_hours": 5000.0})
    async with opened(report_scoreboard.render(entries), tmp_path) as page:
        await page.value("document.querySelector('.scatter').scrollIntoView({block: 'center'})")
        near = await ink_of(page, "--load")
        await page.value("[...document.querySelectorAll('.tool')]"
                         ".find(one => one.textContent === 'Everything').click()")  # fmt: skip
        far = await ink_of(page, "--load")
        # At 5,000 GPU-hours of 160 for the target: at the right edge, and all others to the left.
        width = await page.value("document.querySelector('.scatter').clientWidth")
        assert max(far) > 0.9 * width
        assert sum(x < 0.3 * width for x in near) < sum(x < 0.3 * width for x in far)


async def test_a_search_shows_its_patches_and_trials(tmp_path):
    async with opened(tuned(), tmp_path) as page:
        assert await text(page, ".badge") == "holds on unseen days"
        assert "window_s: 410" in await text(page, "pre")
        assert len(await cells(page, "Trials", 0)) == 40
        assert await cells(page, "Settings", 0) == ["hold_down.window_s", "forecast.quantile_ratio"]
        assert await page.value("document.querySelector('tr.ours').dataset.trial") == "10"


async def test_advice_begins_with_what_may_not_go(tmp_path):
    async with opened(advised(), tmp_path) as page:
        await page.until(DRAWN)
        assert await text(page, ".one h2") == "llm/code"
        await page.value("document.querySelector('[aria-label=Targets] tbody tr').click()")
        assert await text(page, ".one h2") == "llm/chat"
        lasted = await cells(page, "Disagreements", 1)
        assert lasted == ["40 min", "30 min", "20 min", "10 min"]  # the longest first
        assert len(await ink(page, "Replicas", "--desired")) > 300
