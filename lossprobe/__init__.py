"""lossprobe: a profiler for language-model loss. It scores every token once and answers questions from the stored run.

    import lossprobe

    run = lossprobe.score("my-model", "data.txt").run
    print(lossprobe.measure_perplexity(run).per_token.token_perplexity)

Names are loaded when they are first used, so that `lossprobe --help` needs neither torch nor pandas.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # `typing` itself is not imported here: with `python -m` it could come from the working folder
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "CallableCheckpoint": "lossprobe.checkpoint.families.callable",
    "DefectOptions": "lossprobe.analysis.defects.options",
    "DesmoothedCheckpoint": "lossprobe.checkpoint.desmoothed",
    "EngineOptions": "lossprobe.passes.engine_options",
    "LoadOptions": "lossprobe.checkpoint.options",
    "LossprobeError": "lossprobe.errors",
    "ObjectiveOptions": "lossprobe.analysis.objectives.formulas",
    "PreferenceOptions": "lossprobe.analysis.options",
    "Run": "lossprobe.run.reader",
    "ScoreOptions": "lossprobe.plan.options",
    "StringSource": "lossprobe.text.documents",
    "TextOptions": "lossprobe.text.options",
    "Tokens": "lossprobe.checkpoint.interface",
    "compare": "lossprobe.analysis.compare.compare",
    "find_defects": "lossprobe.analysis.defects.defects",
    "find_findings": "lossprobe.analysis.findings.findings",
    "find_hardest": "lossprobe.analysis.hardest",
    "gather": "lossprobe.python.shards",
    "latest": "lossprobe.python.runs",
    "measure_calibration": "lossprobe.analysis.calibration.calibration",
    "measure_divergence": "lossprobe.passes.divergence",
    "measure_gap": "lossprobe.analysis.gap.gap",
    "measure_objectives": "lossprobe.analysis.objectives.objectives",
    "measure_perplexity": "lossprobe.analysis.perplexity",
    "measure_positions": "lossprobe.analysis.positions",
    "measure_preferences": "lossprobe.analysis.preferences.preferences",
    "measure_tokens": "lossprobe.analysis.tokens",
    "objective_batches": "lossprobe.analysis.objectives.objectives",
    "open_checkpoint": "lossprobe.checkpoint.detect",
    "open_run": "lossprobe.python.runs",
    "open_text": "lossprobe.text.documents",
    "plot": "lossprobe.python.view",
    "read_settings": "lossprobe.audit.config.reader",
    "run_audit": "lossprobe.audit.gate.gate",
    "run_selfcheck": "lossprobe.passes.selfcheck",
    "score": "lossprobe.python.score",
    "score_all_protocols": "lossprobe.passes.protocols",
    "score_protocol": "lossprobe.passes.protocols",
    "score_shard": "lossprobe.python.shards",
    "view": "lossprobe.python.view",
    "write_report": "lossprobe.python.report",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Return a public name, loading the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lossprobe' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
