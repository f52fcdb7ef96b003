#!/usr/bin/env python3
"""Measures Proviso and transformers side by side: same model, dtype, threads and machine, in turns.

    make bench                     everything, into bench/results.md
    bench/run.py --only forward    one measurement, printed

Installs transformers into .cache/bench-venv on the first run.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".cache/bench-venv"
PACKAGES = ["torch==2.13.0", "transformers==4.57.6", "gguf", "accelerate"]
GGUF = ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
DIRECTORY = ROOT / ".cache/bench/SmolLM2-135M-Instruct"
PROMPT = "The capital of France is"


def enter_environment() -> None:
    """Goes on in the virtual environment, made where it is missing."""
    if pathlib.Path(sys.prefix) == VENV:
        return
    stamp = VENV / "packages"
    if not stamp.exists() or stamp.read_text().split() != PACKAGES:
        print("bench: installing", *PACKAGES, file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin/pip", "install", "--quiet", *PACKAGES], check=True)
        stamp.write_text("\n".join(PACKAGES))
    os.execv(VENV / "bin/python", [VENV / "bin/python", *sys.argv])


def formula_tokens(row: int, length: int) -> list[int]:
    """As in bench.cpp."""
    return [1000 + (row * 7919 + i * 104729) % 20000 for i in range(length)]


class Ours:
    def __init__(self, threads: int):
        self.threads = threads

    def measure(self, work: str, dtype: str, repeats: int) -> dict:
        done = subprocess.run([ROOT / "build/proviso_bench", work, DIRECTORY, dtype, str(self.threads), str(repeats)],
                              check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def start(self, model: pathlib.Path) -> list[str]:
        return [str(ROOT / "build/proviso"), "run", "--model", str(model), "--prompt", PROMPT, "--max-tokens", "0",
                "--top", "5", "--output", "json", "--threads", str(self.threads)]


START_SCRIPT = """
import pathlib, sys, torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
path, tokenizer, threads = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
source = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
model = AutoModelForCausalLM.from_pretrained(path.parent if source else path, dtype=torch.float32, **source)
ids = PreTrainedTokenizerFast(tokenizer_file=tokenizer)("The capital of France is", return_tensors="pt").input_ids
with torch.no_grad():
    print(model(ids, logits_to_keep=1).logits[0, -1].softmax(-1).topk(5))
