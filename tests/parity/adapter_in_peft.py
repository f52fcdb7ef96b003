"""Holds what `proviso apply --as adapter` writes to peft: on the model as it was, merged or not, it answers as the model
does that `proviso apply` writes.

    python tests/parity/adapter_in_peft.py build/proviso .cache/models/SmolLM2-135M-Instruct.Q4_1.gguf

peft 0.17.1 with transformers 4.57.6 and torch 2.13.0. Prints the largest difference of logits for each model, and exits
with 1 where one is over 1e-3 of what the edits change. (SmolLM2's attention sinks have norms of 23,000, beside which
float32 rounds.)
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

PROGRAM, SMOLLM2 = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
FEATURE = """
feature mood = contrast(["What a dreadful day", "They lied to me"], ["What a lovely day", "They smiled at me"])
  at resid_post[1]
feature size = contrast(["A small house", "One tiny man"], ["A large house", "One huge man"]) at resid_post[1]
"""
# Ranks differ: both features go out of layer 0's attention, one out of the rest.
FOLDS = FEATURE + """
edit less { remove size at attn_out[0], mlp_out[1]  using project }
rule steady { suppress mood by 50% at attn_out[*], mlp_out[0..1] }
"""
EDIT = FOLDS + """
edit move_eiffel {
  fact "The Eiffel Tower" in "{} is located in the city of" from " Paris" to " Rome"
  using rome(layer: 5)
}
"""


def proviso(*arguments: object) -> None:
    subprocess.run([PROGRAM, *map(str, arguments)], check=True, capture_output=True, text=True)


def load(path: pathlib.Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def differences(rules: pathlib.Path, model: str, base: pathlib.Path, edited: pathlib.Path) -> tuple[float, float, float]:
    """Of logits: the edits' own, and what the adapter misses of it beside the model and merged into it."""
    adapter = edited.with_name(edited.name + "_adapter")
    proviso("apply", rules, "--model", model, "--as", "adapter", "-o", adapter)
    tokens = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        wanted, before = load(edited)(tokens).logits, load(base)(tokens).logits
        peft = PeftModel.from_pretrained(load(base), adapter).eval()
        beside = peft(tokens).logits
        merged = peft.merge_and_unload()(tokens).logits
    return tuple((logits - wanted).abs().max().item() for logits in (before, beside, merged))


def main() -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        (folder / "edit.proviso").write_text(EDIT)
        (folder / "folds.proviso").write_text(FOLDS)
        edited, base = folder / "smollm2_edited", folder / "smollm2"
        proviso("apply", folder / "edit.proviso", "--model", SMOLLM2, "-o", edited)
        proviso("revert", edited, "-o", base)
        results = {"SmolLM2": differences(folder / "edit.proviso", SMOLLM2, base, edited)}
        torch.manual_seed(0)
        shape = {"vocab_size": 49152, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
        random = {
            "random gpt2": GPT2LMHeadModel(GPT2Config(**shape, n_embd=64, n_layer=3, n_head=4, n_positions=128)),
            "random llama": LlamaForCausalLM(
                LlamaConfig(**shape, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                            num_key_value_heads=2)),
        }
        for number, (name, model) in enumerate(random.items()):
            source, edited = folder / f"random{number}", folder / f"edited{number}"
            model.save_pretrained(source)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(base / file, source / file)
            proviso("apply", folder / "folds.proviso", "--model", source, "-o", edited)
            results[name] = differences(folder / "folds.proviso", str(source), source, edited)
    for name, (edits, beside, merged) in results.items():
        print(f"{name}: the edits change logits by {edits:.1e}; adapter beside the model {beside:.1e}, merged {merged:.1e}")
        worst = max(worst, beside / edits, merged / edits)
    return 0 if worst < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
