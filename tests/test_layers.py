"""The layers: what may import what, and what stays unloaded."""

from __future__ import annotations

import ast
import functools
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundled import EXAMPLES
from source_code import MODULES, PACKAGE, nodes, parsed

import lossprobe
from lossprobe.cli.main import cli, run

WORDS = {"errors", "arguments", "units", "isolation", "display", "plain_table"}
# What each room of the package may use of ours, beside itself. Data flows one way: text to result.
ALLOWED = {
    "errors": set(),
    "arguments": {"errors"},
    "units": set(),
    "pointers": set(),
    "isolation": {"errors"},
    "compiler": {"compiling", "isolation"},
    "compiling": set(),
    "instructions": {"compiler"},
    "exponential": {"compiler", "instructions"},
    "control_groups": set(),
    "display": {"units", "plain_table"},
    "plain_table": set(),
    "processors": {"control_groups", "units"},
    "allocation": set(),
    "environment": {"allocation", "processors"},
    "options": {"units"},
    "options.given": {"errors", "options"},
    "terms": {"errors"},
    "objects": {"errors", "units"},
    "terms.catalogue": {"errors", "terms", "plan", "run"},
    "terms.defects": {"terms.term", "analysis.defects.cause", "analysis.defects.causes"},
    "terms.diagnoses": {"terms.term", "analysis.curve.diagnoses", "analysis.curve.finding"},
    "terms.findings": {"terms.term", "analysis.findings.catalogue", "analysis.findings.rule"},
    "text": {"errors", "arguments", "units", "pointers", "options", "objects"},
    "checkpoint.options": {"options"},
    "checkpoint.facts": set(),
    "checkpoint.interface": {"checkpoint.facts", "checkpoint.templates"},
    "checkpoint.layer_by_layer": {"checkpoint.interface"},
    "checkpoint.files": WORDS | {"pointers"},
    "checkpoint.tokenizers": WORDS | {"checkpoint.interface", "checkpoint.files", "checkpoint.templates.template"},
    "checkpoint.templates": WORDS | {"text.examples", "text.spans", "checkpoint.files", "checkpoint.tokenizers"},
    "checkpoint.model": WORDS | {"control_groups", "checkpoint.facts", "checkpoint.interface", "checkpoint.files"}
    | {"checkpoint.layer_by_layer", "compiler", "exponential", "instructions"},
    "checkpoint.quantized": WORDS | {"compiler", "checkpoint.files"},
    "checkpoint.families": WORDS
    | {"checkpoint.interface", "checkpoint.options", "checkpoint.files", "checkpoint.tokenizers", "checkpoint.model"}
    | {"checkpoint.quantized"},
    "checkpoint.gguf": WORDS
    | {"checkpoint.interface", "checkpoint.options", "checkpoint.files", "checkpoint.tokenizers", "checkpoint.model"}
    | {"checkpoint.templates.template"},
    "checkpoint.adapters": WORDS
    | {"checkpoint.interface", "checkpoint.options", "checkpoint.files", "checkpoint.tokenizers", "checkpoint.model"}
    | {"checkpoint.facts", "checkpoint.families.huggingface", "checkpoint.chat"},
    "checkpoint": WORDS | {"objects.address"},
    "plan": {"errors", "units", "options", "text.spans", "checkpoint.interface"},
    "scoring": WORDS
    | {"compiler", "exponential", "instructions", "checkpoint.interface", "checkpoint.layer_by_layer", "plan"},
    "run": WORDS | {"plan", "objects"},
    "logs": {"errors", "units", "pointers"},
    "analysis.options": {"options", "analysis.curve.diagnoses"},
    "analysis.coloured_text.options": {"options", "analysis.options"},
    "analysis.stats": {"errors", "units"},
    "analysis.curve": {"units", "logs", "analysis.stats"},
    "analysis.curve.curve": {"units", "logs.log", "analysis"},
    "analysis.curve.checkpoint_loss": {"errors", "units", "logs.log", "logs.trainer_state", "analysis.reconcile"},
    "analysis.rows": {"errors", "units", "plain_table", "text", "run", "analysis.stats"},
    "analysis.reconcile": {"errors", "options", "units", "logs", "run", "analysis"},
    "analysis": {"errors", "arguments", "units", "display", "plain_table", "options", "text", "plan", "run"},
    "analysis.series": {"errors", "units", "options", "run", "logs.checkpoint_order", "analysis"},
    "passes": {
        "errors", "units", "display", "text", "checkpoint.facts", "checkpoint.interface", "checkpoint.retokenized",
        "checkpoint.layer_by_layer",
        "checkpoint.deferred", "checkpoint.spec", "checkpoint.templates", "plan", "scoring", "run", "analysis",
    },
    "passes.engine_options": {"errors", "options"},
    "passes.worker": {"errors", "checkpoint", "plan", "passes"},
    "passes.elsewhere": {"errors", "checkpoint.interface", "checkpoint.spec", "passes.worker"},
    "passes.failures": {"errors"},
    "passes.ranks": {"errors", "units", "checkpoint", "plan", "passes", "processors", "environment"},
    "passes.ray": {"errors", "units", "checkpoint", "plan", "passes", "processors", "environment"},
    "audit.settings": {"text", "checkpoint.options", "plan"},
    "audit.config": {
        "errors", "units", "objects", "options", "text", "checkpoint.options", "plan", "run.filters", "analysis.rows",
        "analysis.curve.diagnoses", "analysis.options", "audit.settings", "audit.checks.metrics",
        "checkpoint.adapters.folder",
    },
    "audit.checks": {"errors", "units", "text", "run", "analysis", "audit.settings"},
    "audit.gate": {"errors", "units", "text", "checkpoint.interface", "checkpoint.spec", "logs.read", "run", "analysis"}
    | {"passes", "audit", "objects.address"},
    "audit.gate.reference": {
        "errors", "text", "checkpoint.detect", "checkpoint.interface", "checkpoint.spec", "plan.options", "run",
        "analysis", "passes", "audit",
    },
    "report.formats.cell_bytes": {"compiler", "instructions", "report.formats.decimals"},
    "report.formats.decimals": {"compiler"},
    "report": WORDS | {"logs.log", "plan", "run", "analysis", "audit.checks", "audit.settings"},
    "report.page": WORDS | {"terms", "analysis", "report"},
    "start": {"cli.main"},
    "cli": WORDS | {"compiling", "objects"}
    | {"options", "terms", "text", "checkpoint", "logs", "plan", "scoring", "run", "analysis", "passes", "audit"}
    | {"control_groups", "report", "python.report", "environment", "processors"},
    # Entry points for Python and notebooks.
    "python": WORDS
    | {"options", "text", "checkpoint.interface", "checkpoint.options", "checkpoint.spec", "plan", "run", "logs"}
    | {"checkpoint.model.vector_math", "analysis", "passes", "report"},
    "pytest_plugin": {"errors", "units", "audit", "report"},
}  # fmt: skip
HOMES = {
    "torch": {"checkpoint", "scoring", "cli"},
    "numba": {"compiler"},
    "llvmlite": {"compiler"},
    "transformers": {"checkpoint"},
    "tokenizers": {"checkpoint"},
    "safetensors": {"checkpoint"},
    "peft": {"checkpoint.adapters"},
    "ray": {"passes.ray"},
    "matplotlib": {"report", "cli", "python"},
    "click": {"cli"},
    "jinja2": {"report.page"},
    "rich": {"report", "cli"},
    "duckdb": {"run"},
    "scipy": {"analysis"},
    "ftfy": {"analysis.defects"},
}
HEAVY = ("torch", "peft", "ray", "numba", "transformers", "pandas", "matplotlib", "pyarrow", "duckdb", "scipy", "rich")


