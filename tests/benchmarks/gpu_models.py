"""The steps of `gpu` that need a model: scoring against the bare forward pass."""

from __future__ import annotations

import copy
import gc
import statistics
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gpu_kernels import Place, Step, peak_flops
from gpu_shapes import CONTEXT, SHAPES
from transformers import AutoModelForCausalLM, GPT2Config
from transformers.pytorch_utils import Conv1D

from lossprobe.checkpoint.interface import CheckpointFacts, Tokens
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.plan.part_scores import PartScores
from lossprobe.plan.rows import Rows, WindowPolicy, cut_parts, plan_documents, windows_of
from lossprobe.scoring.batches import batch_inputs, make_batches, token_budget
from lossprobe.scoring.measure import PassOptions
from lossprobe.scoring.scorer import queue_part

SPREAD = 3.0  # standard deviation of the logits in nats, as of a trained model
AHEAD = 2  # parts that are queued before the scores of one are read, as in `passes.engines`
ROUNDS = 5
LEAST_LEFT = 15.0  # seconds; with less, nothing new is begun
ROUND_SECONDS = 1.0  # least time of the bare forward in a round


@dataclass(frozen=True)
class Setup:
    """A model on the device, and the parts of a text of random tokens.

    Attributes:
        model: of transformers.
        checkpoint: the same model, opened for scoring.
        parts: the parts, with the number of each one's first row.
        batches: ids of all batches of the parts, on the device: what the bare forward pass gets too.
        flops_per_token: of the matrix products of a forward pass, attention to the tokens before included.
    """

    model: Any
    checkpoint: CausalLM
    parts: list[tuple[Rows, int]]
    batches: list[torch.Tensor]
    flops_per_token: float

    @property
    def tokens(self) -> int:
        """Return the number of tokens that the model gets in a pass."""
        return sum(ids.numel() for ids in self.batches)

    @torch.inference_mode()
    def bare(self) -> None:
        """Run body and head on all batches, without a loss."""
        for ids in self.batches:
            self.model(ids, use_cache=False)

    def score(self, sample_every: int = 16) -> list[PartScores]:
        """Return the scores of all parts, as the engine of `passes` computes them."""
        found, queued = [], deque[Callable[[], PartScores]]()
        options = PassOptions(sample_every=sample_every)
        for rows, first_row in self.parts:
            queued.append(queue_part(self.checkpoint, rows, first_row, options))
            if len(queued) > AHEAD:
                found.append(queued.popleft()())
        return found + [finish() for finish in queued]


