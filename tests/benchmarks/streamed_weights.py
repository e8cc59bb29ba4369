"""Measures models whose layers are read one after the other: memory, time beside its bounds, and losses.

    python tests/benchmarks/streamed_weights.py FOLDER [--shape llama-7b] [--tokens 2048] [--dtype bfloat16]

A model with random weights is written to FOLDER (13.5 GB for a Llama of 7 billion weights), unless it is there. In
processes of their own it is

- scored with its layers streamed, while the anonymous memory of the process is watched: pages that the kernel can drop,
  such as those of mapped files, do not count;
- timed in its two parts: its files are read once, and one layer, kept in memory, computes as often as there are layers;
- with `--compare`, scored whole, to compare the losses.

The bound of the time is the longer of the two parts, as reading and computing can go on at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from shapes import make_text
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.files.stored_tensors import StoredTensors
from lossprobe.checkpoint.files.weight_files import find_weights
from lossprobe.checkpoint.layer_by_layer import streamed_of
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.passes.score import score_into
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import open_text

ENDS = {"max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
SHAPES = {
    "tiny": {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
             "num_attention_heads": 4},
    "llama-1b": {"vocab_size": 32_000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
                 "num_attention_heads": 32, "num_key_value_heads": 4},
    "llama-7b": {"vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
                 "num_attention_heads": 32},
}  # fmt: skip
DRAWN = 1 << 26  # normal numbers that are drawn once; a tensor takes them from some place on
EVERY = 0.02  # seconds between two looks at the memory


def make_model(folder: Path, shape: str) -> Path:
    """Write a Llama with random bfloat16 weights, a shard for each layer and one for the rest."""
    config = LlamaConfig(**SHAPES[shape], **ENDS, dtype="bfloat16", architectures=["LlamaForCausalLM"])
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        weights = LlamaForCausalLM(config).state_dict()
    shards: dict[str, list[str]] = {}
    for name in weights:
        layer = name.split(".")[2] if ".layers." in name else "rest"
        shards.setdefault(f"model-{layer}.safetensors", []).append(name)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(DRAWN, generator=generator).mul_(0.02).bfloat16()
    for file, names in shards.items():
        made = {}
        for name in names:
            shape_of, count = weights[name].shape, weights[name].numel()
            start = int(torch.randint(DRAWN, (1,), generator=generator))
            norm = "norm" in name
            made[name] = torch.ones(shape_of).bfloat16() if norm else _cycled(drawn, start, count).view(shape_of)
        save_file(made, folder / file)
    index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config.save_pretrained(folder)
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _cycled(drawn: torch.Tensor, start: int, count: int) -> torch.Tensor:
    return drawn.roll(-start).repeat(-(-count // len(drawn)))[:count].clone()


def _tokenizer() -> Tokenizer:
    """Return a tokenizer of single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def score_it(folder: Path, text: Path, dtype: str, how: str) -> dict[str, object]:
    """Score a text; return seconds, and the losses."""
    begun = time.perf_counter()
    checkpoint = open_checkpoint(folder, LoadOptions(dtype=dtype, stream_weights=how))
    opened = time.perf_counter()
    output = text.parent / f"run-{how}-{dtype}"
    run = score_into(output, checkpoint, open_text(text), ScoreOptions(), overwrite=True).run
    done = time.perf_counter()
    import pyarrow.parquet as pq

    losses = [each for file in sorted((run.path / "tokens").iterdir()) for each in pq.read_table(file)["loss_nats"]]
    found = [None if each.as_py() is None else float(each.as_py()) for each in losses]
    return {"open": opened - begun, "score": done - opened, "kernels": checkpoint.facts.kernels, "losses": found}


