"""The pytest fixture `loss_audit`; pytest loads it wherever lossprobe is installed.

    def test_the_model_is_as_good_as_it_was(loss_audit):
        loss_audit()

Every pytest run in the environment imports this file, so it imports only pytest until a test requests the fixture.
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
    """Warning for a check that did not pass, where the audit file says to warn instead of failing."""


@pytest.fixture
def loss_audit(pytestconfig: pytest.Config) -> LossAudit:
    """Return a function that audits a checkpoint by the checks of an audit file; see `LossAudit.__call__`."""
    return LossAudit(pytestconfig.rootpath)


@dataclass(frozen=True)
class LossAudit:
    """Runs an audit inside a test; the fixture `loss_audit` returns one.

    Attributes:
        root: pytest's root folder; relative paths start here, wherever pytest was started.
    """

    root: Path

    def __call__(self, config: str | Path | None = None, **overrides: Any) -> AuditResult:
        """Run the audit and return its result; fail the test with the table of checks where the audit does not pass.

        A check that only warns emits a `LossAuditWarning`. A file, checkpoint, text or baseline that is refused fails
        the test with one line. The run is stored under `.lossprobe/` in the working folder and reused.

        Args:
            config: the audit file; None means lossprobe.toml in the root folder, or pyproject.toml there with
                `[tool.lossprobe]`.
            overrides: values that replace those of the file, named as the options of `lossprobe audit`: checkpoint,
                tokenizer, device, dtype, baseline, seed, stop_early. None keeps the value of the file.

        Raises:
            TypeError: an override with another name.
        """
        __tracebackhide__ = True
        from lossprobe.errors import LossprobeError

        try:
            result = self._run(config, overrides)
        except LossprobeError as error:
            raise pytest.fail.Exception(_one_line(error), pytrace=False) from None
        if result.verdict != "pass":
            from lossprobe.report.audit.text import audit_to_terminal

            # The finding comes first, because pytest's short summary shows only the first line.
            pytest.fail(f"{result.finding}\n\n{audit_to_terminal(result)}", pytrace=False)
        _warn(result)
        return result

    def _run(self, config: str | Path | None, overrides: dict[str, Any]) -> AuditResult:
        __tracebackhide__ = True
        from lossprobe.audit.gate.gate import run_audit
        from lossprobe.audit.gate.reference import audit_opener, open_audited
        from lossprobe.audit.gate.texts import read_texts

        settings = self._settings(config, overrides)
        texts = read_texts(settings)  # before the model is loaded
        opener = audit_opener(settings)
        return run_audit(settings, open_audited(settings, opener), texts=texts, opener=opener)

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
    __tracebackhide__ = True  # where warnings are errors, the traceback ends at the line of the test
    from lossprobe.units import visible

    for check in result.checks:
        if check.effect == "warn":
            text = f"{check.verdict}: {visible(check.check.id, 200)}: {visible(check.reason, 1000)}"
            warnings.warn(text, LossAuditWarning, stacklevel=3)