def make_model(name: str, place: Place) -> Any:
    """Return a model with random weights in bfloat16 whose logits are spread as those of a trained model."""
    config = SHAPES[name][place.tiny]
    torch.manual_seed(0)
    with torch.device(place.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        ids = torch.randint(config.vocab_size, (1, 64))
    norm = model.transformer.ln_f if isinstance(config, GPT2Config) else model.model.norm
    with torch.inference_mode():
        logits = model(ids, use_cache=False).logits.float()
    norm.weight.data *= SPREAD / float(logits.std(dim=-1).mean())
    return model


def make_setup(name: str, place: Place, model: Any, tokens: int) -> Setup:
    """Return a model with a text of at least `tokens` random tokens, in documents of 16 windows."""
    context = 64 if place.tiny else CONTEXT
    checkpoint, length = open_model(name, place, model), 16 * context + 1
    documents = [random_text(model, length, number) for number in range(-(-tokens // length))]
    parts, first_row, batches = [], 0, []
    for rows in cut_parts(plan_documents(documents, WindowPolicy(context, context, None))):
        parts.append((rows, first_row))
        first_row += int(rows.own.sum())
        made = make_batches(windows_of(rows), None, token_budget(place.device), checkpoint.facts.batching)
        batches += [torch.from_numpy(batch_inputs(rows, batch, None)[0]).to(place.device) for batch in made]
    return Setup(model, checkpoint, parts, batches, flops_per_token(model, context))


def open_model(name: str, place: Place, model: Any) -> CausalLM:
    """Return a model that is opened for scoring, on a tokenizer that only knows its BOS."""
    config = model.config
    facts = CheckpointFacts(
        name, name, "random", config.vocab_size, CONTEXT, compute_dtype="bfloat16", device=place.device
    )
    tokenizer: Any = SimpleNamespace(bos_id=None)
    return CausalLM(model, facts, tokenizer)


def random_text(model: Any, length: int, seed: int) -> Tokens:
    """Return a document of random tokens."""
    ids = np.random.default_rng(seed).integers(0, model.config.vocab_size, length, dtype=np.int32)
    return Tokens(ids, np.arange(1, length + 1), np.zeros(length, bool))


def flops_per_token(model: Any, context: int) -> float:
    """Return the operations of all matrix products, and of attention to half the context on average."""
    layers = [each for each in model.modules() if isinstance(each, (torch.nn.Linear, Conv1D))]
    weights = sum(each.weight.numel() for each in layers)
    attention = 2 * model.config.num_hidden_layers * model.config.hidden_size * context
    return float(2 * weights + attention)


def measure_model(name: str, place: Place, step: Step, found: dict[str, Any]) -> None:
    """Measure a model: speed, memory, hidden waiting, agreement with the CPU, and whether a pass repeats itself."""
    start = time.perf_counter()
    model = make_model(name, place)
    if name != "llama-8b" or place.tiny:
        with step("agreement", model=name) as line:
            measure_agreement(model, place, line)
    batch = token_budget(place.device)
    setup = make_setup(name, place, model, batch)
    found["parameters"] = sum(each.numel() for each in model.parameters())
    found["made_in_s"] = round(time.perf_counter() - start, 1)
    found |= {"head": setup.checkpoint.facts.head, "batching": setup.checkpoint.facts.batching}
    seconds = place.time(setup.bare, least=1, seconds=0.0)["median_s"]
    rounds = 1 if place.tiny else max(1, round(ROUND_SECONDS / seconds))
    setup = make_setup(name, place, model, batch * rounds)
    measured = {"speed": measure_speed, "waiting": measure_waiting, "stages": measure_stages, "memory": measure_memory}
    for each, measure in {**measured, "repeats": measure_repeats}.items():
        with step(each, model=name) as line:
            if place.left() > LEAST_LEFT:
                measure(setup, place, line)
            else:
                line["skipped"] = "no time left"
    del model, setup
    gc.collect()
    if place.on_gpu:
        torch.cuda.empty_cache()


def measure_speed(setup: Setup, place: Place, found: dict[str, Any]) -> None:
    """Time scoring and the bare forward in turn; a ratio is that of one round, the bare pass over ours."""
    seconds: dict[str, list[float]] = {"bare": [], "score": []}
    for round_ in range(1 + (2 if place.tiny else ROUNDS)):
        for name, work in (("bare", setup.bare), ("score", setup.score)):
            start = time.perf_counter()
            work()
            place.wait()
            if round_:  # the first round is warm-up
                seconds[name].append(time.perf_counter() - start)
        if round_ > 1 and place.left() < 20:
            break
    ratios = [bare / own for bare, own in zip(seconds["bare"], seconds["score"], strict=True)]
    found |= {"tokens": setup.tokens, "batches": len(setup.batches), "batch": list(setup.batches[0].shape)}
    found["score_over_bare"] = statistics.median(ratios)
    found["score_over_bare_spread"] = [min(ratios), max(ratios)]
    peak = peak_flops(place.device)
    for name, times in seconds.items():
        speed = setup.tokens / statistics.median(times)
        found[f"{name}_tokens_per_s"] = round(speed)
        found[f"{name}_us_per_token"] = round(1e6 / speed, 3)
        if peak is not None:
            found[f"{name}_share_of_peak"] = round(speed * setup.flops_per_token / peak, 3)


@torch.inference_mode()
def measure_stages(setup: Setup, place: Place, found: dict[str, Any]) -> None:
    """Time the body and the head alone, and tell how long queueing takes of a pass."""
    body = place.time(lambda: [setup.checkpoint.hidden(ids) for ids in setup.batches])
    found["body_us_per_token"] = body["median_s"] / setup.tokens * 1e6
    rows = setup.checkpoint.hidden(setup.batches[0]).flatten(0, 1)
    size = min(len(rows), 1024)
    head = place.time(lambda: [setup.checkpoint.logits(rows[at : at + size]) for at in range(0, len(rows), size)])
    found["head_us_per_token"] = head["median_s"] / len(rows) * 1e6
    place.wait()
    start = time.perf_counter()
    waiting = [
        queue_part(setup.checkpoint, part, first_row, PassOptions(sample_every=16)) for part, first_row in setup.parts
    ]
    found["queueing_us_per_token"] = (time.perf_counter() - start) / setup.tokens * 1e6
    place.wait()
    start = time.perf_counter()
    for finish in waiting:
        finish()
    found["reading_us_per_token"] = (time.perf_counter() - start) / setup.tokens * 1e6


def measure_waiting(setup: Setup, place: Place, found: dict[str, Any]) -> None:
    """Count where the CPU waits for the GPU while a part is queued; there should be no such place."""
    if not place.on_gpu:
        found["skipped"] = "no GPU"
        return
    rows, first_row = setup.parts[0]
    queue_part(setup.checkpoint, rows, first_row, PassOptions())()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            finish = queue_part(setup.checkpoint, rows, first_row, PassOptions())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    finish()
    found["places"] = Counter(f"{Path(each.filename).name}:{each.lineno}" for each in told)


def measure_memory(setup: Setup, place: Place, found: dict[str, Any]) -> None:
    """Tell the peak of the GPU's memory above what is held before, in bytes."""
    if not place.on_gpu:
        found["skipped"] = "no GPU"
        return
    for name, work in (("bare", setup.bare), ("score", setup.score)):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(place.device)
        before = torch.cuda.memory_allocated(place.device)
        work()
        place.wait()
        found[f"{name}_bytes"] = torch.cuda.max_memory_allocated(place.device) - before


def measure_repeats(setup: Setup, place: Place, found: dict[str, Any]) -> None:
    """Tell whether two passes give the same bits."""
    pairs = list(zip(setup.score(), setup.score(), strict=True))
    found["histogram"] = all(np.array_equal(one.histogram, other.histogram) for one, other in pairs)
    found["ladder"] = all(np.array_equal(one.ladder, other.ladder) for one, other in pairs)
    names = list(pairs[0][0].columns)
    found["columns"] = all(
        np.array_equal(one.columns[key], other.columns[key]) for one, other in pairs for key in names
    )
    found["mean_loss_nats"] = float(np.mean([one.columns["loss_nats"][1:].mean() for one, _ in pairs]))


@torch.inference_mode()
def measure_agreement(model: Any, place: Place, found: dict[str, Any]) -> None:
    """Compare losses with those of the same weights in float32 on the CPU, by plain torch, for two short windows."""
    length = 48 if place.tiny else 128
    reference = copy.deepcopy(model).cpu().float()
    documents = [random_text(model, length, seed) for seed in range(2)]
    ids = torch.from_numpy(np.stack([each.ids for each in documents])).long()
    logits = reference(ids, use_cache=False).logits[:, :-1].double()
    expected = torch.logsumexp(logits, -1) - logits.gather(-1, ids[:, 1:, None])[..., 0]
    (part,) = cut_parts(plan_documents(documents, WindowPolicy(length, length, None)))
    scores = queue_part(open_model("agreement", place, model), part, 0, PassOptions())()
    difference = scores.columns["loss_nats"].reshape(2, length)[:, 1:] - expected.numpy()
    found |= {"tokens": difference.size, "mean_loss_nats": float(expected.mean())}
    found["mean_difference_nats"] = float(difference.mean())
    found["mean_absolute_nats"] = float(np.abs(difference).mean())
    found["largest_nats"] = float(np.abs(difference).max())
    # bfloat16 has 8 bits: it rounds logits of size 3 to 12 by up to 0.03, and hidden states add as much.
    found["within_rounding"] = bool(np.abs(difference).max() < 0.5 and np.abs(difference).mean() < 0.05)


def measure_whole(place: Place, scratch: Path, found: dict[str, Any]) -> None:
    """Time `score` with tokenizing, planning and writing, on the shape of GPT-2."""
    from shapes import TINY, Shape, make_checkpoint, make_text

    from lossprobe.checkpoint.detect import open_checkpoint
    from lossprobe.checkpoint.options import LoadOptions
    from lossprobe.passes.score import score
    from lossprobe.text.documents import open_text

    shape = TINY if place.tiny else Shape("gpt2", SHAPES["gpt2"][0], 16)
    folder = make_checkpoint(scratch / "checkpoint", shape)
    text = make_text(scratch / "text.txt", folder, 2_000 if place.tiny else 600_000)
    checkpoint = open_checkpoint(folder, LoadOptions(dtype="bfloat16", device=place.device))
    for number in range(3):
        start = time.perf_counter()
        run = score(checkpoint, open_text(text), output=scratch / f"run-{number}").run
        took = time.perf_counter() - start
        found[f"pass_{number}"] = {"s": round(took, 2), "tokens_per_s": round(int(run.counts["tokens"]) / took)}
