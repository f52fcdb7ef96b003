#!/usr/bin/env python3
"""Runs the program on a CPU and on a CUDA device and compares what comes out. Needs a LibTorch with CUDA and PyYAML.

    tests/cuda/compare.py build/proviso MODEL [RULES.proviso …]

Compared are next-token tables, generated texts and whole audits: every verdict must be equal, and the largest relative
difference of numbers is told. An audit on the GPU is run twice, and must give the same bytes.
"""
import concurrent.futures
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
PROMPTS = ["The capital of France is", "Once upon a time there was a", "def add(a, b):\n    return"]
DEVICES = {"cpu": [], "cuda": ["--device", "cuda"], "cuda in bfloat16": ["--device", "cuda", "--dtype", "bfloat16"]}
# Of the machine, or of the bytes that a change of weights rounds to; and the worst prompts, whose order may change.
LEFT_OUT = {"seconds", "device", "sha256", "sha256_before", "sha256_after", "evidence"}


def run(program, *arguments):
    start = time.monotonic()
    done = subprocess.run([program, *map(str, arguments), "--threads", "4"], capture_output=True, text=True)
    done.seconds = time.monotonic() - start
    if done.returncode not in (0, 1):
        print(f"  FAILED ({done.returncode}): {' '.join(map(str, arguments))}\n{done.stderr[-1500:]}", flush=True)
    return done


def leaves(node, path=""):
    if isinstance(node, dict):
        for key, value in node.items():
            if key not in LEFT_OUT:
                yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            name = value.get("name") if isinstance(value, dict) else None
            yield from leaves(value, f"{path}[{name if name else i}]")
    else:
        yield path, node


def compare_reports(here, there):
    a, b = dict(leaves(here)), dict(leaves(there))
    words = [(path, a.get(path), b.get(path)) for path in sorted(a.keys() | b.keys())
             if path.split(".")[-1] in ("status", "verdict") and a.get(path) != b.get(path)]
    numbers = []
    for path in a.keys() & b.keys():
        x, y = a[path], b[path]
        if isinstance(x, (int, float)) and isinstance(y, (int, float)) and not isinstance(x, bool) and x != y:
            if math.isfinite(x) and math.isfinite(y):
                numbers.append((abs(x - y) / max(abs(x), abs(y), 1e-3), path, x, y))
    numbers.sort(reverse=True)
    return words, numbers, len(a.keys() ^ b.keys())


def compare_runs(pool, program, model):
    """How many tables differ by more than rounding."""
    def one(prompt, options):
        table = run(program, "run", "--model", model, "--prompt", prompt, "--max-tokens", 0, "--top", 100, "--output", "json",
                    *options)
        text = run(program, "run", "--model", model, "--prompt", prompt, "--max-tokens", 48, "--output", "json", *options)
        if table.returncode or text.returncode:
            return {}, None
        return ({each["id"]: each["log_probability"] for each in json.loads(table.stdout)["next"]},
                json.loads(text.stdout)["generated"])

    jobs = {(prompt, name): pool.submit(one, prompt, options) for prompt in PROMPTS for name, options in DEVICES.items()}
    wrong = 0
    for prompt in PROMPTS:
        table, text = jobs[prompt, "cpu"].result()
        for name in ("cuda", "cuda in bfloat16"):
            other, other_text = jobs[prompt, name].result()
            shared = table.keys() & other.keys()
            most = max((abs(table[i] - other[i]) for i in shared), default=math.inf)
            print(f"run {prompt!r}, {name}: {len(shared)} of 100 tokens shared, log-probabilities within {most:.2e}, "
                  f"48 tokens {'equal' if text == other_text else 'differ'}", flush=True)
            wrong += name == "cuda" and not most < 1e-3
    return wrong


def compare_audits(pool, program, model, rules, folder):
    """How many rule files have another verdict on the GPU, or other bytes there in a second run."""
    def one(number, rule, name, options):
        report = pathlib.Path(folder, f"{number} {name}.yaml")
        done = run(program, "audit", rule, "--model", model, "--reproducible", "--as-of", "2026-12-01", "--evidence", "hash",
                   "-o", report, *options)
        return done, report.read_text() if report.exists() else ""

    on_cuda = DEVICES["cuda"]
    jobs = [{name: pool.submit(one, number, rule, name, options)
             for name, options in {"cpu": [], "cuda": on_cuda, "again": on_cuda}.items()} for number, rule in enumerate(rules)]
    wrong = 0
    for rule, job in zip(rules, jobs):
        done, reports = {}, {}
        for name, result in job.items():
            done[name], reports[name] = result.result()
        print(f"audit {rule}: " + ", ".join(f"{n} exit {d.returncode} in {d.seconds:.1f} s" for n, d in done.items()))
        if not reports["cpu"] or not reports["cuda"]:
            wrong += 1
            continue
        words, numbers, unpaired = compare_reports(yaml.safe_load(reports["cpu"]), yaml.safe_load(reports["cuda"]))
        for path, x, y in words:
            print(f"  VERDICT {path}: {x} on the CPU, {y} on the GPU")
        print(f"  {unpaired} keys in one alone; numbers that differ most, relative to the larger of the two or 0.001:")
        for share, path, x, y in numbers[:10]:
            print(f"    {share:.1e} {path}: {x} {y}")
        same = reports["cuda"] == reports["again"]
        print(f"  the second run on the GPU gives {'the same bytes' if same else 'OTHER BYTES'}", flush=True)
        wrong += bool(words) or done["cpu"].returncode != done["cuda"].returncode or not same
    return wrong


def main():
    program, model, *rules = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(6) as pool:
        wrong = compare_runs(pool, program, model)
        wrong += compare_audits(pool, program, model, rules or [HERE / "everything.proviso"], folder)
    print("nothing differs" if not wrong else f"{wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
