"""Quantised folders load as the model that they stand for, and every contradiction in them is refused by name."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from checkpoint import builders
from checkpoint import quantized_files as files

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.files.weight_files import find_weights
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.quantized.methods import method_of
from lossprobe.checkpoint.quantized.weights import find_quantized

UP = "model.layers.1.mlp.up_proj"
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [24, 20]}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
BNB = {"quant_method": "bitsandbytes", "load_in_8bit": True}
DYNAMIC = {"type": "int", "num_bits": 8, "strategy": "token", "dynamic": True}


def compressed_tensors(form, weights, inputs=None):
    group = {"targets": ["Linear"], "weights": {"symmetric": True} | weights, "input_activations": inputs}
    config = {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"]}
    return config | {"config_groups": {"group_0": group}}


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 16}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
GPTQ3 = {"bits": 3, "group_size": -1, "sym": False, "desc_act": True, "checkpoint_format": "gptq_v2"}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
ONLY = "; weights only: the deployed kernel rounds activations to {} as well"
NOT_HERE = ", which no loss here includes"
# What quantises a weight, the quantization_config, and what is said of it: stored dtype, words.
FORMATS = {
    "gptq": (
        lambda each: files.gptq(each, 4, 16), GPTQ,
        "int4 (GPTQ)", "GPTQ version 1, int4 in groups of 16, symmetric",
    ),
    "gptq 3": (
        lambda each: files.gptq(each, 3, -1, False, True, 2), GPTQ | GPTQ3,
        "int3 (GPTQ)", "GPTQ version 2, int3 in one group a row, asymmetric, groups by activation",
    ),
    "awq": (
        lambda each: files.awq(each, 16), AWQ,
        "int4 (AWQ)", "AWQ, int4 in groups of 16, asymmetric",
    ),
    "packed": (
        lambda each: files.pack_quantized(each, 4, 16), compressed_tensors("pack-quantized", INT4),
        "int4 (compressed-tensors)", "compressed-tensors, int4 in groups of 16, symmetric",
    ),
    "w8a8": (
        lambda each: files.scaled(each, (1, 0), torch.int8), compressed_tensors("int-quantized", INT8, DYNAMIC),
        "int8 (compressed-tensors, weights only)",
        "compressed-tensors, int8 with a scale for each output, symmetric" + ONLY.format("int8"),
    ),
    "nvfp4": (
        lambda each: files.fp4(each, "nvfp4"), compressed_tensors("nvfp4-pack-quantized", NVFP4),
        "NVFP4 (compressed-tensors)", "compressed-tensors, NVFP4 in groups of 16",
    ),
    "fp8": (
        lambda each: files.scaled(each, (24, 20), end=".weight_scale_inv"), FP8,
        "FP8 (fine-grained, weights only)",
        "FP8 (E4M3) with a scale for 24 x 20 weights" + ONLY.format("FP8 (dynamic)"),
    ),
    "modelopt": (
        lambda each: files.fp4(each, "modelopt"), MODELOPT,
        "NVFP4 (ModelOpt, weights only)", "ModelOpt NVFP4: FP4 (E2M1) in groups of 16" + ONLY.format("FP4"),
    ),
    "nf4": (
        lambda each: files.four_bit(tuple(each.shape), "nf4", nested=True), NF4 | {"bnb_4bit_use_double_quant": True},
        "NF4 (bitsandbytes)", "bitsandbytes NF4 in blocks, scales quantised too",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A small Llama that is not quantised."""
    model = builders.model("llama", intermediate_size=64).bfloat16()
    return builders.save(model, tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture
def quantised(plain, tmp_path):
    """Return what writes the model in a format: the folder, and one with the same weights plain."""

    def write(name, head=False, **settings):
        convert, config = FORMATS[name][:2]
        tensors = safetensors.torch.load_file(plain / builders.WEIGHTS)
        stored, meant = {}, {}
        for full, tensor in tensors.items():
            module = full.removesuffix(".weight")
            if "proj" in module or (head and module == "lm_head"):
                parts, value = convert(tensor.float())
                stored |= {module + end: part.contiguous() for end, part in parts.items()}
                meant[full] = torch.from_numpy(value).float()
            else:
                stored[full] = meant[full] = tensor
        folders = []
        for kind, content in (("quantised", stored), ("meant", meant)):
            folder = tmp_path / kind
            folder.mkdir(exist_ok=True)
            for file in ("config.json", "tokenizer.json"):
                (folder / file).write_bytes((plain / file).read_bytes())
            safetensors.torch.save_file(content, folder / builders.WEIGHTS)
            folders.append(folder)
        builders.reconfigure(folders[0], quantization_config=config | settings)
        return folders

    return write


def logits(checkpoint):
    ids = torch.arange(50)[None] % 300
    with torch.no_grad():
        return checkpoint.logits(checkpoint.hidden(ids).flatten(0, 1))


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_is_read_as_the_weights_that_it_stands_for(quantised, name):
    folder, meant = quantised(name)
    method, said_by = method_of(folder, json.loads((folder / "config.json").read_text()))
    weights = find_quantized(folder, find_weights(folder), method, said_by)
    tensors, wanted = weights.read(torch.float32), safetensors.torch.load_file(meant / builders.WEIGHTS)
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(each, wanted[name]) for name, each in tensors.items())
    half = weights.read(torch.bfloat16)[f"{UP}.weight"]
    assert torch.equal(half, wanted[f"{UP}.weight"].bfloat16())
    assert (weights.dtype, weights.quantization) == FORMATS[name][2:]


