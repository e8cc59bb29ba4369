"""Error ids about checkpoints and their files."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

DOWNLOAD = "Copy or download it again."
SAVE_AGAIN = "Save the checkpoint again with save_pretrained or torch.save of its state dict."
LIMITS = "Use a smaller model, a narrower --dtype, or a machine with more memory."

REFUSED = {
    "checkpoint.bad_config": "The configuration cannot be read, or no model can be built from it. → Read the reason in "
    "the message and correct that key.",
    "checkpoint.bad_entry": "The archive of a torch file has an entry that torch.save does not write, or one name "
    f"twice. → {SAVE_AGAIN}",
    "checkpoint.bad_header": f"The header of a safetensors file is not valid. → {DOWNLOAD}",
    "checkpoint.bad_index": "The index of a sharded checkpoint and its shards disagree. → Save or download the whole "
    "folder again.",
    "checkpoint.bad_json": "A JSON file of the checkpoint cannot be read. → Correct it at the line in the message.",
    "checkpoint.bare_safetensors": "A safetensors file holds weights alone, no configuration. → Give the folder with "
    "its config.json instead.",
    "checkpoint.callable": "The function of a CallableCheckpoint did not return logits of the shape asked for. → "
    "Return [batch, tokens, vocabulary].",
    "checkpoint.changed": "A file of the checkpoint changed while it was read. → Wait until it is written, then "
    "repeat.",
    "checkpoint.checksum": f"A record of a torch file is not what its own checksum says: the file is damaged. → "
    f"{DOWNLOAD}",
    "checkpoint.compressed": f"A torch file has compressed or encrypted entries. → {SAVE_AGAIN}",
    "checkpoint.config_key": "config.json lacks a key that decides the model. → Add it as the model was trained.",
    "checkpoint.config_size": "The configuration and the stored weights differ in size: they belong to different "
    "models. → Put the right config.json beside the weights.",
    "checkpoint.config_value": "The configuration leaves no token a position. → Correct the key in the message.",
    "checkpoint.damaged": f"A torch file is damaged: its tensors cannot be rebuilt. → {DOWNLOAD}",
    "checkpoint.distributed": "The checkpoint is cut into the parts of its training processes. → Join it into "
    "safetensors first (DeepSpeed: zero_to_fp32.py).",
    "checkpoint.duplicate_tensor": "One tensor is in two shards. → Remove the stale shard, or save again.",
    "checkpoint.empty": f"A weight file is empty. → {DOWNLOAD}",
    "checkpoint.external_kernel": "The configuration names code from outside, which is never run. → Remove the key.",
    "checkpoint.foreign_objects": "A torch file holds objects other than tensors and plain values. → Save the state "
    "dict alone.",
    "checkpoint.hole": f"A safetensors file has bytes that no tensor uses. → {DOWNLOAD}",
    "checkpoint.json_too_large": "A JSON file of the checkpoint is larger than the limit. → Check that it is the file "
    "that the model was saved with.",
    "checkpoint.link_loop": "A symbolic link leads to itself. → Correct the link.",
    "checkpoint.missing_shard": "A shard that the index names is not there. → Download the missing file.",
    "checkpoint.missing_tensor": "A tensor that the model needs is not in the files: it would be random. → Check that "
    "weights and configuration belong together.",
    "checkpoint.mixed_names": "One file holds the tensors of two models, by their names. → Save one model a file.",
    "checkpoint.no_config": "No configuration lies beside the weights (model.yaml); training may not have finished. → "
    "Put the model.yaml of the training run beside them.",
    "checkpoint.no_family": "config.json lacks model_type. → Add the model_type of the family.",
    "checkpoint.no_tensors": "A weight file holds no tensors. → Save or download the checkpoint again.",
    "checkpoint.no_weights": "The folder holds no safetensors weights. → Convert other formats with save_pretrained.",
    "checkpoint.non_finite": "A stored tensor holds NaN or infinity: training diverged, or the file is damaged. → "
    "Take an earlier checkpoint, or copy the file again.",
    "checkpoint.non_finite_logits": "The logits of a short probe are NaN or infinite. → Try --dtype float32.",
    "checkpoint.not_causal": "Later tokens change earlier logits: the model is no next-token predictor. → lossprobe "
    "scores decoder-only language models.",
    "checkpoint.not_dense": f"A tensor of a torch file is sparse, quantised or on another device. → {SAVE_AGAIN}",
    "checkpoint.not_float": "A weight is no floating-point tensor. → Save the weights as float32, bfloat16 or float16.",
    "checkpoint.not_torch_file": f"The file is no torch file (bare pickles are never loaded). → {SAVE_AGAIN}",
    "checkpoint.other_format": "Another program wrote the weights in its own layout (consolidated, NeMo, MLX). → "
    "Convert them with the command in the hint.",
    "checkpoint.overlap": f"Two tensors of a safetensors file share bytes. → {SAVE_AGAIN}",
    "checkpoint.quantized": "The weights are quantised in a way that is not known, or config.json does not say how. → "
    "Put the config.json of the quantised model beside them, or give the model that it was made from.",
    "checkpoint.quantized_config": "The quantization_config has a key or a value that is not known and may change "
    "what the stored numbers mean. → Remove it if you know that it does not.",
    "checkpoint.quantized_tensor": "Stored tensors contradict the quantization_config: a part of a weight is missing, "
    "left over or of another shape, or a weight is plain that should not be. → Export the model again.",
    "checkpoint.random": "The same tokens get other logits each time, since the forward pass draws random numbers. → "
    "Turn dropout or sampling off.",
    "checkpoint.rope": "model.yaml asks for rotary positions, which FundamentaLLM itself does not build. → Set the "
    "positions that the model was trained with.",
    "checkpoint.shard_path": "The index names a shard outside the folder, which is never opened. → Put all shards "
    "into the folder, and save the index again.",
    "checkpoint.stateful": "The same tokens get other logits each time, since the forward pass depends on earlier "
    "ones.",
    "checkpoint.tensor_data": f"The data of a tensor is missing in a torch file. → {DOWNLOAD}",
    "checkpoint.tensor_exceeds_storage": f"A tensor is larger than the bytes stored for it. → {SAVE_AGAIN}",
    "checkpoint.too_many_tensors": "A safetensors file declares more tensors than any model has. → Copy or download "
    "it again.",
    "checkpoint.torch_too_old": "The installed torch is too old to open pickles safely. → Install torch 2.10 or later.",
    "checkpoint.torchscript": f"The file is TorchScript, which holds code. → {SAVE_AGAIN}",
    "checkpoint.trailing": f"A safetensors file has unexplained bytes at its end. → {DOWNLOAD}",
    "checkpoint.truncated": f"A weight file is cut short. → {DOWNLOAD}",
    "checkpoint.two_weight_sets": "The folder holds two sets of weights that name different files. → Remove the stale "
    "one.",
    "checkpoint.unexpected_tensor": "The files hold a tensor that the model does not have. → Check that weights and "
    "configuration belong together.",
    "checkpoint.unknown": "Nothing in the file or folder is a checkpoint that lossprobe knows. → The message says what "
    "was looked for; other models can be scored through lossprobe.CallableCheckpoint.",
    "checkpoint.unknown_family": "model_type is no causal language model of the installed transformers. → Upgrade "
    "transformers, or use lossprobe.CallableCheckpoint.",
    "checkpoint.unknown_structure": f"A torch file is not laid out as torch.save writes it. → {SAVE_AGAIN}",
    "checkpoint.unreadable": "A file of the checkpoint cannot be read. → Check its permissions.",
    "checkpoint.unsafe_pickle": "A torch file would run code, and was not loaded. → Do not trust it; ask for "
    "safetensors.",
    "checkpoint.vocab_size": "Weights and configuration differ in the size of the vocabulary. → Put the right "
    "configuration beside the weights.",
    "checkpoint.not_streamed": "The weights cannot be read layer by layer, which --stream-weights always asks for; "
    "the message says why. → Leave the option out, or use a machine with more memory.",
    "checkpoint.wrong_shape": "A tensor has another shape than the configuration asks for. → Check that weights and "
    "configuration belong together.",
    "gguf.failed": "llama.cpp refused a GGUF file, or failed while it ran one. → The message has its own words; "
    "check the file with llama-cli.",
    "gguf.not_mapped": "A GGUF file has an architecture or key that --dequantize does not map. → Leave "
    "--dequantize out: llama.cpp itself then runs the file.",
    "gguf.time": "llama.cpp ran longer than the largest model of this size takes, and was stopped. → Copy or download "
    "the file again.",
    "scoring.non_finite_loss": "The loss of a token is NaN or infinite. → A wider --dtype may help; else the weights "
    "are damaged.",
}

USAGE = {
    "checkpoint.dtype": "--dtype is none of those that are known. → Use float32, bfloat16, float16 or auto.",
    "checkpoint.missing": "The checkpoint does not exist. → Check the path; lossprobe never downloads a model.",
    "checkpoint.several": "The folder holds several checkpoints. → Name one of them.",
    "gguf.option": "An option does nothing for a GGUF file. → Leave it out.",
    "gguf.package": 'A GGUF file needs llama.cpp, which is not installed. → Run pip install "lossprobe[gguf]".',
    "device.missing": "The device of --device is not available here. → Use --device cpu or auto.",
}

MEMORY = {
    "checkpoint.memory": f"The model does not fit into memory. → {LIMITS}",
    "gguf.memory": f"llama.cpp exceeded its memory limit and was stopped. → {LIMITS}",
    "scoring.memory": "Memory ran out while scoring. → Lower --batch-size or --context.",
}

ERROR_IDS = (*error_ids(3, REFUSED), *error_ids(2, USAGE), *error_ids(7, MEMORY))
