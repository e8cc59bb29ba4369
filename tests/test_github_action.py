"""The workflow of examples/github-action does what it says: its steps, run as a runner would, in a user's repository.

The user has followed docs/pages/howto/ci-gate.md from an empty repository: `audit init`, `baseline update`, commit,
copy the workflow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from bundled import EXAMPLES

WORKFLOW = yaml.safe_load((EXAMPLES / "github-action" / "gate.yml").read_text("utf-8"))
(JOB,) = WORKFLOW["jobs"].values()
DOCUMENTS = 40
PIP = f"""#!{sys.executable}
import os, sys
with open(os.environ["PIP_LOG"], "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
"""


@dataclass(frozen=True)
class Repository:
    """A user's repository, and the environment that a runner's steps see."""

    folder: Path
    outside: Path

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a step is: bash -e, commands from PATH, nothing on a terminal."""
        path = os.pathsep.join([str(self.outside / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "LOSSPROBE_"))}
        environment = {**kept, "PATH": path, "PIP_LOG": str(self.outside / "pip.log"), "PYTHONUTF8": "1", **variables}
        return subprocess.run(
            ["bash", "-e", "-c", script], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def run_job(self) -> tuple[list[subprocess.CompletedProcess[str]], str]:
        """Run the steps of the job in order up to the first that fails; return them and the summary."""
        for name in ("audit.xml", "audit.json"):
            (self.folder / name).unlink(missing_ok=True)
        (self.outside / "pip.log").unlink(missing_ok=True)
        summary = self.outside / "summary.md"
        summary.write_text("")
        steps = []
        for step in JOB["steps"]:
            if "run" in step:
                steps.append(self.run(step["run"], GITHUB_STEP_SUMMARY=str(summary), GITHUB_ACTIONS="true", CI="true"))
                if steps[-1].returncode:
                    break
        return steps, summary.read_text("utf-8")


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    folder, outside = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("runner")
    (outside / "bin").mkdir()
    (outside / "bin" / "pip").write_text(PIP)
    (outside / "bin" / "pip").chmod(0o755)
    shutil.copytree(EXAMPLES / "jargon-plain", folder / "model")
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "held-out.jsonl").write_text("".join(lines[:DOCUMENTS]), "utf-8")
    made = Repository(folder, outside)
    succeed(made, "lossprobe audit init model held-out.jsonl")
    return made


@pytest.fixture(scope="module")
def with_baseline(repository) -> Repository:
    succeed(repository, "lossprobe baseline update --quiet")
    return repository


def succeed(repository: Repository, command: str) -> None:
    done = repository.run(command)
    assert done.returncode == 0, done.stderr


def test_without_a_baseline_the_job_is_red_and_has_no_report(repository):
    (_install, audit), summary = repository.run_job()
    assert audit.returncode == 12
    assert audit.stderr.startswith("lossprobe: error[baseline.missing]: lossprobe-baseline/held-out: ")
    assert audit.stdout == summary == ""
    assert not (repository.folder / "audit.xml").exists()


@pytest.mark.thorough
def test_a_model_that_did_not_change_passes(with_baseline):
    (install, audit), summary = with_baseline.run_job()
    assert install.returncode == audit.returncode == 0, audit.stderr
    assert (with_baseline.outside / "pip.log").read_text().splitlines() == [
        "install torch --index-url https://download.pytorch.org/whl/cpu", "install lossprobe-*.whl",
    ]  # fmt: skip
    assert audit.stdout.splitlines()[-1] == "pass: 3 checks (3 pass)"
    assert "::" not in audit.stdout, "nothing to mark"
    assert "pass" in summary
    assert "no-regression" in summary
    suite = ElementTree.parse(with_baseline.folder / "audit.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "0", "0")
    report = json.loads((with_baseline.folder / "audit.json").read_text("utf-8"))
    assert report["verdict"] == "pass"
    assert {check["measured"] for check in report["checks"]} == {0.0}


@pytest.mark.thorough
def test_a_model_that_got_worse_fails_and_says_where(with_baseline):
    model = with_baseline.folder / "model"
    shutil.move(model, with_baseline.outside / "kept")
    shutil.copytree(EXAMPLES / "jargon-smoothed", model)
    try:
        (_install, audit), summary = with_baseline.run_job()
    finally:
        shutil.rmtree(model)
        shutil.move(with_baseline.outside / "kept", model)
    assert audit.returncode == 10, audit.stderr
    line = (with_baseline.folder / "lossprobe.toml").read_text("utf-8").splitlines().index('id = "no-regression"')
    (mark,) = [line for line in audit.stdout.splitlines() if line.startswith("::")]
    assert re.match(rf"::error file=lossprobe.toml,line={line},title=lossprobe no-regression::fail: change \+0\.", mark)
    assert "fail" in summary.splitlines()[0] + summary.splitlines()[2]
    suite = ElementTree.parse(with_baseline.folder / "audit.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    assert json.loads((with_baseline.folder / "audit.json").read_text("utf-8"))["verdict"] == "fail"


def test_an_installation_that_fails_ends_the_job(repository):
    pip = repository.outside / "bin" / "pip"
    pip.write_text("#!/bin/sh\nexit 3\n")
    try:
        steps, _summary = repository.run_job()
    finally:
        pip.write_text(PIP)
    assert [step.returncode for step in steps] == [3]


def test_the_workflow_may_read_the_code_and_nothing_else():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in JOB
    actions = {step["uses"].partition("@")[0]: step for step in JOB["steps"] if "uses" in step}
    assert set(actions) == {"actions/checkout", "actions/setup-python", "actions/upload-artifact"}
    assert all(re.search(r"@v\d+\.\d+\.\d+$", step["uses"]) for step in actions.values())
    assert actions["actions/checkout"]["with"]["persist-credentials"] is False
    upload = actions["actions/upload-artifact"]
    assert JOB["steps"][-1] is upload
    assert upload["if"] == "${{ !cancelled() }}"
    written = re.findall(r"--report \w+:(\S+)", " ".join(step.get("run", "") for step in JOB["steps"]))
    assert upload["with"]["path"].split() == written, "what is written is what is uploaded"
    assert not any("${{" in step.get("run", "") for step in JOB["steps"]), "nothing of a pull request enters a shell"
