"""Check the website in build/site: each link inside it, and each page in a headless Chromium. `make test-site` runs it.

A page must open without an error in the console, show all its figures, load no script or style from elsewhere, not
scroll sideways on a phone, and lose nothing at the edge of a printed page. Screenshots go to build/screenshots: each
page wide and narrow, light and dark.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import links

if TYPE_CHECKING:
    from playwright.sync_api import Page

BUILD = Path(__file__).parents[1] / "build"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (1280, 390)  # a laptop, a phone
PAPER = 700  # the width of A4 between its margins, at 96 pixels an inch
TALLEST = 6_000  # pixels of a page that its picture shows
# Sources of the site's figures that cannot be drawn; a figure further down is loaded only when it is asked for.
MISSING = """async () => (await Promise.all([...document.images].map(async image => {
  image.loading = "eager";
  await image.decode().catch(() => null);
  return image.naturalWidth > 0 ? null : image.src;
}))).filter(source => source?.startsWith(location.origin))"""
SIZES = "() => { const page = document.documentElement; return [page.scrollWidth, page.scrollHeight, innerWidth]; }"
# What reaches beyond the window although no part of the page around it scrolls.
WIDER = """() => [...document.querySelectorAll("main *")].filter(element => {
  if (element.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let outer = element.parentElement; outer; outer = outer.parentElement)
    if (getComputedStyle(outer).overflowX != "visible") return false;
  return true;
}).slice(0, 3).map(element => `${element.tagName}.${element.className}`)"""
# Code and tables that are cut where they would scroll on a screen.
CUT = """() => [...document.querySelectorAll(".bd-article :is(pre, table, .output, .math)")].filter(element =>
  element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX != "visible"
  || element.getBoundingClientRect().right > innerWidth + 1
).slice(0, 3).map(element => `${element.tagName}.${element.className}: ${element.textContent.trim().slice(0, 60)}`)"""


class Links(HTMLParser):
    """The ids of a page, and what it links to or loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what one tag has."""
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}  # type: ignore[misc]
        self.targets |= {found[name] for name in ("href", "src") if found.get(name)}  # type: ignore[misc]


def html(site: Path) -> list[Path]:
    """Return the site's pages; what the theme keeps under _static is none."""
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


def broken_links(site: Path) -> list[str]:
    """Return each link to a page of the site or a file of the repository that leads nowhere, as "page: link"."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in html(site)}
    faults = []
    for path, page in pages.items():
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if own := re.match(rf"https://github\.com/{links.repository()}/(?:blob|tree|raw)/main/([^?#]+)", target):
                if own[1].startswith("build/") or not (links.ROOT / unquote(own[1])).exists():
                    faults.append(f"{path.relative_to(site)}: {target}")
                continue
            if parts.scheme or parts.netloc:
                continue
            linked = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            known = pages[linked].ids if linked in pages else set()
            if not linked.is_file() or (anchor and linked in pages and anchor not in known):
                faults.append(f"{path.relative_to(site)}: {target}")
    return faults


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine while the block runs; the value is the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of a request."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def visit(page: Page, address: str, name: str, pictures: Path) -> list[str]:
    """Open a page, take its picture in both colour schemes, and return what is wrong with it."""
    faults: list[str] = []

    def elsewhere(route: Any) -> None:
        request = route.request
        if request.resource_type in {"script", "stylesheet", "font"}:
            faults.append(f"loads {request.url}")
        route.fulfill(
            content_type="image/svg+xml", body='<svg xmlns="http://www.w3.org/2000/svg" width="90" height="20"/>'
        )

    page.route(lambda url: not url.startswith(address), elsewhere)
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{address}/{name}", wait_until="load")
    faults += [f"no figure: {source}" for source in page.evaluate(MISSING)]
    width, height, window = page.evaluate(SIZES)
    if width > window:
        faults.append(f"scrolls sideways, to {width} px: {page.evaluate(WIDER)}")
    file = f"{name.removesuffix('.html').replace('/', '-')}.jpg"
    part = {"x": 0, "y": 0, "width": window, "height": min(height, TALLEST)}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=pictures / scheme / file, full_page=True, clip=part, type="jpeg", quality=50)
    return faults


def cut_on_paper(page: Page, address: str) -> list[str]:
    """Return what would be cut at the edge of a printed page."""
    page.emulate_media(media="print")
    page.goto(address, wait_until="load")
    return page.evaluate(CUT)


def main(names: list[str]) -> int:
    """Check the site, or only the pages that are named; return 1 where something is wrong."""
    site = BUILD / "site"
    names = names or [path.relative_to(site).as_posix() for path in html(site)]
    if not names:
        print("build/site has no page: make site", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    faults = broken_links(site)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)  # None: the browser that playwright installed
    with sync_playwright() as playwright, server(site) as address:
        browser = playwright.chromium.launch(executable_path=program)
        for width in WIDTHS:
            for name in names:
                page = browser.new_page(viewport={"width": width, "height": 900})
                seen = visit(page, address, name, BUILD / "screenshots" / str(width))
                faults += [f"{name} at {width} px: {fault}" for fault in seen]
                page.close()
        page = browser.new_page(viewport={"width": PAPER, "height": 990})
        for name in names:
            faults += [f"{name} in print, cut: {part}" for part in cut_on_paper(page, f"{address}/{name}")]
        browser.close()
    print("\n".join([*faults, f"{len(names)} pages, {len(faults)} faults"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
