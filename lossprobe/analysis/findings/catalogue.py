"""All rules by their names, those of a view together and the gravest of a view first."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lossprobe.analysis.findings.rule import FindingRule
from lossprobe.analysis.findings.rules.calibration import CALIBRATION_RULES
from lossprobe.analysis.findings.rules.compare import COMPARE_RULES
from lossprobe.analysis.findings.rules.facts import FACT_RULES
from lossprobe.analysis.findings.rules.hardest import HARDEST_RULES
from lossprobe.analysis.findings.rules.others import OTHER_RULES
from lossprobe.analysis.findings.rules.perplexity import PERPLEXITY_RULES
from lossprobe.analysis.findings.rules.positions import POSITION_RULES
from lossprobe.analysis.findings.rules.tokens import TOKEN_RULES

_EACH = (
    PERPLEXITY_RULES, TOKEN_RULES, POSITION_RULES, HARDEST_RULES, CALIBRATION_RULES, FACT_RULES, COMPARE_RULES,
    OTHER_RULES,
)  # fmt: skip
FINDING_RULES: Mapping[str, FindingRule] = MappingProxyType({rule.id: rule for rules in _EACH for rule in rules})
