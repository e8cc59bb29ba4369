"""Writes GGUF files byte by byte, from the description of the format and not with a library."""

import json
import math
import struct

import numpy as np

KINDS = {"u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?"), "u64": (10, "<Q")}
TYPES = {"F32": 0, "F16": 1, "Q8_0": 8}


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def value_bytes(value):
    """Return type and content of a value: a text, a number, a truth value, (kind, value) or a list of these."""
    if isinstance(value, str | bytes):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        parts = [value_bytes(each) for each in value]
        return struct.pack("<I", 9) + parts[0][:4] + struct.pack("<Q", len(parts)) + b"".join(p[4:] for p in parts)
    names = {bool: "bool", int: "u32", float: "f32"}
    kind, plain = value if isinstance(value, tuple) else (names[type(value)], value)
    number, form = KINDS[kind]
    return struct.pack("<I", number) + struct.pack(form, plain)


def q8_0(values):
    """Return Q8_0 blocks of 32 values: a float16 scale, and 32 int8 that it multiplies."""
    rows = values.astype(np.float32).reshape(-1, 32)
    scale = np.abs(rows).max(1, keepdims=True) / 127
    whole = np.round(rows / np.where(scale == 0, 1, scale)).astype(np.int8)
    return np.concatenate([scale.astype("<f2").view(np.uint8), whole.view(np.uint8)], 1).tobytes()


def tensor_bytes(values, kind):
    if kind == "Q8_0":
        return q8_0(values)
    return values.astype("<f2" if kind == "F16" else "<f4").tobytes()


def kind_of(values, kind):
    """Return the type of a tensor in a file of a type: norms stay F32, rows that hold no whole blocks F16."""
    if values.ndim == 1:
        return "F32"
    return "F16" if kind == "Q8_0" and values.shape[-1] % 32 else kind


def gguf_bytes(keys, tensors, kind="F32", alignment=32):
    """Return a file; `tensors` maps names to arrays as torch has them."""
    infos, data = b"", b""
    for name, values in tensors.items():
        own = kind_of(values, kind)
        infos += text(name) + struct.pack("<I", values.ndim) + struct.pack(f"<{values.ndim}Q", *values.shape[::-1])
        infos += struct.pack("<IQ", TYPES[own], len(data))
        data += tensor_bytes(values, own)
        data += b"\0" * (-len(data) % alignment)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    start += b"".join(text(key) + value_bytes(value) for key, value in keys.items()) + infos
    return start + b"\0" * (-len(start) % alignment) + data


PAIRS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}  # fmt: skip
ENDS = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight"}  # fmt: skip


def llama_tensors(state, heads, shared_heads):
    """Return GGUF's tensors of transformers' Llama: rows of queries and keys in pairs of neighbours."""
    found = {}
    for name, values in state.items():
        if name in ENDS:
            found[ENDS[name]] = values
            continue
        _, _, layer, rest = name.split(".", 3)
        stem, last = rest.rsplit(".", 1)
        if stem.endswith(("q_proj", "k_proj")):
            count = heads if stem.endswith("q_proj") else shared_heads
            halves = values.reshape(count, 2, -1, *values.shape[1:])
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
        found[f"blk.{layer}.{PAIRS[stem]}.{last}"] = values
    return found


def llama_keys(config, **more):
    """Return the keys of architecture llama for a config.json."""
    heads = config["num_attention_heads"]
    return {
        "general.architecture": "llama",
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.dimension_count": config["hidden_size"] // heads,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": config["vocab_size"],
        **more,
    }


def sentencepiece_keys(pieces, scores, **more):
    """Return the tokenizer keys of a sentencepiece vocabulary that starts with <unk>, <s>, </s> and 256 bytes."""
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(pieces) - 259)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(pieces),
        "tokenizer.ggml.scores": [float(score) for score in scores],
        "tokenizer.ggml.token_type": [("i32", kind) for kind in kinds],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **more,
    }


def small_llama(width=32, feed=64, layers=2, heads=4, shared=2, vocab=271, seed=0):
    """Return the config.json and the weights of a small random Llama whose embedding is its head."""
    random = np.random.default_rng(seed)
    size = width // heads
    config = {"max_position_embeddings": 64, "hidden_size": width, "num_hidden_layers": layers,
              "intermediate_size": feed, "num_attention_heads": heads, "num_key_value_heads": shared,
              "rms_norm_eps": 1e-5, "vocab_size": vocab, "model_type": "llama",
              "tie_word_embeddings": True}  # fmt: skip
    shapes = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    for layer in range(layers):
        start = f"model.layers.{layer}."
        rows = {"q": width, "k": shared * size, "v": shared * size, "o": width}
        shapes |= {f"{start}self_attn.{name}_proj.weight": (count, width) for name, count in rows.items()}
        shapes |= {f"{start}mlp.{name}_proj.weight": (feed, width) for name in ("gate", "up")}
        shapes |= {f"{start}mlp.down_proj.weight": (width, feed)}
        shapes |= {f"{start}{name}.weight": (width,) for name in ("input_layernorm", "post_attention_layernorm")}
    state = {}
    for name, shape in shapes.items():
        values = random.normal(0, 1 / math.sqrt(shape[-1]), shape)
        state[name] = (1 + 0.1 * values if len(shape) == 1 else values).astype(np.float32)
    return config, state


def small_vocabulary(**more):
    """Return tokenizer keys of 271 tokens."""
    words = ["\u2581", "a", "b", "ab", "\u2581a", "\u2581ab", "é", "aa", "aab", "c", "\u2581\u2581", "ba"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *words]
    return sentencepiece_keys(pieces, [0.0] * 259 + [-float(number) for number in range(len(words))], **more)


