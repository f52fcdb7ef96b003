#!/usr/bin/env python3
"""Writes many facts into a model by every method, one by one, at once and one after another, and draws what came of it.

    bench/edit_facts.py --counterfact counterfact.json --zsre zsre.json      measures, and writes docs/edit-facts.md
    bench/edit_facts.py --render                                            draws again what was measured

The data are not part of this repository: CounterFact's records (kmeng01/rome, MIT) and zsRE's in MEND's form
(eric-mitchell/mend, MIT; questions of Levy et al. 2017, locality questions of Natural Questions, CC BY-SA 3.0), each a
JSON list. What is measured stays in --results, a line each, and beside it, in RESULTS.*.safetensors, what sequences
have come to and the values that methods share: a run that was cut short goes on from there.
"""
import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import edit_facts_page

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = ("rome", "memit", "emmet", "alphaedit", "ft")


def spaced(text: str) -> str:
    return text if text.startswith(" ") else " " + text


def counterfact(record: dict) -> dict:
    rewrite = record["requested_rewrite"]
    old = spaced(rewrite["target_true"]["str"])
    return {"subject": rewrite["subject"], "template": rewrite["prompt"], "to": spaced(rewrite["target_new"]["str"]),
            "from": old, "paraphrases": record["paraphrase_prompts"],
            "neighbours": [[prompt, old] for prompt in record["neighborhood_prompts"]]}


def zsre(record: dict) -> dict:
    """The new target is MEND's `alt`, the old one the data set's answer."""
    subject, question = record["subject"], record["src"]
    return {"subject": subject, "template": question.replace(subject, "{}", 1), "to": spaced(record["alt"]),
            "from": spaced(record["answers"][0]), "paraphrases": [record["rephrase"]],
            "neighbours": [[record["loc"].removeprefix("nq question: ") + "?", spaced(record["loc_ans"])]]}


def usable(fact: dict) -> bool:
    return fact["template"].count("{}") == 1 and fact["to"].strip() and fact["to"] != fact["from"]


def read_facts(arguments: argparse.Namespace) -> list[dict]:
    """As many of each data set as there are, in turns: the first ten hold five of each."""
    sets = []
    for path, read in ((arguments.counterfact, counterfact), (arguments.zsre, zsre)):
        if path:
            sets.append([fact for fact in map(read, json.loads(pathlib.Path(path).read_text())) if usable(fact)])
    if not sets:
        sys.exit("edit_facts: name --counterfact FILE or --zsre FILE, or both")
    facts, seen = [], set()
    for place in range(max(map(len, sets))):
        for each in sets:
            if place < len(each) and (each[place]["subject"], each[place]["template"]) not in seen:
                facts.append(each[place])
                seen.add((each[place]["subject"], each[place]["template"]))
    return facts[:arguments.facts]


def read_lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def kept_sequence(arguments: argparse.Namespace, method: str) -> pathlib.Path:
    return arguments.results.with_name(f"{arguments.results.name}.{method}.safetensors")


def edits_kept(arguments: argparse.Namespace, method: str) -> int:
    path = kept_sequence(arguments, method)
    if not path.exists():
        return 0
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(header["__metadata__"]["done"])


def measured(lines: list[dict], method: str, mode: str) -> set[int]:
    return {line["n"] for line in lines if line["mode"] == mode and line["method"] == method}


def still_hold(arguments: argparse.Namespace, lines: list[dict], counts: list[int]) -> list[dict]:
    """Of what earlier runs measured. A sequence that was cut short goes on from the edits that were kept, or begins
    again where a count before them was not measured."""
    lines = [line for line in lines if line["mode"] != "progress"]
    for method in METHODS:
        done = measured(lines, method, "sequence")
        if done >= set(counts):
            continue
        kept = edits_kept(arguments, method)
        if not done >= {count for count in counts if count <= kept}:
            kept_sequence(arguments, method).unlink()
            kept = 0
        lines = [line for line in lines if line["mode"] != "sequence" or line["method"] != method or line["n"] <= kept]
    return lines


