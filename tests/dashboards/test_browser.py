"""The dashboard in a real Chromium: pages without console errors, clicks that arrive."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards import launch as starting
from dashboards import layouts
from lorascope.tools import TOOLS

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
LOADED = """() => [...document.querySelectorAll('[data-testid=stBidiComponentIsolated]')]
    .map(place => place.shadowRoot?.querySelector('.cell img')).some(i => i?.naturalWidth > 0)"""
KNOWN = re.compile(r"/_stcore/(health|host-config)$")  # deep links ask for them in vain, harmlessly
WAIT_MS = 60_000
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium: apt install chromium"),
]
NAMES = ["", *(tool.name for tool in TOOLS if not tool.page)]


@pytest.fixture(scope="module")
def address(full_run, empty_run, large_run, tmp_path_factory) -> Iterator[str]:
    cache = tmp_path_factory.mktemp("cache")
    code = (
        "import sys; from pathlib import Path; from dashboards.launch import launch\n"
        "sys.exit(launch([Path(a) for a in sys.argv[1:]], open_browser=False))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(full_run), str(empty_run), str(large_run)],
        cwd=Path(starting.__file__).parent.parent,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = process.stdout.readline()
    yield next(word for word in said.split() if word.startswith("http"))
    process.terminate()  # not Ctrl-C: tests that run in the background may inherit it ignored
    process.communicate(timeout=30)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium) -> Iterator[Any]:
    """Give a fresh tab that remembers what went wrong and what was asked of other machines."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.wrong, page.outside = [], []
    page.on("console", lambda m: _note(page, m))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda r: _outside(page, r.url))
    yield page
    context.close()


def _note(page, message) -> None:
    if message.type == "error" and not KNOWN.search(message.location.get("url", "")):
        page.wrong.append(f"{message.text} {message.location.get('url')}")


def _outside(page, url: str) -> None:
    if url.startswith("http") and not url.startswith("http://127.0.0.1:"):
        page.outside.append(url)


def opened(tab, url: str):
    tab.goto(url)
    tab.wait_for_selector("h2", timeout=WAIT_MS)
    settled(tab)
    return tab


def settled(tab) -> None:
    tab.wait_for_function(
        "() => !document.querySelector('[data-testid=stStatusWidget]') && "
        "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'",
        timeout=WAIT_MS,
    )
    tab.wait_for_timeout(300)


def strip_tile(tab, epoch: int):
    return tab.locator(f".tile[data-epoch='{epoch}']")


@pytest.mark.parametrize("run", ["fern", "bare"])
@pytest.mark.parametrize("name", NAMES)
def test_every_page_opens_without_an_error_and_asks_nobody_else(name, run, address, tab):
    opened(tab, f"{address}/{name}?run={run}")
    tab.wait_for_timeout(500)
    assert tab.locator("[data-testid=stException]").count() == 0
    assert tab.wrong == []
    assert tab.outside == []
    if run == "bare" and name:
        assert f"lorascope {name}" in tab.locator("code").first.inner_text()


@pytest.mark.parametrize(
    ("name", "charts"), [("loss", 2), ("grid", 7), ("tags", 1), ("weights", 6)]
)
def test_the_charts_are_really_drawn(name, charts, address, tab):
    opened(tab, f"{address}/{name}?run=fern")
    drawn = "() => [...document.querySelectorAll('.vega-embed canvas, .vega-embed svg.marks')]"
    tall = f"{drawn}.filter(c => c.getBoundingClientRect().height > 60).length >= {charts}"
    tab.wait_for_function(tall, timeout=WAIT_MS)


def test_an_epoch_chosen_in_the_strip_is_chosen_on_every_page(address, tab):
    opened(tab, f"{address}/loss?run=fern")
    strip_tile(tab, 3).click()
    tab.wait_for_url("**epoch=3**", timeout=WAIT_MS)
    tab.get_by_role("link", name="Grid").click()
    tab.wait_for_selector(".side[data-epoch='3'][aria-pressed=true]", timeout=WAIT_MS)
    settled(tab)
    assert "epoch=3" in tab.url
    assert "run=fern" in tab.url
    assert strip_tile(tab, 3).get_attribute("aria-pressed") == "true"


def test_a_link_with_an_epoch_opens_there(address, tab):
    opened(tab, f"{address}/?run=fern&epoch=11")
    assert "You look at epoch 11" in tab.locator("[data-testid=stMain]").inner_text()


def test_arrows_walk_along_the_strip(address, tab):
    opened(tab, f"{address}/weights?run=fern&epoch=4")
    strip_tile(tab, 4).focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_url("**epoch=5**", timeout=WAIT_MS)


def test_a_click_on_a_picture_opens_it_large_with_what_is_known(address, tab):
    opened(tab, f"{address}/grid?run=fern")
    tab.locator(".cell[data-at='3,1']").click()
    dialog = tab.get_by_role("dialog")
    dialog.wait_for(timeout=WAIT_MS)
    settled(tab)
    text = dialog.inner_text()
    assert "Epoch 3" in text
    assert "<b>bold</b>" in text  # a caption is text, whatever it holds
    assert dialog.locator("a").count() == 0
    assert dialog.locator("img").count() == 3  # its own, the base model's, the nearest training one
    assert "The nearest training image, 01.png" in text
    assert "likeness 0.25" in text
    assert tab.wrong == []


