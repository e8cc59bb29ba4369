"""Error ids about processes that hold a model together."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

USAGE = {
    "tensor_parallel.devices": "There are fewer GPUs than --tensor-parallel-size says, or --device names one of them "
    "or MPS. → Use --device cuda, and a size that there are GPUs for.",
    "tensor_parallel.engine": "--tensor-parallel-size was given together with --engine ray. → Use one of them; --shard "
    "goes with both.",
    "tensor_parallel.local": "The command runs the model in its own process, which with --tensor-parallel-size holds "
    "none. → Leave --tensor-parallel-size out.",
    "tensor_parallel.package": "--tensor-parallel-size needs the library accelerate. → Install it: pip install "
    '"lossprobe[accelerate]".',
    "tensor_parallel.streamed": "--tensor-parallel-size was given together with --stream-weights always, which one "
    "process does alone. → Use one of them.",
    "tensor_parallel.torchrun": "torchrun has started several copies of a command that starts the processes of "
    "--tensor-parallel-size itself. → Run the command without torchrun.",
}
CHECKPOINT = {
    "checkpoint.not_divided": "The layers of the checkpoint cannot be divided among processes, which "
    "--tensor-parallel-size asks for; the message says why. → Leave the option out, or read the weights layer by "
    "layer: --stream-weights always.",
    "tensor_parallel.disagree": "The processes that hold a model together found different things when they opened the "
    "checkpoint. → Repeat the command when nothing changes the files any more; use GPUs of one kind.",
}
LOST = {
    "tensor_parallel.lost": "One of the processes that hold a model together has ended. → Repeat the command: finished "
    "parts are kept. If memory was full, use more processes or a smaller --batch-size.",
}

ERROR_IDS = (*error_ids(2, USAGE), *error_ids(3, CHECKPOINT), *error_ids(7, LOST))