"""


class Theirs:
    """transformers, as its users would write each piece of work."""

    def __init__(self, threads: int):
        import torch
        torch.set_num_threads(threads)
        self.torch, self.threads, self.models = torch, threads, {}

    def start(self, model: pathlib.Path) -> list[str]:
        return [sys.executable, "-c", START_SCRIPT, str(model), str(DIRECTORY / "tokenizer.json"), str(self.threads)]

    def model(self, dtype: str):
        if dtype not in self.models:
            from transformers import AutoModelForCausalLM
            loaded = AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=getattr(self.torch, dtype))
            self.models[dtype] = loaded.eval().requires_grad_(False)
        return self.models[dtype]

    def ids(self, rows: list[list[int]]):
        return self.torch.tensor(rows)

    def forward(self, dtype: str):
        model, ids = self.model(dtype), self.ids([formula_tokens(row, 128) for row in range(16)])

        def work():
            with self.torch.no_grad():
                model(ids, logits_to_keep=1, use_cache=False)
        return work

    def shared_prefix(self, dtype: str):
        model, prefix = self.model(dtype), formula_tokens(0, 200)
        rows = [prefix + formula_tokens(row, 14) for row in range(1, 257)]

        def work():
            with self.torch.no_grad():
                for begin in range(0, len(rows), 32):
                    model(self.ids(rows[begin:begin + 32]), logits_to_keep=1, use_cache=False)
        return work

    def generation(self, dtype: str):
        model, ids = self.model(dtype), self.ids([formula_tokens(row, 16) for row in range(8)])
        direction = self.torch.nn.functional.normalize(self.torch.randn(model.config.hidden_size), dim=0)

        def steer(module, inputs, output):
            return (output[0] + 2 * direction, *output[1:]) if isinstance(output, tuple) else output + 2 * direction

        def work():
            handle = model.model.layers[model.config.num_hidden_layers // 6].register_forward_hook(steer)
            with self.torch.no_grad():
                model.generate(ids, attention_mask=self.torch.ones_like(ids), do_sample=False, min_new_tokens=64,
                               max_new_tokens=64, pad_token_id=0)
            handle.remove()
        return work

    def rome(self, dtype: str, edit: dict):
        """The same steps of v*'s optimisation, each with whole forward and backward passes."""
        torch, model = self.torch, self.model(dtype)
        target, prompts = edit["target"], edit["prompts"]
        rows = [prompt["tokens"] + target[:-1] for prompt in prompts] + [edit["anchor"]["tokens"]]
        subjects = [prompt["subject_last"] for prompt in prompts] + [edit["anchor"]["subject_last"]]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        where = (torch.arange(len(rows)), torch.tensor(subjects))
        wanted = [(i, len(prompt["tokens"]) - 1 + k, token)
                  for i, prompt in enumerate(prompts) for k, token in enumerate(target)]
        at = tuple(torch.tensor(column) for column in zip(*wanted))
        anchor = (len(rows) - 1, subjects[-1])

        def work():
            delta = torch.zeros(model.config.hidden_size, requires_grad=True)
            optimiser = torch.optim.Adam([delta], lr=0.5)
            found = {}

            def add(module, inputs, output):
                found.setdefault("value", output[where][0].detach().clone())
                changed = output.clone()
                changed[where] = changed[where] + delta
                return changed

            handle = model.model.layers[edit["layer"]].mlp.register_forward_hook(add)
            for step in range(edit["steps"]):
                log_probabilities = model(ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
                found.setdefault("anchor", log_probabilities[anchor].detach().clone())
                loss = (-log_probabilities[at].mean()
                        + 0.0625 * torch.nn.functional.kl_div(found["anchor"], log_probabilities[anchor],
                                                              log_target=True, reduction="sum")
                        + 0.5 * delta.norm() / found["value"].norm() ** 2)
                if step + 1 < edit["steps"]:
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
            handle.remove()
        return work


def prepare_directory() -> None:
    """The GGUF as a float32 Hugging Face directory. Its conversion by transformers gets the tokenizer wrong;
    what the `smollm` pre-tokenizer is stands here."""
    if (DIRECTORY / "ready").exists():
        return
    import tokenizers
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    print("bench: writing", DIRECTORY.relative_to(ROOT), file=sys.stderr)
    source = {"pretrained_model_name_or_path": GGUF.parent, "gguf_file": GGUF.name}
    AutoModelForCausalLM.from_pretrained(dtype=torch.float32, **source).save_pretrained(DIRECTORY)
    tokenizer = AutoTokenizer.from_pretrained(**source).backend_tokenizer
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Digits(individual_digits=True),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.post_processor = None
    tokenizer.save(str(DIRECTORY / "tokenizer.json"))
    (DIRECTORY / "ready").touch()


def seconds_of(work, repeats: int) -> list[float]:
    """The first run warms up and is not counted."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return taken[1:]


def run_process(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure_start(ours: Ours, theirs: Theirs, model: pathlib.Path, repeats: int) -> tuple[float, float]:
    pairs = [(seconds_of(lambda: run_process(ours.start(model)), 1)[0],
              seconds_of(lambda: run_process(theirs.start(model)), 1)[0]) for _ in range(repeats)]
    return tuple(map(statistics.median, zip(*pairs)))


def measure_work(ours: Ours, theirs: Theirs, work: str, dtype: str, repeats: int) -> tuple[float, float]:
    mine, other = [], []
    for _ in range(2):  # in turns, so that a slow spell of the machine meets both
        measured = ours.measure(work, dtype, repeats)
        mine += measured["seconds"]
        arguments = (dtype, measured) if work == "rome" else (dtype,)
        other += seconds_of(getattr(theirs, work)(*arguments), repeats)
    return statistics.median(mine), statistics.median(other)


def measure_features(ours: Ours, theirs: Theirs, repeats: int) -> tuple[float, float]:
    measured = [ours.measure("features", "float32", 2 * repeats) for _ in range(2)]  # a small difference
    return tuple(statistics.median([s for m in measured for s in m[key]]) for key in ("seconds", "plain"))


MEASUREMENTS = {  # name: (what, target of our time over theirs, how)
    "start_hf": ("start to next-token table, safetensors", 1 / 5,
                 lambda o, t, n: measure_start(o, t, DIRECTORY, n)),
    "start_gguf": ("start to next-token table, GGUF", 1 / 12, lambda o, t, n: measure_start(o, t, GGUF, min(n, 3))),
    "forward": ("forward 16 × 128, last logits", 0.85, lambda o, t, n: measure_work(o, t, "forward", "float32", n)),
    "features": ("the same with 100 conditional features (against our own plain pass)", 1.03, measure_features),
    "shared_prefix": ("256 prompts behind 200 shared tokens", 1 / 10,
                      lambda o, t, n: measure_work(o, t, "shared_prefix", "float32", min(n, 2))),
    "generation": ("generation, 8 × 64 tokens, steered", 0.6,
                   lambda o, t, n: measure_work(o, t, "generation", "float32", min(n, 3))),
    "rome": ("ROME, optimisation of v*", 1 / 3, lambda o, t, n: measure_work(o, t, "rome", "float32", 1)),
    "bfloat16": ("forward 16 × 128 in bfloat16", 1 / 1.4, lambda o, t, n: measure_work(o, t, "forward", "bfloat16", n)),
}


def machine(threads: int) -> str:
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "asimd")
    try:
        flags = set(pathlib.Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    return f"{platform.machine()} ({', '.join(flag for flag in known if flag in flags)}), {threads} threads"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=MEASUREMENTS, action="append")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    enter_environment()
    prepare_directory()

    ours, theirs = Ours(arguments.threads), Theirs(arguments.threads)
    lines = ["| work | Proviso, s | transformers, s | ratio | target | |", "|---|---|---|---|---|---|"]
    for name in arguments.only or MEASUREMENTS:
        what, target, how = MEASUREMENTS[name]
        mine, other = how(ours, theirs, arguments.repeats)
        ratio = mine / other
        lines.append(f"| {what} | {mine:.3f} | {other:.3f} | {ratio:.3f} | {target:.3f} | "
                     f"{'met' if ratio <= target else 'missed'} |")
        print(lines[-1], file=sys.stderr, flush=True)
    table = "\n".join(lines)
    if arguments.only:
        print(table)
    else:
        (ROOT / "bench/results.md").write_text(
            "# Measured\n\n"
            f"SmolLM2-135M-Instruct, float32 unless said; {machine(arguments.threads)}. Medians of one run of "
            "`make bench`, both sides in turns;\nthe ratio is our time over that of transformers 4.57.6.\n\n"
            f"{table}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
