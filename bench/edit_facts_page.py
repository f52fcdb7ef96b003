"""The page and the plots of bench/edit_facts.py."""
import math
import pathlib
import statistics

METHODS = ("rome", "memit", "emmet", "alphaedit", "ft")
COLOURS = {"rome": "#c8412b", "memit": "#2f6fbd", "emmet": "#a35cc4", "alphaedit": "#2c8f5a", "ft": "#b0811c"}
DASHES = {"rome": "", "memit": "7 3", "emmet": "2 3", "alphaedit": "", "ft": "9 3 2 3"}
PANELS = [("efficacy_nll", "efficacy", True), ("paraphrase_nll", "paraphrase", True),
          ("specificity_nll", "specificity", True), ("perplexity", "perplexity", False),
          ("efficacy_argmax", "new target is the argmax", True), ("seconds", "seconds in all", False)]
WIDTH, HEIGHT, LEFT, TOP, GAP_X, GAP_Y = 230, 150, 56, 46, 62, 64
STYLE = """<style>
  text { font: 12px system-ui, sans-serif; fill: #222 } .small { font-size: 10px; fill: #555 }
  .frame { fill: none; stroke: #999 } .grid { stroke: #ddd } .line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e6e6 } .small { fill: #b0b0b0 } .frame { stroke: #777 } .grid { stroke: #3a3a3a }
    .line, .dot { filter: brightness(1.35) }
  }
</style>"""


def of(lines: list[dict], method: str, mode: str) -> list[dict]:
    return [line for line in lines if line.get("method") == method and line.get("mode") == mode]


def series(lines: list[dict], method: str, mode: str, key: str) -> list[tuple[float, float]]:
    return sorted((line["n"], line[key]) for line in of(lines, method, mode) if key in line and "refused" not in line)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def panel(lines: list[dict], mode: str, key: str, title: str, share: bool, x0: int, y0: int) -> str:
    curves = {method: series(lines, method, mode, key) for method in METHODS}
    points = [point for curve in curves.values() for point in curve if math.isfinite(point[1])]
    if not points:
        return ""
    most_n = max(n for n, _ in points)
    low, high = (0.0, 1.0) if share else (math.log10(min(v for _, v in points)) - 0.05,
                                          math.log10(max(v for _, v in points)) + 0.05)
    def x(n: float) -> float:
        return x0 + (math.log10(n) / math.log10(max(most_n, 2))) * WIDTH
    def y(value: float) -> float:
        value = value if share else math.log10(value)
        return y0 + HEIGHT - (value - low) / (high - low) * HEIGHT
    out = [f'<text x="{x0}" y="{y0 - 8}">{title}</text>',
           f'<rect class="frame" x="{x0}" y="{y0}" width="{WIDTH}" height="{HEIGHT}"/>']
    for value in ((0, .25, .5, .75, 1) if share else (10 ** (low + (high - low) * i / 4) for i in range(5))):
        label = f"{value:.0%}" if share else number(value)
        out.append(f'<line class="grid" x1="{x0}" x2="{x0 + WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
                   f'<text class="small" text-anchor="end" x="{x0 - 5}" y="{y(value) + 3:.1f}">{label}</text>')
    for n in sorted({n for n, _ in points}):
        out.append(f'<text class="small" text-anchor="middle" x="{x(n):.1f}" y="{y0 + HEIGHT + 14}">{n:,}</text>')
    before = [line[key] for line in of(lines, "none", "baseline") if key in line]
    if before and (share or low <= math.log10(before[0]) <= high):
        out.append(f'<line class="frame" stroke-dasharray="1 3" x1="{x0}" x2="{x0 + WIDTH}" '
                   f'y1="{y(before[0]):.1f}" y2="{y(before[0]):.1f}"/>')
    for method, curve in curves.items():
        curve = [point for point in curve if math.isfinite(point[1])]
        if not curve:
            continue
        path = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in curve)
        out.append(f'<polyline class="line" stroke="{COLOURS[method]}" stroke-dasharray="{DASHES[method]}" points="{path}"/>')
        out += [f'<circle class="dot" r="3" fill="{COLOURS[method]}" cx="{x(n):.1f}" cy="{y(value):.1f}"/>'
                for n, value in curve]
    return "\n".join(out)