@functools.cache
def imports(file: Path) -> set[str]:
    names = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "lossprobe"}
    return names


def room_of(module: str) -> str:
    """Return the smallest room that a module lies in."""
    parts = module.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next(name for name in names if name in ALLOWED)


def lies_in(module: str, rooms: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{room}.") for room in rooms)


def test_no_modules_import_each_other():
    """Also through others, inside functions, and for types only."""
    names = {f"lossprobe.{'.'.join(file.relative_to(PACKAGE).with_suffix('').parts)}": file for file in MODULES}
    graph = {name: imports(file) & names.keys() for name, file in names.items()}
    graph["lossprobe.cli.main"] |= {f"lossprobe.cli.{command}" for command in cli.commands}  # imported by name
    with pytest.raises(graphlib.CycleError):
        tuple(graphlib.TopologicalSorter(graph | {"lossprobe.errors": {"lossprobe.cli.main"}}).static_order())
    assert len(tuple(graphlib.TopologicalSorter(graph).static_order())) == len(names)


def misplaced(module: str, names: set[str]) -> list[str]:
    """Return what a module imports against the rules."""
    room, found = room_of(module), []
    for name in sorted(names):
        root, _, inner = name.partition(".")
        if root == "lossprobe" and inner and inner != "__version__" and not lies_in(inner, {room} | ALLOWED[room]):
            found.append(f"{module}: {room} may not use {inner}")
        if root in HOMES and not lies_in(module, HOMES[root]):
            found.append(f"{root} has no business in {module}")
    return found


def test_imports_point_one_way_and_libraries_stay_at_home():
    named = {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): file for file in MODULES
    }
    checked = named.keys() - {"__init__", "__main__", "audit"}
    assert len(checked) > 400
    assert [wrong for module in sorted(checked) for wrong in misplaced(module, imports(named[module]))] == []


