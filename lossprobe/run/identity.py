"""What makes two runs the same, apart from what was measured when the checkpoint was opened.

`settings` of run.json is the identity: it names the run, and a complete run with the same settings is the same run.
`measured` stands beside it: it moves losses by rounding alone, so a complete run is used whatever it was measured with,
and an unfinished one is resumed only where it is equal, so that all parts of a run were scored alike.

Of the facts of a checkpoint, these are the identity:

    sha256                          what the files hold
    family, vocab_size, context_length, hard_limit, parameters, stored_dtype, tied
                                    what the files say; follow from them and the versions
    compute_dtype, device           what was asked for; of a device its type, since "cuda:0" and "cuda:1" are one kind
    batching                        which windows may share a pass: another rule moves losses by more than rounding

and these are measured:

    device                          the one device of several, such as "cuda:1"
    head, kernels                   which code ran, found by trying it out on this machine
    config_from                     where the configuration was found; its content is in the sha256

Runs and plans of an earlier lossprobe have all of them in `settings`; the functions here read both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURED = ("device", "head", "kernels", "config_from")
Settings = dict[str, dict[str, Any]]


def divide_facts(facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts of a checkpoint that belong to the identity of a run, and those that were measured."""
    identity = {name: value for name, value in facts.items() if name not in MEASURED or name == "device"}
    if isinstance(identity.get("device"), str):
        identity["device"] = identity["device"].partition(":")[0]
    return identity, {name: facts[name] for name in MEASURED if name in facts}


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