WIDTH, FEED, LAYERS, HEADS, SHARED, HEAD, VOCAB = 64, 96, 7, 4, 2, 16, 271
# Tensors of a layer by architecture: name → shape.
ATTENTION = {"attn_q": (HEADS * HEAD, WIDTH), "attn_k": (SHARED * HEAD, WIDTH), "attn_v": (SHARED * HEAD, WIDTH),
             "attn_output": (WIDTH, HEADS * HEAD)}  # fmt: skip
GATED = {"ffn_gate": (FEED, WIDTH), "ffn_up": (FEED, WIDTH), "ffn_down": (WIDTH, FEED)}
NORMS = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
AFTER = {"post_attention_norm": (WIDTH,), "post_ffw_norm": (WIDTH,)}
EACH_HEAD = {"attn_q_norm": (HEAD,), "attn_k_norm": (HEAD,)}
PARTS = {
    "llama": ATTENTION | GATED | NORMS,
    "qwen2": ATTENTION | GATED | NORMS,
    "qwen3": ATTENTION | GATED | NORMS | EACH_HEAD,
    "gemma2": ATTENTION | GATED | NORMS | AFTER,
    "gemma3": ATTENTION | GATED | NORMS | AFTER | EACH_HEAD,
    "gpt2": {"attn_qkv": (3 * WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH), "ffn_up": (FEED, WIDTH),
             "ffn_down": (WIDTH, FEED), **NORMS},
    "phi3": {"attn_qkv": ((HEADS + 2 * SHARED) * HEAD, WIDTH), "attn_output": (WIDTH, HEADS * HEAD),
             "ffn_up": (2 * FEED, WIDTH), "ffn_down": (WIDTH, FEED), **NORMS},
}  # fmt: skip
BIASED = {"qwen2": ("attn_q", "attn_k", "attn_v"), "gpt2": tuple(PARTS["gpt2"])}


def random_gguf(name, kind="F32", biased=(), tied=True, drop=(), extra=None, vocabulary=None, **keys):
    """Return a small random GGUF file of an architecture; `keys` are its own, without its name and "_" for "."."""
    random = np.random.default_rng(0)

    def drawn(shape):
        values = random.normal(0, 1.5 / math.sqrt(shape[-1]), shape)
        return (1 + 0.5 * values if len(shape) == 1 else values).astype(np.float32)

    tensors = {"token_embd.weight": drawn((VOCAB, WIDTH)), "output_norm.weight": drawn((WIDTH,))}
    if name == "gpt2":
        tensors |= {"position_embd.weight": drawn((64, WIDTH)), "output_norm.bias": drawn((WIDTH,)) - 1}
    if not tied:
        tensors["output.weight"] = drawn((VOCAB, WIDTH))
    for layer in range(LAYERS):
        for part, shape in PARTS[name].items():
            tensors[f"blk.{layer}.{part}.weight"] = drawn(shape)
            if part in (*BIASED.get(name, ()), *biased):
                tensors[f"blk.{layer}.{part}.bias"] = drawn(shape[:1]) - 1
    tensors |= extra or {}
    own = {"context_length": 64, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": FEED,
           "attention.head_count": HEADS}  # fmt: skip
    if name == "gpt2":
        own["attention.layer_norm_epsilon"] = 1e-5
    else:
        own |= {"attention.head_count_kv": SHARED, "attention.key_length": HEAD, "attention.value_length": HEAD,
                "rope.dimension_count": HEAD, "rope.freq_base": 1000.0,
                "attention.layer_norm_rms_epsilon": 1e-5}  # fmt: skip
    if name.startswith("gemma"):
        own["attention.sliding_window"] = 8
    own |= keys
    header = {"general.architecture": name, **{f"{name}.{key}": value for key, value in own.items()}}
    kept = {key: values for key, values in tensors.items() if key not in drop}
    return gguf_bytes(header | (vocabulary or small_vocabulary()), kept, kind)


def gpt2_gguf(folder, kind):
    """Return the GGUF file of a Hugging Face folder with GPT-2's model and tokenizer, as the converter writes it."""
    from safetensors.torch import load_file

    config, words = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("config", "tokenizer"))
    renamed = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
    parts = {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
             "ln_1": "attn_norm", "ln_2": "ffn_norm"}  # fmt: skip
    tensors = {}
    for name, values in load_file(folder / "model.safetensors").items():
        stem, last = name.removeprefix("transformer.").rsplit(".", 1)
        values = values.float().numpy()
        if stem in renamed:
            tensors[f"{renamed[stem]}.{last}"] = values
        elif stem.startswith("h."):
            _, layer, part = stem.split(".", 2)
            turned = np.ascontiguousarray(values.T) if ".c_" in stem and last == "weight" else values
            tensors[f"blk.{layer}.{parts[part]}.{last}"] = turned
    ids = words["model"]["vocab"] | {entry["content"]: entry["id"] for entry in words["added_tokens"]}
    added = {entry["id"] for entry in words["added_tokens"]}
    keys = {
        "general.architecture": "gpt2", "gpt2.context_length": config["n_positions"],
        "gpt2.embedding_length": config["n_embd"], "gpt2.block_count": config["n_layer"],
        "gpt2.feed_forward_length": 4 * config["n_embd"], "gpt2.attention.head_count": config["n_head"],
        "gpt2.attention.layer_norm_epsilon": config["layer_norm_epsilon"], "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": sorted(ids, key=ids.__getitem__),
        "tokenizer.ggml.token_type": [("i32", 3 if index in added else 1) for index in range(len(ids))],
        "tokenizer.ggml.merges": [" ".join(each) for each in words["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.add_bos_token": True,
    }  # fmt: skip
    return gguf_bytes(keys, tensors, kind)