def items(arguments: argparse.Namespace, facts: int, counts: list[int], lines: list[dict]) -> list[dict]:
    """What is still to be measured."""
    wanted = [] if measured(lines, "none", "baseline") else [{"method": "none", "mode": "baseline"}]
    singles = min(facts, arguments.singles)
    for mode in arguments.modes:
        for method in arguments.methods:
            if mode == "single":
                done = sum(line["mode"] == "single" and line["method"] == method for line in lines)
                if done < singles:
                    wanted.append({"method": method, "mode": mode, "from": done, "to": singles,
                                   "perplexity_every": arguments.perplexity_every})
                continue
            left = [count for count in counts if count not in measured(lines, method, mode)]
            if left and mode == "sequence":
                wanted.append({"method": method, "mode": mode, "counts": left,
                               "kept": str(kept_sequence(arguments, method))})
            elif left and method != "rome":
                wanted.append({"method": method, "mode": mode, "counts": left})
    return wanted


def of_model(path: pathlib.Path) -> str:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return ", ".join(f"{file.name} of {file.stat().st_size} bytes" for file in files if file.is_file())


def measure(arguments: argparse.Namespace) -> None:
    facts = read_facts(arguments)
    settings = {"mode": "settings", "dtype": arguments.dtype, "device": arguments.device, "threads": arguments.threads,
                "rome_prefixes": arguments.rome_prefixes, "null_threshold": arguments.null_threshold,
                "facts": len(facts), "text_tokens": arguments.text_tokens, "text": str(arguments.text),
                "moments": str(arguments.moments), "model": of_model(arguments.model),
                "sha256_of_facts": hashlib.sha256(json.dumps(facts).encode()).hexdigest()}
    earlier = read_lines(arguments.results)
    for line in earlier:
        if line["mode"] == "settings" and line != settings:
            other = ", ".join(f"{key} {line.get(key)} for {value}" for key, value in settings.items()
                              if line.get(key) != value)
            sys.exit(f"edit_facts: {arguments.results} was measured with {other}; name other --results")
    if not earlier:
        for kept in arguments.results.parent.glob(f"{arguments.results.name}.*.safetensors"):
            kept.unlink()
    # Facts that no method can write are left out before anything is counted.
    usable_facts = next((line["kept"] for line in earlier if line["mode"] == "facts"), len(facts))
    counts = sorted({min(count, usable_facts) for count in arguments.counts})
    lines = [line for line in still_hold(arguments, earlier, counts) if line != settings]
    work = {**settings, "of": hashlib.sha256(json.dumps(settings).encode()).hexdigest(), "facts": facts,
            "items": items(arguments, usable_facts, counts, lines), "cache": str(ROOT / ".cache/proviso"),
            "values": str(arguments.results)}
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text("".join(json.dumps(line) + "\n" for line in [*lines, settings]))
    task = arguments.results.with_name(arguments.results.name + ".work.json")
    task.write_text(json.dumps(work))
    with arguments.results.open("a") as out:
        subprocess.run([arguments.program, arguments.model, task], check=True, stdout=out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counterfact", help="a JSON list of CounterFact's records")
    parser.add_argument("--zsre", help="a JSON list of zsRE's records, as MEND has them")
    parser.add_argument("--facts", type=int, default=500, help="how many (500 unless told)")
    parser.add_argument("--singles", type=int, default=500, help="of them, how many are written one at a time, too")
    parser.add_argument("--counts", type=lambda text: [int(each) for each in text.split(",")],
                        default=[1, 10, 100, 500], help="where sequences and batches are measured (1,10,100,500)")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--modes", type=lambda text: text.split(","), default=["single", "sequence", "batch"])
    parser.add_argument("--rome-prefixes", type=int, default=20, help="rome's generated prefixes (20, as published)")
    parser.add_argument("--null-threshold", type=float, help="alphaedit's (the program's default)")
    parser.add_argument("--perplexity-every", type=int, default=10, help="of single edits, each how many-th")
    parser.add_argument("--text-tokens", type=int, default=1024, help="of the text for perplexity")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="what values are looked for and scores are read in; keys and changes are float32 throughout")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--model", type=pathlib.Path,
                        default=ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "rules/corpus/held_out", help="for perplexity")
    parser.add_argument("--moments", type=pathlib.Path, default=ROOT / "rules/corpus", help="for second moments")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/proviso_bench_edits")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / ".cache/bench/edit_facts.jsonl")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/edit-facts.md")
    parser.add_argument("--render", action="store_true", help="only draw what --results holds")
    arguments = parser.parse_args()
    if not arguments.render:
        measure(arguments)
    edit_facts_page.write(read_lines(arguments.results), arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
