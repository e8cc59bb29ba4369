"""Adapters: numbers against peft's own forward pass in float64, the base untouched, identity, tokenizer and base."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path

import peft
import pytest
import torch
import transformers
from adapter_files import change, configure, make_adapter, peft_logits
from checkpoint import builders

from lossprobe.checkpoint.adapters import sharing
from lossprobe.checkpoint.adapters.sharing import SharedBases
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.spec import CheckpointSpec, Opener

IDS = (torch.arange(48) * 7 % builders.VOCABULARY).reshape(2, 24)
ATTENTION = {"target_modules": ["q_proj", "v_proj"]}
ON_EMBEDDING = {"target_modules": ["embed_tokens", "q_proj"]}
NEOX = {"target_modules": ["query_key_value"]}
TIED = {"tie_word_embeddings": True}


class Bases:
    """Bases of some kinds, made once, and what opens adapters on them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._models = {}
        self.shared = {}

    def model(self, kind):
        if kind not in self._models:
            family, _, tied = kind.partition(" ")
            self._models[kind] = builders.model(family, **(TIED if tied else {}))
            builders.write_settings(builders.save(self._models[kind], self.folder(kind)))
            self.shared[kind] = SharedBases()
        return self._models[kind]

    def folder(self, kind):
        return self._root / kind.replace(" ", "-")

    def open(self, kind, folder, **options):
        self.model(kind)
        return open_checkpoint(folder, LoadOptions(base=self.folder(kind), **options), self.shared[kind])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return Bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def plain(bases, tmp_path_factory):
    """The folder of a LoRA on the base "llama"."""
    return make_adapter(bases.model("llama"), tmp_path_factory.mktemp("plain") / "lora", **ATTENTION)


def logits(checkpoint, ids=IDS):
    rows = checkpoint.logits(checkpoint.hidden(ids).flatten(0, 1))
    return rows.reshape(*ids.shape, -1)


def losses(z):
    """Return the loss in nats, float64, of every token after the first."""
    return -z.double().log_softmax(-1)[:, :-1].gather(-1, IDS[:, 1:, None])


KINDS = {
    "lora": ("llama", ATTENTION),
    "rslora": ("llama", ATTENTION | {"use_rslora": True}),
    "dora": ("llama", ATTENTION | {"use_dora": True}),
    "rank and alpha patterns": ("llama", ATTENTION | {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}),
    "one layer": ("llama", ATTENTION | {"layers_to_transform": [1], "layers_pattern": "layers"}),
    "all linear": ("llama", {"target_modules": "all-linear"}),
    "a pattern": ("llama", {"target_modules": r".*\.0\..*(up|down)_proj"}),
    "head saved": ("llama", ATTENTION | {"modules_to_save": ["lm_head"]}),
    "tied head saved": ("llama tied", ATTENTION | {"modules_to_save": ["lm_head"]}),
    "tied embedding saved": ("llama tied", ATTENTION | {"modules_to_save": ["embed_tokens"]}),
    "embedding saved, tie ensured": (
        "llama tied", ATTENTION | {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    ),
    "tokens": ("llama", ATTENTION | {"trainable_token_indices": [3, 5, 7]}),
    "tokens, tied": ("llama tied", ATTENTION | {"trainable_token_indices": {"embed_tokens": [3, 5, 7]}}),
    "embedding": ("llama", ON_EMBEDDING),
    "tied embedding": ("llama tied", ON_EMBEDDING),
    "embedding, tie ensured": ("llama tied", ON_EMBEDDING | {"ensure_weight_tying": True}),
    "tied head": ("llama tied", {"target_modules": ["lm_head", "q_proj"]}),
    "head alone": ("llama", {"target_modules": ["lm_head"]}),
    "tied head alone": ("llama tied", {"target_modules": ["lm_head"]}),
    "head saved alone": ("llama", {"target_modules": ["embed_tokens"], "modules_to_save": ["lm_head"]}),
    "all biases": ("gpt_neox", NEOX | {"bias": "all"}),
    "its biases": ("gpt_neox", NEOX | {"bias": "lora_only"}),
    "lora bias": ("gpt_neox", NEOX | {"lora_bias": True}),
    "gpt2": ("gpt2", {"target_modules": ["c_attn", "c_proj", "wte"], "fan_in_fan_out": True, "use_rslora": True}),
    "gpt2 dora": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "use_dora": True}),
    "scaled logits": ("gemma2", ATTENTION),
}  # fmt: skip


