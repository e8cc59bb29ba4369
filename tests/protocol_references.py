"""Reference implementations of the protocols: plain loops over lists of ids that share no code with lossprobe.

Each window is a forward pass of its own in the model's precision; log softmax is computed in float64.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from dataclasses import dataclass, field, replace

import torch


@dataclass
class Said:
    """The numbers that a tool gives for a text.

    Attributes:
        read: number of tokens in the text, with those put before documents.
        tokens: loss in nats and number of context tokens of each scored token.
        unscored: reason → number of tokens that are not scored.
        rows: name of a number → its value, and the number of units over which it is computed.
    """

    read: int = 0
    tokens: list[tuple[float, int]] = field(default_factory=list)
    unscored: Counter = field(default_factory=Counter)
    rows: dict[str, tuple[float | None, int]] = field(default_factory=dict)

    @property
    def nats(self) -> float:
        return math.fsum(nats for nats, _ in self.tokens)

    @property
    def mean(self) -> float:
        return self.nats / len(self.tokens)


@dataclass(frozen=True)
class Peer:
    """A model and its tokenizer.

    Attributes:
        model: function from int64 ids [1, T] to logits [1, T, V].
        encode: function from a text to its ids without special tokens.
        bos, eos: ids, or None.
        adds_bos: whether the tokenizer puts a BOS before a text.
        bytes_of: function from a text to the number of bytes of each token; None means one byte each.
    """

    model: object
    encode: object
    bos: int | None = None
    eos: int | None = None
    adds_bos: bool = False
    bytes_of: object = None

    def next_logs(self, ids: list[int]) -> torch.Tensor:
        """Return the log-probabilities [T, V] at the places of ids[1:], from one forward pass over ids[:-1]."""
        if len(ids) < 2:
            return torch.zeros(0, 1)
        with torch.no_grad():
            return torch.log_softmax(self.model(torch.tensor([ids[:-1]]))[0].double(), -1)

    def next_losses(self, ids: list[int]) -> list[float]:
        """Return the losses −log p of ids[1:]."""
        logs = self.next_logs(ids)
        return (-logs[torch.arange(len(logs)), torch.tensor(ids[1 : len(logs) + 1], dtype=torch.int64)]).tolist()

    def stream(self, texts: list[str]) -> list[int]:
        ids = list(self.encode("\n\n".join(texts)))
        return [self.bos, *ids] if self.adds_bos else ids

    def first(self) -> str:
        """Return the reason why the first token of a stream is not scored."""
        return "special" if self.adds_bos else "first_token"


def rolling(peer: Peer, prefix: int, stream: list[int], length: int) -> list[tuple[float, int]]:
    """Return loss and context of every token of a stream after a prefix.

    Windows have `length` inputs; the first starts with the prefix, and the last is moved back so that it is full.
    """
    found, done = [], 0
    while done < len(stream):
        count = min(length, len(stream) - done)
        end = done + count
        inputs = [prefix, *stream[: end - 1]] if done == 0 else stream[end - length - 1 : end - 1]
        losses = peer.next_losses([*inputs, stream[end - 1]])[-count:]
        found += zip(losses, range(len(inputs) - count + 1, len(inputs) + 1), strict=True)
        done = end
    return found


def lm_eval(peer: Peer, texts: list[str], length: int, stride: int | None = None) -> Said:
    prefix = peer.eos if peer.bos is None else peer.bos
    said = Said(unscored=Counter(special=len(texts)))
    for text in texts:
        ids = list(peer.encode(text))
        if peer.adds_bos and ids[:1] != [peer.bos]:
            ids = [peer.bos, *ids]
        said.read += 1 + len(ids)
        said.tokens += rolling(peer, prefix, ids, length)
    words = sum(len(re.split(r"\s+", text)) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    said.rows = {
        "word_perplexity": (math.exp(said.nats / words), words),
        "byte_perplexity": (math.exp(said.nats / size), size),
        "bits_per_byte": (said.nats / size / math.log(2), size),
        "loglikelihood": (-said.nats, len(texts)),
    }
    return said


def paloma(peer: Peer, texts: list[str], length: int, stride: int | None = None) -> Said:
    said = Said(unscored=Counter(special=len(texts)))
    for text in texts:
        ids = list(peer.encode(text))
        said.read += 1 + len(ids)
        said.tokens += rolling(peer, peer.eos, ids, length)
    size, characters = sum(len(text.encode()) for text in texts), sum(map(len, texts))
    said.rows = {
        "token_perplexity": (math.exp(said.mean), len(said.tokens)),
        "character_perplexity": (math.exp(said.nats / characters), characters),
        "byte_perplexity": (math.exp(said.nats / size), size),
        "bits_per_byte": (said.nats / size / math.log(2), size),
    }
    return said


def documented_loop(peer: Peer, texts: list[str], length: int, stride: int | None = None) -> Said:
    ids, stride = peer.stream(texts), stride or min(512, length)
    said = Said(read=len(ids), unscored=Counter({peer.first(): 1}))
    total = weight = 0.0
    before = 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        new = end - before  # labels of this window; the first token of a window is never predicted
        losses = list(zip(peer.next_losses(ids[begin:end]), range(1, length), strict=False))
        labels = losses[len(losses) - min(new, len(losses)) :]
        if begin and new > len(losses):
            said.unscored["window_start"] += 1
        mean = math.fsum(nats for nats, _ in labels) / len(labels) if labels else math.nan
        total, weight = total + mean * (new - 1), weight + new - 1
        said.tokens += labels
        before = end
        if end == len(ids):
            break
    value = math.exp(total / weight)
    said.rows = {"perplexity": (None if math.isnan(value) else value, int(weight))}
    said.rows["perplexity_corrected"] = (math.exp(said.mean), len(said.tokens))
    return said


def corrected_loop(peer: Peer, texts: list[str], length: int, stride: int | None = None) -> Said:
    said = documented_loop(peer, texts, length, stride)
    said.rows = {"perplexity": said.rows["perplexity_corrected"], "nll": (said.mean, len(said.tokens))}
    return said


def evaluate(peer: Peer, texts: list[str], length: int | None, stride: int | None = None) -> Said:
    """Score each document in one window, cut at `length` unless it is None; a peer without BOS gets none."""
    said, values = Said(), []
    for text in texts:
        start = [] if peer.bos is None else [peer.bos]
        ids = [*start, *peer.encode(text)]
        said.read += len(ids)
        kept = ids[:length]
        said.unscored["truncated"] += len(ids) - len(kept)
        said.unscored["special" if start else "first_token"] += min(1, len(ids))
        losses = peer.next_losses(kept)
        said.tokens += zip(losses, range(1, len(kept)), strict=False)
        values += [math.exp(math.fsum(losses) / len(losses))] if losses else []
    said.rows = {
        "mean_perplexity": (statistics.fmean(values), len(values)),
        "token_perplexity": (math.exp(said.mean), len(said.tokens)),
    }
    return said


def llama_cpp(peer: Peer, texts: list[str], length: int, stride: int | None = None) -> Said:
    text = "\n\n".join(texts)
    ids = peer.stream([text[:-1] if text[-1:] == "\n" else text])  # llama.cpp drops the last line end of a file
    chunks, half = len(ids) // length, length // 2
    said = Said(read=len(ids), unscored=Counter({peer.first(): 1, "tail": len(ids) - chunks * length}))
    said.unscored["replaced" if peer.adds_bos else "window_start"] = chunks - 1
    said.unscored["context_only"] = chunks * half
    for number in range(chunks):
        chunk = ids[number * length : (number + 1) * length]
        if peer.adds_bos:
            chunk[0] = peer.bos
        said.tokens += list(zip(peer.next_losses(chunk), range(1, length), strict=True))[half:]
    losses = [nats for nats, _ in said.tokens]
    value = math.exp(said.mean)
    said.rows = {
        "perplexity": (value, len(losses)),
        "perplexity_error": (value * math.sqrt(statistics.pvariance(losses) / (len(losses) - 1)), len(losses)),
        "nll": (said.mean, len(losses)),
    }
    return said


def levanter(peer: Peer, texts: list[str], length: int, stride: int | None = None) -> Said:
    """Score chunks of `length` tokens that share one token, with a BOS only if the tokenizer adds none.

    Tokens without bytes are not scored.
    """
    said, size = Said(), sum(len(text.encode()) for text in texts)
    for text in texts:
        start = [] if peer.adds_bos or peer.bos is None else [peer.bos]
        ids = [*start, *peer.encode(text)]
        widths = [0] * len(start) + (list(peer.bytes_of(text)) if peer.bytes_of else [1] * (len(ids) - len(start)))
        said.read += len(ids)
        said.unscored["special" if start else "first_token"] += min(1, len(ids))
        for begin in range(0, len(ids), length - 1):
            chunk = ids[begin : begin + length]
            for context, nats in enumerate(peer.next_losses(chunk), start=1):
                if widths[begin + context]:
                    said.tokens.append((nats, context))
                else:
                    said.unscored["no_bytes"] += 1
    said.rows = {"bits_per_byte": (said.nats / size / math.log(2), size)}
    return said


def full_blocks(peer: Peer, texts: list[str], length: int, stride: int | None = None) -> Said:
    """Score full blocks of `length` inputs without special tokens, as FundamentaLLM and nanoGPT do."""
    ids = list(peer.encode("\n\n".join(texts)))
    said = Said(read=len(ids), unscored=Counter(first_token=1))
    begin = 0
    while begin + length + 1 <= len(ids):
        losses = peer.next_losses(ids[begin : begin + length + 1])
        said.tokens += zip(losses, range(1, length + 1), strict=True)
        begin += length
    said.unscored["tail"] = len(ids) - 1 - begin
    said.rows = {
        "val_loss": (said.mean, len(said.tokens)),
        "perplexity": (math.exp(said.mean), len(said.tokens)),
    }
    return said


def quantisation(peer: Peer, texts: list[str], length: int, stride: int | None = None) -> Said:
    """Score full blocks of `length` tokens, of which the first is not predicted; the mean of their means."""
    ids = peer.stream(texts)
    blocks = [ids[begin : begin + length] for begin in range(0, len(ids), length)]
    full = [block for block in blocks if len(block) == length]
    said = Said(read=len(ids), unscored=Counter({peer.first(): 1, "window_start": len(blocks) - 1}))
    said.unscored["block_tail"] = len(ids) - len(full) * length - (len(blocks) - len(full))
    means = []
    for block in full:
        losses = peer.next_losses(block)
        said.tokens += zip(losses, range(1, length), strict=True)
        means.append(math.fsum(losses) / len(losses))
    mean = math.fsum(means) / len(means)
    said.rows = {"perplexity": (math.exp(mean), len(said.tokens)), "nll": (mean, len(said.tokens))}
    return said


def mean_of_rows(peer: Peer, texts: list[str], length: int | None, stride: int | None = None) -> Said:
    """Score each document in one window, with a BOS only if the tokenizer adds one, as LLaMA-Factory's script does."""
    return evaluate(replace(peer, bos=peer.bos if peer.adds_bos else None), texts, length)


