"""The file: whole, harmless, the same bytes each time, and no larger than asked for."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from lorascope import storage
from lorascope.errors import MissingInputError, StorageError
from lorascope.run import Run
from lorascope.tools.pictures.sets import Picture, PictureSet
from lorascope.viewer import page_of, thumbnails, write_viewer, write_viewer_of
from tests.viewer.conftest import HOSTILE, PROMPTS, SIDE, evidence, picture, save

DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
BLOCK = re.compile(r'<script type="text/plain" id="pictures-(\d+)">(.*?)</script>', re.DOTALL)


class Tags(HTMLParser):
    """Every tag with its attributes, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append((tag, dict(attrs)))


def data_of(page) -> dict:
    return json.loads(DATA.search(page.read_text())[1])


def pictures_of(page) -> list[bytes]:
    """Take the pictures out of the file, as the page does."""
    told = data_of(page)["pictures"]
    blocks = {int(n): text for n, text in BLOCK.findall(page.read_text())}
    found = []
    for number, start in enumerate(told["starts"]):
        end = (*told["starts"], len(told["sizes"]))[number + 1]
        offset = 0
        for size in told["sizes"][start:end]:
            length = 4 * -(-size // 3)
            found.append(base64.b64decode(blocks[number][offset : offset + length]))
            offset += length
        assert offset == len(blocks[number])
    return found


def test_every_picture_is_in_the_file_where_the_page_looks_for_it(drawn, page, monkeypatch):
    monkeypatch.setattr("lorascope.viewer.data.BLOCK", 700)  # several blocks
    run, grid, measures = drawn
    assert write_viewer(run, grid, measures, page) == page
    told, found = data_of(page), pictures_of(page)
    assert len(told["pictures"]["starts"]) > 3
    assert len(found) == len(grid.table("cells")) + len(told["references"])
    for content in found:
        assert content[:4] == b"RIFF"
        assert content[8:12] == b"WEBP"
    assert told["count"] == len(grid.table("cells"))


def test_small_pictures_are_whole_and_exact(drawn, page, tmp_path):
    run, grid, _ = drawn
    write_viewer(run, grid, {}, page)
    from PIL import Image

    row = grid.table("cells")[7]
    packed = tmp_path / "one.webp"
    packed.write_bytes(pictures_of(page)[7])
    expected = picture(row["epoch"], row["column"])
    np.testing.assert_array_equal(np.asarray(Image.open(packed).convert("RGB")), expected)
    assert data_of(page)["pictures"]["lossless"]


def test_the_same_input_gives_the_same_bytes(drawn, page, tmp_path):
    run, grid, measures = drawn
    first = write_viewer(run, grid, measures, page).read_bytes()
    thumbs = run.place("samples") / "thumbs"
    for file in thumbs.iterdir():
        file.unlink()
    assert write_viewer(run, grid, measures, page).read_bytes() == first
    assert not list(page.parent.glob(".partial-*"))


def test_prompts_cannot_become_tags_or_end_the_data(drawn, page):
    run, grid, measures = drawn
    write_viewer(run, grid, measures, page)
    tags = Tags()
    tags.feed(page.read_text())
    assert [tag for tag, _ in tags.seen if tag in ("img", "b")] == []
    scripts = [attrs for tag, attrs in tags.seen if tag == "script"]
    assert [attrs.get("type") for attrs in scripts[:2]] == ["application/json", None]
    assert {attrs["type"] for attrs in scripts[2:]} == {"text/plain"}
    prompts = next(fact for fact in data_of(page)["facts"] if fact["key"] == "prompt")
    assert set(HOSTILE) <= set(prompts["values"])  # and yet they are told as they are


def test_a_hostile_title_is_text(drawn, page):
    run, grid, _ = drawn
    page_of(grid.table("cells"), page, run=run, title=HOSTILE[1])
    assert "<script>document" not in page.read_text()
    assert data_of(page)["title"] == HOSTILE[1]


def test_the_policy_forbids_everything_but_what_is_in_the_file(drawn, page):
    run, grid, measures = drawn
    text = write_viewer(run, grid, measures, page).read_text()
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    for part in (script, style):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"https?://|//[a-z]+\.[a-z]+/", text.replace(DATA.search(text)[1], ""))


def test_nobodys_folders_are_told(drawn, page):
    run, grid, measures = drawn
    text = write_viewer(run, grid, measures, page).read_text()
    assert "/home/somebody" not in text
    assert str(run.path) not in text
    assert "base.safetensors" in text


def test_full_pictures_are_linked_from_where_the_page_lies(drawn, page, tmp_path):
    run, grid, _ = drawn
    write_viewer(run, grid, {}, page)
    assert data_of(page)["links"]["values"][0] == "cells/0000000000000000.png"
    elsewhere = write_viewer(run, grid, {}, tmp_path / "grid.html")
    assert data_of(elsewhere)["links"]["values"][0].startswith("fern/samples/cells/")


