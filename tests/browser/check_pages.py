#!/usr/bin/env python3
"""Opens pages in a headless Chromium and looks for what readers would run into.

    tests/browser/check_pages.py PAGE… [--screenshots FOLDER]

In light and in dark, wide and narrow: nothing on the console, nothing wider than the window, text in contrast to what is behind it
(WCAG 2, 4.5 to 1, 3 to 1 where it is large), everything that can be opened reached and opened by the keyboard alone, with a
visible focus; landmarks, headings in order, captions and labels; and on paper nothing left closed. Needs chromium and
chromedriver (Debian: chromium-driver), and nothing else. Ends with 1 where a page has a fault, with 77 where there is no
browser.
"""
import argparse
import base64
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

SIZES = {"wide": (1280, 900), "narrow": (360, 740)}
TAB, ENTER = "\ue004", "\ue007"

STRUCTURE = r"""
const faults = [];
const need = (holds, what) => { if (!holds) faults.push(what); };
need(document.documentElement.lang, "no language");
need(document.title.trim(), "no title");
need(document.querySelectorAll("h1").length === 1, "not one h1");
need(document.querySelectorAll("main").length === 1, "not one main");
let level = 0;
for (const h of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
  const now = Number(h.tagName[1]);
  need(now <= level + 1, `heading "${h.textContent.trim().slice(0, 40)}" skips a level`);
  level = now;
}
const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
need(new Set(ids).size === ids.length, "an id stands twice: " + ids.filter((id, i) => ids.indexOf(id) !== i));
for (const a of document.querySelectorAll("a[href^='#']"))
  need(document.getElementById(decodeURIComponent(a.getAttribute("href").slice(1))), "a link leads nowhere: " + a.getAttribute("href"));
for (const t of document.querySelectorAll("table")) {
  need(t.caption && t.caption.textContent.trim(), "a table without a caption");
  need(t.querySelectorAll("th").length > 0 && [...t.querySelectorAll("th")].every(h => h.scope), "a table without heads that name their scope");
}
for (const s of document.querySelectorAll("svg"))
  need(s.getAttribute("aria-hidden") === "true" || (s.getAttribute("role") === "img" && s.getAttribute("aria-label")) ||
       s.closest("[aria-hidden='true']") || s.querySelector("[aria-label]"), "a drawing without words");
for (const d of document.querySelectorAll("details")) need(d.firstElementChild && d.firstElementChild.tagName === "SUMMARY", "details without a summary");
for (const e of document.querySelectorAll("nav, section, [role='region']"))
  need(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby"), `<${e.tagName.toLowerCase()}> without a name`);
for (const e of document.querySelectorAll("button, input, select"))
  need(e.getAttribute("aria-label") || e.textContent.trim() || (e.labels && e.labels.length), `<${e.tagName.toLowerCase()}> without a label`);
return faults;
"""

CONTRAST = r"""
const parse = c => {
  const m = c.match(/[\d.]+/g).map(Number);
  const unit = c.startsWith("color(") ? 255 : 1;
  return [m[0] * unit, m[1] * unit, m[2] * unit, m.length > 3 ? m[3] : 1];
};
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const luminance = c => {
  const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const canvas = parse(getComputedStyle(document.body).backgroundColor);
const behind = e => {
  const layers = [];
  for (; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((under, layer) => over(layer, under), canvas[3] === 1 ? canvas : [255, 255, 255, 1]);
};
const faults = new Set();
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.checkVisibility || !e.checkVisibility() || e.closest(".skip")) continue;
  const style = getComputedStyle(e);
  const ink = parse(e.namespaceURI.endsWith("svg") ? style.fill : style.color);
  const back = behind(e), a = luminance(over(ink, back)), b = luminance(back);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (ratio < (large ? 3 : 4.5)) faults.add(`contrast ${ratio.toFixed(2)}: "${e.textContent.trim().slice(0, 40)}" (${style.color})`);
}
return [...faults];
"""

FITS = r"""
const width = document.documentElement.clientWidth, faults = [];
if (document.documentElement.scrollWidth > width) {
  for (const e of document.querySelectorAll("body *")) {
    const right = e.getBoundingClientRect().right;
    if (right > width + 1 && !e.closest(".scroll, pre")) faults.push(`<${e.tagName.toLowerCase()} class="${e.getAttribute("class") || ""}"> reaches ${Math.round(right)} of ${width}`);
  }
  if (!faults.length) faults.push("the page scrolls sideways");
}
return faults.slice(0, 5);
"""

REACHABLE = r"""
const shown = e => e.checkVisibility();
const stops = [...document.querySelectorAll("a[href], summary, button, input, select, [tabindex='0']")].filter(shown);
// Of a group of radio buttons one is a stop; the arrows go through it.
return new Set(stops.map((e, i) => e.type === "radio" ? "group " + e.name : i)).size;
"""

