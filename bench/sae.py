#!/usr/bin/env python3
"""Training sparse autoencoders side by side: `proviso sae train`, SAELens' trainer, and plain PyTorch.

    bench/sae.py                        both dtypes, into bench/sae.md
    bench/sae.py --dtype float32 --print

The same machine, threads and sizes: a topk autoencoder of 16,384 latents, k = 64, on vectors of width 576, 2,048 a step.
All three train by Adam with an auxiliary loss for dead latents at hand (plain PyTorch has none). What is compared is the
steps alone: ours is the difference of a long and a short training, so that loading and reading activations fall out;
theirs are given vectors that stand in memory. Installs sae-lens into .cache/bench-sae-venv on the first run.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".cache/bench-sae-venv"
PACKAGES = ["torch==2.13.0", "sae-lens==6.54.12"]
GGUF = ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = ROOT / "rules/corpus"
WIDTH, LATENTS, K, BATCH = 576, 16384, 64, 2048
WARM, STEPS = 2, 6


def enter_environment(venv: pathlib.Path) -> None:
    """Goes on in the virtual environment, made where it is missing."""
    if pathlib.Path(sys.prefix) == venv:
        return
    if not (venv / "bin/python").exists():
        print("bench: installing", *PACKAGES, file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", *PACKAGES], check=True)
    os.execv(venv / "bin/python", [venv / "bin/python", *sys.argv])


def ours(program: pathlib.Path, dtype: str, threads: int) -> float:
    """Tokens a second of the steps between a short and a long training."""
    seconds = {}
    for steps in (WARM, WARM + STEPS):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [program, "sae", "train", "--model", GGUF, "--at", "resid_post[15]", "--text", TEXT, "--latents",
                 str(LATENTS), "--k", str(K), "--batch", str(BATCH), "--tokens", str(steps * BATCH), "--dtype", dtype,
                 "--threads", str(threads), "--output", "json", "-o", pathlib.Path(folder) / "sae"],
                check=True, capture_output=True, text=True)
        seconds[steps] = json.loads(done.stdout)["seconds"]
    return STEPS * BATCH / (seconds[WARM + STEPS] - seconds[WARM])


def timed(step) -> float:
    for _ in range(WARM):
        step()
    taken = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return BATCH / statistics.median(taken)


def vectors(torch):
    torch.manual_seed(0)
    while True:
        yield torch.randn(BATCH, WIDTH)


def sae_lens(dtype: str) -> float:
    import torch
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer
    config = SAETrainerConfig(total_training_samples=(WARM + STEPS) * BATCH, train_batch_size_samples=BATCH, lr_end=3e-5,
                              autocast=dtype == "bfloat16", logger=LoggingConfig(log_to_wandb=False))
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=WIDTH, d_sae=LATENTS, k=K))
    data = vectors(torch)
    trainer = SAETrainer(config, sae, data)

    def step():
        trainer.step(next(data))
        trainer.n_training_steps += 1
    return timed(step)


def plain(dtype: str) -> float:
    import torch
    from torch.nn import functional as F
    W_enc = torch.nn.Parameter(torch.randn(LATENTS, WIDTH) / WIDTH ** 0.5)
    W_dec = torch.nn.Parameter(W_enc.detach().clone())
    b_enc = torch.nn.Parameter(torch.zeros(LATENTS))
    b_dec = torch.nn.Parameter(torch.zeros(WIDTH))
    optimizer = torch.optim.Adam([W_enc, W_dec, b_enc, b_dec], lr=1e-3, fused=True)
    data = vectors(torch)

    def step():
        x = next(data)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            before = F.linear(x - b_dec, W_enc, b_enc)
        values, index = before.topk(K, sorted=False)
        values = values.float().relu()
        out = F.embedding_bag(index, W_dec, per_sample_weights=values, mode="sum") + b_dec
        loss = (out - x).pow(2).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
    return timed(step)


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], action="append")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/proviso")
    parser.add_argument("--venv", type=pathlib.Path, default=VENV, help="a virtual environment with sae-lens in it")
    parser.add_argument("--print", action="store_true", help="print the table, write no file")
    arguments = parser.parse_args()
    enter_environment(arguments.venv)
    import torch
    torch.set_num_threads(arguments.threads)
    rows = []
    for dtype in arguments.dtype or ["float32", "bfloat16"]:
        speeds = {"proviso": ours(arguments.program, dtype, arguments.threads), "SAELens": sae_lens(dtype),
                  "plain PyTorch": plain(dtype)}
        fastest = max(speeds["SAELens"], speeds["plain PyTorch"])
        rows.append((dtype, speeds, speeds["proviso"] / fastest))
        print("bench:", dtype, {name: round(value) for name, value in speeds.items()}, file=sys.stderr)
    table = ["| dtype | proviso | SAELens 6.54.12 | plain PyTorch | against the faster |", "|---|---|---|---|---|"]
    for dtype, speeds, ratio in rows:
        table.append(f"| {dtype} | " + " | ".join(f"{value:,.0f}" for value in speeds.values()) + f" | {ratio:.2f} |")
    text = (f"# Training sparse autoencoders\n\nTokens a second, by `bench/sae.py`: {LATENTS:,} latents, k = {K}, width "
            f"{WIDTH}, {BATCH:,} a step, topk; {processor()}, {arguments.threads} threads, torch {torch.__version__}.\n\n"
            + "\n".join(table) + "\n")
    if arguments.print:
        print(text)
    else:
        (ROOT / "bench/sae.md").write_text(text)


main()