def compute_it(folder: Path, tokens: int, dtype: str) -> dict[str, float]:
    """Return the seconds that the layers and the head need, measured on one layer in memory."""
    checkpoint = open_checkpoint(folder, LoadOptions(dtype=dtype, stream_weights="always"))
    streamed = streamed_of(checkpoint)
    weights, stream = checkpoint._weights, checkpoint._stream
    weights.hold((0,))
    ids = torch.arange(tokens)[None] % 250
    inputs = [{"input_ids": each} for each in ids.split(min(tokens, 2048), dim=1)]
    run = super(type(checkpoint), checkpoint)._run_body
    seconds = []
    with torch.inference_mode():
        for chosen in ((0,), (0,)):
            stream.chosen = chosen
            begun = time.perf_counter()
            hidden = list(stream.through(run, inputs))
            seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        for each in hidden:
            for rows in each[0].split(128):
                checkpoint.logits(rows)
        head = time.perf_counter() - begun
    return {"layers": min(seconds) * streamed.layer_count, "head": head}


def read_it(folder: Path) -> float:
    """Return the seconds that it takes to read all weights once into one buffer after the other."""
    weights = find_weights(folder)
    begun = time.perf_counter()
    with StoredTensors(weights.files) as stored:
        for name in weights.entries:
            stored.tensor(name)
    return time.perf_counter() - begun


def watched(arguments: list[str]) -> tuple[dict[str, object], int]:
    """Run this program in a process of its own; return its result and the most anonymous memory it had, in bytes."""
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            try:
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            except OSError:
                return
            held = [int(line.split()[1]) for line in lines if line.startswith("RssAnon")]
            most = max([most, *(each * 1024 for each in held)])
            time.sleep(EVERY)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return json.loads(output.splitlines()[-1]), most


def main() -> None:
    """Make the model, measure it, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="llama-7b")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--compare", action="store_true", help="score the model whole, too")
    parser.add_argument("--only", choices=("always", "never", "compute", "read"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    model, text = given.folder / given.shape, given.folder / f"{given.tokens}.txt"
    if given.only in ("always", "never"):
        print(json.dumps(score_it(model, text, given.dtype, given.only)))
    elif given.only == "compute":
        print(json.dumps(compute_it(model, given.tokens, given.dtype)))
    elif given.only == "read":
        print(json.dumps({"read": read_it(model)}))
    else:
        report(given, model, text)


def report(given: argparse.Namespace, model: Path, text: Path) -> None:
    """Print what is measured."""
    if not model.is_dir():
        make_model(model, given.shape)
    make_text(text, model, given.tokens)
    text.write_text(text.read_text("utf-8").encode("ascii", "ignore").decode()[: given.tokens])  # a byte is a token
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    print(f"{given.shape}: {size / 1e9:.2f} GB of weights, {given.tokens} tokens, {given.dtype}", flush=True)
    rest = [str(given.folder), "--shape", given.shape, "--tokens", str(given.tokens), "--dtype", given.dtype]
    read, _ = watched([*rest, "--only", "read"])
    print(f"reading once      {read['read']:8.1f} s", flush=True)
    compute, _ = watched([*rest, "--only", "compute"])
    bound = max(read["read"], compute["layers"] + compute["head"])
    print(f"computing         {compute['layers'] + compute['head']:8.1f} s", flush=True)
    streamed, most = watched([*rest, "--only", "always"])
    print(f"streamed          {streamed['score']:8.1f} s = {streamed['score'] / bound:.2f} of the longer; opening took")
    print(f"                  {streamed['open']:8.1f} s; kernels: {streamed['kernels']}")
    print(f"anonymous memory  {most / 1e9:8.2f} GB at most", flush=True)
    if given.compare:
        whole, most = watched([*rest, "--only", "never"])
        pairs = zip(whole["losses"], streamed["losses"], strict=True)
        apart = max(abs(one - other) for one, other in pairs if one is not None)
        print(f"whole             {whole['score']:8.1f} s; opening took {whole['open']:.1f} s; {most / 1e9:.2f} GB")
        print(f"losses            {apart:.2g} nats apart at most", flush=True)


if __name__ == "__main__":
    main()
