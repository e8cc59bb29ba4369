"""The fixture `loss_audit`, which pytest finds by itself where lossprobe is installed.

    def test_the_model_is_as_good_as_it_was(loss_audit):
        loss_audit()

Every pytest run of every project in the environment imports this file: nothing but pytest is loaded before a test asks
for the fixture.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lossprobe.audit.checks.verdicts import AuditResult
    from lossprobe.audit.settings import AuditSettings
    from lossprobe.errors import LossprobeError

PATHS = ("checkpoint", "tokenizer", "baseline")


class LossAuditWarning(UserWarning):
    """A check that warns: it did not pass, and the audit file says that the audit does not fail for that."""


@pytest.fixture
def loss_audit(pytestconfig: pytest.Config) -> LossAudit:
    """Return a function that holds a checkpoint against an audit file; see `LossAudit.__call__`."""
    return LossAudit(pytestconfig.rootpath)


@dataclass(frozen=True)
class LossAudit:
    """What the fixture `loss_audit` returns.

    Attributes:
        root: pytest's root folder, which relative paths start from, in whatever folder pytest was started.
    """

    root: Path

    def __call__(self, config: str | Path | None = None, **overrides: Any) -> AuditResult:
        """Return the result of an audit that passes; fail the test, with the table as its message, where it does not.

        A check that warns becomes a `LossAuditWarning`. A file, checkpoint, text or baseline that is refused fails the
        test with one line. The checkpoint is scored once: the run is stored under `.lossprobe/` of the working folder.

        Args:
            config: the audit file; None for the root folder's lossprobe.toml, or its pyproject.toml with
                `[tool.lossprobe]`.
            overrides: values that stand for those of the file, named as the options of `lossprobe audit`: checkpoint,
                tokenizer, device, dtype, baseline, seed, stop_early; None for the file's.

        Raises:
            TypeError: an override of another name.
        """
        __tracebackhide__ = True
        from lossprobe.errors import LossprobeError

        try:
            result = self._run(config, overrides)
        except LossprobeError as error:
            raise pytest.fail.Exception(_one_line(error), pytrace=False) from None
        if result.verdict != "pass":
            from lossprobe.report.audit.text import audit_to_terminal

            # pytest's short summary shows the first line alone.
            pytest.fail(f"{result.finding}\n\n{audit_to_terminal(result)}", pytrace=False)
        _warn(result)
        return result

    def _run(self, config: str | Path | None, overrides: dict[str, Any]) -> AuditResult:
        __tracebackhide__ = True
        from lossprobe.audit.gate.gate import run_audit
        from lossprobe.checkpoint.spec import CheckpointSpec, Opener
        from lossprobe.passes.known_checkpoint import open_when_needed

        settings = self._settings(config, overrides)
        checkpoint = open_when_needed(CheckpointSpec(settings.model.checkpoint, settings.model.load), Opener())
        return run_audit(settings, checkpoint)

    def _settings(self, config: str | Path | None, overrides: dict[str, Any]) -> AuditSettings:
        __tracebackhide__ = True
        from lossprobe.audit.config.overrides import OPTION_KEYS
        from lossprobe.audit.config.reader import Override, find_config, read_settings

        unknown = sorted(overrides.keys() - OPTION_KEYS)
        if unknown:
            raise TypeError(f"loss_audit takes config, {', '.join(OPTION_KEYS)}, not {', '.join(unknown)}")
        path = find_config(self.root) if config is None else self.root / config
        given = {name: value for name, value in overrides.items() if value is not None}
        rooted = {name: self.root / value if name in PATHS else value for name, value in given.items()}
        replaced = [Override(OPTION_KEYS[name], value, f"loss_audit {name}") for name, value in rooted.items()]
        return read_settings(path, replaced)


def _one_line(error: LossprobeError) -> str:
    from lossprobe.units import visible

    hint = "" if error.hint is None else f"\nhint: {visible(error.hint)}"
    return f"lossprobe: error[{error.id}]: {visible(error.message)}{hint}"


def _warn(result: AuditResult) -> None:
    __tracebackhide__ = True  # where warnings are errors, the test's own line is what counts
    from lossprobe.units import visible

    for check in result.checks:
        if check.effect == "warn":
            text = f"{check.verdict}: {visible(check.check.id, 200)}: {visible(check.reason, 1000)}"
            warnings.warn(text, LossAuditWarning, stacklevel=3)