def test_the_rule_can_fail(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("from lossprobe.plan.rows import Rows\nimport torch.nn\n")
    assert imports(file) == {"lossprobe.plan.rows", "torch.nn"}
    assert misplaced("text.x", imports(file)) == [
        "text.x: text may not use plan.rows", "torch has no business in text.x"
    ]  # fmt: skip


def loaded(*commands: tuple[str, ...], cwd: Path) -> list[set[str]]:
    """Return the modules that a fresh process has loaded after each of some command lines, run one after the other."""
    code = (
        "import json, sys\nfrom lossprobe.cli.main import run\nfound = []\n"
        f"for arguments in {[list(each) for each in commands]!r}:\n"
        "    code = run(arguments)\n    assert code == 0, code\n    found.append(sorted(sys.modules))\n"
        "print('\\n' + json.dumps(found))"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, check=True, text=True)
    return [set(modules) for modules in json.loads(process.stdout.strip().splitlines()[-1])]


def test_help_and_explain_load_nothing_heavy(tmp_path):
    commands = [("--help",), ("tokens", "--help"), ("--version",), ("explain",), ("explain", "ece")]
    for command, modules in zip(commands, loaded(*commands, cwd=tmp_path), strict=True):
        assert "click" in modules
        assert modules.isdisjoint({*HEAVY, "numpy"}), f"{command}: with little memory it hangs: see cli.imports"


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, lossprobe; assert callable(lossprobe.open_run); print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert process.stdout.strip() == "False"


def test_what_is_stored_is_found_and_shown_without_torch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("It shows. That is what it says.\n" * 5, "utf-8")
    one, other = (str(EXAMPLES / model) for model in ("jargon-plain", "jargon-smoothed"))
    Path("lossprobe.toml").write_text(
        f"schema = 1\n[model]\ncheckpoint = {json.dumps(one)}\n[baseline]\npath = 'base'\n"
        "[data.text]\npath = 'text.txt'\n[[check]]\nid = 'worse'\nmetric = 'nll'\nmax_increase = 0.5\n"
    )
    for model in (one, other):
        assert run(["score", model, "text.txt", "--quiet"]) == 0
    assert run(["perplexity", one, "text.txt", "--protocol", "all", "--quiet"]) == 0
    views = ("tokens", "positions", "hardest", "perplexity", "calibration", "objectives")
    drawn = ("tokens", "calibration")  # the others draw with the same modules
    commands = [
        *((view, "--csv", *(["--plot"] if view in drawn else [])) for view in views),
        ("perplexity", one, "text.txt"), ("gap", one, "text.txt", "text.txt"),
        ("calibration", one, other, "text.txt"), ("compare", one, other, "text.txt"),
        ("perplexity", one, "text.txt", "--protocol", "all"), ("perplexity", one, "text.txt", "--protocol", "evaluate"),
        ("baseline", "update"), ("baseline", "check"), ("audit",), ("audit", "--checkpoint", other),
    ]  # fmt: skip
    for command, modules in zip(commands, loaded(*commands, cwd=tmp_path), strict=True):
        assert modules.isdisjoint({"torch", "transformers", "tokenizers"}), command
        assert "matplotlib.pyplot" not in modules, f"{command}: figures are made without global state"
    assert {file.stem for file in tmp_path.glob("*.csv")} == set(views)
    assert {file.stem for file in tmp_path.glob("*.png")} == set(drawn)


def test_a_view_loads_only_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("It shows. That is what it says.\n" * 5, "utf-8")
    assert run(["score", str(EXAMPLES / "jargon-plain"), "text.txt", "--quiet"]) == 0
    unneeded = {"matplotlib", "rich.console", "pyarrow.csv", "scipy", "torch"}
    shown = ([], ["--table"], ["--wide"], ["--json"], ["--markdown"])
    plain = [(view, *form) for view in ("perplexity", "hardest") for form in shown] + [("runs",), ("runs", "--json")]
    for command, modules in zip(plain, loaded(*plain, cwd=tmp_path), strict=True):
        assert modules.isdisjoint({"pandas", "pyarrow.csv", "matplotlib", "torch"}), command
    for command, needed in ((("hardest",), set()), (("hardest", "--table"), {"rich.console"})):
        (modules,) = loaded(command, cwd=tmp_path)
        assert modules & unneeded == needed, command
        commands = {name for name in cli.commands if f"lossprobe.cli.{name}" in modules}
        assert commands == {"hardest"}


def test_a_pass_loads_neither_pandas_nor_duckdb(tmp_path):
    """Views need all of these, and to load them takes as long as a tenth of the pass of a short text."""
    (tmp_path / "text.txt").write_text("It shows. That is what it says.\n" * 5, "utf-8")
    (modules,) = loaded(("score", str(EXAMPLES / "jargon-plain"), "text.txt", "--quiet"), cwd=tmp_path)
    assert {"torch", "transformers", "numba", "pyarrow.parquet"} <= modules
    assert modules.isdisjoint({"pandas", "duckdb", "pyarrow.compute", "pyarrow.dataset", "matplotlib", "rich.console"})


def test_the_child_of_a_tokenizer_works_while_torch_is_imported():
    code = (
        "import sys\nfrom lossprobe.checkpoint.tokenizers.sandbox import Sandbox\nbegin = Sandbox.begin\n"
        "def told(child):\n    print('torch' in sys.modules)\n    begin(child)\nSandbox.begin = told\n"
        f"from lossprobe.checkpoint.detect import open_checkpoint\nopen_checkpoint({str(EXAMPLES / 'jargon-plain')!r})"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert process.stdout.split() == ["False"], "one child, started first"


def test_every_public_name_is_there_and_others_are_not():
    for name in lossprobe.__all__:
        assert getattr(lossprobe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lossprobe.nothing  # noqa: B018
    assert "score" in dir(lossprobe)


def is_command(function: ast.FunctionDef) -> bool:
    """Return whether a function is a click command or group."""
    calls = [each.func if isinstance(each, ast.Call) else each for each in function.decorator_list]
    return any(isinstance(call, ast.Attribute) and call.attr in ("command", "group") for call in calls)


def test_commands_are_short():
    found = 0
    for file in sorted((PACKAGE / "cli").glob("*.py")):
        for node in nodes(file):
            if isinstance(node, ast.FunctionDef) and is_command(node):
                found += 1
                assert ast.get_docstring(node), f"{file}: {node.name}"
                start, end = node.body[0].end_lineno, node.end_lineno
                lines = file.read_text("utf-8").splitlines()[start:end]
                assert sum(bool(line.strip()) for line in lines) <= 20, f"{file}: {node.name}"
    assert found > 15


@pytest.mark.parametrize("name", ["CONFIDENCE", "LOSS", "MANIFEST", "ROW_STEP", "Run", "Document", "Check", "Estimate",
                                  "Interval", "Measure", "Comparison"])  # fmt: skip
def test_a_name_stands_for_one_thing(name):
    homes = []
    for file in MODULES:
        for node in parsed(file).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            defined = [getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)]
            homes += [file.name] * (name in defined)
    assert len(homes) == 1, homes


def test_files_and_functions_stay_small():
    for file in MODULES:
        assert file.read_text("utf-8").count("\n") <= 300, file
        for node in nodes(file):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{file}: {node.name}"
