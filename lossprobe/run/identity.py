"""Defines which settings identify a run, and which facts are only measured when its checkpoint is opened.

`settings` of run.json is the identity: it gives the run its name, and two complete runs with the same settings are the
same run. `measured` beside it changes losses only by rounding. A complete run is therefore reused whatever its measured
facts are; an unfinished run is resumed only if they are equal, so that all parts of a run are scored in the same way.

These facts of a checkpoint belong to the identity:

    sha256                          what the files hold
    family, vocab_size, context_length, hard_limit, parameters, stored_dtype, tied
                                    what the files say; follow from them and the versions
    compute_dtype, device           what was asked for; of a device its type, since "cuda:0" and "cuda:1" are one kind
    batching                        which windows may share a pass: another rule moves losses by more than rounding

    router                          number of experts and their loss: such a run has the table `routing`

and these are only measured:

    device                          the one device of several, such as "cuda:1"
    head, kernels                   which code ran, found by trying it out on this machine
    config_from                     where the configuration was found; its content is in the sha256
    adapter                         an adapter and its base in words; their content, and whether they were merged, is in
                                    the sha256

Runs and plans of an earlier lossprobe have all of them in `settings`; the functions here read both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURED = ("device", "head", "kernels", "config_from", "adapter")
Settings = dict[str, dict[str, Any]]


def divide_facts(facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts of a checkpoint that belong to the identity of a run, and those that were measured."""
    identity = {name: value for name, value in facts.items() if name not in MEASURED or name == "device"}
    if isinstance(identity.get("device"), str):
        identity["device"] = identity["device"].partition(":")[0]
    return identity, {name: facts[name] for name in MEASURED if facts.get(name) is not None}


def identity_of(manifest: Mapping[str, Any]) -> Settings:
    """Return the identity of a run, a plan or a baseline, old or new."""
    settings: Settings = manifest["settings"]
    return {**settings, "checkpoint": divide_facts(settings.get("checkpoint", {}))[0]}


def measured_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured when the checkpoint of a run, a plan or a baseline was opened."""
    return dict(manifest.get("measured") or divide_facts(manifest["settings"].get("checkpoint", {}))[1])


def all_settings(manifest: Mapping[str, Any]) -> Settings:
    """Return the settings of a run with what was measured among the facts of its checkpoint, for people to read."""
    settings: Settings = manifest["settings"]
    return {**settings, "checkpoint": {**settings.get("checkpoint", {}), **measured_of(manifest)}}


def differences(stored: Settings, wanted: Settings) -> list[str]:
    """Return the dotted names of the settings in which two runs differ."""
    names = []
    for group in sorted(stored.keys() | wanted.keys()):
        left, right = stored.get(group, {}), wanted.get(group, {})
        names += [f"{group}.{key}" for key in sorted(left.keys() | right.keys()) if left.get(key) != right.get(key)]
    return names
