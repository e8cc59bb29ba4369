"""The fixture `loss_audit`, in pytest runs of a user's project: started inside this process, so that coverage sees it.

Our own run blocks the plugin (pyproject.toml); the inner ones find it as a user's do, by its entry point.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from bundled import EXAMPLES

from lossprobe.cli.main import run

pytest_plugins = ["pytester"]

DOCUMENTS = 30
QUIET = ("-p", "no:cacheprovider", "-W", "default")  # our own run makes errors of warnings, and inner ones inherit that
AUDIT = """\
schema = 1
[model]
checkpoint = "model"
[data.held-out]
path = "held-out.jsonl"
[baseline]
path = "baseline"
[[check]]
id = "no-regression"
metric = "nll"
max_increase = 0.01
inconclusive = "fail"
[[check]]
id = "good-enough"
metric = "perplexity"
max = 41.0
"""


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    """A project with an audit file, a checkpoint, its text, its baseline and runs of it and of a worse checkpoint.

    Made in this process, so that an inner run finds numpy and torch loaded: it forgets what it loads itself, and these
    cannot be loaded twice.
    """
    folder = tmp_path_factory.mktemp("project")
    for name, target in (("model", "jargon-plain"), ("worse", "jargon-smoothed")):
        (folder / name).symlink_to(EXAMPLES / target)
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "held-out.jsonl").write_text("".join(lines[:DOCUMENTS]), "utf-8")
    (folder / "lossprobe.toml").write_text(AUDIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["baseline", "update", "--quiet"]) == 0
        assert run(["audit", "--quiet", "--checkpoint", "worse"]) == 10
    return folder


@pytest.fixture
def project(scored, pytester, monkeypatch):
    """A copy of the project, entered; `project.makepyfile` and `project.runpytest` are pytester's."""
    shutil.copytree(scored, pytester.path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    return pytester


def inner(project, call: str, *arguments: str, lines: str = "") -> pytest.RunResult:
    """Run one test that calls the fixture."""
    project.makepyfile(f"def test_loss(loss_audit):\n    result = loss_audit({call})\n{lines}")
    return project.runpytest_inprocess(*QUIET, *arguments)


def test_a_model_against_itself_passes_and_warnings_are_shown(project):
    checks = "    assert [check.measured for check in result.checks][0] == 0.0\n    assert result.exit_code == 0\n"
    found = inner(project, "", lines=checks)
    found.assert_outcomes(passed=1, warnings=1)
    found.stdout.fnmatch_lines(["*test_*.py:2: LossAuditWarning: inconclusive: good-enough: perplexity *"])


def test_a_worse_model_fails_with_the_table_and_no_traceback(project):
    found = inner(project, 'checkpoint="worse"')
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        [
            "fail: 2 checks (1 fail, 1 inconclusive), 1 warning",
            "audit: jargon-smoothed by *lossprobe.toml",
            "no-regression *fail*",
            "fail: no-regression: change +0.*",
            "FAILED * - Failed: fail: 2 checks*",
        ]
    )
    found.stdout.no_fnmatch_line("*Traceback*")
    found.stdout.no_fnmatch_line("*pytest_plugin.py*")


@pytest.mark.thorough
def test_values_of_the_file_can_be_replaced(project):
    project.makepyfile(
        'def test_early(loss_audit):\n    loss_audit(stop_early=True, checkpoint="worse")\n'
        'def test_other(loss_audit):\n    assert loss_audit(baseline="baseline", seed=3, stop_early=None).seed == 3\n'
    )
    found = project.runpytest_inprocess(*QUIET)
    found.assert_outcomes(passed=1, failed=1, warnings=1)
    found.stdout.fnmatch_lines(["fail: 2 checks *needed *% of the text"])


def test_paths_start_from_the_root_folder_wherever_pytest_is_started(project, monkeypatch):
    project.makeini("[pytest]\n")
    (project.path / "audits").mkdir()
    text = AUDIT.replace('= "model"', '= "../model"').replace('"held-out.jsonl"', '"../held-out.jsonl"')
    (project.path / "audits" / "other.toml").write_text(text.replace('"baseline"', '"../baseline"'))
    test = project.makepyfile(
        'def test_other(loss_audit):\n    loss_audit("audits/other.toml", checkpoint="model")\n'
        "def test_own(loss_audit):\n    assert loss_audit().checks[0].check.id == 'no-regression'\n"
    )
    monkeypatch.chdir(project.path / "audits")
    project.runpytest_inprocess(*QUIET, test).assert_outcomes(passed=2, warnings=2)


def test_the_section_of_a_pyproject_is_found(project):
    (project.path / "lossprobe.toml").unlink()
    section = AUDIT.replace("[[check", "[[tool.lossprobe.check").replace("\n[", "\n[tool.lossprobe.")
    section = section.replace("[tool.lossprobe.[", "[[").replace("schema = 1", "[tool.lossprobe]\nschema = 1")
    (project.path / "pyproject.toml").write_text(section)
    inner(project, "").assert_outcomes(passed=1, warnings=1)


REFUSALS = {
    '"nowhere.toml"': "lossprobe: error[[]audit.*nowhere.toml*",
    'dtype="bfloat16"': "lossprobe: error[[]baseline.different[]]: *baseline/held-out: differs in *",
    'baseline="elsewhere"': "lossprobe: error[[]baseline.missing[]]: *elsewhere/held-out: *",
    'checkpoint="nowhere"': "lossprobe: error[[]checkpoint.*nowhere*",
    'seed="x"': "lossprobe: error[[]audit.value[]]: *loss_audit seed: *",
    "thing=1": "E*TypeError: loss_audit takes config, checkpoint, * stop_early, not thing",
}


def test_what_is_refused_fails_the_test_in_one_line(project):
    tests = [f"def test_{number}(loss_audit):\n    loss_audit({call})\n" for number, call in enumerate(REFUSALS)]
    project.makepyfile("".join(tests))
    found = project.runpytest_inprocess(*QUIET)
    found.assert_outcomes(failed=len(REFUSALS))
    found.stdout.fnmatch_lines(list(REFUSALS.values()))
    for shown in ("*pytest_plugin.py*", "During handling*", "*Error: lossprobe*"):
        found.stdout.no_fnmatch_line(shown)


def test_pytest_loads_the_plugin_and_nothing_else_of_lossprobe(tmp_path):
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    code = (
        "import json, sys, pytest\nassert pytest.main(['-q', '-p', 'no:cacheprovider']) == 0\n"
        "print('\\n' + json.dumps([name for name in sys.modules if name.startswith('lossprobe')]))"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, text=True)
    assert json.loads(process.stdout.splitlines()[-1]) == ["lossprobe", "lossprobe.pytest_plugin"]


def test_the_entry_point_is_installed_and_blocked_in_our_own_runs(pytestconfig):
    (found,) = metadata.entry_points(group="pytest11", name="lossprobe")
    assert found.value == "lossprobe.pytest_plugin"
    assert pytestconfig.pluginmanager.is_blocked("lossprobe")
