"""Writes tests/parity/formats/: what the formats' reference implementations say.

    python tests/parity/generate_formats.py      (needs numpy, gguf, safetensors, torch, transformers)

- dequantize.gguf: random blocks of every element type; dequantize.safetensors: their values by `gguf`.
- quantize.safetensors: numbers of every size; quantize.gguf: what `gguf` makes of them in the types that are written.
- rope_frequencies.json: rotary frequencies by `transformers`, and the divisors that llama.cpp's converter stores.
- llama_config.json, gpt2_config.json: configurations with every key that `transformers` knows.
"""

import json
import pathlib

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file
from transformers import GPT2Config, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

FOLDER = pathlib.Path(__file__).parent / "formats"
TYPES = [Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K]
# Where the blocks of a type hold half-precision numbers, in bytes.
HALVES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}
ROWS, COLUMNS = 3, 512


def random_rows(kind, random):
    """Random bytes are valid blocks once their scales are finite; F16 and BF16 get every kind of number."""
    block_elements, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, size=(ROWS * COLUMNS // block_elements, block_bytes), dtype=np.uint8)
    scales = random.normal(0, 0.1, size=(len(blocks), len(HALVES.get(kind, [])))).astype(np.float16)
    scales[: len(scales) // 8] *= np.float16(1e-4)  # subnormal ones too
    for i, offset in enumerate(HALVES.get(kind, [])):
        blocks[:, offset : offset + 2] = scales[:, i : i + 1].view(np.uint8)
    return blocks.reshape(ROWS, -1)


def write_dequantized():
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(FOLDER / "dequantize.gguf", "parity")
    values = {}
    for kind in TYPES:
        rows = random_rows(kind, random)
        writer.add_tensor(kind.name, rows, raw_dtype=kind)
        values[kind.name] = np.ascontiguousarray(gguf.quants.dequantize(rows, kind).astype(np.float32).reshape(ROWS, COLUMNS))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(values, FOLDER / "dequantize.safetensors")


def write_quantized():
    random = np.random.default_rng(1)
    values = random.normal(0, 1, size=(6, COLUMNS)).astype(np.float32)
    values *= np.float32(10.0) ** random.integers(-7, 4, size=(6, COLUMNS // 32), dtype=np.int64).repeat(32, axis=1)
    values[0, :32] = 0
    values[0, 32:64] = 0.25
    values[0, 64:96] = np.arange(32) - 16  # ties between two quants
    values[0, 96:128] = np.arange(32) / 2 - 7.75
    values[1, :64] = np.float32(2.0) ** -np.arange(64)
    writer = gguf.GGUFWriter(FOLDER / "quantize.gguf", "parity")
    for kind in [Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q8_0]:
        writer.add_tensor(kind.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file({"values": values}, FOLDER / "quantize.safetensors")


def llama3_divisors(base, dim, scaling):
    """As convert_hf_to_gguf.py computes the tensor rope_freqs.weight."""
    frequencies = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    context = scaling["original_max_position_embeddings"]
    longest, shortest = context / scaling["low_freq_factor"], context / scaling["high_freq_factor"]
    divisors = []
    for frequency in frequencies:
        wavelength = 2 * np.pi / frequency
        if wavelength < shortest:
            divisors.append(1.0)
        elif wavelength > longest:
            divisors.append(scaling["factor"])
        else:
            smooth = (context / wavelength - scaling["low_freq_factor"]) / (
                scaling["high_freq_factor"] - scaling["low_freq_factor"])
            divisors.append(float(1 / ((1 - smooth) / scaling["factor"] + smooth)))
    return divisors


def write_rope():
    cases = []
    for name, base, dim, scaling in [
        ("plain", 10000.0, 64, None),
        ("large base", 500000.0, 128, None),
        ("linear", 10000.0, 32, {"rope_type": "linear", "factor": 4.0}),
        ("llama 3.1", 500000.0, 128, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                      "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
        ("llama 3.2", 500000.0, 64, {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                                     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    ]:
        config = LlamaConfig(hidden_size=8 * dim, num_attention_heads=8, num_key_value_heads=8, num_hidden_layers=1,
                             intermediate_size=16, vocab_size=32, rope_theta=base, rope_scaling=scaling,
                             max_position_embeddings=131072)
        kind = scaling["rope_type"] if scaling else "default"
        if kind == "default":
            frequencies = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))
        else:
            frequencies, _ = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
        case = {"name": name, "config": json.loads(config.to_json_string()), "frequencies": frequencies.tolist()}
        if kind == "llama3":
            case["divisors"] = llama3_divisors(base, dim, scaling)
        cases.append(case)
    (FOLDER / "rope_frequencies.json").write_text(json.dumps(cases, indent=1) + "\n")


def write_configs():
    llama = LlamaConfig(architectures=["LlamaForCausalLM"], torch_dtype="float32")
    gpt2 = GPT2Config(architectures=["GPT2LMHeadModel"], torch_dtype="float32")
    for config in (llama, gpt2):
        text = config.to_json_string(use_diff=False)
        (FOLDER / f"{config.model_type}_config.json").write_text(text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write_dequantized()
    write_quantized()
    write_rope()
    write_configs()
