"""The grid page: which picture stands where, what is said of it, and how much is sent."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from dashboards import app, cells, components, layouts, measures, opened, thumbs
from lorascope.records import Measured, Row
from lorascope.run import Run
from lorascope.viewer.overlays import Overlay
from tests.dashboards import pictures
from tests.dashboards.conftest import answering, measure_pictures, of_run

VIEWS = Path(app.__file__).parent / "views"
COLUMNS: list[Row] = [{"prompt": p, "group": g} for p, g in pictures.PROMPTS]


@dataclass
class Seen:
    """What the components were given, and what they answer."""

    data: dict[str, Mapping] = field(default_factory=dict)
    opened: int | None = None

    def draw(self, name: str, data: Mapping, *, key: str, **_listeners: Callable) -> object:
        self.data[key] = data
        return SimpleNamespace(opened=self.opened if key != "strip" else None, chosen=None)

    @property
    def labels(self) -> list[tuple[str, str]]:
        return [(row["label"], row["side"]) for row in self.data["grid"]["rows"]]

    @property
    def shown(self) -> list[int]:
        rows = self.data["grid"]["rows"]
        return [cell["cell"] for row in rows for cell in row["cells"] if cell]


@pytest.fixture
def seen(monkeypatch) -> Seen:
    found = Seen()
    monkeypatch.setattr(components, "draw", found.draw)
    return found


def page(run: Path, name: str = "grid", *, epoch: int = 0) -> AppTest:
    drawn = AppTest.from_file(str(VIEWS / f"{name}.py"), default_timeout=60)
    drawn.session_state["run"] = str(run)
    if epoch:
        drawn.query_params["epoch"] = str(epoch)
    return well(drawn.run())


def well(drawn: AppTest) -> AppTest:
    assert not drawn.exception, [e.stack_trace for e in drawn.exception]
    return drawn


def texts(drawn: AppTest) -> str:
    kinds = (drawn.markdown, drawn.caption, drawn.subheader, drawn.info)
    return "\n".join(str(one.value) for kind in kinds for one in kind).replace("\\", "")


def codes(drawn: AppTest) -> list[str]:
    return [str(c.value) for c in drawn.code]


def small(**varies: tuple) -> list[Row]:
    """Make a grid of two epochs whose rows differ by strength, base model, companions."""
    rows: list[Row] = []
    for base in varies.get("base", ("miniature",)):
        for companions in varies.get("companions", ("",)):
            more = {"base": base, "companions": companions}
            of = pictures.row_facts(epochs=2, strengths=varies.get("strength", (1.0,)), **more)
            for row in of:
                texts = varies.get("text_strength", ()) if row["kind"] == "lora" else ()
                rows += [{**row, "text_strength": t} for t in texts] or [row]
    return pictures.cells(rows, COLUMNS[:2])


def test_the_base_model_is_on_top_and_trigger_off_rows_are_at_the_bottom(full_run, seen):
    page(full_run)
    assert [label for label, _ in seen.labels] == [
        "base",
        *map(str, range(1, 13)),
        "base, trigger left out",
        "epoch 12, trigger left out",
    ]
    rows = seen.data["grid"]["rows"]
    assert [row["apart"] for row in rows] == [False] * 13 + [True] * 2
    assert rows[-1]["cells"][2]["prompt"] == "on a beach"
    assert rows[-1]["cells"][0]["base"] == rows[-2]["cells"][0]["url"]
    assert rows[3]["cells"][0]["base"] == rows[0]["cells"][0]["url"]


def test_the_strip_never_takes_a_picture_without_the_trigger(full_run):
    sheet = cells.sheet_of(Run(full_run).latest("grid"))
    found = cells.of_strip(sheet, "fern_x")
    assert sorted(found) == list(range(13))
    assert {cell["kind"] for cell in found.values()} == {"base", "lora"}
    assert {cell["strength"] for cell in found.values()} == {0.0, 1.0}


def test_the_strips_prompts_begin_with_those_that_call_the_subject_up():
    table = pictures.cells(pictures.row_facts(epochs=1), COLUMNS[::-1])
    assert cells.prompts(cells.arrange(table))[0] == "fern_x"


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("seed", (1, 2), ["trigger, seed 1", "trigger, seed 2"]),
        ("guidance", (5.0, 7.5), ["trigger, seed 1, guidance 5", "trigger, seed 1, guidance 7.5"]),
        ("steps", (20, 30), ["trigger, seed 1, 20 steps", "trigger, seed 1, 30 steps"]),
        ("sampler", ("ddim", "euler"), ["trigger, seed 1, ddim", "trigger, seed 1, euler"]),
        ("width", (96, 128), ["trigger, seed 1, 96 x 96 px", "trigger, seed 1, 128 x 96 px"]),
        ("negative", ("", "fog"),
         ["trigger, seed 1, no negative prompt", "trigger, seed 1, negative: fog"]),
    ],
)  # fmt: skip
def test_a_column_says_what_tells_it_from_others_of_its_prompt(name, values, said):
    columns = [{**COLUMNS[0], name: value} for value in values]
    sheet = cells.arrange(pictures.cells(pictures.row_facts(epochs=1), columns))
    assert cells.heads(sheet.columns) == said


def test_a_column_does_not_say_what_follows_from_its_prompt():
    columns = [{**COLUMNS[0], "steps": 20}, {**COLUMNS[2], "steps": 30}]
    sheet = cells.arrange(pictures.cells(pictures.row_facts(epochs=1), columns))
    assert cells.heads(sheet.columns) == ["trigger, seed 1", "unseen, seed 1"]


def test_tags_stand_with_the_prompt():
    columns = [{**COLUMNS[0], "tags": "<lora:style:0.6>"}, COLUMNS[0]]
    sheet = cells.arrange(pictures.cells(pictures.row_facts(epochs=1), columns))
    assert [c["shown"] for c in sheet.columns] == ["fern_x <lora:style:0.6>", "fern_x"]


@pytest.mark.parametrize(
    ("varies", "label", "shown"),
    [
        ({"strength": (0.6, 1.0)}, "Strength", ["0.6", "1", "all"]),
        ({"text_strength": (0.5, 1.0)}, "Text strength", ["0.5", "1", "all"]),
        ({"base": ("miniature", "models/other")}, "Base model", ["miniature", "other", "all"]),
        ({"companions": ("", "style:0.6")}, "Companions", ["none", "style:0.6", "all"]),
    ],
)
def test_what_rows_differ_by_can_be_chosen(varies, label, shown, seen, tmp_path):
    table = small(**varies)
    drawn = page(of_run(tmp_path / "fern", table))
    control = next(c for c in drawn.segmented_control if c.label == label)
    assert [str(o.content if hasattr(o, "content") else o) for o in control.options] == shown
    one = seen.shown
    assert len(seen.labels) == len(set(seen.labels)) == 5
    control.select("all").run()
    well(drawn)
    assert len(seen.labels) == len(set(seen.labels))
    assert sorted(seen.shown) == [row["cell"] for row in table]
    assert set(one) < set(seen.shown)


def test_rows_without_the_trigger_stay_at_another_strength_and_say_theirs(full_run, seen):
    drawn = page(full_run)
    drawn.segmented_control[0].select(0.6).run()
    well(drawn)
    assert seen.labels[1] == ("1", "strength 0.6")
    assert seen.labels[-1] == ("epoch 12, trigger left out", "strength 1")


def test_a_grid_of_one_strength_offers_no_choice(seen, tmp_path):
    drawn = page(of_run(tmp_path / "fern", small()))
    assert not drawn.segmented_control


def test_no_two_pictures_share_a_place_even_where_nothing_tells_them_apart(seen, tmp_path):
    columns = [COLUMNS[0], COLUMNS[0]]  # the same prompt and seed twice
    rows = pictures.row_facts(epochs=2, strengths=(1.0, 1.0))  # and two files of one epoch
    table = pictures.cells(rows, columns)
    page(of_run(tmp_path / "fern", table))
    assert sorted(seen.shown) == [row["cell"] for row in table]


def test_prompts_can_be_chosen(full_run, seen):
    drawn = page(full_run)
    drawn.multiselect[0].select("fern_x, on a beach").run()
    assert [c["label"] for c in well(drawn) and seen.data["grid"]["columns"]] == [
        "fern_x, on a beach"
    ]


def test_a_measure_is_written_on_every_picture(full_run, seen):
    drawn = page(full_run)
    assert "note" not in seen.data["grid"]["rows"][3]["cells"][0]
    show = next(s for s in drawn.selectbox if s.label == "Show")
    assert show.options[:6] == [
        "pictures alone", "likeness", "adherence", "copy ratio", "source share", "artefacts"
    ]  # fmt: skip
    show.select("copy_ratio").run()
    rows = seen.data["grid"]["rows"]
    assert [rows[e]["cells"][0]["note"] for e in (0, 3, 12)] == ["0.90", "0.84", "0.66"]
    assert [rows[e]["cells"][0]["level"] for e in (0, 12)] == [1.0, 0.0]
    assert "near 0 for a copy" in texts(well(drawn))
    assert "copy ratio held out 0.9 (n = 12)" in texts(drawn)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0.00"), (0.834, "0.83"), (-0.2, "-0.20"), (0.0012, "0.0012"), (1234.5, "1.23e+03")],
)
def test_numbers_on_pictures_are_short(value, said):
    assert layouts.short(value) == said


def test_a_picture_that_was_not_measured_carries_no_number(full_run):
    sheet = cells.sheet_of(Run(full_run).latest("grid"))
    some = Overlay(key="x", name="x", meaning="", values={0: 1.0, 1: float("nan")})
    marks = layouts.Marks(chosen=None, overlay=some)
    data = layouts.layout(full_run, sheet, sheet.rows[:1], sheet.columns, marks)
    assert ["note" in cell for cell in data["rows"][0]["cells"]] == [True, False, False, False]


def test_an_opened_picture_tells_all_that_is_known(full_run, seen):
    sheet = cells.sheet_of(Run(full_run).latest("grid"))
    row = next(r for r in sheet.rows if r["epoch"] == 3 and r["strength"] == 1.0)
    seen.opened = sheet.placed[row["row"], 0]["cell"]
    drawn = page(full_run)
    said = texts(drawn)
    assert "Epoch 3, strength 1" in said
    assert "The base model, same noise" in said
    assert pictures.INFOTEXT.format(epoch=3) in codes(drawn)
    assert "**likeness 0.25** (base model 0): how near" in said
    nearest = "The nearest training image, 01.png: 84% as far away as the next nearest one."
    assert f"{nearest} Of held-out images 90% (n = 12)." in said
    known = {
        row["what"]: row["value"]
        for t in drawn.dataframe
        for row in t.value.to_dict("records")
        if "what" in row
    }
    assert {
        "guidance": "5",
        "sampler": "dpm++2m",
        "nearest train": "01.png",
    }.items() <= known.items()


def test_a_picture_without_the_trigger_stands_beside_its_own_baseline(full_run, seen):
    sheet = cells.sheet_of(Run(full_run).latest("grid"))
    last = sheet.rows[-1]
    cell = sheet.placed[last["row"], 1]
    assert sheet.baseline(cell)["kind"] == "trigger-off"
    seen.opened = cell["cell"]
    assert "Epoch 12, trigger left out, strength 1" in texts(page(full_run))


def test_the_base_models_own_picture_stands_alone(full_run, seen):
    seen.opened = 0
    assert "same noise" not in texts(page(full_run))


@pytest.mark.parametrize("damage", ["dataset", "image"])
def test_a_training_image_that_is_gone_is_said(damage, copy_of_full, seen):
    seen.opened = 4
    if damage == "dataset":
        (copy_of_full / "train" / "dataset.json").write_text("{")
    else:
        (copy_of_full / "images" / "01.png").unlink()
    said = texts(page(copy_of_full))
    # with another dataset the copies are no longer known
    assert ("The training image 01.png cannot be read any more" in said) == (damage != "dataset")


def test_a_file_that_is_no_training_image_is_never_shown_as_one(seen, tmp_path):
    run = Run(of_run(tmp_path / "fern", small()))
    pictures.picture(run.path / "secret.png", 3, 1)
    drawn = run.latest("grid")
    answer = pictures.copies(drawn.table("cells"), nearest="../secret.png")
    run.measure(answering(pictures.tool("copies"), answer), given=run.pictures(drawn))
    seen.opened = 2
    assert "The training image ../secret.png cannot be read" in texts(page(run.path))


def test_the_nearest_image_in_words():
    assert opened.distance("a.png", None) == "The nearest training image, a.png."
    assert "a.png, mirrored: 50%" in opened.distance("a.png", 0.5, mirrored=True)
    assert "25% as far away" in opened.distance("a.png", 0.25)


def test_the_viewer_can_be_downloaded_where_there_is_one(copy_of_full, seen):
    assert [b.label for b in page(copy_of_full).get("download_button")] == [
        "Download as one HTML page"
    ]
    (copy_of_full / "samples" / "grid.html").unlink()
    assert not page(copy_of_full).get("download_button")


def test_an_empty_page_gives_the_command_and_how_to_see_the_plan(empty_run):
    drawn = page(empty_run)
    assert f"lorascope grid {empty_run}" in codes(drawn)
    assert "--dry-run" in texts(drawn)


def test_what_was_not_measured_is_said_with_the_command(seen, tmp_path):
    run = Run(of_run(tmp_path / "fern", small()))
    drawn = page(run.path)
    assert "Not measured of these pictures: likeness, adherence" in texts(drawn)
    assert any(f"lorascope copies {run.path}\n" in code for code in codes(drawn))
    assert not any(s.label == "Show" for s in drawn.selectbox)
    measure_pictures(run, run.latest("grid"))
    assert "Not measured" not in texts(page(run.path))


def test_measures_of_another_grid_are_not_laid_over_this_one(seen, tmp_path):
    run = Run(of_run(tmp_path / "fern", small()))
    measure_pictures(run, run.latest("grid"), only=["likeness"])
    assert "Not measured of these pictures: adherence" in texts(page(run.path))
    grid = pictures.tool("grid")
    other = pictures.grid_of(small(strength=(0.6, 1.0)))
    (run.path / "lora" / "fern-000002.safetensors").write_text("one more epoch")
    run.measure(answering(grid, other))
    assert "Not measured of these pictures: likeness" in texts(page(run.path))


def test_means_without_the_trigger_stand_beside_those_with_it(full_run, seen):
    drawn = page(full_run)
    assert "With the trigger left out" in texts(drawn)
    table = next(t.value for t in drawn.dataframe if "trigger left out" in t.value.columns)
    assert set(table["epoch"]) == {12}
    row = table[(table["epoch"] == 12) & table["measure"].str.startswith("Likeness: 0")]
    assert [*row["trigger left out"], *row["with trigger"]] == [1.0, 1.0]


def test_charts_show_one_row_an_epoch(full_run):
    run = Run(full_run)
    grid = run.latest("grid")
    rows = cells.at_usual(cells.sheet_of(grid).rows)
    table = measures.measured(run, run.pictures(grid))["likeness"].table("epochs")
    shown = measures._of_rows(table, rows)
    assert [row["epoch"] for row in shown] == list(range(13))
    assert measures.settings(rows) == ", at strength 1"


def test_other_columns_of_a_tool_can_be_charted(full_run, seen):
    drawn = page(full_run)
    another = next(s for s in drawn.selectbox if s.label == "Another measure")
    assert "diversity: vendi" in another.options
    another.select(("diversity", "vendi")).run()
    assert "Vendi" in texts(well(drawn))


def test_an_older_grid_without_rows_and_columns_is_still_shown(seen, tmp_path):
    dropped = ("row", "column", "cell", "kind", "baseline", "text_strength", "base", "companions")
    rows = [row for row in small(strength=(0.6, 1.0)) if row["kind"] != "trigger-off"]
    table = [{k: v for k, v in row.items() if k not in dropped} for row in rows]
    page(of_run(tmp_path / "fern", table))
    assert [label for label, _ in seen.labels] == ["base", "1", "2"]
    sheet = cells.arrange(table)
    assert len(sheet.placed) == len(table) == len(sheet.known)
    assert [cells.name_of(r) for r in cells.at_usual(sheet.rows)] == [
        "Base model",
        "Epoch 1",
        "Epoch 2",
    ]
    assert sheet.baseline(sheet.placed[1, 1])["epoch"] == 0


def test_a_large_grid_is_laid_out_at_once_and_only_what_is_shown_is_made_small(
    monkeypatch, tmp_path
):
    table = pictures.large()
    assert len(table) == 5000
    asked: list[Path] = []
    monkeypatch.setattr(
        thumbs,
        "urls",
        lambda paths: {p: "/app/static/" + 70 * "x" for p in [*paths] if not asked.append(p)},
    )
    values = {int(str(row["cell"])): 0.5 for row in table}
    overlay = Overlay(key="likeness", name="likeness", meaning="", values=values)
    begun = time.perf_counter()
    sheet = cells.arrange(table)
    parts = layouts.pages(cells.at_usual(sheet.rows), len(sheet.columns))
    marks = layouts.Marks(chosen=3, overlay=overlay)
    data = layouts.layout(tmp_path, sheet, parts[0], sheet.columns, marks)
    assert time.perf_counter() - begun < 1.0
    assert len(set(asked)) <= layouts.MOST
    assert len(json.dumps(data)) < 200_000


def test_a_large_grid_opens_at_the_chosen_epoch_and_pages_turn(seen, tmp_path):
    run = of_run(tmp_path / "fern", pictures.large())
    drawn = page(run, epoch=1)
    assert seen.labels[:2] == [("base", ""), ("1", "")]
    part = next(s for s in drawn.selectbox if s.label.startswith("Rows"))
    part.select(part.options[2] and 2).run()
    well(drawn)
    assert [label for label, _ in seen.labels] == ["base", *map(str, range(15, 22))]
    assert len(seen.shown) <= layouts.MOST


def test_pages_split_rows_and_lose_none():
    rows = cells.arrange(small(strength=(0.2, 0.4, 0.6, 1.0))).rows
    parts = layouts.pages(rows, 2, most=8)
    assert all(part[0]["kind"] == "base" and len(part) <= 4 for part in parts)
    assert [r for part in parts for r in part[1:]] == list(rows[1:])
    assert layouts.pages(rows[:1], 2) == [[rows[0]]]
    assert layouts.pages((), 0) == [[]]


def test_another_trainers_samples_carry_their_measures(copy_of_full, seen):
    run = Run(copy_of_full)
    folder = run.path / "samples" / "trainer"
    lines = ["file,epoch,step,index,prompt,negative,seed,width,height,taken"]
    for place, (epoch, index) in enumerate(((1, 0), (1, 1), (2, 0), (2, 1))):
        pictures.picture(folder / f"{place}.png", epoch, index)
        lines.append(f"{place}.png,{epoch},{epoch}0,{index},fern_x {index},,7,96,96,")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    drawn = page(run.path)
    drawn.segmented_control[0].select("Drawn by the trainer").run()
    assert f"lorascope grid {run.path} --pictures trainer" in codes(well(drawn))
    table = {"cells": [{"cell": i, "likeness": i / 10} for i in range(4)],
             "epochs": [{"row": i, "kind": "lora", "epoch": i + 1, "likeness": 0.5, "pictures": 2}
                        for i in range(2)]}  # fmt: skip
    answer = answering(pictures.tool("likeness"), Measured(numbers=(), tables=table))
    run.measure(answer, given={"pictures": run.place("drawn")})
    drawn = page(run.path)
    drawn.segmented_control[0].select("Drawn by the trainer").run()
    next(s for s in drawn.selectbox if s.label == "Show").select("likeness").run()
    rows = seen.data["samples"]["rows"]
    notes = [cell["note"] for row in rows for cell in row["cells"]]
    assert notes == ["0.00", "0.10", "0.20", "0.30"]
    assert "Likeness: 0 base model, 1 training images" in texts(well(drawn))


def test_damaged_pictures_are_said_not_raised(copy_of_full, seen):
    shutil.rmtree(copy_of_full / "samples" / "cells")
    seen.opened = 5
    assert "missing or damaged" in texts(page(copy_of_full))


def test_from_an_opened_picture_one_walks_to_its_neighbours(full_run, seen):
    sheet = cells.sheet_of(Run(full_run).latest("grid"))
    rows = cells.at_usual(sheet.rows)
    shown = opened.Shown(sheet=sheet, rows=rows, columns=sheet.columns, over=measures.overlays({}))
    start = sheet.placed[rows[3]["row"], 1]
    assert shown.beside(start, -1, 0)["epoch"] == 2
    assert shown.beside(start, 0, 1)["column"] == 2
    assert shown.beside(sheet.placed[rows[0]["row"], 0], -1, 0) is None
    assert shown.beside(sheet.placed[rows[0]["row"], 0], 0, -1) is None
    seen.opened = start["cell"]
    drawn = page(full_run)
    assert "Epoch 3, strength 1" in texts(drawn)
    next(b for b in drawn.button if b.label == "Down").click().run()
    assert "Epoch" in texts(well(drawn))
