"""Small shapes of architectures: what a config class needs beside the common settings to make a tiny model."""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {
    "vocab_size": 48, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 32, "intermediate_size": 96, "max_position_embeddings": 128, "initializer_range": 0.1,
    "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED: dict[str, Any] = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 2,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "q_lora_rank": None, "kv_lora_rank": 512, "qk_nope_head_dim": 32, "qk_rope_head_dim": 64, "v_head_dim": 32,
}  # fmt: skip
OWN = object()
"""The config class has its own word on this: it is left out."""
MAMBA: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_chunk_size": 16}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ApertusConfig": {},
    "ArceeConfig": {},
    "BambaConfig": MAMBA | {"attn_layer_indices": [1]},
    "BioGptConfig": {},
    "BloomConfig": {},
    "CodeGenConfig": {"num_attention_heads": 4, "rotary_dim": 16, "n_inner": 96},
    "CohereConfig": {"tie_word_embeddings": True},
    "Cohere2Config": {"tie_word_embeddings": True},
    "DbrxConfig": {
        "d_model": 64, "n_heads": 2, "n_layers": 2, "max_seq_len": 128,
        "attn_config": {"kv_n_heads": 1, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "DeepseekV2Config": ROUTED | LATENT,
    "DeepseekV3Config": ROUTED | LATENT | {"head_dim": 64, "topk_method": "noaux_tc", "scoring_func": "sigmoid"},
    "DiffLlamaConfig": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    "DogeConfig": {},
    "Dots1Config": ROUTED,
    "Ernie4_5Config": {},
    "Ernie4_5_MoeConfig": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32},
    "Exaone4Config": {},
    "FalconConfig": {"head_dim": OWN, "multi_query": True},
    "FalconH1Config": MAMBA | {"mamba_d_ssm": 128, "mamba_n_groups": 1},
    "FlexOlmoConfig": {"num_experts": 4, "num_experts_per_tok": 2},
    "GemmaConfig": {},
    "Gemma2Config": {"tie_word_embeddings": True, "query_pre_attn_scalar": 32},
    "Gemma3TextConfig": {"tie_word_embeddings": True, "query_pre_attn_scalar": 32},
    "Gemma4TextConfig": {"tie_word_embeddings": True},
    "GlmConfig": {},
    "Glm4Config": {},
    "Glm4MoeConfig": ROUTED | {"head_dim": 32},
    "GPT2Config": {},
    "GPTBigCodeConfig": {},
    "GPTNeoConfig": {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
    "GPTNeoXConfig": {},
    "GPTJConfig": {"rotary_dim": 16},
    "GptOssConfig": LOCAL | {"rope_scaling": None},
    "GraniteConfig": {},
    "GraniteMoeConfig": LOCAL,
    "GraniteMoeSharedConfig": LOCAL | {"shared_intermediate_size": 32},
    "HeliumConfig": {},
    "HunYuanDenseV1Config": {},
    "HunYuanMoEV1Config": {"num_experts": 4, "moe_topk": 2},
    "JambaConfig": {"num_experts": 2, "mamba_d_state": 16, "use_mamba_kernels": False},
    "JetMoeConfig": {"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 32},
    "Lfm2Config": {"full_attn_idxs": [1], "block_dim": 64, "conv_dim": 64, "conv_dim_out": 64},
    "LlamaConfig": {},
    "Llama4TextConfig": LOCAL | {"intermediate_size_mlp": 96, "num_experts_per_tok": 1},
    "MambaConfig": {"state_size": 8},
    "Mamba2Config": {"num_heads": 4, "head_dim": 32, "state_size": 16, "n_groups": 1, "chunk_size": 16},
    "MiniMaxConfig": LOCAL,
    "MinistralConfig": {},
    "MistralConfig": {},
    "MixtralConfig": LOCAL,
    "MptConfig": {"d_model": 64, "n_heads": 2, "n_layers": 2, "max_seq_len": 128},
    "NanoChatConfig": {},
    "NemotronConfig": {},
    "OlmoConfig": {},
    "Olmo2Config": {},
    "Olmo3Config": {},
    "OlmoeConfig": {"num_experts": 4, "num_experts_per_tok": 2},
    "OPTConfig": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "PersimmonConfig": {},
    "PhiConfig": {},
    "Phi3Config": {},
    "PhimoeConfig": LOCAL,
    "Qwen2Config": {},
    "Qwen2MoeConfig": EXPERTS | {"shared_expert_intermediate_size": 32},
    "Qwen3Config": {},
    "Qwen3MoeConfig": EXPERTS,
    "Qwen3NextConfig": EXPERTS | {
        "shared_expert_intermediate_size": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
        "linear_key_head_dim": 32, "linear_value_head_dim": 32,
    },
    "Qwen3_5TextConfig": {
        "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
    },
    "RecurrentGemmaConfig": {"lru_width": 64, "tie_word_embeddings": True},
    "RwkvConfig": {"attention_hidden_size": 64, "context_length": 128},
    "SeedOssConfig": {},
    "SmolLM3Config": {},
    "StableLmConfig": {},
    "Starcoder2Config": {},
    "VaultGemmaConfig": {"tie_word_embeddings": True, "query_pre_attn_scalar": 32},
    "XGLMConfig": {"d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 2},
}  # fmt: skip
"""Config classes of causal language models in transformers, and what is not common of their tiny shapes."""