FOCUSED = r"""
const e = document.activeElement;
if (!e || e === document.body) return null;
const style = getComputedStyle(e);
window.seen ||= new Map();
if (!window.seen.has(e)) window.seen.set(e, window.seen.size);
return {number: window.seen.get(e), tag: e.tagName, text: e.textContent.trim().slice(0, 30),
        visible: (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) ||
                 (e.querySelector(":scope > rect") && parseFloat(getComputedStyle(e.querySelector(":scope > rect")).strokeWidth) > 2)};
"""

CLOSED_ON_PAPER = r"""
return [...document.querySelectorAll("details:not([open])")].filter(d => {
  if (getComputedStyle(d).display === "none") return false;
  const inner = [...d.children].find(c => c.tagName !== "SUMMARY");
  return inner && inner.getBoundingClientRect().height === 0 && d.parentElement.checkVisibility();
}).map(d => "closed on paper: " + d.firstElementChild.textContent.trim().slice(0, 40)).slice(0, 5);
"""


class Browser:
    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.root = f"http://127.0.0.1:{port}"
        self.session = ""
        options = {"args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]}
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options,
                                                    "goog:loggingPrefs": {"browser": "ALL"}}}}
        for attempt in range(100):
            try:
                self.session = self.call("POST", "/session", wanted)["sessionId"]
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise RuntimeError("chromedriver does not answer")

    def call(self, method: str, path: str, body=None):
        where = self.root + (f"/session/{self.session}" if self.session else "") + path
        request = urllib.request.Request(where, method=method, data=json.dumps(body if body is not None else {}).encode()
                                         if method == "POST" else None, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"].splitlines()[0]) from None

    def run(self, script: str):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def devtools(self, command: str, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def key(self, key: str) -> None:
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def close(self) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()


def by_keyboard(browser: Browser) -> list[str]:
    """Tab goes round everything that can be reached, and Enter opens and closes."""
    expected, faults, opened = browser.run(REACHABLE), [], False
    reached = set()
    for _ in range(expected + 5):
        browser.key(TAB)
        focused = browser.run(FOCUSED)
        if focused is None or focused["number"] in reached:
            break
        reached.add(focused["number"])
        if not focused["visible"]:
            faults.append(f"focus cannot be seen: {focused['tag'].lower()} \"{focused['text']}\"")
        if focused["tag"] == "SUMMARY" and not opened:
            before = browser.run("return document.activeElement.parentElement.open")
            browser.key(ENTER)
            opened = browser.run("return document.activeElement.parentElement.open") != before
            if not opened:
                faults.append(f"Enter does not open \"{focused['text']}\"")
            browser.key(ENTER)
    if len(reached) < expected:
        faults.append(f"Tab reaches {len(reached)} of {expected}")
    return faults


def faults_of(browser: Browser, page: pathlib.Path, screenshots: pathlib.Path | None) -> list[str]:
    faults = []
    for scheme in ("light", "dark"):
        for size, (width, height) in SIZES.items():
            browser.devtools("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
            browser.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                             mobile=size == "narrow")
            browser.call("POST", "/url", {"url": page.resolve().as_uri()})
            found = browser.run(STRUCTURE) if (scheme, size) == ("light", "wide") else []
            found += browser.run(FITS)
            browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            found += browser.run(CONTRAST) if size == "wide" else []
            found += [f"opened: {fault}" for fault in browser.run(FITS)]
            if screenshots:
                shot = browser.devtools("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                (screenshots / f"{page.stem}-{scheme}-{size}.png").write_bytes(base64.b64decode(shot))
            faults += [f"{scheme}, {size}: {fault}" for fault in found]
    browser.devtools("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    browser.call("POST", "/url", {"url": page.resolve().as_uri()})
    faults += [f"keyboard: {fault}" for fault in by_keyboard(browser)]
    browser.devtools("Emulation.setEmulatedMedia", media="print", features=[])
    browser.call("POST", "/url", {"url": page.resolve().as_uri()})
    faults += browser.run(CLOSED_ON_PAPER)
    if screenshots:
        paper = browser.call("POST", "/print", {})
        (screenshots / f"{page.stem}.pdf").write_bytes(base64.b64decode(paper))
    faults += [f"console: {entry['message']}" for entry in browser.call("POST", "/se/log", {"type": "browser"})]
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=pathlib.Path, metavar="PAGE")
    parser.add_argument("--screenshots", type=pathlib.Path, metavar="FOLDER")
    options = parser.parse_args()
    if not shutil.which("chromedriver") or not (shutil.which("chromium") or shutil.which("google-chrome")):
        print("no chromium and chromedriver here", file=sys.stderr)
        return 77
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    browser, any_fault = Browser(), False
    try:
        for page in options.pages:
            faults = faults_of(browser, page, options.screenshots)
            any_fault = any_fault or bool(faults)
            print(f"{page.name}: {'no fault' if not faults else f'{len(faults)} faults'}")
            for fault in faults:
                print(f"  {fault}")
    finally:
        browser.close()
    return int(any_fault)


if __name__ == "__main__":
    sys.exit(main())