@pytest.mark.parametrize("name", ["gptq", "w8a8"])
def test_a_folder_gives_the_logits_of_these_weights(quantised, name):
    folder, meant = quantised(name)
    one, other = (load_huggingface(each, LoadOptions()) for each in (folder, meant))
    assert torch.equal(logits(one), logits(other))
    assert (one.facts.stored_dtype, one.facts.quantization) == FORMATS[name][2:]
    assert one.facts.notices == ((ONLY.format("int8")[2:] + NOT_HERE,) if name == "w8a8" else ())
    assert (other.facts.quantization, one.facts.parameters) == (None, other.facts.parameters)
    assert one.facts.sha256 != other.facts.sha256


def divergence(folder, plain):
    """Return the mean KL(plain‖quantised) of the next token, in nats, in float64."""
    one, other = (logits(load_huggingface(each, LoadOptions())).double().log_softmax(-1) for each in (plain, folder))
    return ((one - other) * one.exp()).sum(-1).mean().item()


def test_a_wrong_convention_shows_in_the_divergence(quantised, plain):
    """Zero points of version 1 read as those of version 2, and codes of AWQ in the plain order: both look sound."""
    right = divergence(quantised("gptq", sym=False)[0], plain)
    assert divergence(quantised("gptq", sym=False, checkpoint_format="gptq_v2")[0], plain) > 5 * right
    folder, _ = quantised("awq")
    right = divergence(folder, plain)

    def reordered(tensors):
        for name in [name for name in tensors if name.endswith(".qweight")]:
            codes = torch.stack([tensors[name] >> 4 * place & 15 for place in (0, 4, 1, 5, 2, 6, 3, 7)], -1)
            tensors[name] = files.rows_packed(codes.flatten(1).numpy(), 4)
        return tensors

    builders.rewrite(folder, reordered)
    assert divergence(folder, plain) > 5 * right


def test_the_dtype_of_the_pass_is_that_of_the_plain_weights_if_asked(quantised):
    folder, _ = quantised("gptq")
    facts = load_huggingface(folder, LoadOptions(dtype="auto")).facts
    assert (facts.stored_dtype, facts.compute_dtype) == ("int4 (GPTQ)", "bfloat16")


def refusal(folder, change=None, id="checkpoint.quantized_tensor"):
    if change is not None:
        builders.rewrite(folder, change)
    return builders.refused(folder, id)


def without(*names):
    return lambda tensors: {name: each for name, each in tensors.items() if name not in names}


def plus(name, tensor):
    return lambda tensors: tensors | {name: tensor}


def changed(name, change):
    return lambda tensors: tensors | {name: change(tensors[name])}


def one_plain_layer(tensors):
    kept = {name: each for name, each in tensors.items() if not name.startswith(UP)}
    return kept | {f"{UP}.weight": torch.ones(64, 32)}


