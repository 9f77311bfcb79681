"""Opens a page in a real browser, without a window."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from tests.helpers.fits import missing

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_POLICY = re.compile(r"<meta http-equiv=.Content-Security-Policy.[^>]*>")
_MEASURE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, wide = [];
  for (const part of document.body.querySelectorAll("*")) {
    const box = part.getBoundingClientRect();
    const inScroller = part.closest(".table") && part.closest(".table") !== part;
    if (!inScroller && !part.closest("svg") && box.width && (box.right > innerWidth + 1 || box.left < -1))
      wide.push(part.tagName + "." + part.className);
    const cut = part.scrollWidth - part.clientWidth;
    if (cut > 1 && getComputedStyle(part).overflowX !== "visible") wide.push("cut " + part.tagName);
  }
  const found = {
    width: innerWidth, scroll: root.scrollWidth, wide: wide,
    requests: performance.getEntriesByType("resource").map(entry => entry.name),
    paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    line: getComputedStyle(document.querySelector("figure svg path[style*='stroke: light-dark']") || root).stroke,
    text: document.body.innerText,
  };
  parent.postMessage(JSON.stringify(found), "*");
});
</script>"""
# A window has at least 500 pixels.
_FRAME = """<!DOCTYPE html><html><body>
<script>addEventListener("message", event => { document.documentElement.dataset.found = event.data; });</script>
<iframe src="measured.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe></body></html>"""


@dataclass(frozen=True)
class Seen:
    """What a browser has seen of a page.

    Attributes:
        width: The width of the window, in pixels.
        scroll: The width that is needed.
        wide: The elements that are outside the window, or whose content is cut off.
        requests: Everything that was requested.
        console: The lines of the console.
        paper: The colour of the background.
        ink: The colour of text.
        line: The colour of the first curve.
        text: What can be read.
    """

    width: int
    scroll: int
    wide: list
    requests: list
    console: list
    paper: str
    ink: str
    line: str
    text: str


def chromium():
    """The path of the browser; skips the test without one."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or missing("Chromium", "apt-get install chromium")


def look(page: Path, width: int, is_dark: bool = False) -> Seen:
    """Opens a page twice: as it is for its console, and with a script that measures it.

    The page forbids itself requests and scripts, so every attempt would be a line in the console. The script is in
    a copy without that, in a frame of the given width.
    """
    console = [line for line in _run(page, is_dark, "--enable-logging=stderr")[1] if "CONSOLE" in line]
    html = page.read_text()
    assert _POLICY.search(html)
    page.with_name("measured.html").write_text(_POLICY.sub(lambda _: _MEASURE, html, count=1))
    frame = page.with_name("frame.html")
    frame.write_text(_FRAME.replace("WIDTH", str(width)))
    dom, _ = _run(frame, is_dark, "--dump-dom")
    found = json.loads(unescape(re.search(r'data-found="([^"]*)"', "\n".join(dom))[1]))
    return Seen(**found, console=console)


def _run(page, is_dark, *options):
    scheme = 0 if is_dark else 1  # Blink's PreferredColorScheme
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--window-size=1600,1000", f"--blink-settings=preferredColorScheme={scheme}", *options]
    command += [
        f"--user-data-dir={page.parent / '.browser'}",
        "--virtual-time-budget=5000",
        page.absolute().as_uri(),
    ]
    if "--dump-dom" not in options:
        command.insert(1, f"--screenshot={page.parent / '.browser.png'}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines(), done.stderr.splitlines()
