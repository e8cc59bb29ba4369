"""Error ids about adapters and the base that they belong to."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

MERGE = "Merge it into its base with the library that made it, and give the result."

REFUSED = {
    "adapter.base_kind": "The base of an adapter must be a whole model in a Hugging Face folder. → Give the folder "
    "with its config.json and safetensors files.",
    "adapter.config_key": "A key of adapter_config.json is missing, not known, or changes the model in a way that is "
    f"not supported. → Read the reason in the message. {MERGE}",
    "adapter.config_value": "A key of adapter_config.json has a value of the wrong type, or patterns that are damaged "
    "or take too long to match. → Correct it; in place of a pattern, list the names of modules.",
    "adapter.kind": f"The adapter is no LoRA, or does not predict the next token. → {MERGE}",
    "adapter.merge": "The adapter cannot be written into the weights of its base. → Score it without --merge.",
    "adapter.no_weights": "The folder of an adapter holds no adapter_model.safetensors. → Save it again with peft.",
    "adapter.not_applied": "After loading, the model does not hold what the adapter's file holds, such as two "
    "different matrices for an embedding and a head that are one. → Save the adapter again with peft.",
    "adapter.tensor": "A tensor of an adapter has a name that peft does not give, or is quantised. → Save it again "
    "with peft, in float32 or bfloat16.",
    "adapter.two_models": "A folder holds an adapter and a whole model. → Move one of them to a folder of its own.",
    "adapter.vocabulary": "The adapter has fewer tokens than its base, or more without their embeddings. → Give the "
    "base that it was trained on, or save it again with save_embedding_layers=True.",
}

USAGE = {
    "adapter.base": "The base of an adapter is not on this machine, or it is not clear which one it is; nothing is "
    "downloaded. → Get the model that the adapter was trained on, and give its folder with --base.",
    "adapter.options": "Options of adapters do not fit what they are given for. → Name the base first and its adapters "
    "with --adapter, or an adapter with --base.",
    "adapter.peft": 'Adapters need the library peft. → Install it: pip install "lossprobe[peft]".',
}

ERROR_IDS = (*error_ids(2, USAGE), *error_ids(3, REFUSED))