# Each resembles others: two of these choices together, or the same choice of another module.
ALSO = {
    *("rslora", "one layer", "a pattern", "tied embedding saved", "tokens", "embedding", "head saved alone"),
    "gpt2 dora",
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.thorough] * (kind in ALSO)) for kind in KINDS])
def test_losses_are_those_of_peft(bases, tmp_path, kind):
    base, config = KINDS[kind]
    folder = make_adapter(bases.model(base), tmp_path / "adapter", **config)
    expected = losses(peft_logits(bases.model(base), folder, IDS))
    beside, merged = (bases.open(base, folder, merge=merge) for merge in (False, True))
    found = losses(logits(beside))
    assert abs(float((found - expected).mean())) < 1e-6
    assert float((found - expected).abs().max()) < 2e-5
    assert float((losses(logits(merged)) - expected).abs().max()) < 1e-5
    without = losses(bases.model(base)(input_ids=IDS).logits.detach())
    assert float((without - expected).abs().max()) > 0.05, "an adapter without effect would show nothing"


@pytest.mark.parametrize(("dora", "kernels"), [(False, "packed body and head"), (True, "packed head")])
def test_packed_weights_are_those_of_the_base_alone(bases, tmp_path, dora, kernels):
    folder = make_adapter(bases.model("llama"), tmp_path / "adapter", **ATTENTION, use_dora=dora)
    opened = bases.open("llama", folder)
    assert builders.without_attention(opened.facts.kernels) == kernels
    change(folder, lambda tensors: {name: torch.zeros_like(each) if "lora_B" in name else each
                                    for name, each in tensors.items()})  # fmt: skip
    without = logits(bases.open("llama", folder))
    assert not without.allclose(logits(opened), atol=0.01), "its matrices are in the numbers"


def test_merging_apart_what_the_base_ties_is_told(bases, tmp_path):
    """`merge_and_unload` of peft adds to the shared matrix, twice where the tie is ensured."""
    folder = make_adapter(bases.model("llama tied"), tmp_path / "adapter", **ON_EMBEDDING, ensure_weight_tying=True)
    assert "which is another model" in " ".join(bases.open("llama tied", folder, merge=True).facts.notices)
    assert not bases.open("llama tied", folder).facts.notices
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel.from_pretrained(copy.deepcopy(bases.model("llama tied")).double(), folder).eval()
        merged = adapted.merge_and_unload()
    with torch.inference_mode():
        of_peft = losses(merged(input_ids=IDS).logits)
    assert float((losses(peft_logits(bases.model("llama tied"), folder, IDS)) - of_peft).abs().max()) > 0.1


def test_the_base_stays_as_it_is_and_is_loaded_once(bases, tmp_path, monkeypatch):
    loads = []
    real = sharing.load_folder
    monkeypatch.setattr(sharing, "load_folder", lambda *arguments: loads.append(1) or real(*arguments))
    chosen = ("embedding, tie ensured", "tokens, tied", "tied head saved", "tied embedding")
    bases.model("llama tied")
    opener = Opener(keep=1, share_base=True)

    def spec(path, **options):
        return CheckpointSpec(path, LoadOptions(**options))

    before = logits(opener.open(spec(bases.folder("llama tied"))))
    for kind in chosen:
        folder = make_adapter(bases.model("llama tied"), tmp_path / kind.replace(" ", "-"), **KINDS[kind][1])
        for merge in (True, False):
            opened = opener.open(spec(folder, base=bases.folder("llama tied"), merge=merge))
            assert not logits(opened).equal(before)
    assert logits(opener.open(spec(bases.folder("llama tied")))).equal(before)
    assert len(loads) == 1


def test_biases_of_the_base_stay_as_they_are(bases, tmp_path):
    before = bases.open("gpt_neox", make_adapter(bases.model("gpt_neox"), tmp_path / "a", **NEOX))
    bases.open("gpt_neox", make_adapter(bases.model("gpt_neox"), tmp_path / "b", **NEOX, bias="all", seed=5))
    after = bases.open("gpt_neox", tmp_path / "a")
    assert logits(after).equal(logits(before))


def test_a_base_that_was_changed_in_place_is_loaded_again(bases):
    shared = SharedBases()
    bases.model("llama")
    first = shared.load(bases.folder("llama"), LoadOptions()).model
    weight = first.lm_head.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(2.0)
    assert shared.load(bases.folder("llama"), LoadOptions()).model.lm_head.weight.equal(kept)


