"""Configuration values and expected outcomes of single families in the sweep."""

from __future__ import annotations

from typing import Any

# Small values of the keys that decide a model's size, used in every configuration that has the key.
SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "sliding_window": 16,
    # low-rank attention
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 16,
    # experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    # state spaces and linear attention
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
    "chunk_size": 16,
    # decoders of encoder-decoder families
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "ffn_dim": 48,
    # images
    "image_size": 32,
    "patch_size": 8,
}
MLA = {"num_key_value_heads": 4}
DECODER = {"is_decoder": True}
MAMBA_HEADS = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1}
ASSISTANT = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "num_kv_shared_layers": 4}
DENSE_SIX = {"num_hidden_layers": 6}
GEMMA4 = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 320}
GEMMA3N = {
    "num_hidden_layers": 10,
    "num_kv_shared_layers": 5,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 320,
    "laurel_rank": 8,
    "activation_sparsity_pattern": [0.5, 0.0] * 5,
}
DOTS3 = MLA | {"use_sliding_window": False}
QWEN4 = {
    "ngram_vocab_size_base": 100,
    "hc_lowrank": 8,
    "split_ngram_parts": 2,
    "ple_layer_ids": [1],
    "ple_embed_dim": 32,
    "eos_token_id": 3,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}
BLT = {
    "global_config": {"hidden_size": 64, "head_dim": 16},
    "encoder_config": {"hidden_size_global": 64},
    "decoder_config": {"hidden_size_global": 64},
    "encoder_hash_byte_group_vocab": 100,
}
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
OVERRIDES: dict[str, dict[str, Any]] = {
    "axk1": MLA,
    "axk2": MLA,
    "deepseek_v2": MLA,
    "deepseek_v3": MLA,
    "deepseek_v32": MLA,
    "glm4_moe_lite": MLA,
    "glm_moe_dsa": MLA,
    "minicpm3": MLA,
    "youtu": MLA,
    "bamba": MAMBA_HEADS,
    "bert": DECODER,
    "bert-generation": DECODER,
    "big_bird": DECODER | {"attention_type": "original_full"},
    "blt": BLT,
    "camembert": DECODER,
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {"sliding_attention": ROPE, "full_attention": ROPE},
    },
    "data2vec-text": DECODER,
    "electra": DECODER,
    "ernie": DECODER,
    "megatron-bert": DECODER,
    "rembert": DECODER,
    "roberta": DECODER,
    "roberta-prelayernorm": DECODER,
    "roc_bert": DECODER,
    "roformer": DECODER,
    "xlm-roberta": DECODER,
    "xlm-roberta-xl": DECODER,
    "xmod": DECODER | {"default_language": "en_XX"},
    "xlm": {"causal": True},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "dbrx": {
        "max_seq_len": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10_000.0},
        "ffn_config": {"ffn_hidden_size": 48},
    },
    "doge": {"num_experts": 16},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note": {
        "text_config": DOTS3,
        "vision_config": {"per_layer_config": {}, "adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    "dots3_note_text": DOTS3,
    "emu3": {"vocabulary_map": {"<image>": 319}, "vq_config": {"base_channels": 32}},
    "qwen4_exp": {"text_config": QWEN4},
    "qwen4_exp_text": QWEN4,
    "zaya": {"num_experts_per_tok": 1},
    "gemma3": {"text_config": DENSE_SIX},
    "gemma3_text": DENSE_SIX,
    "gemma3n": {"text_config": GEMMA3N},
    "gemma3n_text": GEMMA3N,
    "gemma4": {"text_config": GEMMA4},
    "gemma4_text": GEMMA4,
    "gemma4_assistant": {"text_config": ASSISTANT},
    "gemma4_unified_assistant": {"text_config": ASSISTANT},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "granitemoehybrid": MAMBA_HEADS | {"layer_types": ["mamba", "attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "kimi_linear": {"model_max_length": 64},
    "longcat_flash": MLA | {"zero_expert_num": 2, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "moe_topk": 2},
    "mamba2": {"num_heads": 8, "state_size": 8, "n_groups": 1},
    "moshi": {"audio_vocab_size": 64, "depth_decoder_config": {"audio_vocab_size": 64}, "ffn_dim": 48},
    "mpt": {"max_seq_len": 64},
    "reformer": DECODER
    | {
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
        "num_hashes": 2,
    },
    "whisper": {"max_target_positions": 64, "max_source_positions": 64},
    "zamba": {"num_hidden_layers": 12, "mamba_d_state": 8},
    "zamba2": {"num_hidden_layers": 6, "layers_block_type": ["linear_attention", "hybrid"] * 3},
}
# Families that lossprobe refuses → the error id. Families neither here nor in `NOT_RUN` must be scored correctly.
REFUSED = {
    "cpmant": "checkpoint.not_causal",  # its mask lets every token see the whole text
    "emu3": "checkpoint.missing_tensor",  # transformers finds no language model in what it saved of the whole
    "prophetnet": "checkpoint.not_causal",
    "reformer": "checkpoint.random",
    "xlnet": "checkpoint.not_causal",
}
# Families that transformers itself cannot build or run on text alone → a part of its error message.
NOT_RUN = {
    "gemma3n": "requires the timm library",
    "gemma4_assistant": "The set of layer types producing a cache is different",
    "gemma4_unified_assistant": "The set of layer types producing a cache is different",
    "musicgen": "has no attribute 'dropout'",
    "musicgen_melody": "has no attribute 'dropout'",
}
