#!/usr/bin/env python3
"""Measures a sweep of activation patching side by side: every layer and position of the residual stream of SmolLM2, by
`proviso trace --sweep`, by TransformerLens' patching utilities, and by a transformers script batched by hand.

    bench/sweep.py [--pair late] [--threads 2] [--repeats 3] [--model FILE.gguf]

Same model, prompts, threads and machine, in turns; float32, and Proviso also screened in bfloat16. Loading is left out on
all sides. The effects of all sides are compared, too. Installs transformers and TransformerLens into .cache/sweep-venv
on the first run; nothing comes from a model hub.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = pathlib.Path(os.environ.get("PROVISO_SWEEP_VENV", ROOT / ".cache/sweep-venv"))
PACKAGES = ["torch==2.13.0", "transformers==4.57.6", "gguf", "accelerate", "transformer-lens"]
GGUF = ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"

# One pair that differs early and one that differs late, where most positions cannot change.
PAIRS = {
    "early": ("The capital of France is a large old city, and the river that runs through it is called the",
              "The capital of Egypt is a large old city, and the river that runs through it is called the", " Se", " N"),
    "late": ("When John and Mary went to the shop to buy bread and milk, John gave it to",
             "When John and Mary went to the shop to buy bread and milk, Mary gave it to", " Mary", " John"),
}


def enter_environment() -> None:
    """Goes on in the virtual environment, made where it is missing."""
    if pathlib.Path(sys.prefix).resolve() == VENV.resolve():
        return
    if not (VENV / "bin/python").exists():
        print("bench: installing", *PACKAGES, file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin/pip", "install", "--quiet", *PACKAGES], check=True)
    os.execv(VENV / "bin/python", [str(VENV / "bin/python"), *sys.argv])


class Ours:
    def __init__(self, model: pathlib.Path, threads: int):
        self.model, self.threads = model, threads

    def sweep(self, clean: str, corrupt: str, a: str, b: str, *options: str) -> dict:
        quoted = [json.dumps(text) for text in (clean, corrupt, a, b)]
        with tempfile.TemporaryDirectory() as folder:
            rules = pathlib.Path(folder) / "sweep.proviso"
            rules.write_text("circuit c {{ clean {} corrupt {}  measure logit_diff({}, {})  using eap  keep 5 edges }}\n"
                             .format(*quoted))
            done = subprocess.run([ROOT / "build/proviso", "trace", rules, "--model", self.model, "--sweep", "resid_pre",
                                   "--output", "json", "-o", "-", "--threads", str(self.threads), *options],
                                  capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        return json.loads(done.stdout)["sweeps"][0]


class Theirs:
    def __init__(self, gguf: pathlib.Path, threads: int):
        import torch
        from transformers import AutoModelForCausalLM
        torch.set_num_threads(threads)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
        self.tokens = {}

    def measure(self, logits, a: int, b: int):
        return logits[:, -1, a] - logits[:, -1, b]

    def by_hand(self, clean, corrupt, a: int, b: int):
        """All positions of a layer are the rows of one batch."""
        torch, layers, n = self.torch, self.model.model.layers, clean.shape[1]
        with torch.no_grad():
            kept = {}
            hooks = [layer.register_forward_pre_hook(lambda _, args, i=i: kept.__setitem__(i, args[0].clone()))
                     for i, layer in enumerate(layers)]
            self.model(clean, logits_to_keep=1)
            for hook in hooks:
                hook.remove()
            at = torch.arange(n)
            rows = corrupt.repeat(n, 1)
            effects = []
            for i, layer in enumerate(layers):
                def patch(_, args, i=i):
                    stream = args[0].clone()
                    stream[at, at] = kept[i][0, at]
                    return (stream, *args[1:])
                hook = layer.register_forward_pre_hook(patch)
                effects.append(self.measure(self.model(rows, logits_to_keep=1).logits, a, b))
                hook.remove()
            return torch.stack(effects)

    def lens(self):
        """TransformerLens' model of the same weights."""
        import transformer_lens
        from transformer_lens import HookedTransformer, HookedTransformerConfig
        try:
            from transformer_lens.pretrained.weight_conversions import convert_llama_weights
        except ImportError:
            from transformer_lens.loading_from_pretrained import convert_llama_weights
        config = self.model.config
        cfg = HookedTransformerConfig(
            d_model=config.hidden_size, d_head=config.hidden_size // config.num_attention_heads,
            n_heads=config.num_attention_heads, n_key_value_heads=config.num_key_value_heads,
            d_mlp=config.intermediate_size, n_layers=config.num_hidden_layers, n_ctx=2048, eps=config.rms_norm_eps,
            d_vocab=config.vocab_size, act_fn="silu", normalization_type="RMS", positional_embedding_type="rotary",
            rotary_adjacent_pairs=False, rotary_dim=config.hidden_size // config.num_attention_heads,
            rotary_base=int(config.rope_theta), final_rms=True, gated_mlp=True, original_architecture="LlamaForCausalLM",
            dtype=self.torch.float32, device="cpu")
        lens = HookedTransformer(cfg)
        lens.load_and_process_state_dict(convert_llama_weights(self.model, cfg), fold_ln=False, center_writing_weights=False,
                                         center_unembed=False, fold_value_biases=False)
        return transformer_lens, lens.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pair", choices=list(PAIRS), action="append", help="one of the pairs (both unless told)")
    parser.add_argument("--model", type=pathlib.Path, default=GGUF)
    options = parser.parse_args()
    enter_environment()
    import torch
    from transformers import PreTrainedTokenizerFast  # noqa: F401  (the program tells the tokens)
    ours, theirs = Ours(options.model, options.threads), Theirs(options.model, options.threads)
    _, lens = theirs.lens()
    from transformer_lens import patching

    def tokens_of(text: str) -> list[int]:
        done = subprocess.run([ROOT / "build/proviso", "run", "--model", options.model, "--prompt", text, "--max-tokens", "0",
                               "--output", "json"], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)["tokens"]

    print("| pair | positions | patches | Proviso, s | screened, s | by hand, s | TransformerLens, s | to by hand | to TransformerLens |"
          " largest difference | confirmed |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for name in options.pair or PAIRS:
        clean, corrupt, a, b = PAIRS[name]
        ids = [torch.tensor([tokens_of(text)]) for text in (clean, corrupt)]
        token = [tokens_of(text)[0] for text in (a, b)]
        times = {side: [] for side in ("ours", "screened", "hand", "lens")}
        for _ in range(options.repeats):
            ran = ours.sweep(clean, corrupt, a, b)
            times["ours"].append(ran["seconds"])
            screened = ours.sweep(clean, corrupt, a, b, "--screen")
            times["screened"].append(screened["seconds"])
            began = time.perf_counter()
            hand = theirs.by_hand(*ids, *token)
            times["hand"].append(time.perf_counter() - began)
            with torch.no_grad():
                began = time.perf_counter()
                _, cache = lens.run_with_cache(ids[0])
                patched = patching.get_act_patch_resid_pre(
                    lens, ids[1], cache, lambda logits: theirs.measure(logits, *token).squeeze())
                times["lens"].append(time.perf_counter() - began)
        median = {side: statistics.median(values) for side, values in times.items()}
        whole = ran["m_clean"] - ran["m_corrupt"]
        m = torch.tensor(ran["recovered"]) * whole + ran["m_corrupt"]
        off = max((m - hand).abs().max().item(), (m - patched.cpu()).abs().max().item())
        print(f"| {name} | {ids[0].shape[1]} | {m.numel()} | {median['ours']:.2f} | {median['screened']:.2f} | {median['hand']:.2f} |"
              f" {median['lens']:.2f} | {median['ours'] / median['hand']:.3f} | {median['ours'] / median['lens']:.3f} |"
              f" {off:.1e} | {screened['screening']['confirmed']} |", flush=True)


if __name__ == "__main__":
    main()
