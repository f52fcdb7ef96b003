#!/usr/bin/env python3
"""Training sparse autoencoders side by side: `proviso sae train`, SAELens' trainer, and plain PyTorch.

    bench/sae.py                        both dtypes, into bench/sae.md
    bench/sae.py --dtype float32 --print
    bench/sae.py --quality TRAIN HELD     what a training comes to beside plain PyTorch's, into bench/sae_quality.md

The same machine, threads and sizes: a topk autoencoder of 16,384 latents, k = 64, on vectors of width 576, 2,048 a step.
All three train by Adam with an auxiliary loss for dead latents at hand (plain PyTorch has none). What is compared is the
steps alone: ours is the difference of a long and a short training, so that loading and reading activations fall out;
theirs are given vectors that stand in memory. With --quality, two folders of .txt files, ours reads the text and trains,
plain PyTorch trains for those seconds on activations that were read before, and `proviso sae eval` measures both.
Installs sae-lens into .cache/bench-sae-venv on the first run.
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


class Plain:
    """topk as one would write it by hand."""

    def __init__(self, latents: int, k: int, dtype: str, mean=0.0):
        import torch
        rows = torch.randn(latents, WIDTH)
        self.torch, self.k, self.half = torch, k, dtype == "bfloat16"
        self.W_enc = torch.nn.Parameter(rows / rows.norm(dim=1, keepdim=True))
        self.W_dec = torch.nn.Parameter(self.W_enc.detach().clone())
        self.b_enc = torch.nn.Parameter(torch.zeros(latents))
        self.b_dec = torch.nn.Parameter(torch.zeros(WIDTH) + mean)
        self.optimizer = torch.optim.Adam([self.W_enc, self.W_dec, self.b_enc, self.b_dec], lr=1e-3, fused=True)

    def step(self, x) -> None:
        F = self.torch.nn.functional
        with self.torch.autocast("cpu", dtype=self.torch.bfloat16, enabled=self.half):
            before = F.linear(x - self.b_dec, self.W_enc, self.b_enc)
        values, index = before.topk(self.k, sorted=False)
        out = F.embedding_bag(index, self.W_dec, per_sample_weights=values.float().relu(), mode="sum") + self.b_dec
        loss = (out - x).pow(2).sum(-1).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with self.torch.no_grad():
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    def train(self, x, seconds: float) -> int:
        """For so long, the rate rising at first and falling at the end; returns the vectors seen."""
        started, seen = time.perf_counter(), 0
        while True:
            for which in self.torch.randperm(len(x)).split(BATCH):
                done = (time.perf_counter() - started) / seconds
                if done >= 1:
                    return seen
                for group in self.optimizer.param_groups:
                    group["lr"] = 1e-3 * max(1e-3, min(1, done / 0.05, (1 - done) / 0.2))
                self.step(x[which])
                seen += len(which)

    def write(self, folder: pathlib.Path, scale: float) -> None:
        """In SAELens' format, for activations that were multiplied by `scale`."""
        from sae_lens.saes.sae import SAEMetadata
        from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
        sae = TopKSAE(TopKSAEConfig(d_in=WIDTH, d_sae=len(self.b_enc), k=self.k, rescale_acts_by_decoder_norm=False,
                                    metadata=SAEMetadata(model_name="SmolLM2", hook_name="blocks.15.hook_resid_post",
                                                         prepend_bos=False)))
        with self.torch.no_grad():
            sae.W_enc.copy_(self.W_enc.t() * scale)
            sae.W_dec.copy_(self.W_dec / scale)
            sae.b_enc.copy_(self.b_enc)
            sae.b_dec.copy_(self.b_dec / scale)
        sae.save_model(str(folder))


def plain(dtype: str) -> float:
    import torch
    model, data = Plain(LATENTS, K, dtype), vectors(torch)
    return timed(lambda: model.step(next(data)))