def test_axes_are_what_varies_and_the_base_model_has_no_strength(drawn, page):
    run, grid, _ = drawn
    write_viewer(run, grid, {}, page)
    axes = {axis["key"]: axis for axis in data_of(page)["axes"]}
    assert list(axes) == ["epoch", "strength", "trigger", "prompt"]
    assert axes["epoch"]["labels"] == ["Base model", "Epoch 1", "Epoch 2", "Epoch 3"]
    assert axes["strength"]["places"][0] == -1
    assert axes["strength"]["labels"] == ["strength 0.6", "strength 1"]
    # a row without the trigger stands in the columns of the prompts that it was made of
    assert axes["prompt"]["labels"] == list(PROMPTS)
    assert axes["prompt"]["places"][-1] == len(PROMPTS) - 1
    assert data_of(page)["settings"][-3:] == ["20 steps", "ddim", f"{SIDE} x {SIDE} px"]


def test_what_was_measured_lies_beside_the_pictures_with_means_and_doubts(drawn, page):
    run, grid, measures = drawn
    write_viewer(run, grid, measures, page)
    told = data_of(page)
    metrics = {metric["key"]: metric for metric in told["metrics"]}
    assert list(metrics) == ["likeness", "copy_ratio"]
    assert metrics["likeness"]["values"][5] == 0.3
    assert metrics["likeness"]["values"][-1] is None  # not measured is not 0
    assert metrics["likeness"]["means"] == {"1": [0.31, 0.2, 0.4]}
    assert metrics["copy_ratio"]["numbers"] == ["copy ratio held out 0.8 (n = 6)"]
    assert told["caveats"] == ["One seed <b>only</b>."]
    copied = next(fact for fact in told["facts"] if fact["key"] == "is_copy")
    assert copied["values"] == ["no", "yes"]


def test_the_nearest_training_images_are_embedded_once(drawn, page):
    run, grid, measures = drawn
    write_viewer(run, grid, measures, page)
    told = data_of(page)
    assert told["references"] == [f"{6 + c:02}.png" for c in range(len(PROMPTS))]
    assert told["nearest"][: len(PROMPTS)] == list(range(len(PROMPTS)))
    run.place("dataset").unlink()  # without it there are pictures all the same
    write_viewer(run, grid, measures, page)
    assert data_of(page)["nearest"] == []


def test_what_pictures_say_for_other_programs_is_there_to_be_copied(drawn, page):
    run, grid, _ = drawn
    write_viewer(run, grid, {}, page)
    texts = data_of(page)["texts"]
    lines = [texts["lines"][line] for line in texts["of"][6]]
    assert lines == [PROMPTS[1], "Steps: 20, Seed: 1"]
    assert texts["of"][0] == []


def test_missing_and_damaged_pictures_are_named_and_break_nothing(drawn, page):
    run, grid, _ = drawn
    rows = grid.table("cells")
    (run.path / rows[0]["file"]).unlink()
    (run.path / rows[1]["file"]).write_bytes(b"\x89PNG no more")
    (run.path / rows[2]["file"]).write_bytes(b"")
    write_viewer(run, grid, {}, page)
    states = data_of(page)["pictures"]["states"]
    assert states == {"0": "missing", "1": "damaged", "2": "damaged"}


def test_a_page_without_any_picture_left_still_opens(drawn, page):
    run, grid, _ = drawn
    for row in grid.table("cells"):
        (run.path / row["file"]).unlink()
    write_viewer(run, grid, {}, page)
    assert set(data_of(page)["pictures"]["states"].values()) == {"missing"}


def test_names_that_point_out_of_the_run_are_not_followed(drawn, page, tmp_path):
    run, _, _ = drawn
    save(tmp_path / "secret.png", picture(3, 1))
    rows = [
        {"epoch": 1, "prompt": str(i), "column": i, "file": file}
        for i, file in enumerate(("../secret.png", str(tmp_path / "secret.png")))
    ]
    page_of(rows, page, run=run)
    told = data_of(page)
    assert told["pictures"]["states"] == {"0": "missing"}
    assert told["links"]["values"] == [""]


@pytest.mark.parametrize(
    ("budget", "longer"), [(400_000, (64, 80, 96, 112, 128)), (1_500_000, (None,))]
)
def test_the_file_keeps_to_its_budget_by_making_pictures_smaller(budget, longer, drawn, page, rng):
    run, grid, _ = drawn
    for row in grid.table("cells"):
        rough = np.kron(rng.integers(0, 250, (16, 16, 3)), np.ones((10, 10, 1), int))
        grain = rng.integers(-60, 60, rough.shape)
        save(run.path / row["file"], (rough + grain).clip(0, 255).astype(np.uint8))
    write_viewer(run, grid, {}, page, budget=10_000_000)
    assert page.stat().st_size > 2_000_000
    assert data_of(page)["pictures"]["lossless"]
    write_viewer(run, grid, {}, page, budget=budget)
    assert 0.4 * budget < page.stat().st_size <= budget
    assert data_of(page)["pictures"]["longer"] in longer
    assert not data_of(page)["pictures"]["lossless"]


