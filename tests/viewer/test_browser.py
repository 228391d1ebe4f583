"""The page in a real Chromium: keys, address, overlays, hostile prompts, 5,000 cells."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorascope.viewer import page_of, write_viewer
from tests.conftest import TRIGGER
from tests.viewer.conftest import HOSTILE, PROMPTS, copies_of, grid_of, likeness_of

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
viewer = pytest.importorskip("benchmarks.viewer")
CHROMIUM = viewer.CHROMIUM
WAIT_MS = 30_000
OPENS_MS = 1500  # what is asked for
ALLOWED = 2  # times that, since the machine that tests run on does other things as well
FPS = 30
SCREEN = {"width": 1200, "height": 2200}
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium: apt install chromium"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=viewer.FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def address(tiny_run) -> str:
    grid = grid_of(tiny_run)
    rows = list(grid.table("cells"))
    (tiny_run.path / rows[7]["file"]).unlink()
    measures = {"likeness": likeness_of(rows), "copies": copies_of(rows)}
    return write_viewer(tiny_run, grid, measures, tiny_run.place("samples") / "grid.html").as_uri()


@pytest.fixture
def tab(chromium) -> Iterator[Any]:
    """Give a fresh tab that remembers what went wrong and what was asked for."""
    context = chromium.new_context(viewport=SCREEN)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.wrong, page.asked = [], []
    page.on("console", lambda m: m.type == "error" and page.wrong.append(m.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda r: r.url.startswith("data:") or page.asked.append(r.url))
    yield page
    assert page.wrong == []
    context.close()


def opened(tab, url: str):
    tab.goto(url)
    until(tab, "document.querySelector('.cell img')?.naturalWidth > 0")
    return tab


def until(tab, wanted: str, given: object = None) -> None:
    """Wait for something; the page forbids what `wait_for_function` would do."""
    for _ in range(WAIT_MS // 50):
        if tab.evaluate(wanted, given):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(wanted)


def cell(tab, row: int, column: int):
    return tab.locator(f".cell[data-row='{row}'][data-column='{column}']")


def press(tab, *keys: str) -> None:
    for key in keys:
        tab.keyboard.press(key)


def hash_has(tab, text: str) -> None:
    until(tab, "text => location.hash.includes(text)", text)


def hash_lacks(tab, text: str) -> None:
    until(tab, "text => !location.hash.includes(text)", text)


def test_rows_are_epochs_columns_are_prompts_and_no_request_leaves_the_page(address, tab):
    opened(tab, address)
    assert tab.locator(".row").count() == 9
    assert tab.locator(".side .label").all_inner_texts()[:3] == [
        "Base model", "Epoch 1", "Epoch 1",
    ]  # fmt: skip
    assert tab.locator(".group").all_inner_texts() == ["with trigger", "trigger left out"]
    tab.locator(".cell").first.click()
    press(tab, "d", "f", "n", "Escape")
    tab.wait_for_timeout(300)
    assert tab.asked == [address]


def test_hostile_prompts_are_only_text(address, tab):
    opened(tab, address)
    title = tab.title()
    heads = tab.locator(".span .prompt").all_inner_texts()
    assert HOSTILE[0] in heads
    cell(tab, 1, 3).click()
    assert tab.locator(".subtitle").inner_text() == HOSTILE[1]
    press(tab, "?")
    assert "One seed <b>only</b>." in tab.locator(".help").inner_text()
    assert tab.locator(".help b").count() == 0
    assert tab.title() == title
    assert tab.evaluate("document.querySelectorAll('script').length") == tab.evaluate(
        "document.querySelectorAll('script#data, script:not([type]), script[type=\"text/plain\"]')"
        ".length"
    )


def test_a_script_that_gets_into_the_page_is_not_run(address, tab):
    opened(tab, address)
    tab.evaluate(
        "() => { const node = document.createElement('div');"
        " node.innerHTML = '<img src=x onerror=\"document.title=1\">'; document.body.append(node) }"
    )
    tab.wait_for_timeout(200)
    assert tab.title() == "fern"
    assert any("Content Security Policy" in text for text in tab.wrong)
    tab.wrong.clear()


def test_a_missing_picture_is_a_grey_cell_with_the_word(address, tab):
    opened(tab, address)
    assert cell(tab, 1, 2).inner_text() == "missing"
    cell(tab, 1, 2).click()
    assert "missing" in tab.locator(".note").inner_text()


def test_everything_is_reached_by_keys_alone(address, tab):
    opened(tab, address)
    press(tab, "ArrowDown", "ArrowRight", "Enter")
    title, subtitle = tab.locator(".names h2"), tab.locator(".subtitle")
    tab.wait_for_selector("dialog.large[open]")
    assert title.inner_text() == "Epoch 1, strength 0.6"
    assert subtitle.inner_text() == PROMPTS[1]
    press(tab, "ArrowDown", "ArrowDown")
    assert title.inner_text() == "Epoch 2, strength 0.6"
    press(tab, "ArrowLeft")
    assert subtitle.inner_text() == TRIGGER
    press(tab, "ArrowLeft")  # there is nothing: it stays
    assert subtitle.inner_text() == TRIGGER
    press(tab, "Escape")
    tab.wait_for_selector("dialog.large", state="hidden")
    focused = tab.evaluate(
        "[document.activeElement.dataset.row, document.activeElement.dataset.column]"
    )
    assert focused == ["3", "0"]  # the focus is where one looked last
    press(tab, "/")
    tab.keyboard.type("beach")
    until(tab, "document.querySelectorAll('.span').length === 1")


def test_space_shows_the_baseline_held_or_switched(address, tab):
    opened(tab, address)
    cell(tab, 3, 1).click()
    tag = tab.locator(".tag")
    own, other = (tab.locator(f".pan .{name}") for name in ("own", "other"))
    assert other.get_attribute("src") == cell(tab, 0, 1).locator("img").get_attribute("src")
    assert own.get_attribute("src") == cell(tab, 3, 1).locator("img").get_attribute("src")
    tab.keyboard.down("Space")
    assert tag.inner_text() == "Base model"
    assert other.evaluate("node => getComputedStyle(node).visibility") == "visible"
    tab.wait_for_timeout(400)
    tab.keyboard.up("Space")
    assert tag.inner_text() == "Epoch 2, strength 0.6"
    assert other.evaluate("node => getComputedStyle(node).visibility") == "hidden"
    press(tab, "Space")  # touched: it stays
    assert tag.inner_text() == "Base model"


def test_a_row_without_the_trigger_is_compared_with_its_own_baseline(address, tab):
    opened(tab, address)
    cell(tab, 8, 1).click()
    own = cell(tab, 7, 1).locator("img").get_attribute("src")
    assert tab.locator(".pan .other").get_attribute("src") == own
    assert tab.locator(".subtitle").inner_text() == "a woman, on a beach"


def test_the_difference_to_itself_is_black_and_to_the_base_is_not(address, tab):
    opened(tab, f"{address}#open=15&mode=difference&gain=16")
    tab.wait_for_selector(".stage.difference")
    assert brightest(tab) > 100
    source = tab.locator(".pan .own").get_attribute("src")
    tab.locator(".pan .other").evaluate("(node, src) => { node.src = src }", source)
    tab.wait_for_timeout(300)
    assert brightest(tab) <= 1


def brightest(tab) -> int:
    """Look at what is really on the screen, in the middle of the stage."""
    import io

    import numpy as np
    from PIL import Image

    tab.wait_for_timeout(200)
    box = tab.locator(".stage").bounding_box()
    middle = {
        "x": box["x"] + box["width"] * 0.3, "y": box["y"] + box["height"] * 0.3,
        "width": box["width"] * 0.4, "height": box["height"] * 0.4,
    }  # fmt: skip
    shot = tab.screenshot(clip=middle)
    return int(np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).max())


def test_f_flickers_until_it_is_pressed_again(address, tab):
    opened(tab, address)
    cell(tab, 3, 1).click()
    press(tab, "f")
    tag = "document.querySelector('.tag').textContent"
    for seen in ("Base model", "Epoch 2, strength 0.6", "Base model"):
        until(tab, f"seen => {tag} === seen", seen)
    press(tab, "f")
    tab.wait_for_timeout(600)
    assert tab.evaluate(tag) == "Epoch 2, strength 0.6"


def test_n_goes_through_what_can_be_compared_with(address, tab):
    opened(tab, address)
    cell(tab, 3, 1).click()
    other = tab.locator(".pan .other")
    places = [(2, 1), (4, 1), (3, 0), (3, 2)]  # above, below, left, right
    sources = [cell(tab, *place).locator("img").get_attribute("src") for place in places]
    for source in sources:
        press(tab, "n")
        assert other.get_attribute("src") == source
    press(tab, "n")
    nearest = tab.locator(".nearest img").get_attribute("src")
    assert other.get_attribute("src") == nearest
    assert tab.locator(".nearest figcaption").inner_text().endswith("07.png")
    press(tab, "n")
    hash_has(tab, "with=baseline")


def test_zoom_by_keys_and_wheel_and_pan_by_dragging(address, tab):
    opened(tab, address)
    cell(tab, 3, 1).click()
    pan = tab.locator(".pan")
    scale = "node => new DOMMatrix(getComputedStyle(node).transform).a"
    press(tab, "+", "+")
    assert pan.evaluate(scale) == pytest.approx(1.96)
    tab.mouse.move(300, 300)
    tab.mouse.wheel(0, -400)
    until(tab, "new DOMMatrix(getComputedStyle(document.querySelector('.pan')).transform).a > 3")
    before = pan.evaluate("node => new DOMMatrix(getComputedStyle(node).transform).e")
    tab.mouse.down()
    tab.mouse.move(380, 300)
    tab.mouse.up()
    after = pan.evaluate("node => new DOMMatrix(getComputedStyle(node).transform).e")
    assert after - before == pytest.approx(80, abs=8)
    press(tab, "0")
    assert pan.evaluate(scale) == 1


def test_the_address_holds_every_choice_and_restores_it(address, tab, chromium):
    opened(tab, address)
    tab.locator("select[data-axis=strength]").select_option("1")
    tab.locator("select[data-axis=epoch]").select_option("columns")
    tab.locator("select.show").select_option("likeness")
    tab.locator(".tools input[type=range]").fill("120")
    tab.locator("input[type=search]").fill("beach")
    cell(tab, 0, 2).click()
    press(tab, "n", "n", "n", "d", "+")
    hash_has(tab, "zoom")
    url = tab.url
    assert re.search(r"strength=1&epoch=columns|epoch=columns&strength=1", url)
    fresh = chromium.new_context(viewport=SCREEN).new_page()
    opened(fresh, url)
    fresh.wait_for_selector("dialog.large[open] .stage.difference")
    for selector in (".tag", ".names h2", ".subtitle", ".side .label", ".corner", ".legend"):
        assert (
            fresh.locator(selector).first.inner_text() == tab.locator(selector).first.inner_text()
        )
    assert fresh.locator("input[type=search]").input_value() == "beach"
    assert fresh.evaluate("State.address()") == tab.evaluate("State.address()")
    assert fresh.locator(".cell").first.evaluate("node => node.clientWidth") == 120
    fresh.context.close()


def test_the_back_button_closes_the_large_view_and_forward_opens_it(address, tab):
    opened(tab, address)
    cell(tab, 2, 1).click()
    press(tab, "ArrowDown")
    tab.wait_for_timeout(250)
    tab.go_back()
    tab.wait_for_selector("dialog.large", state="hidden")
    assert tab.url.startswith(address)
    hash_lacks(tab, "open=")
    tab.go_forward()
    tab.wait_for_selector("dialog.large[open]")
    assert tab.locator(".names h2").inner_text() == "Epoch 2, strength 0.6"


@pytest.mark.parametrize(
    "nonsense",
    ["open=99999", "open=-3", "epoch=77", "epoch=rows&prompt=rows", "px=huge", "show=none&zoom=a,b",
     "open=1&with=<b>&mode=x&gain=9e9", "%E0%A4%A", "find=%3Cscript%3E"],
)  # fmt: skip
def test_a_nonsense_address_shows_a_page_that_works(nonsense, address, tab):
    tab.goto(f"{address}#{nonsense}")
    tab.wait_for_selector(".corner")
    press(tab, "Escape")
    if "find" in nonsense:
        assert tab.locator(".nothing").is_visible() or tab.locator(".cell").count()
    else:
        tab.wait_for_selector(".cell")


def test_an_overlay_writes_numbers_colours_and_row_means(address, tab):
    opened(tab, address)
    tab.locator("select.show").select_option("likeness")
    assert cell(tab, 1, 0).locator(".number").inner_text() == "0.30"
    assert cell(tab, 8, 0).locator(".number").inner_text() == "\u2013"
    legend = tab.locator(".legend").inner_text()
    assert "how near the subject's images" in legend
    assert "n = 40 pictures" in legend
    means = tab.locator(".row .mean")
    assert means.nth(1).inner_text() == "0.31"  # the tool's own, with its interval
    assert "95 % 0.20 to 0.40" in means.nth(1).get_attribute("title")
    assert means.nth(2).inner_text() == "0.30"  # of what is shown
    tone = "node => getComputedStyle(node.querySelector('.measured')).getPropertyValue('--tone')"
    low, high = (cell(tab, r, 0).evaluate(tone) for r in (0, 5))
    assert low == "rgb(224 121 11)"
    assert high == "rgb(31 111 180)"


def test_axes_change_places_and_single_values_are_chosen(address, tab):
    opened(tab, address)
    tab.locator("select[data-axis=epoch]").select_option("columns")
    assert tab.locator("select[data-axis=prompt]").input_value() == "rows"
    assert TRIGGER in tab.locator(".side .label").all_inner_texts()
    tab.locator("select[data-axis=prompt]").select_option("0")
    tab.locator("select[data-axis=strength]").select_option("rows")
    # the base model has no strength, so it stands in the row of each
    assert cell(tab, 0, 0).locator("img").get_attribute("src") == cell(tab, 1, 0).locator(
        "img"
    ).get_attribute("src")
    tab.get_by_role("button", name="Reset").click()
    hash_lacks(tab, "epoch")
    assert tab.locator(".row").count() == 9


def test_play_walks_along_an_axis(address, tab):
    opened(tab, f"{address}#strength=1")
    press(tab, "p")
    until(tab, "location.hash.includes('epoch=1')")
    assert "Epoch 1" in tab.locator(".side .label").all_inner_texts()
    press(tab, "p")
    tab.get_by_role("button", name="Reset").click()
    cell(tab, 2, 1).click()
    press(tab, "p")
    until(tab, "document.querySelector('.names h2').textContent.startsWith('Epoch 3')")
    assert tab.locator(".subtitle").inner_text() == PROMPTS[1]


def test_parameters_are_copied(address, tab, chromium):
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(tab, address)
    cell(tab, 3, 1).click()
    press(tab, "c")
    until(tab, "document.querySelector('[data-copies]').textContent === 'Copied'")
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied == f"{PROMPTS[1]}\nSteps: 20, Seed: 1"


def test_it_is_a_grid_to_those_who_listen(address, tab):
    opened(tab, f"{address}#show=likeness")
    name = cell(tab, 3, 1).get_attribute("aria-label")
    assert name == f"Epoch 2, strength 0.6: {PROMPTS[1]}, 0.60"
    assert tab.locator("[role=grid]").get_attribute("aria-rowcount") == "10"
    assert tab.locator(".cell[tabindex='0']").count() == 1
    unnamed = tab.evaluate(
        "[...document.querySelectorAll('button, select, input')]"
        ".filter(n => !n.textContent.trim() && !n.labels?.length && !n.getAttribute('aria-label'))"
        ".length"
    )
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_light_and_dark(scheme, address, tab):
    tab.emulate_media(color_scheme=scheme)
    opened(tab, address)
    ratio = """() => {
      const parse = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = (text) => parse(text).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const paper = light(getComputedStyle(document.querySelector('.head-row')).backgroundColor);
      return ['.about', '.side .label', '.span .prompt', '.span .faint', '.corner'].map((one) => {
        const ink = light(getComputedStyle(document.querySelector(one)).color);
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      });
    }"""
    assert min(tab.evaluate(ratio)) >= 4.5


@pytest.mark.parametrize("width", [360, 700])
def test_nothing_sticks_out_of_a_narrow_window(width, address, tab):
    tab.set_viewport_size({"width": width, "height": 800})
    opened(tab, address)
    assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    cell(tab, 0, 0).click()
    assert tab.locator(".panel").evaluate("node => node.scrollWidth - node.clientWidth") <= 0
    assert tab.locator(".stage").bounding_box()["height"] > 300


def test_headers_stay_in_sight_and_only_what_is_on_screen_has_elements(address, tab):
    tab.set_viewport_size({"width": 1200, "height": 900})
    opened(tab, f"{address}#px=400")
    before = tab.locator(".corner").bounding_box()
    tab.locator(".scroller").evaluate("node => node.scrollTo(500, 1800)")
    tab.wait_for_timeout(150)
    after = tab.locator(".corner").bounding_box()
    assert (after["x"], after["y"]) == (before["x"], before["y"])
    assert tab.locator(".row").count() < 8
    assert tab.locator(".cell").count() < 30


@pytest.mark.slow
def test_five_thousand_cells_open_at_once_scroll_smoothly_and_keep_no_memory(chromium, tmp_path):
    run, rows = viewer.write_synthetic(tmp_path / "grid", 5000, side=96)
    page = page_of(rows, run.place("samples") / "grid.html", run=run)
    assert page.stat().st_size <= 12_000_000
    found = viewer.measure(page, chromium, frames=240)
    assert found["opened_ms"] < OPENS_MS * ALLOWED
    assert found["fps_median"] >= FPS
    assert found["fps_worst"] >= FPS / ALLOWED
    assert found["cells_most"] < 500
    assert found["heap_after"] < found["heap_before"] + 1  # MiB
    assert found["nodes_after"] < found["nodes_before"] * 1.5
    shutil.rmtree(tmp_path)
