"""Makes sums of a check of one text, and takes the looks of an audit that may stop early."""

import numpy as np

from lossprobe.analysis.stats.confidence_sequence import looks
from lossprobe.audit.checks.decisions import decide
from lossprobe.audit.checks.metrics import METRICS
from lossprobe.audit.gate.early import CheckSums
from lossprobe.audit.settings import Check, Limit


def paired(s, n, loss=3.0):
    """Return the sums of a check of `nll`, [G, 2, 3], from summed changes s and tokens n of G documents."""
    return np.stack([np.stack([side, n, n], axis=-1) for side in (loss * n, loss * n + s)], axis=1)


def as_the_audit_looks(s, n, limit, skew=None):
    """Return the verdict of an audit with `max_increase` = limit, and the share of the documents that it needed."""
    check, documents = Check("nll", "text", "nll", Limit("max_increase", limit)), len(n)
    collected, before = CheckSums(check, METRICS["nll"], skew), 0
    for look in looks(documents):
        collected.sums.append(paired(s, n)[before:look])
        before = look
        if look < documents:
            collected.look(documents, 0.95)
        if collected.decided is not None:
            break
    return decide(check, collected.end(0.95).held), before / documents
