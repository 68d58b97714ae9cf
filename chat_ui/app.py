"""The page: where each widget stands and which handler it calls."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio import http_server
from gradio.exceptions import ServerFailedToStartError
from starlette.routing import Route

from chat_ui import handlers
from chat_ui.api import add_endpoints
from chat_ui.card import dataset_card
from chat_ui.handlers import MAX_SUGGESTIONS, MAX_UPLOAD_BYTES, Conversation, Pace, View
from chat_ui.plots import has_cells
from chat_ui.theme import STYLE_SHEET, page_theme
from instructcell.turnstile import Turnstile

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

    from instructcell.session import Session

TITLE = "InstructCell"
START_SECONDS = 120  # that the server may take to start
SESSION_SECONDS = 6 * 3600  # a visitor's cells are forgotten after this long without a question
CLEAN_UP_SECONDS = (600, SESSION_SECONDS)  # how often, and from which age on, uploaded files are deleted
PARALLEL_ANSWERS = 32  # of a kind; more wait in a line, and those that are let in share the cores (`Turnstile`)
MOST_THREADS = 512  # more than all kinds together: an answer that waits for its turn holds a thread and blocks nobody
DEMO = {"Human islet": "islets", "Mouse islet": "mouse", "Blood (PBMC)": "pbmc"}

PROMISE = "Ask your single cells in plain language. Every answer is read from their expression, on this machine."
SPOKEN = (
    "Ask your single cells in plain language. They are read on this machine; {speaker} words the answers and is sent "
    "questions and results."
)
HEADER = f"""
<div class="ic-brand">
  <svg viewBox="0 0 40 40" aria-hidden="true">
    <circle cx="20" cy="20" r="18" class="ic-membrane"/><circle cx="23" cy="18" r="7.5" class="ic-nucleus"/>
    <circle cx="11.5" cy="24" r="2.4" class="ic-dot"/><circle cx="18" cy="30" r="1.8" class="ic-dot"/>
  </svg>
  <div>
    <h1>InstructCell</h1>
    <p>{PROMISE}</p>
  </div>
