"""Holds what `proviso apply` writes to transformers: the folder loads there and answers as `proviso run` does.

    python tests/parity/apply_in_transformers.py build/proviso .cache/models/SmolLM2-135M-Instruct.Q4_1.gguf

transformers 4.57.6 with torch 2.13.0. Prints the largest difference of log-probabilities for each model, and exits
with 1 where one is over 1e-3.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

PROGRAM, SMOLLM2 = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
PROMPT = "The Eiffel Tower is located in the city of"
FEATURE = """
feature mood = contrast(["What a dreadful day", "They lied to me"], ["What a lovely day", "They smiled at me"])
  at resid_post[1]
"""
FOLDS = FEATURE + """
rule steady { suppress mood by 50% at attn_out[*], embed }
rule pushed { steer mood by 2 at mlp_out[0..1] }
"""
EDIT = FOLDS + """
edit move_eiffel {
  fact "The Eiffel Tower" in "{} is located in the city of" from " Paris" to " Rome"
  using rome(layer: 5)
}
"""


def proviso(*arguments: str) -> str:
    return subprocess.run([PROGRAM, *arguments], check=True, capture_output=True, text=True).stdout


def largest_difference(model: str, rules: pathlib.Path, edited: pathlib.Path) -> float:
    proviso("apply", str(rules), "--model", model, "-o", str(edited))
    asked = ["--prompt", PROMPT, "--max-tokens", "0", "--top", "200", "--output", "json"]
    ours = json.loads(proviso("run", "--model", model, "--rules", str(rules), *asked))
    theirs = AutoModelForCausalLM.from_pretrained(edited, dtype=torch.float32).eval()
    with torch.no_grad():
        log_probabilities = theirs(torch.tensor([ours["tokens"]])).logits[0, -1].double().log_softmax(-1)
    return max(abs(log_probabilities[token["id"]].item() - token["log_probability"]) for token in ours["next"])


def main() -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        (folder / "edit.proviso").write_text(EDIT)
        (folder / "folds.proviso").write_text(FOLDS)
        smollm2 = largest_difference(SMOLLM2, folder / "edit.proviso", folder / "smollm2_edited")
        results = {"SmolLM2": smollm2}
        torch.manual_seed(0)
        shape = {"vocab_size": 49152, "bos_token_id": 1, "eos_token_id": 2}
        random = {
            "random gpt2": GPT2LMHeadModel(GPT2Config(**shape, n_embd=64, n_layer=3, n_head=4, n_positions=128)),
            "random llama, untied, with biases": LlamaForCausalLM(
                LlamaConfig(**shape, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                            num_key_value_heads=2, attention_bias=True, tie_word_embeddings=False)),
        }
        for number, (name, model) in enumerate(random.items()):
            source = folder / f"random{number}"
            model.save_pretrained(source, max_shard_size="5MB")
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(folder / "smollm2_edited" / file, source / file)
            results[name] = largest_difference(str(source), folder / "folds.proviso", folder / f"edited{number}")
    for name, difference in results.items():
        print(f"{name}: {difference:.1e}")
        worst = max(worst, difference)
    return 0 if worst < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