SCALE = torch.ones(1)
IS_PLAIN = "belongs to a quantised weight, but config.json says that the weight is plain"
SHOULD_NOT = "is stored plain, but config.json says that it is quantised"
STATE = f"{UP}.weight.quant_state.bitsandbytes__nf4"
DAMAGE = {
    "no scales": ("gptq", without(f"{UP}.scales"), f"tensor {UP}.scales is missing, up_proj.g_idx is there"),
    "no zero points": ("gptq", without(f"{UP}.qzeros"), f"tensor {UP}.qzeros is missing"),
    "no g_idx": ("gptq", without(f"{UP}.g_idx"), f"tensor {UP}.g_idx is missing"),
    "no codes": ("packed", without(f"{UP}.weight_packed"), f"tensor {UP}.weight_packed is missing"),
    "no scale": ("fp8", without(f"{UP}.weight_scale_inv"), f"tensor {UP}.weight_scale_inv is missing"),
    "no state": ("nf4", without(STATE), f"tensor {STATE} is missing"),
    "a part left over": ("w8a8", plus(f"{UP}.weight_zero_point", SCALE), f"{UP}.weight_zero_point is left over"),
    "twice": ("packed", plus(f"{UP}.weight", torch.ones(64, 32)), f"tensor {UP}.weight is left over"),
    "alone": ("w8a8", plus("lm_head.input_scale", SCALE), "lm_head.input_scale belongs to no quantised weight"),
    "of a plain layer": ("w8a8", plus("lm_head.weight_scale", SCALE), f"lm_head.weight {IS_PLAIN}"),
    "wrong shape": ("awq", changed(f"{UP}.qzeros", lambda each: each[:1]), "shape [1, 8], it should be [2, 8]"),
    "wrong dtype": ("fp8", changed(f"{UP}.weight", lambda each: each.byte()), "stored as U8, this format has F8"),
    "one plain layer": ("gptq", one_plain_layer, f"{UP}.weight {SHOULD_NOT}"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_parts(quantised, name):
    form, change, message = DAMAGE[name]
    folder, _ = quantised(form)
    assert message in refusal(folder, change)


@pytest.mark.parametrize(
    ("form", "end"),
    [
        ("gptq", ".scales"), ("gptq 3", ".scales"), ("awq", ".scales"), ("packed", ".weight_scale"),
        ("fp8", ".weight_scale_inv"), ("w8a8", ".weight_scale"), ("nf4", ".weight.nested_absmax"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scales_that_are_not_finite(quantised, form, end, value):
    folder, _ = quantised(form)
    change = changed(UP + end, lambda each: each * value)
    assert f"{UP}.weight: 2,048 non-finite values" in refusal(folder, change, "checkpoint.non_finite")


def test_one_scale_that_is_not_finite(quantised):
    folder, _ = quantised("gptq")

    def spoil(each):
        each = each.clone()
        each[1, 5] = torch.inf
        return each

    found = refusal(folder, changed(f"{UP}.scales", spoil), "checkpoint.non_finite")
    assert f"{UP}.weight: 16 non-finite values" in found


def test_weights_that_overflow_in_a_narrower_dtype(quantised):
    folder, _ = quantised("fp8")
    change = changed(f"{UP}.weight_scale_inv", lambda each: each * 1e6)
    builders.rewrite(folder, change)
    assert load_huggingface(folder, LoadOptions(dtype="float32")).facts.quantization
    assert f"{UP}.weight: " in builders.refused(folder, "checkpoint.non_finite", LoadOptions(dtype="float16"))


def test_layers_that_the_configuration_says_are_plain(quantised):
    folder, _ = quantised("gptq", head=True)
    assert "tensor lm_head.g_idx belongs to a quantised weight, but config.json says that" in refusal(folder)
    assert load_huggingface(quantised("gptq", head=True, lm_head=True)[0], LoadOptions()).facts.quantization
    for form, key, value in (
        ("awq", "modules_to_not_convert", ["up_proj"]),
        ("fp8", "ignored_layers", ["model.layers.1.mlp"]),
        ("packed", "ignore", ["lm_head", UP]),
        ("packed", "ignore", ["lm_head", "re:.*layers.1.mlp.*"]),
        ("modelopt", "ignore", ["lm_head", "*.layers.1*"]),
        ("nf4", "llm_int8_skip_modules", ["up_proj", "lm_head"]),
        ("gptq", "dynamic", {"-:.*up_proj": {}}),
    ):
        folder, _ = quantised(form, **{key: value})
        assert IS_PLAIN in refusal(folder), form


def test_a_linear_layer_that_is_plain_everywhere_although_all_should_be_quantised(quantised):
    for form, settings in (
        ("packed", {"ignore": []}),
        ("modelopt", {"ignore": []}),
        ("nf4", {"llm_int8_skip_modules": ["x"]}),
    ):
        folder, _ = quantised(form, **settings)
        message = refusal(folder)
        assert f"tensor lm_head.weight {SHOULD_NOT}" in message, form


def test_rules_for_single_modules(quantised):
    """GPTQModel's `dynamic`: other bits for some modules."""
    folder, _ = quantised("gptq", dynamic={"+:.*up_proj": {"bits": 8, "group_size": -1}, "-:.*nothing": {}})
    tensors = safetensors.torch.load_file(folder / builders.WEIGHTS)
    for layer in (0, 1):
        module = f"model.layers.{layer}.mlp.up_proj"
        parts, _ = files.gptq(torch.randn(64, 32), 8, -1)
        tensors |= {module + end: part for end, part in parts.items()}
    safetensors.torch.save_file(tensors, folder / builders.WEIGHTS)
    words = "GPTQ version 1, int4 in groups of 16, symmetric and int8 in one group a row, symmetric"
    facts = load_huggingface(folder, LoadOptions()).facts
    assert (facts.quantization, facts.stored_dtype) == (words, "int4 and int8 (GPTQ)")


CONFIGS = {
    "unknown method": ("gptq", {"quant_method": "hqq"}, "quant_method hqq is not supported"),
    "unknown key": ("gptq", {"secret": 1}, "secret is not known here"),
    "unknown inner key": ("packed", compressed_tensors("pack-quantized", INT4 | {"x": 1}), "weights: x is not known"),
    "no bits": ("gptq", {"bits": None}, "bits is missing"),
    "odd bits": ("gptq", {"bits": 5}, "bits is 5, known: 2, 3, 4, 8"),
    "a word for a number": ("gptq", {"group_size": "16"}, "group_size is '16', not of type int"),
    "true for a number": ("gptq", {"group_size": True}, "group_size is True, not of type int"),
    "another kernel's order": ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format is marlin, known: gptq"),
    "marlin": ("gptq", {"is_marlin_format": True}, "is_marlin_format is True, which is not supported"),
    "rotation": ("gptq", {"rotation": "hadamard"}, "rotation is hadamard"),
    "gemv": ("awq", {"version": "GEMV"}, "version is gemv, known: gemm"),
    "8-bit awq": ("awq", {"bits": 8}, "bits is 8, known: 4"),
    "transforms": ("packed", {"transform_config": {"config_groups": {"u": {}}}}, "transform_config is"),
    "sparsity": ("packed", {"sparsity_config": {"format": "sparse-24"}}, "sparsity_config has the format"),
    "not compressed": ("packed", {"quantization_status": "frozen"}, "quantization_status is frozen"),
    "marlin-24": ("packed", {"format": "marlin-24"}, "format is marlin-24"),
    "format of others": ("packed", {"format": "int-quantized"}, "format is int-quantized, which does not"),
    "slow pattern": ("packed", {"ignore": ["lm_head", "re:(a+)+$"]}, "pattern (a+)+$: it could take too long"),
    "damaged pattern": ("packed", {"ignore": ["lm_head", "re:("]}, "pattern (: missing ), unterminated subpattern"),
    "blocks": ("fp8", {"weight_block_size": [128]}, "weight_block_size is [128], not two sizes"),
    "fp4 experts": ("fp8", {"expert_dtype": "fp4"}, "expert_dtype is fp4, known: fp8"),
    "other algorithm": ("modelopt", {"quant_algo": "W4A8_AWQ"}, "quant_algo is w4a8_awq, known: fp8"),
    "both": ("nf4", {"load_in_8bit": True}, "load_in_4bit and load_in_8bit: exactly one must be true"),
    "other storage": ("nf4", {"bnb_4bit_quant_storage": "bfloat16"}, "bnb_4bit_quant_storage is bfloat16"),
    "no list": ("awq", {"modules_to_not_convert": "lm_head"}, "modules_to_not_convert is no list of words"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_are_not_known(quantised, name):
    form, settings, message = CONFIGS[name]
    folder, _ = quantised(form, **settings)
    id = "checkpoint.quantized" if name == "unknown method" else "checkpoint.quantized_config"
    assert f"config.json: quantization_config: {message}" in refusal(folder, id=id).replace(
        "config_groups: group_0: ", ""
    )


def test_a_configuration_that_says_nothing_or_too_much(quantised):
    folder, _ = quantised("gptq")
    builders.reconfigure(folder, drop=("quantization_config",))
    assert "config.json has no quantization_config" in refusal(folder, id="checkpoint.quantized")
    builders.reconfigure(folder, quantization_config=GPTQ, llm_config={"quantization_config": GPTQ})
    assert "quantization_config: is there 2 times" in refusal(folder, id="checkpoint.quantized_config")
    builders.reconfigure(folder, drop=("llm_config",), quantization_config=["gptq"])
    assert "quantization_config: is no object" in refusal(folder, id="checkpoint.quantized_config")


def test_scales_of_activations_and_of_the_cache_are_told(quantised):
    folder, _ = quantised("w8a8")
    builders.rewrite(folder, plus(f"{UP}.input_scale", SCALE))
    builders.rewrite(folder, plus("model.layers.0.self_attn.k_scale", SCALE))
    notices = load_huggingface(folder, LoadOptions()).facts.notices
    assert notices[1] == "2 stored scales of activations or of the key-value cache not applied"


FP8_CACHE = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}
# The format, what its configuration has besides, what the deployed kernel rounds, and the short name of what is stored.
CACHES = {
    "compressed-tensors": ("packed", {"kv_cache_scheme": FP8_CACHE}, "the key-value cache to FP8", "int4"),
    "with activations": (
        "w8a8", {"kv_cache_scheme": FP8_CACHE}, "activations to int8 and the key-value cache to FP8", "int8",
    ),
    "a group without weights": (
        "packed", {"config_groups": {"kv": {"targets": ["re:.*self_attn"], "output_activations": {"num_bits": 8}}}},
        "the key-value cache to int8", "int4",
    ),
    "attention": (
        "packed", {"config_groups": {"attention": {"targets": ["LlamaAttention"], "input_activations": FP8_CACHE}}},
        "activations to FP8", "int4",
    ),
    "outputs": (
        "packed", {"config_groups": {"group_0": {"output_activations": {"num_bits": 8}}}},
        "activations to int8", "int4",
    ),
    "AutoFP8": (
        "fp8", {"kv_cache_scheme": "static"}, "activations to FP8 (dynamic) and the key-value cache to FP8 (static)",
        "FP8",
    ),
    "ModelOpt": ("modelopt", {"kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False}},
                 "activations to FP4 and the key-value cache to FP8", "NVFP4"),
    "ModelOpt's word": ("modelopt", {"kv_cache_quant_algo": "NVFP4", "kv_cache_schema_version": 1},
                        "activations to FP4 and the key-value cache to NVFP4", "NVFP4"),
    "by layer": ("modelopt", {"kv_cache_quantized_layers": {"model.layers.0.self_attn": {"quant_algo": "FP8"}}},
                 "activations to FP4 and the key-value cache to fewer bits", "NVFP4"),
    "none": ("packed", {"kv_cache_scheme": None}, None, "int4"),
    "none by ModelOpt": ("modelopt", {"kv_cache_quant_algo": None}, "activations to FP4", "NVFP4"),
}  # fmt: skip


@pytest.mark.parametrize("name", CACHES)
def test_a_rounded_cache_of_which_no_scale_is_stored_is_told(quantised, name):
    form, besides, rounded, short = CACHES[name]
    folder, meant = quantised(form)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    for key, value in besides.items():
        config[key] = merged(config[key], value) if key == "config_groups" else value
    builders.reconfigure(folder, quantization_config=config)
    checkpoint = load_huggingface(folder, LoadOptions())
    only = "" if rounded is None else f"weights only: the deployed kernel rounds {rounded} as well"
    assert checkpoint.facts.notices == ((only + NOT_HERE,) if only else ())
    assert checkpoint.facts.quantization.partition("; ")[2] == only
    assert checkpoint.facts.stored_dtype.startswith(short)
    assert ("weights only)" in checkpoint.facts.stored_dtype) is bool(only)
    assert torch.equal(logits(checkpoint), logits(load_huggingface(meant, LoadOptions()))), "no weight changes"


def merged(groups, more):
    """Return `config_groups` with some more settings in them."""
    return groups | {name: groups.get(name, {}) | settings for name, settings in more.items()}


def test_a_cache_of_which_a_format_says_nothing_is_refused_by_its_name(quantised):
    folder, _ = quantised("gptq")
    builders.reconfigure(folder, quantization_config=GPTQ | {"kv_cache_scheme": FP8_CACHE})
    assert "kv_cache_scheme is not known here" in refusal(folder, id="checkpoint.quantized_config")


def test_modelopt_says_it_in_a_file_of_its_own(quantised):
    folder, meant = quantised("modelopt")
    with_key = load_huggingface(folder, LoadOptions())
    builders.reconfigure(folder, drop=("quantization_config",))
    said = {"quant_algo": "NVFP4", "group_size": 16, "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
    file = folder / "hf_quant_config.json"
    file.write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": said}))
    checkpoint = load_huggingface(folder, LoadOptions())
    assert torch.equal(logits(checkpoint), logits(load_huggingface(meant, LoadOptions())))
    assert checkpoint.facts.quantization == with_key.facts.quantization
    assert str(file.absolute()) in checkpoint.facts.files
    before = checkpoint.facts.sha256
    file.write_text(json.dumps({"producer": {"name": "other"}, "quantization": said}))
    assert load_huggingface(folder, LoadOptions()).facts.sha256 != before
    file.write_text(json.dumps({"quantization": said | {"exclude_modules": []}}))
    assert "lm_head.weight is stored plain, but hf_quant_config.json says that it is quantised" in refusal(folder)
    file.write_text(json.dumps({"quantization": said | {"exclude_modules": ["lm_head", "*mlp*"]}}))
    assert "quantised weight, but hf_quant_config.json says that the weight is plain" in refusal(folder)


def test_autogptq_says_it_in_a_file_of_its_own(quantised, plain):
    folder, _ = quantised("gptq")
    before, _ = method_of(folder, json.loads((folder / "config.json").read_text()))
    builders.reconfigure(folder, drop=("quantization_config",))
    file = folder / "quantize_config.json"
    said = {"bits": 4, "group_size": 16, "damp_percent": 0.01, "desc_act": False, "model_file_base_name": None}
    file.write_text(json.dumps(said | {"sym": True, "true_sequential": True, "static_groups": False}))
    assert method_of(folder, {}) == (before, (file,))
    changes = ((False, "quantize_config.json says sym"), (True, "quantize_config.json says no desc_act"))
    for by_activation, message in changes:
        parts, _ = files.gptq(torch.randn(64, 32), 4, 16, symmetric=by_activation, by_activation=by_activation)
        stored = {UP + end: part.contiguous() for end, part in parts.items()}
        assert message in refusal(folder, lambda tensors, stored=stored: tensors | stored)
    builders.rewrite(folder, one_plain_layer)
    assert f"{UP}.weight is stored plain, but quantize_config.json says" in refusal(folder)
    (folder / builders.WEIGHTS).write_bytes((plain / builders.WEIGHTS).read_bytes())
    assert "quantize_config.json says GPTQ version 1" in refusal(folder)


def test_a_name_on_which_patterns_could_take_long(quantised):
    folder, _ = quantised("w8a8")
    assert "name has 407 characters" in refusal(folder, plus("a" * 400 + ".weight", torch.ones(2, 2).byte()))


def test_layers_that_lie_the_other_way_round(copy_of):
    """GPT-2 multiplies by [in, out]; its square weights would be read transposed without a word."""
    folder = copy_of("gpt2")

    def convert(tensors):
        for name in [name for name in tensors if name.endswith("attn.c_proj.weight")]:
            parts, _ = files.scaled(tensors.pop(name).T.float(), (1, 0), torch.int8)
            tensors |= {name: parts[".weight"], name.replace("weight", "SCB"): parts[".weight_scale"].view(-1) * 127}
        return tensors

    builders.rewrite(folder, convert)
    builders.reconfigure(folder, quantization_config=BNB)
    assert "c_proj.weight is quantised, and layers of this family hold [in, out]" in refusal(
        folder, id="checkpoint.quantized"
    )
