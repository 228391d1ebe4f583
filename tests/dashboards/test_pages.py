"""Every page, with and without evidence, drawn without a browser."""

import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboards import app, parts, strip
from lorascope.tools import TOOLS

VIEWS = Path(app.__file__).parent / "views"
NAMES = [tool.name for tool in TOOLS if not tool.page]


def page(name: str, run: Path | None) -> AppTest:
    drawn = AppTest.from_file(str(VIEWS / f"{name}.py"), default_timeout=60)
    if run is not None:
        drawn.session_state["run"] = str(run)
    return drawn


def drawn_well(drawn: AppTest) -> AppTest:
    assert not drawn.exception, [e.stack_trace for e in drawn.exception]
    return drawn


def texts(drawn: AppTest) -> str:
    kinds = (drawn.markdown, drawn.caption, drawn.subheader, drawn.header, drawn.info, drawn.error)
    return "\n".join(str(one.value) for kind in kinds for one in kind)


def test_every_tool_has_a_page_of_its_own_name():
    assert {f.stem for f in VIEWS.glob("*.py")} == {"overview", *NAMES}


@pytest.mark.parametrize("name", ["overview", *NAMES])
def test_a_measured_run_is_drawn(name, full_run):
    drawn_well(page(name, full_run).run())


@pytest.mark.parametrize("name", NAMES)
def test_a_page_without_evidence_teaches_the_command(name, empty_run):
    drawn = drawn_well(page(name, empty_run).run())
    assert f"lorascope {name} {empty_run}" in [c.value for c in drawn.code]
    assert "What it shows" in texts(drawn)
    assert "Why one wants it" in texts(drawn)


@pytest.mark.parametrize("name", ["overview", "loss"])
def test_without_a_run_a_page_says_how_to_make_one(name):
    drawn = drawn_well(page(name, None).run())
    assert [c.value for c in drawn.code] == ["lorascope demo"]


@pytest.mark.parametrize("name", ["overview", "grid"])
def test_a_damaged_run_is_an_explanation_not_a_traceback(name, copy_of_full):
    (copy_of_full / "run.json").write_text("{")
    drawn = drawn_well(page(name, copy_of_full).run())
    assert "damaged" in texts(drawn)


@pytest.mark.parametrize("name", ["overview", "grid", "heatmap", "vae"])
def test_missing_and_broken_pictures_are_said_not_raised(name, copy_of_full):
    for place, file in enumerate(sorted(copy_of_full.glob("samples/**/*.png"))):
        if place % 2:
            file.unlink()
        else:
            file.write_bytes(b"not a picture")
    drawn_well(page(name, copy_of_full).run())


def test_the_overview_lists_what_was_not_measured(empty_run):
    drawn = drawn_well(page("overview", empty_run).run())
    assert "Not measured" in texts(drawn)
    assert any(f"lorascope add lora {empty_run} PATH" in c.value for c in drawn.code)


def test_the_overview_explains_every_finding(full_run):
    drawn = drawn_well(page("overview", full_run).run())
    assert "WGT-NAN" in texts(drawn)
    assert "lorascope explain WGT-NAN" in [c.value for c in drawn.code]


def test_a_run_that_changed_after_measuring_says_so(copy_of_full):
    (copy_of_full / "lora" / "fern-000012.safetensors").write_text("trained again")
    drawn = drawn_well(page("weights", copy_of_full).run())
    assert "has changed since" in texts(drawn)


@pytest.mark.parametrize("asked", ["", "3", "99", "-1", "x", "٣"])
def test_the_address_names_the_epoch_and_nonsense_in_it_does_no_harm(asked, full_run):
    known = range(1, 13)
    drawn = page("weights", full_run)
    drawn.query_params["epoch"] = asked
    drawn_well(drawn.run())
    epoch = drawn.query_params["epoch"]
    assert int(epoch if isinstance(epoch, str) else epoch[0]) in (
        {3} if asked in ("3", "٣") else known
    )


def test_text_from_captions_stays_text():
    nasty = (
        "<b>x</b> www.e.org a@e.org [l](http://e) ![i](http://e) $x$ `c` **b** :red[x] &amp; # h"
    )
    escaped = parts.plain(nasty)
    assert escaped.replace("\\", "").replace(parts.JOINER, "") == nasty
    assert not any(link in escaped.replace("\\", "") for link in ("://", "www.", "a@"))
    assert all(escaped[escaped.index(c) - 1] == "\\" for c in "<[!`*:$&#")


def test_the_strip_marks_pick_and_equals_and_dips(full_run):
    from lorascope.run import Run
    from lorascope.verdict import verdict

    found = verdict(Run(full_run))
    tiles = [strip.tile(e, found, url="", dip=e.epoch == 6) for e in found.epochs]
    assert [t["epoch"] for t in tiles if t["best"]] == [found.best.epoch]
    assert tiles[5]["dip"]
    assert "a dip" in str(tiles[5]["title"])


def test_pages_load_no_torch():
    code = (
        "import sys, dashboards.app, dashboards.launch\n"
        "bad = {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
