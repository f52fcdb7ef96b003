#!/usr/bin/env python3
"""Holds our edits to those of the methods' published code: same model, facts, prefixes, second moments and settings.

    bench/edit_references.py --counterfact counterfact.json --rome ROME --memit MEMIT --alphaedit ALPHAEDIT
    bench/edit_references.py --counterfact counterfact.json --memit MEMIT    this one; the table takes the others' last run

ROME, MEMIT and ALPHAEDIT are checkouts of kmeng01/rome, kmeng01/memit (both MIT) and jianghoucheng/AlphaEdit; none of their
code is part of this repository. They are made for a GPU and for packages that this script does not need: where they name
"cuda" the processor is used, what they import for their own statistics is left out, and the second moments that
they would measure on Wikipedia are ours, on both sides. ROME's code solves at the bare prompt's key, as our variant
`original` does. Each fact is written into the model as loaded, by them and by us, and
one scorer, transformers', reads both. Goes on in bench/run.py's environment; writes bench/edit_references.md.
"""
import argparse
import contextlib
import dataclasses
import importlib.machinery
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import types

import edit_facts
import run

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCORES = ("efficacy", "paraphrase", "specificity")


# ---- ours ---------------------------------------------------------------------------------------

def ours(arguments: argparse.Namespace, facts: list[dict], method: str, dtype: str, folder: pathlib.Path) -> dict:
    """Seconds a fact, and what both sides share; the changes are written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    work = {"facts": facts, "dtype": dtype, "device": "cpu", "threads": arguments.threads, "text": str(arguments.text),
            "text_tokens": 64, "moments": str(ROOT / "rules/corpus"), "cache": str(ROOT / ".cache/proviso"),
            "rome_prefixes": 20, "rome_variant": "original", "deltas": str(folder), "score": False,
            "items": [{"method": method, "mode": "export"},
                      {"method": method, "mode": "single", "perplexity_every": 10 ** 9, "own_values": True}]}
    task = folder / "work.json"
    task.write_text(json.dumps(work))
    done = subprocess.run([ROOT / "build/proviso_bench_edits", run.DIRECTORY, task], check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    shared = next(line for line in lines if line["mode"] == "export")
    shared["seconds"] = [line["seconds"] for line in lines if line["mode"] == "single"]
    return shared


# ---- theirs -------------------------------------------------------------------------------------

def use_the_processor() -> None:
    import torch
    from transformers import BatchEncoding

    def moved(function):
        def wrapper(*args, **kwargs):
            if kwargs.get("device") == "cuda":
                kwargs["device"] = "cpu"
            return function(*("cpu" if isinstance(each, str) and each == "cuda" else each for each in args), **kwargs)
        return wrapper

    for owner, names in ((torch, ("tensor", "zeros", "eye")), (torch.Tensor, ("to",)), (BatchEncoding, ("to",))):
        for name in names:
            setattr(owner, name, moved(getattr(owner, name)))
    torch.Tensor.cuda = lambda self, *args, **kwargs: self


def leave_out(*names: str) -> None:
    """Modules that the code imports and this comparison never calls. transformers has looked for its own by then."""
    import transformers
    assert transformers.PreTrainedModel

    class Absent(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return None
    for name in names:
        with contextlib.suppress(ImportError):
            __import__(name)
            continue
        sys.modules[name] = Absent(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)


def with_tuples(compute_z) -> None:
    """MEMIT's hook expects decoder layers that return tuples, as transformers' did."""
    plain = compute_z.nethook.TraceDict

    def bare(output, layer: str) -> bool:
        return layer.rsplit(".", 1)[-1].isdigit() and not isinstance(output, (tuple, types.NoneType))

    class TraceDict(plain):
        def __init__(self, *args, edit_output=None, **kwargs):
            def edit(output, layer):
                return edit_output((output,), layer)[0] if bare(output, layer) else edit_output(output, layer)
            super().__init__(*args, edit_output=edit if edit_output else None, **kwargs)

        def __getitem__(self, layer):
            trace = super().__getitem__(layer)
            output = getattr(trace, "output", None)
            return types.SimpleNamespace(output=(output,), close=trace.close) if bare(output, layer) else trace
    compute_z.nethook = types.SimpleNamespace(**{**vars(compute_z.nethook), "TraceDict": TraceDict})


def hyperparameters(kind, method: str, shared: dict, layers: int):
    settings = {"layers": shared["layers"], "layer_selection": "all", "fact_token": "subject_last",
                "v_num_grad_steps": 20 if method == "rome" else 25, "v_lr": 0.5, "v_loss_layer": layers - 1,
                "v_weight_decay": 0.5, "clamp_norm_factor": 4 if method == "rome" else 0.75, "kl_factor": 0.0625,
                "mom2_adjustment": True, "context_template_length_params": [[5, 10], [10, 10]],
                "rewrite_module_tmp": "model.layers.{}.mlp.down_proj", "layer_module_tmp": "model.layers.{}",
                "mlp_module_tmp": "model.layers.{}.mlp", "attn_module_tmp": "model.layers.{}.self_attn",
                "ln_f_module": "model.norm", "lm_head_module": "model.embed_tokens", "mom2_dataset": "", "mom2_n_samples": 0,
                "mom2_dtype": "float32", "mom2_update_weight": shared.get("covariance_weight", 0),
                "nullspace_threshold": 0, "L2": 0, "model_name": "SmolLM2"}
    return kind(**{field.name: settings[field.name] for field in dataclasses.fields(kind)})


class Theirs:
    """`edit(request)` changes the model in place by the published code."""

    def __init__(self, method: str, code: str, model, tokenizer, shared: dict, moments: dict):
        import torch
        leave_out("datasets", "matplotlib", "matplotlib.style", "matplotlib.pyplot")
        sys.path.insert(0, code)
        os.chdir(code)  # they read globals.yml there
        self.model, self.tokenizer = model, tokenizer
        prefixes = [text.replace("{", " ").replace("}", " ") + ". {}" for text in shared["prefixes"]]
        layers = model.config.num_hidden_layers

        def layer_of(name: str) -> int:
            return int(name.split(".")[2])
        if method == "rome":
            from rome import compute_u, rome_main
            inverses = {}

            def inverse(model, tok, name, *rest):
                if name not in inverses:
                    inverses[name] = torch.inverse(moments[layer_of(name)]).float()
                return inverses[name]
            compute_u.get_inv_cov = inverse
            rome_main.CONTEXT_TEMPLATES_CACHE = ["{}", *prefixes]
            settings = hyperparameters(rome_main.ROMEHyperParams, method, shared, layers)
            self.apply = lambda requests: rome_main.apply_rome_to_model(model, tokenizer, requests, settings)
        elif method == "memit":
            from memit import compute_z, memit_main
            with_tuples(compute_z)
            memit_main.get_cov = lambda model, tok, name, *rest, **more: moments[layer_of(name)].float()
            memit_main.CONTEXT_TEMPLATES_CACHE = [["{}"], prefixes]
            settings = hyperparameters(memit_main.MEMITHyperParams, method, shared, layers)
            self.apply = lambda requests: memit_main.apply_memit_to_model(model, tokenizer, requests, settings)
        else:
            from AlphaEdit import AlphaEdit_main, compute_z
            with_tuples(compute_z)
            AlphaEdit_main.CONTEXT_TEMPLATES_CACHE = [["{}"], prefixes]
            settings = hyperparameters(AlphaEdit_main.AlphaEditHyperParams, method, shared, layers)
            used = [moments[layer] for layer in shared["layers"]]
            null_spaces, ridges = [], []
            for C in used:
                U, S, _ = torch.linalg.svd(C, full_matrices=False)
                small = U[:, S < shared["null_threshold"] * C.diagonal().mean()]
                null_spaces.append((small @ small.T).float())
                ridges.append(shared["ridge"] * C.diagonal().sum().item())
            settings.L2 = statistics.mean(ridges)  # theirs is one for all layers
            P = torch.stack(null_spaces)
            nothing = torch.zeros(len(used), *used[0].shape)
            self.apply = lambda requests: AlphaEdit_main.apply_AlphaEdit_to_model(
                model, tokenizer, requests, settings, cache_c=nothing.clone(), P=P)

    def edit(self, fact: dict) -> float:
        request = {"case_id": 0, "prompt": fact["template"], "subject": fact["subject"],
                   "target_new": {"str": fact["to"]}, "target_true": {"str": fact["from"]}}
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            self.apply([request])
        return time.perf_counter() - start


# ---- one scorer ---------------------------------------------------------------------------------

class Scorer:
    def __init__(self, model, tokenizer, text: pathlib.Path):
        self.model, self.tokenizer = model, tokenizer
        files = sorted(text.glob("*.txt")) if text.is_dir() else [text]
        tokens = [token for file in files for token in self.ids(file.read_text())][:512]
        self.rows = [tokens[begin:begin + 128] for begin in range(0, len(tokens), 128)]

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def log_probabilities(self, tokens: list[int], begin: int):
        import torch
        with torch.no_grad():
            logits = self.model(torch.tensor([tokens]), use_cache=False).logits[0, begin - 1:-1]
        return logits.log_softmax(-1).gather(1, torch.tensor(tokens[begin:]).unsqueeze(1)).squeeze(1)

    def nll(self, prompt: str, target: str) -> float:
        before, after = self.ids(prompt), self.ids(target)
        return -self.log_probabilities(before + after, len(before)).mean().item()

    def wins(self, prompt: str, first: str, second: str) -> float:
        return float(self.nll(prompt, first) < self.nll(prompt, second))

    def __call__(self, fact: dict) -> dict:
        new, old = fact["to"], fact["from"]
        rewrite = fact["template"].replace("{}", fact["subject"])
        nll = -sum(self.log_probabilities(row, 1).sum().item() for row in self.rows)
        return {"efficacy": self.wins(rewrite, new, old),
                "paraphrase": statistics.mean(self.wins(text, new, old) for text in fact["paraphrases"]),
                "specificity": statistics.mean(self.wins(text, own, new) for text, own in fact["neighbours"]),
                "perplexity": 2.718281828459045 ** (nll / sum(len(row) - 1 for row in self.rows))}


def compare(arguments: argparse.Namespace, method: str) -> None:
    """One method, in a process of its own: the checkouts share names of packages."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    torch.set_num_threads(arguments.threads)
    facts = edit_facts.read_facts(argparse.Namespace(counterfact=arguments.counterfact, zsre=None, facts=arguments.facts))
    work = pathlib.Path(arguments.work).resolve() / method
    dtypes = ("float32", "bfloat16")
    runs = {dtype: ours(arguments, facts, method, dtype, work / dtype) for dtype in dtypes}
    shared = runs["float32"]
    moments = {int(layer): C.double() for layer, C in load_file(work / "float32/moments.safetensors").items()}

    model = AutoModelForCausalLM.from_pretrained(run.DIRECTORY, dtype=torch.float32).eval().requires_grad_(False)
    model.config.n_embd = model.config.hidden_size
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(run.DIRECTORY / "tokenizer.json"), pad_token="<|endoftext|>")
    scorer = Scorer(model, tokenizer, arguments.text)
    weights = {layer: model.model.layers[layer].mlp.down_proj.weight for layer in shared["layers"]}
    loaded = {layer: weight.detach().clone() for layer, weight in weights.items()}

    def restore() -> None:
        for layer, weight in weights.items():
            weight[...] = loaded[layer]

    scores = {side: [] for side in ("published", *dtypes)}
    seconds = {"published": [], **{dtype: runs[dtype]["seconds"] for dtype in dtypes}}
    use_the_processor()
    theirs = Theirs(method, str(pathlib.Path(getattr(arguments, method)).resolve()), model, tokenizer, shared, moments)
    for place, fact in enumerate(facts):
        seconds["published"].append(theirs.edit(fact))
        scores["published"].append(scorer(fact))
        restore()
        for dtype in dtypes:
            for name, change in load_file(work / dtype / f"{method}-{place}.safetensors").items():
                weights[int(name.split(".")[2])].add_(change)
            scores[dtype].append(scorer(fact))
            restore()
        print(f"{method}: {place + 1} of {len(facts)}", file=sys.stderr, flush=True)
    (work / "found.json").write_text(json.dumps({"facts": len(facts), "scores": scores, "seconds": seconds}))