def test_copies_are_made_once_and_anew_only_where_the_picture_changed(drawn, page, monkeypatch):
    run, grid, _ = drawn
    write_viewer(run, grid, {}, page)
    packed = []
    make = thumbnails._packed
    monkeypatch.setattr(
        thumbnails, "_packed", lambda path, rung: packed.append(path.name) or make(path, rung)
    )
    write_viewer(run, grid, {}, page)
    assert packed == []
    changed = run.path / grid.table("cells")[9]["file"]
    save(changed, picture(1, 1))
    torn = run.place("samples") / "thumbs" / f"{16 + 1:016x}-lossless.webp"
    torn.write_bytes(torn.read_bytes()[:-3])
    write_viewer(run, grid, {}, page)
    assert sorted(packed) == sorted([changed.name, f"{16 + 1:016x}.png"])


def test_samples_of_another_trainer_enter_the_same_viewer(drawn, page):
    run, _, _ = drawn
    folder = run.place("drawn")
    pictures = []
    for epoch in (0, 1, 2):
        for index in (0, 1):  # the same prompt twice, no seed, no size
            file = f"samples/trainer/e{epoch}_{index}.png"
            save(run.path / file, picture(epoch, index))
            pictures.append(
                Picture(
                    cell=len(pictures), row=epoch, column=index, kind="lora" if epoch else "base",
                    epoch=epoch, step=0, strength=1.0, text_strength=1.0, prompt="zyxfern",
                    group="", seed=None, width=0, height=0, file=file,
                )
            )  # fmt: skip
    found = PictureSet(run=run.path, pictures=tuple(pictures), by_trainer=True)
    likeness = evidence("likeness", {"cells": [{"cell": 2, "likeness": 0.5}]})
    write_viewer_of(found, {"likeness": likeness}, folder / "grid.html")
    told = data_of(folder / "grid.html")
    assert [axis["key"] for axis in told["axes"]] == ["epoch", "prompt", "column"]
    assert told["links"]["values"][0] == "e0_0.png"
    assert told["metrics"][0]["values"] == [None, None, 0.5, None, None, None]
    assert told["baseline"][:4] == [0, 1, 0, 1]
    assert told["aspect"] == 1


def test_an_older_grid_with_fewer_columns_can_be_shown(drawn, page):
    run, grid, _ = drawn
    kept = ("epoch", "step", "strength", "row", "column", "prompt", "group", "seed", "file")
    rows = [{k: r[k] for k in kept} | {"noise": 0.1 * r["row"]} for r in grid.table("cells")[:35]]
    old = replace(grid, measured=replace(grid.measured, tables={"cells": rows}))
    write_viewer(run, old, {}, page)
    told = data_of(page)
    assert told["metrics"][0]["key"] == "noise"
    assert told["baseline"][5] == 0
    assert [axis["key"] for axis in told["axes"]] == ["epoch", "strength", "prompt"]


def test_two_tools_with_one_name_are_told_apart(drawn, page):
    run, grid, _ = drawn
    one, two = (evidence(t, {"cells": [{"cell": 0, "noise": v}]}) for t, v in (("a", 1), ("b", 2)))
    write_viewer(run, grid, {"a": one, "b": two}, page)
    metrics = data_of(page)["metrics"]
    assert [(m["key"], m["name"], m["values"][0]) for m in metrics] == [
        ("noise", "noise", 1),
        ("b: noise", "noise (b)", 2),
    ]


def test_plain_values_become_overlays_and_facts(drawn, page):
    run, grid, _ = drawn
    values = {"votes": {0: 3, 5: 1}, "said": {0: "good"}}
    page_of(grid.table("cells"), page, run=run, values=values)
    told = data_of(page)
    assert told["metrics"][0]["values"][:6] == [3, None, None, None, None, 1]
    assert any(fact["key"] == "said" for fact in told["facts"])


def test_a_grid_without_pictures_says_what_to_type(empty_run, page):
    with pytest.raises(MissingInputError, match="lorascope grid"):
        write_viewer(empty_run, evidence("grid", {"cells": []}), {}, page)


def test_what_was_there_stays_where_the_file_cannot_be_written(drawn, page, monkeypatch):
    run, grid, _ = drawn
    before = write_viewer(run, grid, {}, page).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        write_viewer(run, grid, {}, page, budget=2_000)
    assert page.read_bytes() == before


def test_a_page_that_would_be_the_same_is_left_alone(drawn, page):
    run, grid, _ = drawn
    written = write_viewer(run, grid, {}, page).stat().st_mtime_ns
    assert write_viewer(run, grid, {}, page).stat().st_mtime_ns == written


def test_a_folder_that_cannot_hold_small_copies_is_an_error_that_says_so(drawn, page):
    run, grid, _ = drawn
    (run.place("samples") / "thumbs").write_text("in the way")
    with pytest.raises(StorageError, match="thumbs"):
        write_viewer(run, grid, {}, page)


def test_pictures_of_one_content_are_embedded_once(drawn, page):
    run, grid, _ = drawn
    rows = [
        row | {"file": grid.table("cells")[row["column"]]["file"]} for row in grid.table("cells")
    ]
    page_of(rows, page, run=Run(run.path))
    assert len(data_of(page)["pictures"]["sizes"]) == len(PROMPTS)
