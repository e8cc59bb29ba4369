"""Error ids about the workers of a Ray cluster."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

USAGE = {
    "ray.device": "Ray gives each worker its own GPU, so that none can be named by its number. → --device cuda.",
    "ray.disagree": "A worker found another fact of the checkpoint, another kind of processor, or another GPU than the "
    "first one, so that losses would differ in the last digits. → Use nodes of one kind, with the same files.",
    "ray.local": "The command runs the model in its own process, where --engine ray holds none. → Leave --engine out.",
    "ray.package": '--engine ray needs the library ray. → Install it: pip install "lossprobe[ray]".',
    "ray.room": "No node of the cluster has the processors or GPUs that one worker takes. → Lower --ray-threads or "
    "--ray-gpus.",
    "ray.unreachable": "No head of a Ray cluster answers at the address, or Ray did not start here. → Name the "
    "HOST:PORT that ray start --head prints; where the cluster asks for a token, set RAY_AUTH_MODE=token.",
    "ray.unused": "An option of Ray was given, and this process scores. → Add --engine ray.",
    "ray.versions": "A node has other versions than the driver, of Ray, Python, lossprobe or a library that numbers "
    "depend on, or no lossprobe. → Install the same versions on every node.",
}
LOST = {
    "ray.lost": "Workers ended again and again over one part or while they opened the checkpoint, or the head of the "
    "cluster is gone. → Repeat the command when the cluster runs again: finished parts are kept.",
}

ERROR_IDS = (*error_ids(2, USAGE), *error_ids(7, LOST))