@pytest.mark.parametrize("tied", ["llama", "llama tied"])
def test_a_larger_vocabulary_is_that_of_the_adapter(bases, tmp_path, tied):
    larger = copy.deepcopy(bases.model(tied))
    torch.manual_seed(3)
    larger.resize_token_embeddings(builders.VOCABULARY + 8, mean_resizing=False)
    folder = make_adapter(larger, tmp_path / "adapter", save={"save_embedding_layers": True}, **ATTENTION)
    opened = bases.open(tied, folder)
    ids = IDS.clone()
    ids[0, :8] = torch.arange(builders.VOCABULARY, builders.VOCABULARY + 8)
    found, expected = logits(opened, ids).double(), peft_logits(larger, folder, ids)
    assert opened.facts.vocab_size == expected.shape[-1] == builders.VOCABULARY + 8
    assert float((found.log_softmax(-1) - expected.log_softmax(-1)).abs().max()) < 1e-5


def test_new_tokens_are_taken_from_their_rows(bases, tmp_path):
    larger = copy.deepcopy(bases.model("llama tied"))
    larger.resize_token_embeddings(builders.VOCABULARY + 2, mean_resizing=False)
    new = [builders.VOCABULARY, builders.VOCABULARY + 1]
    folder = make_adapter(larger, tmp_path / "adapter", trainable_token_indices=new, **ATTENTION)
    ids = torch.tensor([[1, *new, 4, 5]])
    found, expected = logits(bases.open("llama tied", folder), ids).double(), peft_logits(larger, folder, ids)
    assert float((found.log_softmax(-1) - expected.log_softmax(-1)).abs().max()) < 1e-5