def plot(lines: list[dict], mode: str, title: str) -> str:
    """Six panels over the number of edits; a dotted line is the model as loaded."""
    width = LEFT + 3 * WIDTH + 2 * GAP_X + 20
    height = TOP + 2 * HEIGHT + GAP_Y + 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">', STYLE]
    place = LEFT
    for method in METHODS:
        if not of(lines, method, mode):
            continue
        out.append(f'<line class="line" stroke="{COLOURS[method]}" stroke-dasharray="{DASHES[method]}" x1="{place}" '
                   f'x2="{place + 26}" y1="12" y2="12"/><text x="{place + 32}" y="16">{method}</text>')
        place += 60 + 8 * len(method)
    for i, (key, name, share) in enumerate(PANELS):
        out.append(panel(lines, mode, key, name, share, LEFT + i % 3 * (WIDTH + GAP_X), TOP + i // 3 * (HEIGHT + GAP_Y)))
    return "\n".join(out + ["</svg>", ""])


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


HEAD = ("efficacy", "paraphrase", "specificity", "argmax: efficacy", "paraphrase", "specificity", "perplexity", "seconds")
KEYS = ("efficacy_nll", "paraphrase_nll", "specificity_nll", "efficacy_argmax", "paraphrase_argmax", "specificity_argmax")


def row(first: list[str], line: dict) -> str:
    perplexity = line.get("perplexity")
    cells = [*first, *(percent(line.get(key)) for key in KEYS),
             "–" if perplexity is None else f"{perplexity:.2f}" if perplexity < 1000 else f"{perplexity:.3g}",
             number(line["seconds"]) if "seconds" in line else "–"]
    return "| " + " | ".join(cells) + " |"


def table(first: list[str], rows: list[str]) -> str:
    columns = [*first, *HEAD]
    return "\n".join(["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *rows]) + "\n"


def mean_of_single(lines: list[dict], method: str) -> dict | None:
    each = of(lines, method, "single")
    if not each:
        return None
    mean = {key: statistics.mean(line[key] for line in each if key in line)
            for key in (*KEYS, "perplexity", "seconds") if any(key in line for line in each)}
    return {**mean, "n": len(each)}


def write(lines: list[dict], page: pathlib.Path) -> None:
    settings = [line for line in lines if line["mode"] == "settings"][-1]
    facts = [line for line in lines if line["mode"] == "facts"][-1]
    baseline = of(lines, "none", "baseline")
    asked, kept = facts["given"], facts["kept"]
    text = ["# Many facts, measured", "",
            "Made by `bench/edit_facts.py` (`--help` tells how, and which data it takes); this page is rewritten by it.", "",
            f"SmolLM2-135M-Instruct and {kept} facts of CounterFact and zsRE in turns"
            + (f" ({asked - kept} more cannot be put to the model: their subject ends at its attention sink)" if asked > kept else "")
            + f". Values are looked for, and scores read, in {settings['dtype']}; keys, equations and changes are float32 "
            f"weights with float64 factors. rome has {settings['rome_prefixes']} generated prefixes; every other setting is "
            "the default. Perplexity is that of the shipped text that no edit sees.", "",
            "Two families of numbers, never mixed: *efficacy*, *paraphrase* and *specificity* ask which of two "
            "continuations has the lower mean NLL a token (the new against the old, on the fact's own prompt and on others' "
            "words for it; a neighbour's own against the new); *argmax* asks whether every token of the new one (of the "
            "neighbour's own) is the likeliest. zsRE has no neighbours of its own: its unrelated question stands for them, "
            "whose long answers are hardly ever the argmax.", ""]
    if baseline:
        text += ["As loaded:", "", table([], [row([], baseline[0])])]
    singles = [(method, mean_of_single(lines, method)) for method in METHODS]
    if any(single for _, single in singles):
        text += ["## One at a time, each on the model as loaded", "",
                 "Means; seconds are of one edit, its certificate included.", "",
                 table(["method", "facts"], [row([f"`{method}`", str(single["n"])], single)
                                             for method, single in singles if single])]
    for mode, title, note in (
            ("sequence", "One after another",
             "Each edit is solved on the weights that the ones before left: its value, its keys and what it knows of the "
             "model are made anew. Only the second moments, the generated prefixes and, for alphaedit, the keys of the "
             "facts written so far are kept. Scores are over all facts written so far; as loaded, over all."),
            ("batch", "All at once",
             "The values are those of the model as loaded, which memit, emmet and alphaedit share: looked for once. Their "
             "share of the seconds is counted for each. Two facts whose texts are equal up to the subject's end have one "
             "key, and emmet, which meets every fact, cannot write both: it has the next fact for the second.")):
        measured = [(method, line) for method in METHODS
                    for line in sorted(of(lines, method, mode), key=lambda line: line["n"])]
        # Nothing was written where all at once was refused.
        rows = [row([f"`{method}`", f"{line['n']:,}"], {} if "refused" in line else line) for method, line in measured]
        refusals = [f"`{method}` refuses {line['n']:,} at once: *{line['refused']}*.\n" for method, line in measured
                    if "refused" in line]
        if not rows:
            continue
        name = f"edit-facts-{mode}.svg"
        page.with_name(name).write_text(plot(lines, mode, title))
        text += [f"## {title}", "", note, "", f"![{title}: scores against the number of edits]({name})", "",
                 table(["method", "edits"], rows), *refusals]
    remarks = pathlib.Path(__file__).with_name("edit_facts_remarks.md")
    if remarks.exists():
        text.append(remarks.read_text())
    page.write_text("\n".join(text))