</div>
"""
WELCOME = """
<div class="ic-welcome"><h2>What would you like to know?</h2>
<p>Load your cells or an example, then ask. For instance about</p>
<ul><li><b>Cell types</b><span>with calibrated confidence and the markers behind them</span></li>
<li><b>Pseudo-cells</b><span>new cells of a type, as counts you can download</span></li>
<li><b>Drug response</b><span>a graded prediction for each cell</span></li></ul></div>
"""
STARTING = "Waking up …"
READY = "Ask about cells, genes or drugs"
NO_RESULTS = '<p class="ic-nothing">Maps, tables and downloads appear here as you ask.</p>'
LIMIT = f"{MAX_UPLOAD_BYTES / 1024**3:.0f} GB"
FORMATS = (
    '<p class="ic-formats">.h5ad .h5 .loom .h5mu .csv .tsv, the three files of a 10x matrix, or a .zip of one of these '
    f"or of a .zarr, up to {LIMIT}. They stay on this machine.</p>"
)
CHOOSE = "Ask about the cells I draw around"
# The places in the file of the cells that are marked in the figure; `meta` tells traces of cells from others.
MARKED = """(state, name) => {
  const plot = document.querySelector('#ic-figure .js-plotly-plot')
  const traces = ((plot && plot._fullData) || []).filter(trace => trace.meta === 'cells' && trace.selectedpoints)
  return [state, name, traces.flatMap(trace => [...trace.selectedpoints].map(i => trace.customdata[i][0]))]
}"""
# A link of an answer is remembered and presses the button that shows what it stands for.
FOLLOW_LINKS = """() => document.addEventListener('click', click => {
  const link = click.target.closest && click.target.closest('#ic-chat a[href*="#ic-ground-"]')
  if (!link) return
  click.preventDefault()
  click.stopPropagation()
  window.instructcellLink = link.getAttribute('href').split('#').pop()
  document.querySelector('#ic-show').click()
}, true)"""
LINKED = "(state, link) => [state, parseInt((window.instructcellLink || '').split('-')[2])]"
SHOWN = """() => {
  const room = (window.instructcellLink || '').endsWith('figure') ? '#ic-map' : '#ic-results-table'
  const calm = window.matchMedia('(prefers-reduced-motion: reduce)').matches
  const found = document.querySelector(room)
  if (found) found.scrollIntoView({block: 'nearest', behavior: calm ? 'auto' : 'smooth'})
}"""
# A file that was written gets a new label; as soon as the page shows it, the hidden button hands the file over.
FETCH = """(...values) => {
  window.instructcellFetched = document.querySelector('#ic-fetched').textContent
  return values
}"""
FETCHED = """() => {
  const take = left => {
    const button = document.querySelector('#ic-fetched')
    if (button.textContent !== window.instructcellFetched) button.click()
    else if (left > 0) window.setTimeout(() => take(left - 1), 50)
  }
  take(100)
}"""
# Whoever asks wants to see the answer, however far up they were reading.
TO_THE_END = """(...values) => {
  const talk = document.querySelector('#ic-chat .bubble-wrap')
  if (talk) talk.scrollTop = talk.scrollHeight
  return values
}"""
TOGGLE_THEME = "() => { document.body.classList.toggle('dark') }"


@dataclass(frozen=True)
class Example:
    """A data set that ships with the package: what the button says and where the file is."""

    label: str
    path: Path


@dataclass(frozen=True)
class Widgets:
    """The widgets that change with a conversation, in the order in which `draw` fills them."""

    state: gr.State
    chat: gr.Chatbot
    question: gr.Textbox
    status: gr.HTML
    suggestions: list[gr.Button]
    file_box: gr.Row
    file: gr.Dropdown
    card: gr.HTML
    hint: gr.HTML
    figure_box: gr.Group
    figure_name: gr.Radio
    figure: gr.Plot
    choose: gr.Button
    table_box: gr.Group
    table_name: gr.Radio
    table: gr.Dataframe
    takeaway: gr.Row
    annotated: gr.DownloadButton
    generated: gr.DownloadButton
    exported: gr.File

    def all(self) -> list[Any]:
        """Every widget, flat, as Gradio wants its outputs."""
        named = [getattr(self, item.name) for item in fields(self)]
        return [widget for item in named for widget in (item if isinstance(item, list) else [item])]


@dataclass(frozen=True)
class Inputs:
    """The widgets a visitor starts something with, besides the question."""

    upload: gr.File
    examples: list[tuple[gr.Button, Example]]
    clear: gr.Button
    close: gr.Button
    conversation: gr.Button
    script: gr.Button
    csv: gr.Button
    fetched: gr.DownloadButton  # not seen; the browser presses it when a file is ready
    show: gr.Button  # not seen; the links of the answers press it

    def all(self) -> list[Any]:
        """Every widget that is of use on a page without cells, flat."""
        return [self.upload, self.clear, *[button for button, _ in self.examples]]


def build_page(
    new_session: Callable[[Path], Session],
    examples: list[Example],
    first_files: Sequence[Path] = (),
    *,
    speaker: str = "",
) -> gr.Blocks:
    """Lay out the page and connect it.

    Parameters
    ----------
    new_session
        Makes the session of one visitor, which may write into the folder it is given.
    examples
        Data sets offered beside the upload.
    first_files
        Cells that every visitor finds loaded, the last one being talked about.
    speaker
        The chat model that words the answers; "" for none.
    """
    page = gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=CLEAN_UP_SECONDS)
    with page:
        clear = _header(speaker)
        with gr.Row(elem_id="ic-main", equal_height=False):
            with gr.Column(scale=7, min_width=320, elem_id="ic-chat-column"):
                chat, status, suggestions, question = _chat_column()
            with gr.Column(scale=5, min_width=320, elem_id="ic-data-column"):
                show = gr.Button("Show", visible="hidden", elem_id="ic-show")
                upload, example_buttons, card, file_box, file, close = _data_panel(examples)
                results, takeaways = _results_panel()
        state = gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=_close)
        widgets = Widgets(state, chat, question, status, suggestions, file_box, file, card, *results)
        inputs = Inputs(upload, list(zip(example_buttons, examples, strict=True)), clear, close, *takeaways, show)
        visits = Visits(new_session, tuple(first_files), Turnstile().paced)
        add_endpoints(state, visits.open_conversation)  # first, so that they get the names of their functions
        _connect(page, widgets, visits, inputs)
    page.queue(default_concurrency_limit=PARALLEL_ANSWERS)
    return page


def _header(speaker: str) -> gr.Button:
    """The name, what it is, who words the answers, and two buttons; returns the one that clears."""
    words = SPOKEN.format(speaker=escape(speaker)) if speaker else PROMISE
    with gr.Row(elem_id="ic-header", equal_height=False):
        gr.HTML(HEADER.replace(PROMISE, words), elem_id="ic-title")
        clear = gr.Button("New chat", size="sm", elem_id="ic-clear", min_width=0, scale=0, interactive=False)
        theme = gr.Button("Light / dark", size="sm", elem_id="ic-theme", min_width=0, scale=0)
    theme.click(None, js=TOGGLE_THEME, api_visibility="private")
    return clear


def _chat_column() -> tuple[gr.Chatbot, gr.HTML, list[gr.Button], gr.Textbox]:
    chat = gr.Chatbot(
        elem_id="ic-chat", height="100%", show_label=False, label="Chat", placeholder=WELCOME, buttons=["copy"],
        layout="bubble", feedback_options=None, sanitize_html=True, allow_tags=False, latex_delimiters=[],
        allow_file_downloads=False, group_consecutive_messages=False,
    )  # fmt: skip
    status = gr.HTML("", elem_id="ic-status")
    with gr.Row(elem_id="ic-suggestions"):
        suggestions = [
            gr.Button("", visible=False, size="sm", min_width=0, elem_classes="ic-chip") for _ in range(MAX_SUGGESTIONS)
        ]
    question = gr.Textbox(
        elem_id="ic-question", label="Your question", show_label=False, placeholder=STARTING, lines=1, max_lines=5,
        submit_btn="Ask", interactive=False, autofocus=True, max_length=handlers.MAX_QUESTION_CHARACTERS,
    )  # fmt: skip
    return chat, status, suggestions, question


def _data_panel(
    examples: list[Example],
) -> tuple[gr.File, list[gr.Button], gr.HTML, gr.Row, gr.Dropdown, gr.Button]:
    with gr.Group(elem_id="ic-data"):
        with gr.Row(visible=False, elem_id="ic-files", equal_height=True) as file_box:
            file = gr.Dropdown(
                [], label="File we talk about", show_label=False, container=False, elem_id="ic-file", filterable=False,
                scale=1, min_width=120,
            )  # fmt: skip
            close = gr.Button("Close", size="sm", min_width=0, scale=0, elem_classes="ic-chip", elem_id="ic-close")
        card = gr.HTML(dataset_card(None, ""), elem_id="ic-card")
        upload = gr.File(
            label="Upload cells", show_label=False, height=84, interactive=False, elem_id="ic-upload",
            file_count="multiple",
        )  # fmt: skip
        gr.HTML(FORMATS, elem_id="ic-formats")
        with gr.Row(elem_id="ic-examples"):
            gr.HTML("or try", elem_id="ic-or")
            buttons = [
                gr.Button(example.label, size="sm", min_width=0, interactive=False, elem_classes="ic-chip")
                for example in examples
            ]
    return upload, buttons, card, file_box, file, close


def _results_panel() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The hint for an empty panel, figure and table with their pickers and downloads, in the order of `Widgets`.

    And the buttons that write a file when they are pressed, with the one that hands it over.
    """
    hint = gr.HTML(NO_RESULTS, elem_id="ic-hint")
    with gr.Row(elem_id="ic-downloads"):
        annotated = gr.DownloadButton("Annotated cells (.h5ad)", visible=False, size="sm", elem_id="ic-get-annotated")
        generated = gr.DownloadButton("Pseudo-cells (.h5ad)", visible=False, size="sm", elem_id="ic-get-generated")
        with gr.Row(visible=False, elem_id="ic-takeaway") as takeaway:
            talk = gr.Button("Conversation (.html)", size="sm", min_width=0, elem_id="ic-get-conversation")
            script = gr.Button("Script (.py)", size="sm", min_width=0, elem_id="ic-get-script")
        fetched = gr.DownloadButton("Ready", visible="hidden", elem_id="ic-fetched")
    exported = gr.File(
        visible=False, interactive=False, file_count="multiple", label="Exported files", height=190,
        elem_id="ic-exported",
    )  # fmt: skip
    with gr.Group(visible=False, elem_id="ic-map") as figure_box:
        figure_name = gr.Radio([], show_label=False, label="Figure", container=False, elem_id="ic-figure-name")
        choose = gr.Button(
            CHOOSE, size="sm", visible=False, min_width=0, scale=0, elem_classes="ic-chip", elem_id="ic-choose"
        )
        figure = gr.Plot(show_label=False, label="Figure", container=False, elem_id="ic-figure")
    with gr.Group(visible=False, elem_id="ic-results-table") as table_box:
        table_name = gr.Radio([], show_label=False, label="Table", container=False, elem_id="ic-table-name")
        csv = gr.Button(
            "This table (.csv)", size="sm", min_width=0, scale=0, elem_classes="ic-chip", elem_id="ic-get-table"
        )
        table = gr.Dataframe(
            interactive=False, show_label=False, label="Table", max_height=300, buttons=[], elem_id="ic-table"
        )
    shown = (hint, figure_box, figure_name, figure, choose, table_box, table_name, table, takeaway)
    return (*shown, annotated, generated, exported), (talk, script, csv, fetched)