def trainer(
    peer: Peer, texts: list[str], length: int | None, stride: int | None = None, *, end: str | None = None
) -> Said:
    """Score rows as a trainer does: one window each, cut at `length`, and the mean of batches weighted by rows.

    Args:
        peer: the model.
        texts: the rows.
        length: most tokens of a row; None for all.
        stride: not used.
        end: what TRL puts after each row, which logs two more numbers; None for transformers' Trainer.
    """
    size = 8
    said, batches, further = Said(), [], []
    start = [peer.bos] if peer.adds_bos else []
    for begin in range(0, len(texts), size):
        losses, entropies, correct = [], [], []
        rows = texts[begin : begin + size]
        for text in rows:
            ids = [*start, *peer.encode(text if end and text.endswith(end) else text + (end or ""))]
            said.read += len(ids)
            kept = ids[:length]
            said.unscored["truncated"] += len(ids) - len(kept)
            said.unscored["special" if start else "first_token"] += min(1, len(ids))
            logs = peer.next_logs(kept)
            targets = torch.tensor(kept[1:], dtype=torch.int64)
            nats = (-logs[torch.arange(len(targets)), targets]).tolist()
            said.tokens += zip(nats, range(1, len(kept)), strict=False)
            losses += nats
            entropies += (-(logs.exp() * logs).sum(-1)).tolist()
            correct += (logs.argmax(-1) == targets).tolist()
        batches += [math.fsum(losses) / len(losses)] * len(rows)
        further.append((math.fsum(entropies) / len(losses), sum(correct) / len(losses)))
    loss = math.fsum(batches) / len(batches)
    said.rows = {"eval_loss": (loss, len(texts)), "perplexity": (math.exp(loss), len(texts))}
    if end is not None:
        for name, values in zip(("eval_entropy", "eval_mean_token_accuracy"), zip(*further, strict=True), strict=True):
            said.rows[name] = (statistics.fmean(values), len(further))
    said.rows["nll"] = (said.mean, len(said.tokens))
    return said


def trl(peer: Peer, texts: list[str], length: int | None, stride: int | None = None) -> Said:
    """Score rows with the EOS, here a byte, at their ends."""
    return trainer(peer, texts, length, end="" if peer.eos is None else chr(peer.eos))


SAYING = {
    "gptq": quantisation,
    "llama-factory": mean_of_rows,
    "trainer": trainer,
    "trl": trl,
    "lm-eval": lm_eval,
    "paloma": paloma,
    "transformers": documented_loop,
    "transformers-corrected": corrected_loop,
    "evaluate": evaluate,
    "llama.cpp": llama_cpp,
    "levanter": levanter,
    "fundamentallm": full_blocks,
    "nanogpt": full_blocks,
}
