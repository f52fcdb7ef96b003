"""Writes tiny random models with what transformers computes at every site of theirs.

    python tests/parity/model/make_tiny_models.py          # transformers 4.57.6, torch 2.13.0

Each folder holds a model as transformers saves it and expected.safetensors: the tokens of some texts and, for each
of them, the values of hooks at every site ("0/resid_post[1]") and the logits.
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import (Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig,
                          GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

HERE = pathlib.Path(__file__).parent
LENGTHS = [7, 4, 12]
LAYERS = 2
VOCABULARY = 64

LLAMA = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    attn_implementation="eager",
)
GPT_NEOX = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=LAYERS,
    max_position_embeddings=64,
    attn_implementation="eager",
)
# New ones go last: the values of all come from one stream of random numbers.
MODELS = {
    "llama_llama3_bias_untied": LlamaForCausalLM(
        LlamaConfig(
            **LLAMA,
            head_dim=8,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=False,
            rope_theta=1000.0,
            rope_scaling={
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        )
    ),
    "llama_linear_tied": LlamaForCausalLM(
        LlamaConfig(**LLAMA, tie_word_embeddings=True, rope_scaling={"rope_type": "linear", "factor": 2.0})
    ),
    "gpt2": GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=32,
            n_embd=16,
            n_layer=LAYERS,
            n_head=4,
            attn_implementation="eager",
        )
    ),
    # Pythia's form: heads of 8, of which 2 elements are turned.
    "gpt_neox_parallel": GPTNeoXForCausalLM(
        GPTNeoXConfig(**GPT_NEOX, num_attention_heads=2, rotary_pct=0.25, use_parallel_residual=True)
    ),
    "gpt_neox_sequential_tied": GPTNeoXForCausalLM(
        GPTNeoXConfig(
            **GPT_NEOX,
            num_attention_heads=4,
            rotary_pct=1.0,
            rotary_emb_base=1000,
            use_parallel_residual=False,
            attention_bias=False,
            tie_word_embeddings=True,
        )
    ),
    # A window that the texts do not exceed.
    "mistral": MistralForCausalLM(MistralConfig(**LLAMA, head_dim=8, sliding_window=16, rope_theta=1000.0)),
    "qwen2": Qwen2ForCausalLM(Qwen2Config(**LLAMA, tie_word_embeddings=True, rope_theta=1000.0)),
    "qwen3": Qwen3ForCausalLM(Qwen3Config(**LLAMA, head_dim=8, rope_theta=1000.0)),
    # Caps low enough to be felt.
    "gemma2": Gemma2ForCausalLM(
        Gemma2Config(
            **LLAMA,
            head_dim=8,
            query_pre_attn_scalar=12,
            sliding_window=16,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        )
    ),
}


def randomise(model):
    """Large enough that a misplaced bias, gain or scale shows."""
    for name, parameter in model.named_parameters():
        above_one = isinstance(model, Gemma2ForCausalLM)  # its gains are stored less 1
        is_gain = ("norm" in name or ".ln_" in name) and name.endswith("weight") and not above_one
        parameter.data.normal_(1.0 if is_gain else 0.0, 0.3)


def hook_sites(model, sites):
    """Fills `sites` with [length, width] during a forward pass."""
    def output(name):
        return lambda _module, _inputs, result: sites.__setitem__(name, result[0] if isinstance(result, tuple) else result)

    def input_of(name):
        return lambda _module, inputs: sites.__setitem__(name, inputs[0])

    def split_joined(layer):
        """GPT-2's: all queries, then keys, then values."""
        def hook(_module, _inputs, result):
            for name, part in zip("qkv", result.chunk(3, dim=-1)):
                sites[f"{name}[{layer}]"] = part
        return hook

    def split_by_head(layer, heads):
        """GPT-NeoX's: queries, keys and values of each head in turn."""
        def hook(_module, _inputs, result):
            for name, part in zip("qkv", result.unflatten(-1, (heads, 3, -1)).unbind(-2)):
                sites[f"{name}[{layer}]"] = part.flatten(-2)
        return hook

    gpt2, gpt_neox = isinstance(model, GPT2LMHeadModel), isinstance(model, GPTNeoXForCausalLM)
    gemma2 = isinstance(model, Gemma2ForCausalLM)
    body = model.transformer if gpt2 else model.gpt_neox if gpt_neox else model.model
    layers = body.h if gpt2 else body.layers
    layers[0].register_forward_pre_hook(input_of("embed"))
    final_norm = body.ln_f if gpt2 else body.final_layer_norm if gpt_neox else body.norm
    final_norm.register_forward_hook(output("final_norm"))
    for i, layer in enumerate(layers):
        attention = layer.attn if gpt2 else layer.attention if gpt_neox else layer.self_attn
        mlp = layer.mlp
        writer = attention.c_proj if gpt2 else attention.dense if gpt_neox else attention.o_proj
        up = mlp.c_fc if gpt2 else mlp.dense_h_to_4h if gpt_neox else mlp.gate_proj
        down = mlp.c_proj if gpt2 else mlp.dense_4h_to_h if gpt_neox else mlp.down_proj
        if gpt2:
            attention.c_attn.register_forward_hook(split_joined(i))
        elif gpt_neox:
            attention.query_key_value.register_forward_hook(split_by_head(i, model.config.num_attention_heads))
        else:
            for name in "qkv":
                getattr(attention, f"{name}_proj").register_forward_hook(output(f"{name}[{i}]"))
        writer.register_forward_pre_hook(input_of(f"z[{i}]"))
        # What is added to the stream.
        (layer.post_attention_layernorm if gemma2 else writer).register_forward_hook(output(f"attn_out[{i}]"))
        if not (gpt_neox and model.config.use_parallel_residual):
            mlp_norm = (layer.ln_2 if gpt2 else layer.pre_feedforward_layernorm if gemma2
                        else layer.post_attention_layernorm)
            mlp_norm.register_forward_pre_hook(input_of(f"resid_mid[{i}]"))
        up.register_forward_hook(output(f"mlp_pre[{i}]"))
        down.register_forward_pre_hook(input_of(f"mlp_post[{i}]"))
        (layer.post_feedforward_layernorm if gemma2 else down).register_forward_hook(output(f"mlp_out[{i}]"))
        layer.register_forward_hook(output(f"resid_post[{i}]"))


def main():
    torch.manual_seed(0)
    for name, model in MODELS.items():
        model.eval()
        randomise(model)
        folder = HERE / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        sites, expected = {}, {}
        hook_sites(model, sites)
        for row, length in enumerate(LENGTHS):
            tokens = torch.randint(VOCABULARY, (1, length))
            with torch.no_grad():
                result = model(tokens, output_attentions=True)
            sites["logits"] = result.logits
            expected[f"{row}/tokens"] = tokens[0].float()
            for site, value in sites.items():
                expected[f"{row}/{site}"] = value.reshape(length, -1).clone()
            for layer, pattern in enumerate(result.attentions):
                expected[f"{row}/pattern[{layer}]"] = pattern[0].contiguous()
        save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    main()