def row(method: str, facts: int, side: str, scores: list[dict], seconds: list[float], of: float) -> str:
    mean = {key: statistics.mean(score[key] for score in scores) for key in (*SCORES, "perplexity")}
    taken = statistics.median(seconds)
    return (f"| {method} | {facts} | {side} | " + " | ".join(f"{100 * mean[key]:.0f} %" for key in SCORES)
            + f" | {mean['perplexity']:.2f} | {taken:.2f} | {taken / of:.3f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counterfact", required=True, help="a JSON list of CounterFact's records")
    for method in ("rome", "memit", "alphaedit"):
        parser.add_argument(f"--{method}", help="a checkout of its published code")
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "rules/corpus/held_out", help="for perplexity")
    parser.add_argument("--work", default=ROOT / ".cache/bench/edit_references")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "bench/edit_references.md")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.counterfact = str(pathlib.Path(arguments.counterfact).resolve())
    run.enter_environment()
    if arguments.only:
        compare(arguments, arguments.only)
        return 0
    run.prepare_directory()
    rows = []
    for method in ("rome", "memit", "alphaedit"):
        last = pathlib.Path(arguments.work) / method / "found.json"
        if getattr(arguments, method):
            subprocess.run([sys.executable, *sys.argv, "--only", method], check=True)
        elif not last.exists():
            continue
        found = json.loads(last.read_text())
        published = statistics.median(found["seconds"]["published"])
        for side, name in (("published", "published code"), ("float32", "ours, float32"),
                           ("bfloat16", "ours, values looked for in bfloat16")):
            rows.append(row(method, found["facts"], name, found["scores"][side], found["seconds"][side], published))
    arguments.page.write_text(
        "# Edits beside the published code\n\n"
        "SmolLM2-135M-Instruct, facts of CounterFact, each on the model as loaded; "
        f"{run.machine(arguments.threads)}. By `bench/edit_references.py`, whose head says what is shared. "
        "Seconds are medians of one edit, ours with its certificate; the ratio is to the published code's.\n\n"
        "| method | facts | side | " + " | ".join(SCORES) + " | perplexity | seconds | ratio |\n|" + "---|" * 9 + "\n"
        + "\n".join(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
