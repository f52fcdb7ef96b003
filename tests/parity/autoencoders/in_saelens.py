"""Holds what `proviso sae train` writes to SAELens: it loads each kind, and a latent fires there as it does in a rule.

    pip install sae-lens==6.54.12 && python tests/parity/autoencoders/in_saelens.py build/proviso MODEL TEXT

MODEL is a model file (SmolLM2's, as `scripts/setup model` brings it) and TEXT a text to train on for a moment. Prints the
largest difference of activations for each kind, and exits with 1 where one is over 1e-4 of the largest activation.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from sae_lens import SAE

PROGRAM, MODEL, TEXT = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:4])
SITE, LATENTS = "resid_post[15]", 64
PROMPT = "The old man walked down to the river, counted the money twice, and sat there for a while."


def proviso(*arguments: object) -> str:
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stdout


def train(folder: pathlib.Path, kind: str) -> pathlib.Path:
    out = folder / f"sae{kind}"
    proviso("sae", "train", "--model", MODEL, "--at", SITE, "--text", TEXT, "--latents", LATENTS, "--k", 8, "--tokens",
            20000, "--batch", 500, "--quiet", *([kind] if kind else []), "-o", out)
    return out


def stream(folder: pathlib.Path) -> torch.Tensor:
    """[tokens, width], as the program reads it; position 0 is the attention sink, which rules leave alone."""
    prompts, out = folder / "prompts.txt", folder / "x.safetensors"
    prompts.write_text(PROMPT + "\n")
    proviso("activations", "--model", MODEL, "--at", SITE, "--prompts", prompts, "-o", out)
    return load_file(out)[SITE][1:]


def in_rules(folder: pathlib.Path, autoencoder: pathlib.Path) -> torch.Tensor:
    """[latents, 2]: the mean and the largest activation of each over the prompt, from position 1 on."""
    rules = folder / "rules.proviso"
    rules.write_text("".join(f'feature f{i} = latent({i}, sae: "{autoencoder.name}")\n' for i in range(LATENTS))
                     + "rule watch {\n" + "".join(f"  suppress f{i} when f{i} > 1000000\n" for i in range(LATENTS)) + "}\n")
    told = json.loads(proviso("run", "--model", MODEL, "--rules", rules, "--prompt", PROMPT, "--max-tokens", 0, "--output",
                              "json"))["activity"]
    of = {each["feature"]: (each["mean"], each["max"]) for each in told}
    return torch.tensor([of[f"f{i}"] for i in range(LATENTS)])


def main() -> int:
    agree = True
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        x = stream(folder)
        for kind in ("", "--batch-topk", "--jumprelu"):
            autoencoder = train(folder, kind)
            sae = SAE.load_from_disk(autoencoder)
            with torch.no_grad():
                fires = sae.encode(x)
                left = (sae(x) - x).square().sum() / (x - x.mean(0)).square().sum()
            theirs = torch.stack([fires.mean(0), fires.amax(0)], 1)
            off = (theirs - in_rules(folder, autoencoder)).abs().max() / fires.max()
            print(f"{sae.cfg.architecture()}{' ' + kind if kind else ''}: fires {(fires > 0).float().sum(1).mean():.1f} a token,"
                  f" variance left {left:.2f}, largest difference {off:.1e} of the largest activation")
            agree = agree and bool(off < 1e-4)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