def test_arrows_walk_from_an_opened_picture_to_the_next(address, tab):
    opened(tab, f"{address}/grid?run=fern")
    tab.locator(".cell[data-at='3,1']").click()
    dialog = tab.get_by_role("dialog")
    dialog.get_by_text("Epoch 3, strength 1").wait_for(timeout=WAIT_MS)
    settled(tab)
    tab.keyboard.press("ArrowDown")
    dialog.get_by_text("Epoch 4, strength 1").wait_for(timeout=WAIT_MS)
    settled(tab)
    tab.keyboard.press("ArrowRight")
    dialog.get_by_text("fern_x, on a beach").first.wait_for(timeout=WAIT_MS)
    assert tab.wrong == []


def test_a_measure_is_written_on_the_pictures_and_the_grid_stays_where_it_was(address, tab):
    opened(tab, f"{address}/grid?run=fern")
    assert tab.locator(".note").count() == 0
    tab.locator(".grid").evaluate("grid => grid.scrollTo(0, 400)")
    tab.get_by_role("combobox", name="Show").click()
    tab.get_by_role("option", name="likeness", exact=True).click()
    tab.wait_for_selector(".cell[data-at='12,0'] .note", timeout=WAIT_MS)
    assert tab.locator(".cell[data-at='12,0'] .note").inner_text() == "1.00"
    assert tab.locator(".grid").evaluate("grid => grid.scrollTop") == 400


def test_pictures_without_the_trigger_stand_apart_at_the_bottom(address, tab):
    opened(tab, f"{address}/grid?run=fern")
    assert tab.locator(".between").count() == 1
    last = tab.locator(".side").last
    assert last.inner_text() == "epoch 12, trigger left out"
    assert last.bounding_box()["y"] > tab.locator(".between").bounding_box()["y"]


def test_the_grid_can_be_taken_away_as_one_file(address, tab, full_run):
    opened(tab, f"{address}/grid?run=fern")
    with tab.expect_download(timeout=WAIT_MS) as waiting:
        tab.get_by_role("button", name="Download as one HTML page").click()
    assert waiting.value.suggested_filename == "grid.html"
    assert waiting.value.path().read_bytes() == (full_run / "samples" / "grid.html").read_bytes()


def test_a_grid_of_five_thousand_pictures_shows_a_part_of_them(address, tab):
    opened(tab, f"{address}/grid?run=large")
    tab.wait_for_function(LOADED, timeout=WAIT_MS)
    assert 0 < tab.locator(".cell img").count() <= layouts.MOST
    assert tab.wrong == []


def test_space_shows_the_base_model_and_d_the_difference(address, tab):
    opened(tab, f"{address}/grid?run=fern")
    cell = tab.locator(".cell[data-at='5,0']")
    own = cell.locator("img").get_attribute("src")
    cell.focus()
    tab.keyboard.down("Space")
    shown = cell.locator("img").get_attribute("src")
    assert shown == tab.locator(".cell[data-at='0,0'] img").get_attribute("src") != own
    tab.keyboard.up("Space")
    assert cell.locator("img").get_attribute("src") == own
    tab.keyboard.press("d")
    assert tab.locator(".grid.difference").count() == 1


def test_thumbnails_are_small_and_served_under_a_secret_name(address, tab):
    opened(tab, f"{address}/grid?run=fern")
    source = tab.locator(".cell img").first.get_attribute("src")
    assert re.fullmatch(r"/app/static/[0-9a-f]{32}/[0-9a-f]{32}\.webp", source)
    tab.wait_for_function(LOADED, timeout=WAIT_MS)
    assert tab.locator(".cell img").first.evaluate("image => image.naturalWidth") <= 256


def test_the_grid_keeps_its_headers_in_sight(address, tab):
    opened(tab, f"{address}/grid?run=fern")
    before = tab.locator(".corner").bounding_box()
    tab.locator(".grid").evaluate("grid => { grid.scrollTop = 600; grid.scrollLeft = 40 }")
    assert tab.locator(".corner").bounding_box()["y"] == pytest.approx(before["y"], abs=1)


def test_a_page_fills_itself_when_its_evidence_arrives(address, tab, empty_run, full_run):
    opened(tab, f"{address}/tags?run=bare")
    try:
        shutil.copytree(full_run / "evidence" / "tags", empty_run / "evidence" / "tags")
        tab.get_by_text("Images without the trigger").wait_for(timeout=20_000)
    finally:
        shutil.rmtree(empty_run / "evidence", ignore_errors=True)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_sticks_out_of_a_phone(name, address, tab):
    tab.set_viewport_size({"width": 420, "height": 900})
    opened(tab, f"{address}/{name}?run=fern")
    main = tab.locator("[data-testid=stMain]")
    assert main.evaluate("main => main.scrollWidth - main.clientWidth") <= 1
