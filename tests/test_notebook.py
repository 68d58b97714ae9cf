"""A session in a notebook: what is answered appears under the cell, in its order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instructcell.checkpoint import load_checkpoint
from instructcell.errors import ConfigError
from instructcell.session import Session

pytest.importorskip("IPython")
PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture
def shell() -> Iterator[Any]:
    """An IPython that renders plotly figures as a notebook's page does."""
    import plotly.io
    from IPython.core.interactiveshell import InteractiveShell

    before = plotly.io.renderers.default
    plotly.io.renderers.default = "plotly_mimetype"
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()
    plotly.io.renderers.default = before


def shown(shell: Any, session: Session, question: str) -> list[dict[str, Any]]:
    """The outputs of a cell, by MIME type, updates in the place of what they replace."""
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        session.show(question)
    places: dict[Any, dict[str, Any]] = {}
    for i, output in enumerate(captured.outputs):
        places[(output.transient or {}).get("display_id", i)] = output.data
    return list(places.values())


def test_words_tables_and_figures_appear_inline(shell: Any, synthetic_adata: Any, tiny_checkpoint: Path) -> None:
    session = Session(synthetic_adata, checkpoint=load_checkpoint(tiny_checkpoint))
    outputs = shown(shell, session, "Which cell types are these?")
    words = "".join(output["text/markdown"] for output in outputs if "text/markdown" in output)
    assert session.history[-1].answer.split("\n\n")[0] in words and "**cell types**" in words
    assert any("<table" in output.get("text/html", "") for output in outputs)
    figures = [output[PLOTLY] for output in outputs if PLOTLY in output]
    assert len(figures) == 2 and all(figure["data"] for figure in figures)


def test_a_long_table_is_cut_and_says_so(shell: Any, synthetic_adata: Any, tiny_checkpoint: Path) -> None:
    session = Session(synthetic_adata, checkpoint=load_checkpoint(tiny_checkpoint))
    outputs = shown(shell, session, "Is the quality of these cells good?")
    assert any("(the first 30 of 60 rows)" in output.get("text/markdown", "") for output in outputs)


def test_a_failure_is_shown_and_the_session_goes_on(shell: Any, tiny_checkpoint: Path) -> None:
    session = Session(checkpoint=load_checkpoint(tiny_checkpoint))
    outputs = shown(shell, session, "generate 0 B cells")
    assert any("expected at least 1" in output.get("text/markdown", "") for output in outputs)
    outputs = shown(shell, session, "What marks a B cell?")
    assert any("MS4A1" in output.get("text/markdown", "") for output in outputs)


def test_without_ipython_the_remedy_is_said(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(ConfigError, match=r"Session\.send"):
        Session(checkpoint=load_checkpoint(tiny_checkpoint)).show("hello")
