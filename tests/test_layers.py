"""Imports point down only; names on one line never import each other."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = [
    "dashboards lorascope.cli",
    "lorascope.demo",
    "trainer",
    "lorascope.report lorascope.doctor lorascope.viewer",
    "lorascope.verdict",
    "lorascope.rules lorascope.tools lorascope.ingest",
    "lorascope.miniature lorascope.run lorascope.models lorascope.io lorascope.metrics",
    "lorascope.tables",
    "lorascope.records",
    "lorascope.storage lorascope.progress",
    "lorascope.errors",
]
LEVEL = {name: i for i, row in enumerate(LAYERS) for name in row.split()}
TRAINER_MAY = set("miniature run models io metrics records storage progress errors".split())
NUMBERS_ONLY = ("lorascope.io", "lorascope.metrics", "lorascope.miniature")
ENTRANCES = ("lorascope", "lorascope.__main__")


def modules():
    for package in ("lorascope", "trainer", "dashboards"):
        for file in sorted((ROOT / package).rglob("*.py")):
            dotted = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            yield file, dotted.removesuffix(".__init__")


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module):
    return next((n for n in LEVEL if module == n or module.startswith(n + ".")), None)


def test_every_module_has_its_room():
    for _, module in modules():
        assert layer(module) or module in ENTRANCES, f"{module} is in no layer"


def test_imports_only_point_down():
    for file, module in modules():
        here = layer(module)
        for imported in imports(file):
            there = layer(imported)
            if here and there and here != there:
                assert LEVEL[here] < LEVEL[there], f"{module} imports {imported}"


def test_the_trainer_never_imports_its_examiner():
    for file, module in modules():
        if layer(module) == "trainer":
            for imported in imports(file):
                if imported.startswith("lorascope.") and imported != "lorascope.__version__":
                    assert imported.split(".")[1] in TRAINER_MAY, f"{module} imports {imported}"


def test_numbers_need_no_torch():
    for file, module in modules():
        if layer(module) in NUMBERS_ONLY:
            heavy = {name.split(".")[0] for name in imports(file)} & {"torch", "diffusers"}
            assert not heavy, f"{module} imports {heavy}"


def test_nothing_heavy_is_loaded_by_the_package_or_by_help():
    heavy = "{'torch', 'diffusers', 'transformers', 'streamlit', 'pandas', 'scipy', 'skimage'}"
    code = (
        "import sys, lorascope, lorascope.cli\n"
        "from click.testing import CliRunner\n"
        "assert CliRunner().invoke(lorascope.cli.cli, ['--help']).exit_code == 0\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_tools_and_the_verdict_load_no_torch():
    code = "import sys, lorascope.verdict; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "False"
