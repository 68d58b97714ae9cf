"""Make the README's picture of the chat: `python tests/screenshot.py docs/screenshot.png [checkpoint]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from test_browser import Visit, open_browser, running_chat

WIDTH, HEIGHT = 1440, 1000


def take(picture: Path, checkpoint: str = "mini") -> None:
    """Load the islet example, ask what the cells are, and keep what the page shows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_chat(checkpoint, folder / "log.txt") as address, open_browser(folder) as browser:
            visit = Visit(browser, address, folder / "downloads")
            visit.resize(WIDTH, HEIGHT)
            visit.after(lambda: visit.click("#ic-examples button"))
            visit.ask("What are these cells?")
            visit.settle()
            picture.parent.mkdir(parents=True, exist_ok=True)
            browser.save_screenshot(str(picture))


if __name__ == "__main__":
    take(Path(sys.argv[1]), *sys.argv[2:3])
