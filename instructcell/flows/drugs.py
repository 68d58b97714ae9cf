"""Drugs: predicted response, rankings, comparisons, and what is known of them."""

from __future__ import annotations

import re
from dataclasses import replace

from instructcell import answers, slots, tools
from instructcell.drugs import Drug
from instructcell.errors import DrugError
from instructcell.events import TextDelta
from instructcell.flows.conversation import Answer, Conversation
from instructcell.mentions import drug_by_place
from instructcell.requests import Request
from instructcell.toolbox.arguments import ALL, Cells
from instructcell.toolbox.core import as_drug


def predict_response(talk: Conversation, request: Request) -> Answer:
    """Predict the response of cells to each drug that is named; an unknown one is refused by its name."""
    names = ", ".join(talk.toolbox.drugs.names)
    if not request.drugs:
        n = len(talk.toolbox.screen.drugs)
        whom = f" for {answers.quoted(request.type_name)}" if request.type_name else ""
        yield TextDelta(f"Which drug do you mean{whom}? I know {names}, and {n:,} drugs of cell-line screens.")
        return
    known = list({mention.drug.name: mention.drug for mention in request.drugs if mention.drug}.values())
    yield from _refuse_drugs(talk, request, bool(known))
    if known and talk.adata is None:
        for drug in known:
            facts = {"target": drug.target, "studies": list(drug.studies), "drug_note": drug.note}
            own = talk.toolbox.drugs.find(drug.name) is not None
            how = "I was trained on" if own else "of the cell-line screens I learned from"
            yield TextDelta(f"**{drug.name}** is a drug {how}.{answers.drug_facts_text(facts)}\n")
        yield from talk.needs_cells("To predict a response I need cells.")
        return
    if not known:
        return
    cells = yield from talk.cells_of(request)
    for drug in known:
        yield from _response(talk, drug, cells, "drug response" if len(known) == 1 else f"response to {drug.name}")
    if len(known) > 1:
        yield TextDelta("\nEach drug was read by itself; what they do together is not predicted.\n")


def _refuse_drugs(talk: Conversation, request: Request, others_known: bool) -> Answer:
    """Refuse each drug that is not known by its name; a likely typing error is asked back."""
    unknown = [mention for mention in request.drugs if mention.drug is None]
    if not unknown:
        return
    drugs = talk.toolbox.drugs
    meant = {mention.meant.name: mention.meant for mention in unknown if mention.meant is not None}
    if len(meant) == 1:
        (drug,) = meant.values()
        talk.offers = [replace(request, drugs=(replace(request.drugs[0], drug=drug, meant=None),))]
        if not others_known and len(unknown) == 1:
            yield TextDelta(
                f"{answers.quoted(unknown[0].written)} is not a drug I was trained on. "
                f"Did you mean **{drug.name}**? (*Yes*, or name one of: {', '.join(drugs.names)}.)"
            )
            return
    written, screened = list(dict.fromkeys(mention.written for mention in unknown)), talk.toolbox.screen.drugs
    refusal = " ".join([drugs.refusal(written), *map(screened.refusal, written)])
    if not meant and len(written) == 1 and (near := screened.misspelt(written[0])) is not None:
        talk.offers = [replace(request, drugs=(replace(unknown[0], drug=as_drug(near)),))]  # for "yes"
    if not others_known:
        raise DrugError(refusal)
    yield TextDelta(f"{refusal}\n\n")


def _response(talk: Conversation, drug: Drug, cells: Cells, title: str) -> Answer:
    """Predict the response of the chosen cells to one drug; `title` names its table and figure."""
    yield TextDelta(f"Reading the cells for their response to {drug.name}.\n\n")
    result = yield from talk.call("drug_response", drug=drug.name, cells=cells)
    own = f"response to {drug.name}"
    renamed = replace(
        result,
        tables={title if name == own else name: table for name, table in result.tables.items()},
        figures={title if name == own else name: draw for name, draw in result.figures.items()},
    )
    yield from talk.tell(renamed)


def rank(talk: Conversation, request: Request) -> Answer:
    """Rank the screened drugs for cells, or for each group."""
    if talk.adata is None:
        yield from talk.needs_cells("To rank drugs I need cells.")
        return
    yield TextDelta("Ranking the drugs of the cell-line screens.\n\n")
    if len(request.groups) > 1:
        first = talk.focus if request.groups[0] == ALL else request.groups[0]
        yield from talk.ask("rank_drugs", cells=first, against=request.groups[1])
        return
    cells = yield from talk.cells_of(request)
    yield from talk.prepare(request.column)
    yield from talk.ask("rank_drugs", cells=cells, by=request.column)


def compare_drug(talk: Conversation, request: Request) -> Answer:
    """Compare the response to a drug between groups."""
    if talk.adata is None:
        yield from talk.needs_cells("To compare groups I need cells.")
        return
    drug = next((mention.drug for mention in request.drugs if mention.drug is not None), None)
    if drug is None:  # refused by its name, or asked for
        yield from predict_response(talk, request)
        return
    groups = request.groups
    if len(groups) < 2 and slots.BOTH.search(request.text) and (pair := _asked_last(talk, drug)):
        groups = pair
    if len(groups) > 1 or (groups and not request.column):
        against = groups[1] if len(groups) > 1 else None
        yield from talk.ask("compare_drug", drug=drug.name, cells=groups[0], against=against)
        yield from talk.now_both(groups)
        return
    by = request.column or talk.grouping_said(request.text) or tools.CELL_TYPE
    yield from talk.prepare(by)
    yield from talk.ask("compare_drug", drug=drug.name, by=by)


def _asked_last(talk: Conversation, drug: Drug) -> tuple[Cells, ...]:
    """The two groups whose response to a drug was asked about last: "which of the two is more sensitive"."""
    asked = [
        Cells(**result.arguments["cells"])
        for result in talk.workspace.state.results
        if result.tool == "drug_response" and result.facts.get("drug") == drug.name and result.arguments.get("cells")
    ]
    pair = tuple(dict.fromkeys(asked))[-2:]
    return pair if len(pair) == 2 else ()


def drug_facts(talk: Conversation, request: Request) -> Answer:
    """What is known of drugs: names, targets, how well their predictions hold."""
    known = [mention.drug.name for mention in request.drugs if mention.drug is not None]
    target = slots.TARGET_CLASS.search(request.text)
    named = () if known or target else drug_by_place(request.text)
    if named and all(mention.drug is None for mention in named) and re.search(r"\bdrug\s+\w", request.text):
        yield from predict_response(talk, replace(request, drugs=named))  # refused by its name
        return
    asked = known[0] if known else target[1] if target else ""
    if asked.lower() in ("drug", "any", "which", "other", "an", "the", "kinase"):
        asked = "" if asked.lower() != "kinase" else asked
    yield from talk.ask("known_drugs", query=asked)
