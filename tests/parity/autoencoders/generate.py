"""Writes tiny sparse autoencoders with SAELens itself, and what it computes with them.

    pip install sae-lens==6.54.12 && python tests/parity/autoencoders/generate.py

Each folder holds what `save_model` writes (cfg.json, sae_weights.safetensors) and expected.safetensors: x, the latents'
activations and the output. `old_*` are configurations as they were before SAELens 6, read by its own disk loader.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAE, SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from sae_lens.saes.transcoder import SkipTranscoder, SkipTranscoderConfig, Transcoder, TranscoderConfig

HERE = Path(__file__).parent
D_IN, D_SAE, D_OUT = 8, 12, 6

CASES = {
    "standard": (StandardSAE, StandardSAEConfig, {}),
    "standard_layer_norm": (StandardSAE, StandardSAEConfig, {"normalize_activations": "layer_norm"}),
    "standard_expected_average": (StandardSAE, StandardSAEConfig, {"normalize_activations": "expected_average_only_in"}),
    "gated": (GatedSAE, GatedSAEConfig, {"apply_b_dec_to_input": False}),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {"normalize_activations": "constant_norm_rescale"}),
    "topk": (TopKSAE, TopKSAEConfig, {"k": 3, "rescale_acts_by_decoder_norm": True}),
    "topk_plain": (TopKSAE, TopKSAEConfig, {"k": 4, "normalize_activations": "layer_norm"}),
    "transcoder": (Transcoder, TranscoderConfig, {"d_out": D_OUT, "apply_b_dec_to_input": False}),
    "skip_transcoder": (SkipTranscoder, SkipTranscoderConfig, {"d_out": D_OUT, "apply_b_dec_to_input": False}),
}


def write_expected(folder, sae):
    x = torch.randn(7, D_IN) * 2 + 0.3
    with torch.no_grad():
        activations = sae.encode(x)
        out = sae(x)
    save_file({"x": x, "activations": activations.contiguous(), "out": out.contiguous()}, folder / "expected.safetensors")
    print(folder.name, "fires", float((activations > 0).float().mean()))


def main():
    torch.manual_seed(5)
    for name, (kind, config, settings) in CASES.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        metadata = {"model_name": "tiny", "hook_name": "blocks.1.hook_resid_post", "prepend_bos": False}
        if "transcoder" in name:
            metadata = {"hook_name": "blocks.1.hook_resid_mid", "hook_name_out": "blocks.1.hook_mlp_out"}
        sae = kind(config(d_in=D_IN, d_sae=D_SAE, metadata=SAEMetadata(**metadata), **settings))
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.5)
            if hasattr(sae, "threshold"):
                sae.threshold.copy_(sae.threshold.abs())
        sae.save_model(folder)
        write_expected(folder, sae)

    old = {
        "old_standard": {"hook_point": "blocks.1.attn.hook_z", "normalize_activations": False, "lr": 0.0004, "activation_fn_str": "relu"},
        "old_topk": {"hook_name": "blocks.0.hook_resid_pre", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2},
                     "normalize_activations": "none", "apply_b_dec_to_input": True, "finetuning_scaling_factor": False},
    }
    for name, cfg in old.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(HERE / "standard", folder)
        cfg = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu", "model_name": "tiny", **cfg}
        (folder / "cfg.json").write_text(json.dumps(cfg, indent=1))
        sae = SAE.load_from_disk(folder)
        sae.turn_off_forward_pass_hook_z_reshaping()  # x is given with its heads concatenated
        write_expected(folder, sae)


main()
