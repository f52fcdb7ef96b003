#!/usr/bin/env python3
"""How much the shipped rule packs catch: plants faults in SmolLM2 and counts which of them each pack's audit finds.

    bench/planted_faults.py                    the packs that have something to pass, into bench/planted_faults.md
    bench/planted_faults.py truth anger        these alone; the table takes the others from their last reports
    bench/planted_faults.py --count 4 truth    four faults of each kind and strength, not one

Runs `scripts/run-packs --mutate` where there is no report yet; reports are kept in build/packs. Faults are drawn by seed 0, so that
every version of a pack meets the same ones: facts and triggers written by ROME, directions removed and tripled, heads silenced, noise.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "packs"
PAGE = ROOT / "bench" / "planted_faults.md"


def wilson(found: int, of: int) -> str:
    if of == 0:
        return "–"
    z, p = 1.959964, found / of
    centre, half = (p + z * z / (2 * of)) / (1 + z * z / of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return f"{100 * p:.0f} % [{100 * max(0, centre - half):.0f} %, {100 * min(1, centre + half):.0f} %]"


class Tally:
    def __init__(self) -> None:
        self.planted = self.caught = self.doubted = 0

    def add(self, fault: dict) -> None:
        if fault["outcome"] == "not planted":
            return
        self.planted += 1
        self.caught += fault["outcome"] == "caught"
        self.doubted += fault["outcome"] == "doubted"

    def cells(self) -> str:
        return f"{self.planted} | {self.caught} | {self.doubted} | {wilson(self.caught + self.doubted, self.planted)}"


def page(reports: dict[str, dict]) -> str:
    packs, kinds, everything = {}, {}, Tally()
    alarms = runs = 0
    for name, report in reports.items():
        planted = report["planted_faults"]
        packs[name] = (Tally(), planted, report)
        for fault in planted["faults"]:
            for tally in (packs[name][0], kinds.setdefault((fault["kind"], fault.get("strength", "")), Tally()), everything):
                tally.add(fault)
        alarms += sum(bool(control["alarms"]) for control in planted["controls"])
        runs += len(planted["controls"])
    lines = ["# What the rule packs catch of planted faults", "",
             "Made by `bench/planted_faults.py` on SmolLM2-135M-Instruct (Q4_1). A fault is *caught* where something that passes without it "
             "fails, *doubted* where it becomes inconclusive or vacuous; both stop a gate. Brackets hold Wilson's interval at 95 %. What does not pass on the "
             "model as loaded catches nothing, and a pack looks for one thing: a silenced head that does not touch its subject is no fault "
             "of its own. Seconds are those of the run, on the threads in brackets, beside other work.", "",
             f"False alarms: {alarms} of {runs} runs with noise as small as rounding to bfloat16, under another seed.", "",
             "| pack | watching | planted | caught | doubted | found | seconds |", "|---|---|---|---|---|---|---|"]
    for name, (tally, planted, report) in packs.items():
        lines.append(f"| [{name}](../rules/{name}/README.md) | {len(planted['watching'])} | {tally.cells()} | "
                     f"{report['run'].get('seconds', 0):.0f} ({report['run']['threads']}) |")
    lines += [f"| all | | {everything.cells()} | |", "", "| fault | strength | planted | caught | doubted | found |", "|---|---|---|---|---|---|"]
    lines += [f"| {kind} | {strength} | {tally.cells()} |" for (kind, strength), tally in kinds.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="*")
    parser.add_argument("--count", type=int, default=1, help="faults of each kind and strength")
    options = parser.parse_args()
    every = sorted(path.parent.name for path in (ROOT / "rules").glob("*/audit.proviso"))
    unknown = [name for name in options.packs if name not in every]
    if unknown:
        sys.exit(f"no pack {', '.join(unknown)}; there are {', '.join(every)}")
    wanted = options.packs or [name for name in every if not (REPORTS / f"{name}-planted.json").exists()]
    for name in wanted:
        # Ends with 1 where nothing passes that could catch a fault; the report says so.
        subprocess.run([ROOT / "scripts/run-packs", "--mutate", "--count", str(options.count), name], check=True)
    reports = {name: json.loads((REPORTS / f"{name}-planted.json").read_text()) for name in every
               if (REPORTS / f"{name}-planted.json").exists()}
    PAGE.write_text(page({name: report for name, report in reports.items() if report.get("planted_faults")}))
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
