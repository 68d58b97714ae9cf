"""Make the README's pictures of the chat: `python tests/screenshot.py docs [checkpoint]`.

`--all` adds the dark page and the width of a phone, for looking at.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from test_browser import Visit, open_browser, running_chat, wait_for

WIDTH, HEIGHT = 1440, 1000
PHONE = (390, 844)


def take(folder: Path, checkpoint: str = "mini", *, everything: bool = False) -> None:
    """Go through one visit and keep what the page shows: types, pseudo-cells over real ones, evidence of an answer."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as name,
        running_chat(checkpoint, Path(name) / "log.txt") as address,
        open_browser(Path(name)) as browser,
    ):
        visit = Visit(browser, address, Path(name) / "downloads")
        visit.resize(WIDTH, HEIGHT)

        def keep(picture: str) -> None:
            visit.settle()
            browser.save_screenshot(str(folder / f"{picture}.png"))

        visit.after(lambda: visit.click("#ic-examples button"))
        visit.ask("What are these cells?")
        keep("screenshot")
        visit.ask("Generate 50 beta cells and put them on the map")
        keep("screenshot_pseudo_cells")
        visit.ask("Why are they called pancreatic A cell?")
        markers = visit.find("#ic-chat [data-testid=bot] a")[1]
        browser.execute_script("arguments[0].click()", markers)
        wait_for(lambda: visit.find("#ic-results-table"), "the table behind the answer")
        keep("screenshot_evidence")
        if everything:
            visit.click("#ic-theme")
            keep("dark")
            visit.resize(*PHONE)
            keep("phone_dark")
            visit.click("#ic-theme")
            browser.execute_script("document.querySelector('#ic-data-column').scrollIntoView()")
            keep("phone_results")


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "--all"]
    take(Path(given[0]), *given[1:2], everything="--all" in sys.argv)