@dataclass(frozen=True)
class Visits:
    """Answers Gradio's events by calling the handlers; keeps nothing of any visitor."""

    new_session: Callable[[Path], Session]
    first_files: tuple[Path, ...]
    pace: Pace = iter

    def open_conversation(self) -> Conversation:
        """A new one, which takes turns with the others."""
        return handlers.open_conversation(self.new_session, self.pace)

    def greet(self) -> Iterator[list[Any]]:
        """Open a conversation for a page that was just loaded, and read the first files where there are some."""
        conversation = self.open_conversation()
        yield draw(conversation, conversation.view)
        for file in self.first_files:
            yield from drawn(conversation, handlers.load(conversation, file))

    def ask(self, conversation: Conversation, question: str) -> Iterator[list[Any]]:
        """Answer a question."""
        yield from drawn(conversation, handlers.ask(conversation, question))

    def upload(self, conversation: Conversation, paths: list[str] | None) -> Iterator[list[Any]]:
        """Read an uploaded file, or the files of one matrix."""
        for path in handlers.gather(conversation, [Path(path) for path in paths or []]):
            yield from drawn(conversation, handlers.load(conversation, path))

    def use(self, conversation: Conversation, name: str) -> Iterator[list[Any]]:
        """Talk about another loaded file."""
        yield from drawn(conversation, handlers.use(conversation, name))

    def close_file(self, conversation: Conversation) -> Iterator[list[Any]]:
        """Forget the file that is talked about."""
        yield from drawn(conversation, handlers.close_file(conversation))

    def choose(self, conversation: Conversation, figure: str, marked: list[int] | None) -> Iterator[list[Any]]:
        """Talk about the cells that were marked in a figure."""
        yield from drawn(conversation, handlers.choose(conversation, figure, [int(place) for place in marked or []]))

    def show(self, conversation: Conversation, number: str | int | None) -> list[Any]:
        """Put the table or figure of a link in front."""
        before = conversation.shown
        view = handlers.show(conversation, int(number) if str(number).isdecimal() else -1)
        if not view.busy:
            conversation.shown = view
        return draw(conversation, view, before)

    def fetch(self, conversation: Conversation, what: str, name: str = "") -> tuple[dict[str, Any], str]:
        """Write a file for taking away; what stands in the way is said under the chat."""
        path = handlers.fetch(conversation, what, name)
        if path is None:
            return gr.skip(), conversation.view.status
        return gr.update(value=str(path), label=path.parent.name), conversation.view.status

    def rest(self, conversation: Conversation) -> list[Any]:
        """Show the page at rest after a visitor stopped an answer."""
        conversation.shown = handlers.stop(conversation)
        return draw(conversation, conversation.shown)

    def clear(self, conversation: Conversation) -> list[Any]:
        """Forget the cells and begin again."""
        conversation.close()
        fresh = self.open_conversation()
        return draw(fresh, fresh.view)


