"""The page in a real browser: one visit from the upload to the downloads, as a newcomer would make it.

The real server runs in a process of its own, with the shipped checkpoint where there is one and a tiny one otherwise.
Debian's chromium and chromium-driver are enough; on a machine without them this test says so and is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anndata
import numpy as np
import pytest

from instructcell.checkpoint import shipped_checkpoints
from instructcell.resources import demo_path

pytestmark = [pytest.mark.browser, pytest.mark.slow]
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")

from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402 - only where selenium is
from selenium.webdriver.common.by import By  # noqa: E402 - only where selenium is
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
START_SECONDS, ANSWER_SECONDS = 300, 300  # generous: a busy machine is not a broken page


def wait_for(condition: Callable[[], Any], what: str, seconds: float = ANSWER_SECONDS) -> Any:
    """Return the first true value of `condition`; fail with what was waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    pytest.fail(f"waited {seconds:.0f} s in vain for {what}")


def steady(look: Callable[[], Any]) -> Any:
    """Return what `look` sees or does; look again when the page redrew meanwhile what was looked at."""
    end = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return look()
        except StaleElementReferenceException:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@contextmanager
def running_chat(model: str, log: Path) -> Iterator[str]:
    """Start the chat in a process of its own and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "instructcell.cli", "chat", "--model", model, "--port", str(port)]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "is at" in log.read_text() or server.poll() is not None, "the chat to start", START_SECONDS)
        assert server.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(timeout=120)
        sys.stdout.write(log.read_text())


@contextmanager
def open_browser(folder: Path, *, width: int = 1360, height: int = 900) -> Iterator[WebDriver]:
    """Open a headless Chromium with an empty profile; its downloads lie in `folder / "downloads"`."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        downloads = {"behavior": "allow", "downloadPath": str(folder / "downloads")}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module", autouse=True)
def _needs_a_browser() -> None:
    if BROWSER is None or DRIVER is None:
        pytest.skip("no browser here; on Debian: apt-get install chromium chromium-driver")


