"""What makes a tool a tool, and a command a command: checked for all of them at once."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lorascope.cli import ABOUT, PRESETS, TOOL_NAMES, cli, option_helps
from lorascope.records import Evidence
from lorascope.rules import RULES
from lorascope.run import defaults
from lorascope.tools import TOOLS
from tests.conftest import measure_all, write_checkpoint

ROOT = Path(__file__).parents[1]
VIEWS = ROOT / "dashboards" / "views"
COMMANDS = sorted({*cli.commands, *TOOL_NAMES})
ADDABLE = sorted(cli.commands["add"].commands)

each_tool = pytest.mark.parametrize("tool", TOOLS, ids=lambda t: t.name)


def run_cli(*words):
    return CliRunner().invoke(cli, [str(w) for w in words])


@each_tool
def test_every_tool_has_a_documented_command(tool):
    shown = run_cli(tool.name, "--help")
    assert shown.exit_code == 0, shown.output
    for name in defaults(tool):
        assert f"--{name.replace('_', '-')}" in shown.output


@each_tool
def test_every_option_of_a_tool_says_what_it_means(tool):
    assert set(defaults(tool)) <= set(option_helps(tool))
    assert all(option_helps(tool)[name] for name in defaults(tool))


@each_tool
def test_every_tool_declares_what_it_reads_and_has_a_page(tool):
    assert tool.reads
    assert tool.asks.endswith("?")
    assert (VIEWS / f"{tool.page or tool.name}.py").is_file()


def test_the_command_line_lists_exactly_the_tools():
    assert sorted(TOOL_NAMES) == sorted(t.name for t in TOOLS)
    assert set(ABOUT) == set(TOOL_NAMES)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_asks_only_for_options_that_exist(preset):
    by_name = {tool.name: tool for tool in TOOLS}
    for name, params in PRESETS[preset].items():
        assert set(params) <= set(inspect.signature(by_name[name].measure).parameters)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    shown = run_cli(name, "--help")
    assert shown.exit_code == 0, shown.output
    assert len(shown.output.splitlines()) > 3


@pytest.mark.parametrize("name", ADDABLE)
def test_everything_that_can_be_added_has_help_and_json(name):
    shown = run_cli("add", name, "--help")
    assert shown.exit_code == 0, shown.output
    assert "--json" in shown.output


def test_what_a_run_says_can_be_added_can_be():
    from lorascope.run import ADDABLE as SAID

    assert sorted(SAID) == ADDABLE


@pytest.mark.parametrize("preset", ["quick", "standard", "thorough"])
@pytest.mark.parametrize("given", [(), ("--draws", "3")])
def test_a_preset_sets_the_options_that_were_not_given(preset, given, tiny_run, monkeypatch):
    from lorascope.records import Measured
    from lorascope.run import Run

    asked = {}

    def note(_run, tool, **params):
        asked.update(params)
        return Evidence(
            tool=tool.name, version=1, params=params, inputs={}, measured=Measured(numbers=())
        )

    monkeypatch.setattr(Run, "measure", note)
    assert run_cli("loss", tiny_run.path, "--preset", preset, *given).exit_code == 0
    strata, draws = {"quick": (8, 1), "standard": (10, 2), "thorough": (20, 4)}[preset]
    assert (asked["strata"], asked["draws"]) == (strata, 3 if given else draws)
    assert "preset" not in asked


def test_files_without_a_run_can_be_weighed(tiny_run):
    files = sorted(tiny_run.place("lora").glob("*.safetensors"))[:2]
    shown = run_cli("weights", *files, "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["tool"] == "weights"
    assert not (tiny_run.path / "evidence").exists()
    mixed = run_cli("weights", tiny_run.path, *files)
    assert mixed.exit_code == 2
    assert "LoRA files alone" in mixed.output
    torn = tiny_run.path / "torn.safetensors"
    torn.write_bytes(b"x")
    assert run_cli("weights", torn).exit_code == 2


@pytest.mark.parametrize("name", [*TOOL_NAMES, "diagnose"])
def test_a_folder_that_is_no_run_is_two_lines_and_exit_code_2(name, tmp_path):
    shown = run_cli(name, tmp_path)
    assert shown.exit_code == 2
    assert "is not a run" in shown.output
    assert "Fix:" in shown.output
    assert "Traceback" not in shown.output


@pytest.mark.parametrize("name", TOOL_NAMES)
def test_a_run_without_inputs_is_told_what_is_missing(name, empty_run):
    shown = run_cli(name, empty_run.path)
    assert shown.exit_code == 2
    assert "Fix:" in shown.output
    assert "Traceback" not in shown.output


@pytest.mark.parametrize("name", ["weights", "tags"])
def test_a_tool_prints_json_for_machines(name, tiny_run):
    shown = run_cli(name, tiny_run.path, "--json")
    said = json.loads(shown.stdout)
    assert said["tool"] == name
    assert said["numbers"]


def test_diagnose_answers_from_the_store_and_reports_by_exit_code(tiny_run, monkeypatch):
    measure_all(tiny_run)
    monkeypatch.setitem(PRESETS, "standard", {})
    shown = run_cli("diagnose", tiny_run.path, "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["outcome"] == "warn"


def test_diagnose_of_a_run_nobody_measured_exits_3(tiny_run, monkeypatch):
    monkeypatch.setitem(PRESETS, "standard", {})
    assert run_cli("diagnose", tiny_run.path).exit_code == 3


def test_a_fault_exits_1(tiny_run, monkeypatch, rng):
    from tests.test_rules import plant_nan

    plant_nan(tiny_run, rng)
    monkeypatch.setitem(PRESETS, "standard", {})
    assert run_cli("diagnose", tiny_run.path).exit_code == 1


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_every_finding_can_be_explained(rule):
    shown = run_cli("explain", rule.code.lower())
    assert shown.exit_code == 0
    assert rule.code in shown.output
    assert "What to do" in shown.output
    assert rule.code in run_cli("rules").output


def test_an_unknown_finding_is_answered_with_the_nearest():
    shown = run_cli("explain", "FIT-OVERR")
    assert shown.exit_code == 2
    assert "Did you mean FIT-OVER?" in shown.output


def test_a_new_config_is_written_once_and_never_over(tmp_path):
    file = tmp_path / "fern.toml"
    assert run_cli("new", tmp_path / "fern", "--dataset", "pictures").exit_code == 0
    assert 'dataset = "pictures"' in file.read_text()
    shown = run_cli("new", tmp_path / "fern")
    assert shown.exit_code == 2
    assert "is there already" in shown.output


def test_a_picked_checkpoint_keeps_its_weights_and_carries_the_choice(tiny_run, tmp_path):
    import numpy as np

    from lorascope.io.checkpoints import list_checkpoints
    from lorascope.io.lora_file import read_lora

    measure_all(tiny_run)
    shown = run_cli("pick", tiny_run.path, 4, "--to", tmp_path / "out")
    assert shown.exit_code == 0, shown.output
    before = read_lora(list_checkpoints(tiny_run.place("lora"))[3].path)
    after = read_lora(tmp_path / "out" / "fern-000004.safetensors")
    assert after.metadata["lorascope_pick"] == "4"
    assert after.metadata["ss_epoch"] == "4"
    for name, module in before.modules.items():
        np.testing.assert_array_equal(module.up, after.modules[name].up)


def test_an_epoch_that_was_never_saved_cannot_be_picked(tiny_run, tmp_path):
    shown = run_cli("pick", tiny_run.path, 40, "--to", tmp_path / "out")
    assert shown.exit_code == 2
    assert "has no checkpoint of epoch 40" in shown.output


def test_every_command_named_in_the_readme_exists():
    named = set(re.findall(r"lorascope ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named, "the README names no command"
    assert named <= set(COMMANDS)


def test_files_without_a_run_are_judged_by_their_weights_alone(tiny_run, rng):
    def spoil(_place, up, _down):
        up[0, 0] = float("nan")

    sound = run_cli("weights", write_checkpoint(tiny_run, 3, rng))
    assert sound.exit_code == 0, sound.output
    assert "none can say that it is good" in sound.stdout
    broken = write_checkpoint(tiny_run, 4, rng, spoil=spoil)
    assert "WGT-NAN" in run_cli("weights", broken).stdout
    found = json.loads(run_cli("weights", broken, "--json").stdout)["findings"]
    assert [finding["code"] for finding in found] == ["WGT-NAN"]


def test_a_folder_of_files_without_a_run_is_looked_at_like_its_files(tiny_run, tmp_path):
    folder = tiny_run.place("lora")
    shown = run_cli("weights", folder, "--json")
    assert shown.exit_code == 0, shown.output
    files = sorted(folder.glob("*.safetensors"))
    said = json.loads(shown.stdout)
    assert sorted(said["inputs"]) == [str(file) for file in files]
    assert said["numbers"] == json.loads(run_cli("weights", *files, "--json").stdout)["numbers"]
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "notes.safetensors").write_bytes(b"x")
    odd = run_cli("weights", tmp_path / "odd")
    assert odd.exit_code == 2
    assert "is not a run" not in odd.output
    assert "is not a run" in run_cli("tags", folder).output


def test_a_rank_that_cannot_be_is_told_from_the_tensors(tiny_run, tmp_path):
    from lorascope.io.safetensors_file import copy_with_metadata

    file = sorted(tiny_run.place("lora").glob("*.safetensors"))[0]
    copy_with_metadata(file, tmp_path / "a.safetensors", {"ss_network_dim": "-4"})
    said = json.loads(run_cli("weights", tmp_path / "a.safetensors", "--json").stdout)
    words = {row["heading"]: row["sentence"] for row in said["tables"]["words"]}
    assert "rank 4" in words["Network"]
    assert "rank -4" in words["Caution"]
    assert said["tables"]["hashes"][0]["legacy"] is None


# Ctrl-C


def test_what_to_type_to_go_on_is_quoted(tmp_path, monkeypatch):
    from lorascope.cli import group

    def stopped(_ctx):
        raise KeyboardInterrupt

    monkeypatch.setattr(group.sys, "argv", ["lorascope", "loss", "/tmp/sp ace"])
    monkeypatch.setattr(group.click.Group, "invoke", lambda _self, ctx: stopped(ctx))
    shown = run_cli("loss", tmp_path)
    assert shown.exit_code == 130
    assert "to go on: lorascope loss '/tmp/sp ace'\n" in shown.stderr


@pytest.mark.parametrize(
    "start",
    ["from lorascope.cli import main", "runpy.run_module('lorascope', run_name='__main__')"],
)
@pytest.mark.parametrize("module", ["lorascope.cli.answers", "lorascope.cli.training", "click"])
def test_ctrl_c_while_the_command_line_is_loaded_is_one_line(start, module):
    code = (
        "import builtins, runpy, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        f"{start}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nStopped.\n")