def demo_examples() -> list[Example]:
    """Return the data sets that ship with the package."""
    from instructcell.resources import demo_path

    return [Example(label, demo_path(name)) for label, name in DEMO.items()]


class PatientServer(http_server.Server):
    """Gradio's server, with the time to start that a busy machine needs; Gradio itself gives up after 5 s."""

    def run_in_thread(self) -> None:
        """Return once the server answers; a ServerFailedToStartError when it ended instead, or takes too long."""
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        latest = time.monotonic() + START_SECONDS
        while not self.started:
            self.thread.join(0.01)
            if not self.thread.is_alive() or time.monotonic() > latest:
                raise ServerFailedToStartError("the server did not start; the port may be taken")


def serve(
    page: gr.Blocks,
    *,
    host: str,
    port: int,
    users: Sequence[tuple[str, str]] = (),
    beside: Starlette | None = None,
) -> str:
    """Start serving the page in the background and return its address.

    Parameters
    ----------
    users
        (name, password) of those who are let in; everybody when there are none.
    beside
        An application whose routes are answered at the same address.
    """
    http_server.Server = PatientServer
    for name in ("NO_PROXY", "no_proxy"):  # Gradio asks itself whether it is up; no proxy can answer that
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost", "127.0.0.1", host]))
    _, address, _ = page.launch(
        server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
        inbrowser=False, show_error=False, footer_links=[], run_history=False, enable_monitoring=False,
        ssr_mode=False, pwa=False,
        max_threads=MOST_THREADS,
        max_file_size=2 * MAX_UPLOAD_BYTES,  # the handler turns away what is less too large with a sentence
        theme=page_theme(), css_paths=[STYLE_SHEET], app_kwargs=mounted(beside),
        auth=list(users) or None, auth_message="InstructCell" if users else None,
    )  # fmt: skip
    return address