@pytest.fixture(scope="module")
def address(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a chat with the shipped checkpoint, or a tiny one where none is there."""
    model = "mini" if "mini" in shipped_checkpoints() else str(tiny_checkpoint)
    with running_chat(model, tmp_path_factory.mktemp("chat") / "log.txt") as where:
        yield where


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[WebDriver]:
    with open_browser(tmp_path) as opened:
        yield opened


class Visit:
    """What a visitor does and sees."""

    def __init__(self, browser: WebDriver, address: str, downloads: Path) -> None:
        self.browser, self.downloads = browser, downloads
        browser.get(address)
        wait_for(self.is_ready, "the page to be ready")

    def find(self, selector: str) -> list[Any]:
        return steady(lambda: [e for e in self.browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()])

    def click(self, selector: str) -> None:
        wait_for(lambda: self.find(selector), f"{selector} to be there")
        steady(lambda: self.find(selector)[0].click())

    def text(self, selector: str) -> str:
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join('\\n')"
        return self.browser.execute_script(script, selector)

    def is_ready(self) -> bool:
        return bool(self.find("#ic-question textarea:not([disabled])") and self.find("#ic-suggestions button"))

    def answers(self) -> int:
        return len(self.browser.find_elements(By.CSS_SELECTOR, "#ic-chat [data-testid=bot]"))

    def after(self, act: Callable[[], Any]) -> str:
        """Do something that is answered, and return all that the chat has answered so far."""
        before = self.answers()
        act()
        wait_for(lambda: self.answers() > before and self.is_ready(), "an answer")
        return self.text("#ic-chat [data-testid=bot]")

    def ask(self, question: str) -> str:
        steady(lambda: self.find("#ic-question textarea")[0].send_keys(question))
        return self.after(lambda: steady(lambda: self.find("#ic-question textarea")[0].send_keys(Keys.ENTER)))

    def upload(self, path: Path) -> str:
        chooser = wait_for(lambda: self.browser.find_elements(By.CSS_SELECTOR, "#ic-upload input[type=file]"), "upload")
        return self.after(lambda: chooser[0].send_keys(str(path)))

    def choose(self, option: str) -> None:
        """Take one of the options that are open."""
        shown = wait_for(lambda: [e for e in self.find("ul[role=listbox] li") if e.text == option], option)
        shown[0].click()

    def download(self, button: str, pattern: str) -> Path:
        self.click(button)
        found = wait_for(lambda: list(self.downloads.glob(pattern)), f"{pattern} to be downloaded")
        return found[0]

    def settle(self) -> None:
        """Wait until a drawn figure has stopped moving, with the mouse out of the way."""
        self.browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 2, "y": 2})
        wait_for(lambda: self.find("#ic-figure .js-plotly-plot .main-svg"), "the figure")
        time.sleep(1)

    def shot(self, name: str) -> None:
        """Keep a picture in the folder that the variable SCREENSHOTS names, for looking at."""
        if folder := os.environ.get("SCREENSHOTS"):
            time.sleep(1)
            self.browser.save_screenshot(str(Path(folder) / f"{name}.png"))

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def overflow(self) -> int:
        """How many pixels the page is wider than the window."""
        return self.browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")

    def hosts(self) -> set[str]:
        """Every host that the page asked for anything."""
        messages = (json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance"))
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).hostname or "" for url in urls if url.startswith(("http", "ws"))}


@pytest.fixture
def visit(browser: WebDriver, address: str, tmp_path: Path) -> Visit:
    return Visit(browser, address, tmp_path / "downloads")


@pytest.fixture
def islets(tmp_path: Path) -> Path:
    """A file of 150 islet cells, such as a newcomer would upload."""
    cells = anndata.read_h5ad(demo_path("islets"))[:150].copy()
    path = tmp_path / "my_islets.h5ad"
    cells.write_h5ad(path)
    return path


def test_a_newcomer_uploads_asks_the_three_jobs_and_takes_the_results_home(visit: Visit, islets: Path) -> None:
    assert "150" in visit.upload(islets)
    card = visit.text("#ic-card")
    assert "my_islets.h5ad" in card and "Human" in card and "Raw counts" in card

    visit.ask("What are these cells?")
    visit.shot("types")
    assert "map" in visit.text("#ic-figure-name").lower() and visit.find("#ic-figure .js-plotly-plot")
    assert "cell type" in visit.text("#ic-table")
    annotated = anndata.read_h5ad(visit.download("#ic-get-annotated", "*.h5ad"))
    assert annotated.n_obs == 150 and "instructcell_cell_type" in annotated.obs

    visit.ask("generate 20 beta cells")
    visit.shot("generated")
    generated = anndata.read_h5ad(visit.download("#ic-get-generated", "pseudo*.h5ad"))
    assert generated.n_obs == 20 and np.array_equal(np.asarray(generated.X.sum()), np.round(generated.X.sum()))

    assert "gefitinib" in visit.ask("are they sensitive to gefitinib?").lower()
    visit.shot("drug")

    visit.ask("undo")  # the response: it goes from the page as from the cells
    assert "response" not in visit.text("#ic-figure-name").lower() + visit.text("#ic-table-name").lower()
    visit.ask("export all this")
    visit.shot("exported")
    with zipfile.ZipFile(visit.download("#ic-exported a", "*.zip")) as archive:
        assert {Path(name).suffix for name in archive.namelist()} >= {".h5ad", ".csv", ".py"}
    assert visit.hosts() <= {"127.0.0.1"}, "the page asked another machine for something"


def test_a_text_file_renamed_h5ad_is_one_sentence_and_the_chat_goes_on(visit: Visit, tmp_path: Path) -> None:
    fake = tmp_path / "notes.h5ad"
    fake.write_text("these are my notes, not cells\n")
    said = visit.upload(fake)
    assert "notes.h5ad" in said and "Traceback" not in said
    visit.shot("not_cells")
    assert "GCG" in visit.ask("What does GCG do?") and visit.answers() == 2


def test_an_example_is_one_click_and_a_new_chat_forgets_it(visit: Visit) -> None:
    visit.after(lambda: visit.click("#ic-examples button"))
    assert "Human islet" in visit.text("#ic-card")
    assert "types" in visit.text("#ic-suggestions button")
    visit.click("#ic-clear")
    wait_for(lambda: visit.answers() == 0 and "No cells yet" in visit.text("#ic-card"), "an empty page")


def test_two_files_keep_their_results_and_answers_link_to_them(visit: Visit, islets: Path, tmp_path: Path) -> None:
    visit.upload(islets)
    assert not visit.find("#ic-files"), "one file needs no picker"
    visit.ask("What are these cells?")
    links = {link.text: link.get_attribute("href").split("#")[1] for link in visit.find("#ic-chat [data-testid=bot] a")}
    assert {"cell types", "map"} <= set(links)
    visit.click(f"#ic-chat a[href$='{links['markers']}']")
    wait_for(lambda: "gene" in visit.text("#ic-table th").lower(), "the table of markers")

    other = tmp_path / "others.h5ad"
    anndata.read_h5ad(demo_path("pbmc"))[:60].copy().write_h5ad(other)
    visit.upload(other)
    assert "others.h5ad" in visit.text("#ic-card") and not visit.find("#ic-map"), "the other file has no results yet"
    visit.click(f"#ic-chat a[href$='{links['cell types']}']")
    wait_for(lambda: "my_islets.h5ad" in visit.text("#ic-table-name"), "the table of the other file")
    visit.shot("evidence_of_another_file")

    visit.click("#ic-file input")
    visit.after(lambda: visit.choose("my_islets.h5ad"))
    assert "my_islets.h5ad" in visit.text("#ic-card") and visit.find("#ic-figure .js-plotly-plot")
    assert visit.download("#ic-get-table", "*.csv").read_text().startswith("cell_type,")
    page = visit.download("#ic-get-conversation", "*.html").read_text()
    assert "What are these cells?" in page and page.count("Plotly.newPlot(") == 2
    assert "box.open(" in visit.download("#ic-get-script", "*.py").read_text()
    visit.after(lambda: visit.click("#ic-close"))
    assert "others.h5ad" in visit.text("#ic-card") and not visit.find("#ic-files") and not visit.find("#ic-map")
    assert visit.hosts() <= {"127.0.0.1"}


def test_what_is_typed_stays_text(visit: Visit) -> None:
    visit.ask("<img src=x onerror=\"document.title='broken'\"> **bold** ![x](http://example.org/x.png) <CELL>")
    asked = visit.text("#ic-chat [data-testid=user]")
    assert "<img src=x" in asked and "**bold**" in asked and "<CELL>" in asked
    assert visit.browser.title == "InstructCell" and visit.hosts() <= {"127.0.0.1"}


@pytest.mark.parametrize("width", [390, 768, 1360])
def test_no_width_breaks_the_page(visit: Visit, width: int) -> None:
    visit.resize(width, 844)
    visit.after(lambda: visit.click("#ic-examples button"))
    visit.ask("What are these cells?")
    assert visit.overflow() <= 0
    visit.shot(f"width_{width}")
    visit.browser.execute_script("document.querySelector('#ic-theme').click()")
    wait_for(lambda: visit.browser.execute_script("return document.body.classList.contains('dark')"), "the dark page")
    visit.shot(f"width_{width}_dark")