def activations(program: pathlib.Path, text: pathlib.Path, folder: pathlib.Path):
    """Of the text in pieces of some 128 tokens, attention sinks left out."""
    from safetensors.torch import load_file
    whole = [" ".join(path.read_text().split()) for path in sorted(text.glob("*.txt"))]
    pieces = [each[begin:begin + 540] for each in whole for begin in range(0, len(each), 540)]
    prompts, out = folder / "pieces.jsonl", folder / "x.safetensors"
    prompts.write_text("".join(json.dumps({"prompt": piece}) + "\n" for piece in pieces))
    subprocess.run([program, "activations", "--model", GGUF, "--at", "resid_post[15]", "--prompts", prompts, "-o", out],
                   check=True)
    x = load_file(out)["resid_post[15]"]
    lengths = x.norm(dim=1)
    return x[lengths < 10 * lengths.median()]


def quality(arguments: argparse.Namespace) -> None:
    import torch
    train, held = arguments.quality
    latents, k, dtype = 4096, 32, (arguments.dtype or ["bfloat16"])[0]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ours_folder, plain_folder = folder / "ours", folder / "plain"
        done = subprocess.run(
            [arguments.program, "sae", "train", "--model", GGUF, "--at", "resid_post[15]", "--text", train, "--latents",
             str(latents), "--k", str(k), "--tokens", str(arguments.tokens), "--dtype", dtype, "--threads",
             str(arguments.threads), "--output", "json", "-o", ours_folder], check=True, capture_output=True, text=True)
        seconds = json.loads(done.stdout)["seconds"]
        x = activations(arguments.program, train, folder)
        scale = (x.square().mean() ** -0.5).item()
        by_hand = Plain(latents, k, dtype, x.mean(0) * scale)
        seen = by_hand.train(x * scale, seconds)
        by_hand.write(plain_folder, scale)
        rows = []
        for side, path, vectors in (("proviso", ours_folder, arguments.tokens), ("plain PyTorch", plain_folder, seen)):
            found = json.loads(subprocess.run(
                [arguments.program, "sae", "eval", path, "--model", GGUF, "--text", held, "--output", "json"],
                check=True, capture_output=True, text=True).stdout)
            rows.append(f"| {side} | {vectors:,} | {found['variance_explained']:.3f} | {found['loss_recovered']:.3f} |")
    deliver(arguments, "sae_quality.md", (
        "# What a training comes to\n\nSmolLM2-135M-Instruct, layer 15, by `bench/sae.py --quality`: "
        f"{latents:,} latents, k = {k}, {dtype}, {seconds:.0f} s each, {processor()}, "
        f"{counted(arguments.threads, 'thread')}. proviso's seconds hold the reading of the text by the model; plain "
        "PyTorch was given the vectors in memory. Measured on text held out of the same sources, attention sinks left out, "
        "which would make up most of the variance: variance about the mean, loss recovered against the mean's.\n\n"
        "| | vectors trained on | variance explained | loss recovered |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"))


def deliver(arguments: argparse.Namespace, name: str, page: str) -> None:
    if arguments.print:
        print(page)
    else:
        (ROOT / "bench" / name).write_text(page)


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


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
    parser.add_argument("--quality", nargs=2, type=pathlib.Path, metavar=("TRAIN", "HELD"), help="folders of .txt files")
    parser.add_argument("--tokens", type=int, default=2_000_000, help="of --quality: what ours trains on")
    parser.add_argument("--print", action="store_true", help="print the page, write no file")
    arguments = parser.parse_args()
    enter_environment(arguments.venv)
    import torch
    torch.set_num_threads(arguments.threads)
    if arguments.quality:
        quality(arguments)
        return
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
            f"{WIDTH}, {BATCH:,} a step, topk; {processor()}, {counted(arguments.threads, 'thread')}, torch {torch.__version__}.\n\n"
            + "\n".join(table) + "\n")
    deliver(arguments, "sae.md", text)


main()