def mounted(beside: Starlette | None) -> dict[str, Any]:
    """What makes the page's application answer the routes of another one, which starts and stops with it."""
    if beside is None:
        return {}
    # the whole application answers, so that what guards it is not left out
    routes = [Route(route.path, _Whole(beside)) for route in beside.routes if isinstance(route, Route)]
    return {"routes": routes, "lifespan": lambda _: beside.router.lifespan_context(beside)}


@dataclass(frozen=True)
class _Whole:
    """An application as the endpoint of a route: an object, which starlette calls for every method."""

    application: Starlette

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on."""
        await self.application(scope, receive, send)


def drawn(conversation: Conversation, views: Iterator[View]) -> Iterator[list[Any]]:
    """Yield the widgets' values for each view, leaving alone what did not change since the one before.

    A busy browser may drop an update that is followed by another, so the last one repeats all that changed in the turn.
    """
    start = before = conversation.shown
    for view in views:
        yield draw(conversation, view, before if view.busy else start)
        before = view
        if not view.busy:
            conversation.shown = view


def draw(conversation: Conversation, view: View, before: View | None = None) -> list[Any]:
    """Return the value of each widget in the order of `Widgets`; what is as in `before` is skipped while busy.

    At rest the texts are always drawn; figures, tables and files still only when they changed, so that a zoom stays.
    """

    def changed(name: str) -> bool:
        return before is None or getattr(view, name) is not getattr(before, name)

    def talked(name: str) -> bool:
        return not view.busy or changed(name)

    skipped = gr.skip()
    figures, tables = view.figures, view.tables
    return [
        conversation,
        list(view.messages) if talked("messages") else skipped,
        _question(view) if talked("busy") else skipped,
        view.status if talked("status") else skipped,
        *(_suggestions(view) if talked("suggestions") or talked("busy") else [skipped] * MAX_SUGGESTIONS),
        gr.update(visible=len(view.files) > 1),
        gr.update(choices=list(view.files), value=view.file or None, interactive=not view.busy),
        view.card if changed("card") else skipped,
        gr.update(visible=not (figures or tables or view.annotated or view.generated or view.exported)),
        gr.update(visible=bool(figures)),
        _picker(figures) if changed("figures") else skipped,
        next(iter(figures.values()), None) if changed("figures") else skipped,
        gr.update(visible=has_cells(next(iter(figures.values()), None))) if changed("figures") else skipped,
        gr.update(visible=bool(tables)),
        _picker(tables) if changed("tables") else skipped,
        next(iter(tables.values()), None) if changed("tables") else skipped,
        gr.update(visible=_answered(view)),
        _download(view.annotated) if changed("annotated") else skipped,
        _download(view.generated) if changed("generated") else skipped,
        _files(view.exported) if changed("exported") else skipped,
    ]


def _question(view: View) -> dict[str, Any]:
    if view.busy:
        return gr.update(placeholder="Answering …", submit_btn=False, stop_btn="Stop", interactive=False, value="")
    return gr.update(placeholder=READY, submit_btn="Ask", stop_btn=False, interactive=True)


def _suggestions(view: View) -> list[dict[str, Any]]:
    texts = [*view.suggestions, *[""] * MAX_SUGGESTIONS][:MAX_SUGGESTIONS]
    return [gr.update(value=text, visible=bool(text), interactive=not view.busy) for text in texts]


def _answered(view: View) -> bool:
    """Whether something was said that one may want to keep."""
    return not view.busy and any(message["role"] == "assistant" for message in view.messages)


def _picker(named: dict[str, Any]) -> dict[str, Any]:
    return gr.update(choices=list(named), value=next(iter(named), None), interactive=True)


def _download(path: Path | None) -> dict[str, Any]:
    return gr.update(value=str(path) if path else None, visible=path is not None)


def _files(paths: tuple[Path, ...]) -> dict[str, Any]:
    return gr.update(value=[str(path) for path in paths] or None, visible=bool(paths))


def _pick_figure(conversation: Conversation, name: str) -> list[Any]:
    """Show the figure of that name, and offer to ask about its cells if it shows cells."""
    figure = conversation.view.figures.get(name)
    return [figure, gr.update(visible=has_cells(figure))]


def _pick_table(conversation: Conversation, name: str) -> Any:
    """Show the table of that name."""
    return conversation.view.tables.get(name)


def _close(conversation: Conversation | None) -> None:
    if conversation is not None:
        conversation.close()


def _connect(page: gr.Blocks, widgets: Widgets, visits: Visits, inputs: Inputs) -> None:
    """Connect every event to its handler."""
    outputs, state = widgets.all(), widgets.state
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    asked = {**private, "js": TO_THE_END}
    running: list[dict[str, Any]] = [widgets.question.submit(visits.ask, [state, widgets.question], outputs, **asked)]
    running += [chip.click(visits.ask, [state, chip], outputs, **asked) for chip in widgets.suggestions]
    uploaded = inputs.upload.upload(visits.upload, [state, inputs.upload], outputs, **private)
    uploaded.then(lambda: None, None, inputs.upload, **private)
    running.append(uploaded)
    marked = gr.JSON(visible=False)  # filled by the browser when the button is pressed
    running.append(
        widgets.choose.click(visits.choose, [state, widgets.figure_name, marked], outputs, js=MARKED, **private)
    )
    running.append(widgets.file.input(visits.use, [state, widgets.file], outputs, **private))
    running.append(inputs.close.click(visits.close_file, state, outputs, **private))
    for button, what in ((inputs.conversation, "conversation"), (inputs.script, "script"), (inputs.csv, "table")):
        wanted: list[Any] = [state, widgets.table_name] if what == "table" else [state]
        written = button.click(_fetcher(visits, what), wanted, [inputs.fetched, widgets.status], js=FETCH, **private)
        written.success(None, js=FETCHED, api_visibility="private")
    link = gr.JSON(visible=False)  # as above, when a link of an answer is
    shown = inputs.show.click(visits.show, [state, link], outputs, js=LINKED, **private)
    shown.then(None, js=SHOWN, api_visibility="private")
    for button, example in inputs.examples:
        running.append(button.click(_reader(visits, example), state, outputs, **private))
    widgets.question.stop(visits.rest, state, outputs, cancels=running, **private)
    inputs.clear.click(visits.clear, state, [*outputs], cancels=running, **private)
    widgets.figure_name.input(_pick_figure, [state, widgets.figure_name], [widgets.figure, widgets.choose], **private)
    widgets.table_name.input(_pick_table, [state, widgets.table_name], widgets.table, **private)
    page.load(None, js=FOLLOW_LINKS, api_visibility="private")
    page.load(visits.greet, None, outputs, **private).then(
        lambda: [gr.update(interactive=True)] * len(inputs.all()), None, inputs.all(), **private
    )


def _fetcher(visits: Visits, what: str) -> Callable[..., tuple[dict[str, Any], str]]:
    def fetch(conversation: Conversation, name: str = "") -> tuple[dict[str, Any], str]:
        return visits.fetch(conversation, what, name or "")

    return fetch


def _reader(visits: Visits, example: Example) -> Callable[[Conversation], Iterator[list[Any]]]:
    def read(conversation: Conversation) -> Iterator[list[Any]]:
        yield from drawn(conversation, handlers.load(conversation, example.path, example.label))

    return read
