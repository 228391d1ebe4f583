"""What a trainer drew, and where a run came from: shown before anything was measured."""

import csv
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from dashboards import app, components, origins, parts, samples, strip
from lorascope.ingest import add_dataset, ingest
from lorascope.io.sample_list import COLUMNS
from lorascope.run import Run
from tests import foreign_folders as foreign

VIEWS = Path(app.__file__).parent / "views"
NASTY = "fern_x, <b>bold</b> [link](http://example.invalid) $x$ :smile: `code`"
TABLE = "samples/trainer/images.csv"


@dataclass
class Drawn:
    """What the components were given, and what they answer."""

    data: dict[str, Mapping] = field(default_factory=dict)
    opened: int | None = None

    def draw(self, name: str, data: Mapping, *, key: str, **_listeners: Callable) -> object:
        self.data[key] = data
        return SimpleNamespace(opened=self.opened if key != "strip" else None, chosen=None)

    @property
    def tiles(self) -> list[dict]:
        return self.data["strip"]["epochs"]


@pytest.fixture
def seen(monkeypatch) -> Drawn:
    drawn = Drawn()
    monkeypatch.setattr(components, "draw", drawn.draw)
    return drawn


@pytest.fixture(scope="module")
def kohya_run(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("kohya")
    model = foreign.kohya(place / "kohya")
    for seed, file in enumerate(sorted(model.glob("sample/*.png"))):
        foreign.picture(file, seed=seed)
    return ingest(place / "kohya", place / "run", say=str).run.path


@pytest.fixture
def run(kohya_run, tmp_path) -> Path:
    """Give a run that was just taken over from kohya: 4 epochs, 2 prompts, no evidence."""
    return Path(shutil.copytree(kohya_run, tmp_path / "run"))


def rewrite(run: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    with (run / TABLE).open(newline="") as opened:
        rows = change(list(csv.DictReader(opened)))
    with (run / TABLE).open("w", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def set_all(**values: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    return lambda rows: [row | values for row in rows]


def page(name: str, run: Path) -> AppTest:
    drawn = AppTest.from_file(str(VIEWS / f"{name}.py"), default_timeout=60)
    drawn.session_state["run"] = str(run)
    drawn.run()
    assert not drawn.exception, [e.stack_trace for e in drawn.exception]
    return drawn


def texts(drawn: AppTest) -> str:
    kinds = (drawn.markdown, drawn.caption, drawn.subheader, drawn.header, drawn.info, drawn.error)
    return "\n".join(str(one.value) for kind in kinds for one in kind).replace("\\", "")


def codes(drawn: AppTest) -> str:
    return "\n".join(str(c.value) for c in drawn.code)


def columns(seen: Drawn, key: str = "samples") -> list[tuple[str, str]]:
    return [(c["label"], c["group"]) for c in seen.data[key]["columns"]]


@pytest.mark.parametrize("name", ["overview", "loss", "weights"])
def test_the_strip_shows_the_checkpoints_with_the_trainers_pictures(name, run, seen):
    drawn = page(name, run)
    assert [(t["epoch"], t["fit"]) for t in seen.tiles] == [(e, "uncertain") for e in (1, 2, 3, 4)]
    assert len({t["url"] for t in seen.tiles} - {""}) == 4
    assert strip.BY_TRAINER in texts(drawn)
    assert drawn.selectbox[0].options == ["zyxfern, in a pot", "a cat"]


def test_the_strip_shows_one_prompt_and_the_one_that_was_chosen(run, seen):
    drawn = page("overview", run)
    first = [t["url"] for t in seen.tiles]
    drawn.selectbox[0].select("a cat").run()
    assert not set(first) & {t["url"] for t in seen.tiles}


def test_epochs_need_no_picture_and_a_torn_file_is_said(run, seen):
    shutil.rmtree(run / "samples")
    (run / "lora" / "fern-000002.safetensors").unlink()
    (run / "lora" / "fern-000002.safetensors").write_bytes(b"torn")
    drawn = page("overview", run)
    assert [t["epoch"] for t in seen.tiles] == [1, 2, 3, 4]
    assert ["cannot be opened" in str(t["title"]) for t in seen.tiles] == [
        False,
        True,
        False,
        False,
    ]
    assert "fern-000002.safetensors cannot be opened" in texts(drawn)
    assert strip.BY_TRAINER not in texts(drawn)


def test_the_grid_page_teaches_and_shows_the_samples_under_it(run, seen):
    drawn = page("grid", run)
    assert f"lorascope grid {run}" in codes(drawn)
    assert "What it shows" in texts(drawn)
    assert columns(seen) == [
        ("zyxfern, in a pot", "prompt 1, seed 7"),
        ("a cat", "prompt 2, seed 8"),
    ]
    rows = seen.data["samples"]["rows"]
    assert [r["epoch"] for r in rows] == [1, 2, 3, 4]
    assert all(cell["url"] for row in rows for cell in row["cells"])
    assert "n = 8 pictures" in texts(drawn)


def test_prompts_that_are_not_known_are_numbered(run, seen):
    rewrite(run, set_all(prompt="", seed=""))
    page("grid", run)
    assert columns(seen) == [("prompt 1", "seed unknown"), ("prompt 2", "seed unknown")]


def test_seeds_that_differ_share_a_column_and_say_so(run, seen):
    rewrite(run, lambda rows: [row | {"seed": row["epoch"]} for row in rows])
    page("grid", run)
    assert columns(seen)[0] == ("zyxfern, in a pot", "prompt 1, seed differs")
    assert [row["own seed"] for row in samples.read(Run(run)).cells[:4]] == [1, 2, 3, 4]


def test_of_two_pictures_of_one_place_the_later_is_shown(run, seen):
    again = {"epoch": "1", "step": "20", "index": "0", "taken": "2030-01-01T00:00:00"}
    rewrite(run, lambda rows: [rows[-2] | again, *rows[:-2]])
    page("grid", run)
    shown = seen.data["samples"]["rows"][0]["cells"][0]["cell"]
    file = samples.sheet(Run(run)).known[shown]["file"]
    assert file == "samples/trainer/fern_e000004_00_20240501120004_7.png"


def test_cells_that_are_missing_stay_empty_and_samples_between_saves_are_counted(run, seen):
    def change(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [*rows[:-1], rows[-1] | {"epoch": "", "step": "71"}]

    rewrite(run, change)
    drawn = page("grid", run)
    assert seen.data["samples"]["rows"][-1]["cells"][1] is None
    assert "1 picture drawn between two saved epochs: left out" in texts(drawn)


def test_an_epoch_that_was_not_saved_is_in_the_grid_and_not_in_the_strip(run, seen):
    (run / "lora" / "fern-000002.safetensors").unlink()
    drawn = page("grid", run)
    assert [r["epoch"] for r in seen.data["samples"]["rows"]] == [1, 2, 3, 4]
    assert [t["epoch"] for t in seen.tiles] == [1, 3, 4]
    assert "Drawn and not saved, so not to be had: 2" in texts(drawn)


@pytest.mark.parametrize(
    "damage",
    [
        {"file": "../../run.json"},
        {"file": "/etc/hostname"},
        {"file": ".."},
        {"file": ""},
        {"file": "a\0.png"},
        {"epoch": "last"},
        {"epoch": "-1"},
        {"seed": "9" * 5000},
    ],
    ids=str,
)
def test_a_damaged_row_is_left_out_and_said(damage, run, seen):
    rewrite(run, lambda rows: [rows[0] | damage, *rows[1:]])
    drawn = page("grid", run)
    assert "1 line of the list of samples cannot be read" in texts(drawn)
    assert f"--out {run}" in codes(drawn)
    assert "n = 7 pictures" in texts(drawn)


@pytest.mark.parametrize("name", ["overview", "grid"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"\xff\xfe\0\0", b"file,epoch\na.png,1\n", b'"' + b"x" * 200_000],
    ids=["empty", "blank", "binary", "short", "long"],
)
def test_a_damaged_list_is_an_explanation_not_a_traceback(content, name, run, seen):
    (run / TABLE).write_bytes(content)
    drawn = page(name, run)
    assert [t["url"] for t in seen.tiles] == [""] * 4
    assert name == "overview" or "of the list of samples cannot be read" in texts(drawn)


def test_a_list_cut_in_the_middle_of_a_row_keeps_the_rows_before(run):
    whole = (run / TABLE).read_text()
    (run / TABLE).write_text(whole[: whole.rindex(",16,")])
    found = samples.read(Run(run))
    assert (len(found.cells), found.unread) == (7, 1)


@pytest.mark.parametrize("name", ["overview", "grid"])
def test_broken_and_missing_samples_are_said_not_raised(name, run, seen):
    for place, file in enumerate(sorted(run.glob("samples/trainer/*.png"))):
        file.unlink()
        if place % 2:
            file.write_bytes(b"not a picture")
    seen.opened = next(iter(samples.sheet(Run(run)).known))
    said = texts(page(name, run))
    assert [t["url"] for t in seen.tiles] == [""] * 4
    assert "png is missing or damaged." in said
    assert name == "overview" or "4 pictures of the list cannot be found" in said


def test_prompts_and_names_from_outside_stay_text(run, seen):
    file = "a_<b>_$x$_`c`.png"
    (run / "samples" / "trainer" / file).write_bytes(b"not a picture")
    rewrite(run, set_all(prompt=NASTY, negative=NASTY, file=file))
    seen.opened = next(iter(samples.sheet(Run(run)).known))
    drawn = page("grid", run)
    raw = [str(m.value) for m in (*drawn.markdown, *drawn.caption)]
    assert parts.plain(NASTY) in raw
    assert any(parts.plain(file) in text for text in raw)
    assert not any(NASTY in text or file in text for text in raw)
    overview = page("overview", run)
    assert not any(NASTY in str(m.value) for m in (*overview.markdown, *overview.caption))


def test_a_grid_comes_first_and_the_samples_are_one_click_away(copy_of_full, run, seen):
    shutil.copytree(run / "samples" / "trainer", copy_of_full / "samples" / "trainer")
    drawn = page("grid", copy_of_full)
    assert {"grid", "strip"} == set(seen.data)
    assert strip.BY_TRAINER not in texts(drawn)
    drawn.segmented_control[0].select("Drawn by the trainer").run()
    assert not drawn.exception
    assert columns(seen)[1] == ("a cat", "prompt 2, seed 8")


def test_without_samples_the_grid_page_offers_none(full_run, seen):
    drawn = page("grid", full_run)
    assert all("trainer" not in str(c.options) for c in drawn.segmented_control)


def test_the_overview_says_where_a_run_came_from_and_what_it_has(run, seen):
    said = texts(page("overview", run))
    folder = Run(run).origin["folder"]
    assert f"The training fern by kohya, taken over from {folder}" in said.replace(parts.JOINER, "")
    assert "4 checkpoints: epochs 1 to 4 (steps 20 to 80)" in said
    assert "2 training images" in said
    assert "1 event file" in said
    assert "8 pictures that the trainer drew: 4 epochs, 2 prompts" in said
    assert "drawn by the trainer" in said


def test_the_overview_gives_the_command_for_what_is_missing(run, seen):
    (run / "train" / "dataset.json").unlink()
    shutil.rmtree(run / "samples")
    shutil.rmtree(run / "train" / "events")
    given = codes(page("overview", run))
    assert f"lorascope add base {run} NAME_OR_PATH" in given
    assert f"lorascope add dataset {run} FOLDER\n" in given
    assert f"lorascope add dataset {run} FOLDER --as held-out" in given
    assert f"lorascope add logs {run} PATH" in given
    assert f"lorascope add samples {run} PATH" in given


def test_what_was_added_is_no_longer_missing(run, tmp_path):
    foreign.picture(tmp_path / "held" / "1.png", seed=9, side=64)
    Run(run).set_base("miniature", "0" * 64)
    assert ["held-out" in why.lower() for why, _ in origins.missing(Run(run))] == [True]
    add_dataset(run, tmp_path / "held", split="held-out", say=str)
    assert list(origins.missing(Run(run))) == []
    assert any("1 held out" in sentence for sentence in origins.found(Run(run)))


def test_a_damaged_dataset_is_said(run, seen):
    (run / "train" / "dataset.json").write_text("{")
    drawn = page("overview", run)
    assert "their list, train/dataset.json, is damaged" in texts(drawn)


def test_a_training_of_our_own_came_from_nowhere_else(full_run, seen):
    assert "Where it came from" not in texts(page("overview", full_run))
