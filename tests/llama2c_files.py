"""Writes llama2.c's .bin and tokenizer.bin files as its export.py and tokenizer.py do, from named weights."""

import struct

import numpy as np

MATRICES = ("attention.wq", "attention.wk", "attention.wv", "attention.wo")
FEED = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
MAGIC = 0x616B3432


def quantized(values, group):
    rows = values.astype(np.float32).reshape(-1, group)
    scale = np.abs(rows).max(1, keepdims=True) / 127
    return np.round(rows / np.where(scale == 0, 1, scale)).astype(np.int8), scale.astype(np.float32)


def model_bytes(state, sizes, version=1, shared=True, group=0):
    """Return a file; `state` has llama2.c's names, `sizes` the seven numbers of the header."""
    dim, _, layers, heads, _, vocab, longest = sizes

    def layered(name):
        return [state[f"layers.{i}.{name}.weight"] for i in range(layers)]

    def floats(arrays):
        return b"".join(np.asarray(array, "<f4").tobytes() for array in arrays)

    def matrices(arrays):
        if version < 2:
            return floats(arrays)
        return b"".join(part.tobytes() for array in arrays for part in quantized(array, group))

    head = [] if shared else [state["output.weight"]]
    if version == 0:
        start = struct.pack("<7i", *sizes[:5], vocab if shared else -vocab, longest)
        body = floats([state["tok_embeddings.weight"], *layered("attention_norm")])
        body += floats([each for name in MATRICES for each in layered(name)]) + floats(layered("ffn_norm"))
        body += floats([each for name in FEED for each in layered(name)] + [state["norm.weight"]])
        body += floats([np.ones((2, longest, dim // heads // 2))]) + floats(head)
        return start + body
    start = struct.pack("<I8iB", MAGIC, version, *sizes, shared) + (struct.pack("<i", group) if version == 2 else b"")
    norms = floats([*layered("attention_norm"), *layered("ffn_norm"), state["norm.weight"]])
    rest = [each for name in (*MATRICES, *FEED) for each in layered(name)]
    return start.ljust(256, b"\0") + norms + matrices([state["tok_embeddings.weight"], *rest, *head])


def tokenizer_bytes(pieces, scores):
    """Return a tokenizer.bin of these tokens."""
    entries = [struct.pack("<fI", score, len(piece)) + piece for piece, score in zip(pieces, scores, strict=True)]
    return struct.pack("<I", max(map(len, pieces))) + b"".join(entries)


def plain_pieces(words):
    """Return the tokens that every llama2.c tokenizer starts with, and words with falling scores."""
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % value for value in range(256))]
    return [*pieces, *words], [0.0] * len(pieces) + [-float(number) for number in range(len(words))]