def test_half_precision_is_as_near_to_the_exact_logits_as_that_of_peft(bases, plain):
    """The exact logits: the same bfloat16 weights, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bases.model("llama")
        base = transformers.AutoModelForCausalLM.from_pretrained(bases.folder("llama"), dtype=torch.bfloat16)
        adapted = peft.PeftModel.from_pretrained(base, plain).eval()
    opened = bases.open("llama", plain, dtype="bfloat16")
    with torch.inference_mode():
        ours, theirs = logits(opened).double(), adapted(input_ids=IDS).logits.double()
        exact = adapted.double()(input_ids=IDS).logits
    assert builders.without_attention(opened.facts.kernels) in (
        "packed body and head",
        "widened body and head",
    )  # by the processor
    assert 0 < (ours - exact).square().mean() <= 1.1 * (theirs - exact).square().mean()


def test_identity_holds_adapter_base_and_merging(bases, plain, tmp_path):
    other = make_adapter(bases.model("llama"), tmp_path / "other", seed=2, **ATTENTION)
    elsewhere = builders.save(builders.model("llama", seed=9), tmp_path / "elsewhere")
    checkpoints = [
        bases.open("llama", plain),
        bases.open("llama", plain, merge=True),
        bases.open("llama", other),
        open_checkpoint(plain, LoadOptions(base=elsewhere)),
    ]
    assert len({each.facts.sha256 for each in checkpoints}) == 4
    facts = checkpoints[0].facts
    names = {Path(file).name for file in facts.files}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors"}
    hashed = {Path(file) for file, _ in facts.hashes}
    assert hashed >= {plain / "adapter_config.json", plain / "adapter_model.safetensors"}
    assert hashed >= {bases.folder("llama") / "config.json", bases.folder("llama") / "model.safetensors"}
    assert (facts.name, checkpoints[1].facts.name) == ("lora", "lora merged")


def test_facts_describe_the_adapter(bases, tmp_path):
    config = KINDS["rank and alpha patterns"][1] | {"modules_to_save": ["lm_head"], "use_dora": True}
    folder = make_adapter(bases.model("llama"), tmp_path / "adapter", **config)
    configure(folder, base_model_name_or_path="org/llama")
    found = bases.open("llama", folder).facts
    assert asdict(found.adapter) == {
        "words": "DoRA of rank 2 to 4 on llama",
        "kind": "DoRA",
        "rank": "2 to 4",
        "scaling": "0.75 to 4",  # 3/4 of v_proj, 8/2 of q_proj
        "targets": "q_proj, v_proj in 4 layers",
        "replaced": "lm_head",
        # of 2 layers: A and B of q_proj 32 → 32 at rank 2, of v_proj 32 → 16 at rank 4, magnitudes; the head
        "parameters": 2 * (2 * 32 + 32 * 2 + 4 * 32 + 16 * 4 + 32 + 16) + 320 * 32,
        "base": "llama",
        "recorded_base": "org/llama",
        "merged": False,
    }
    assert not found.notices


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_model_name_or_path": "org/Another-7B"}, "was trained on org/Another-7B; it is used on"),
        ({"base_model_name_or_path": "unsloth/llama-bnb-4bit"}, "its name is llama-bnb-4bit"),
        ({"base_model_name_or_path": "TheBloke/llama-GPTQ"}, "its name is llama-GPTQ"),
        ({"auto_mapping": {"base_model_class": "GPT2LMHeadModel"}}, "was trained on a GPT2LMHeadModel"),
    ],
)
def test_doubts_about_the_base_are_told(bases, plain, tmp_path, changes, said):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    configure(folder, **changes)
    assert said in " ".join(bases.open("llama", folder).facts.notices)


def test_training_on_a_quantised_base_is_told(bases, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    card = folder / "README.md"
    card.write_text("The following `bitsandbytes` quantization config was used during training:\n- load_in_4bit: True")
    assert "trained on a quantised base (its README.md says so)" in " ".join(bases.open("llama", folder).facts.notices)


def test_a_model_like_its_base_has_nothing_to_tell(bases, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    configure(folder, base_model_name_or_path="org/LLaMA", auto_mapping={"base_model_class": "LlamaForCausalLM"})
    assert not bases.open("llama", folder).facts.notices


def test_a_recorded_folder_is_the_base(bases, plain, tmp_path, monkeypatch):
    folder = shutil.copytree(plain, tmp_path / "run" / "checkpoint-10")
    configure(folder, base_model_name_or_path="../llama")
    shutil.copytree(bases.folder("llama"), tmp_path / "run" / "llama")
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint(folder).facts.adapter.base == "llama"  # from the adapter's folder
    configure(folder, base_model_name_or_path="run/llama")
    assert open_checkpoint(folder).facts.adapter.base == "llama"  # from the working folder


def test_the_tokenizer_and_the_template_are_the_adapters_where_it_has_them(bases, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    of_base = bases.open("llama", folder)
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    with_template = bases.open("llama", folder)
    assert with_template.tokenizer.sha256 == of_base.tokenizer.sha256
    assert (of_base.tokenizer.chat_template, with_template.tokenizer.chat_template.source) == (None, template)
    builders.sentencepiece_bpe().save(str(folder / "tokenizer.json"))
    own = bases.open("llama", folder)
    assert own.tokenizer.sha256 != of_base.tokenizer.sha256
    assert str(folder / "tokenizer.json") in own.facts.files
    assert str(bases.folder("llama") / "tokenizer.json") not in own.facts.files


def test_a_base_without_a_tokenizer_is_enough_where_the_adapter_has_one(bases, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    base = shutil.copytree(bases.folder("llama"), tmp_path / "base")
    (base / "tokenizer.json").rename(folder / "tokenizer.json")
    assert open_checkpoint(folder, LoadOptions(base=base)).facts.vocab_size == builders.VOCABULARY


def test_what_trainers_leave_beside_an_adapter_is_not_opened(bases, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "checkpoint-30")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        (folder / name).write_bytes(b"\x80\x04no pickle")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 30}))
    opened = bases.open("llama", folder)
    assert not {"optimizer.pt", "rng_state.pth", "training_args.bin"} & {Path(file).name for file in opened.facts.files}


def test_weights_in_bfloat16_are_read_as_stored(bases, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    change(folder, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    expected = losses(peft_logits(bases.model("llama"), folder, IDS))
    assert float((losses(logits(bases.open("llama", folder))) - expected).abs().max()) < 1e-5


def test_keys_without_a_value_that_are_not_known_are_passed_over(bases, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "adapter")
    configure(folder, enable_lora=None, a_new_switch=False, a_new_list=[], drop=("peft_version", "eva_config"))
    assert logits(bases.open("llama", folder)).equal(logits(bases.open("llama", plain)))
    configure(folder, a_new_number=3)
    ignoring = bases.open("llama", folder, ignore_config=("a_new_number",))
    assert "adapter_config.json: a_new_number is ignored, as asked" in ignoring.facts.notices
