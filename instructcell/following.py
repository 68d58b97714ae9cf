"""Sentences that are no question of their own: "and cluster 3?", "no, beta", "INS?"; what they go on with."""

from __future__ import annotations

import re
from dataclasses import replace

from instructcell import slots
from instructcell.mentions import drug_by_place
from instructcell.requests import (
    ANNOTATE,
    CLUSTER,
    COMPARE,
    COMPARE_DRUG,
    COUNT,
    DRUG,
    EXPLAIN,
    EXPRESSION,
    FIND,
    GENE,
    GENERATE,
    MAP,
    MARKERS,
    QUALITY,
    RANK,
    SELECT,
    SUBSET,
    Request,
    Topic,
)
from instructcell.toolbox.arguments import Cells

# "Only endothelial" after a question is a part of that question; "only the endothelial cells" chooses them.
ONLY_A_NAME = re.compile(
    r"^\W*(?:and\s+|but\s+)?(?:only|just)\s+(?!the\b|these\b|those\b)(?:[\w+-]+\s*){1,2}\W*$", re.IGNORECASE
)
UNHEARD = re.compile(
    r"\b(?!(?:QC|UMAP|DEG|PCA|CSV|NK|DC|OK|DNA|RNA|FACS|PBMC)s?\b)[A-Z][A-Z0-9-]{2,}\b"
)  # as symbols are


def continued(request: Request, last: Request, *, corrects: bool = False) -> Request | None:
    """The request before with the slots of this one: "and 20 alpha cells?"; None if this one stands for itself.

    `corrects` when this one takes the place of the one before: what it does not name stays as it was.
    """
    if not request.fragment and not corrects:
        return None
    only = ONLY_A_NAME.match(request.text) and last.intent in (DRUG, RANK, COMPARE_DRUG, EXPRESSION, QUALITY, COMPARE)
    if not (corrects or only) and slots.CHOOSES.search(request.text) and not slots.ONLY_IN.search(request.text):
        return None  # "only the beta cells" chooses them, whatever was asked before
    by_intent = {
        GENERATE: _generate,
        MARKERS: _look_up,
        GENE: _look_up,
        EXPRESSION: _expression,
        DRUG: _drug,
        COMPARE_DRUG: _compare_drug,
        RANK: _rank,
        COUNT: _count,
        COMPARE: _compare,
        MAP: _map,
        ANNOTATE: _annotate,
        SUBSET: _annotate,
        CLUSTER: _annotate,
        FIND: _annotate,
    }
    if (swapped := _swapped(request, last)) is not None:
        return swapped
    found = by_intent[last.intent](request, last) if last.intent in by_intent else None
    if last.intent == SELECT and request.genes:
        return replace(request, intent=EXPRESSION)  # "INS in the treated cells", after cells were chosen
    if found is None and last.intent in (QUALITY, EXPLAIN, SELECT) and (request.cells or request.type_name):
        found = replace(request, intent=last.intent, why_not=last.why_not and request.type_name)
    if found is None and last.intent == QUALITY and (request.column or _others(request)):
        found = replace(request, intent=QUALITY, points_back=_others(request))
    if found is None:
        return None
    if corrects and found.cells is None and not found.type_name:
        found = replace(found, points_back=True)
    return found


def completed(request: Request, last: Request | None, topic: Topic) -> Request:
    """The request with what its intent cannot do without and the talk before supplies: a gene, a drug, a type, groups.

    A word in capitals that no table knows stands where a name stands: then nothing is supplied.
    """
    strange = UNHEARD.search(request.text) is not None
    if request.intent in (EXPRESSION, MAP) and not request.genes and (genes := _genes_of_talk(request.text, topic)):
        return replace(request, intent=EXPRESSION, genes=genes, gene=genes[0])
    if request.intent == EXPRESSION and not request.genes and topic.genes and not strange:
        genes = topic.genes[:1] if slots.IT.search(request.text) else topic.genes
        return replace(request, genes=genes, gene=genes[0])
    if request.intent == EXPRESSION and not request.genes and strange:
        return replace(request, genes=(UNHEARD.search(request.text)[0],))  # type: ignore[index]  # refused by its name
    if request.intent == GENE and not request.genes and topic.genes and slots.IT.search(request.text):
        text = slots.IT.sub(topic.genes[0], request.text, count=1)
        return replace(request, genes=topic.genes[:1], gene=topic.genes[0], text=text)
    if request.intent in (DRUG, COMPARE_DRUG) and not request.drugs and topic.drugs:
        return replace(request, drugs=topic.drugs[:1])
    unnamed = not (request.type_name or request.genes or request.unknown_type)
    if request.intent in (MARKERS, GENE) and topic.types and unnamed:
        asks = "marks" if slots.NO_DRUG_WORDS.search(request.text) else "is"  # "marks" of its genes, stains, antibodies
        text = f"what {asks} a {topic.types[0]}?"
        return replace(request, intent=MARKERS, text=text, type_name=topic.types[0], types=topic.types[:1])
    kind = (
        slots.MORE_OF.search(request.text) or slots.SUCH_CELLS.search(request.text) or OF_THAT_KIND.search(request.text)
    )
    goes_on = last is not None and last.intent == GENERATE
    if (
        request.intent == GENERATE
        and kind
        and topic.types
        and not (request.type_name or request.unknown_type or goes_on)
    ):
        return replace(request, type_name=topic.types[0], unknown_type=topic.types[0], points_back=False, like=False)
    named = request.cells or request.type_name or request.points_back or request.points_here
    if request.intent == DRUG and goes_with(last) and not named and slots.ALSO.search(request.text):
        return replace(request, points_back=True)  # "bortezomib, is it also good?", of the cells that were asked about
    if last is None or last.intent != request.intent:
        return request
    named = request.type_name or request.unknown_type or request.cells or request.points_back or request.points_here
    more = slots.MORE_OF.search(request.text) and not (request.type_name or request.unknown_type or request.cells)
    if request.intent == GENERATE and (more or not (named or request.like)):
        return replace(
            request,
            cell_type=last.cell_type,
            types=last.types,
            type_name=last.type_name,
            like=last.like,
            cells=last.cells,
            points_back=last.points_back,
            n=last.n if request.n is None else request.n,
        )
    if request.intent == COMPARE and not (named or request.groups or request.column) and (last.groups or last.column):
        return replace(request, groups=last.groups, column=last.column)
    return request


OF_THAT_KIND = re.compile(r"\bof\s+(?:that|this|the\s+same)\s+(?:kind|type|sort)\b", re.IGNORECASE)
ALL_OF_THEM = re.compile(
    r"\b(?:(?P<both>both)|all\s+(?:of\s+)?(?:the\s+|these\s+|those\s+)?(?P<n>[2-6]))\b", re.IGNORECASE
)


def _genes_of_talk(text: str, topic: Topic) -> tuple[str, ...]:
    """The genes that "both", "all three" or "the top genes" mean: those named last, or those a comparison told of."""
    if topic.found and slots.TOP_GENES.search(text):
        return topic.found
    match = ALL_OF_THEM.search(text)
    n = 0 if match is None else 2 if match["both"] else int(match["n"])
    return topic.named[-n:] if 0 < n <= len(topic.named) else ()


def goes_with(last: Request | None) -> bool:
    """Whether a question about another drug is about the cells of the request before."""
    return last is not None and last.intent in (DRUG, RANK, COMPARE_DRUG)


def _swapped(request: Request, last: Request) -> Request | None:
    """ "Cluster 2 instead of cluster 1": the request before with one group in another's place."""
    if request.replaces is None:
        return None
    new = request.cells or Cells()
    new = new.model_copy(update={"cell_type": request.type_name}) if request.type_name else new
    if request.replaces not in last.groups:
        return None
    groups = tuple(new if group == request.replaces else group for group in last.groups)
    return replace(last, text=request.text, groups=groups, cells=None, type_name="", types=())


def standing_alone(request: Request, best: str, *, loaded: bool) -> str | None:
    """What a name by itself asks: "INS?", "gefitinib?", "cluster 2?", "beta cells?"."""
    if request.drugs:
        return DRUG if request.knows_drug and not request.column else None
    if request.genes:
        return EXPRESSION if loaded else GENE
    if not loaded:
        return MARKERS if request.type_name and not request.n else None
    if len(request.types) > 1 and slots.VERSUS.search(request.text):
        return COMPARE
    if slots.EVERYTHING.search(request.text) and not request.type_name and request.cells is None:
        return SELECT
    if slots.CHOOSES.search(request.text) or best == SELECT:
        return SELECT if request.cells is not None or request.type_name else None
    if request.cells is not None:
        return SUBSET
    if request.type_name and request.n is None:
        return COUNT
    return None


def _generate(request: Request, last: Request) -> Request | None:
    another = request.cell_type is not None or bool(request.type_name)
    asks = another or request.n is not None or request.library_size is not None
    if not asks or request.genes or request.selection is not None or request.drugs:
        return None
    return replace(
        request,
        intent=GENERATE,
        cell_type=request.cell_type if another else last.cell_type,
        unknown_type=(request.type_name if request.cell_type is None else None) if another else last.unknown_type,
        types=request.types or (last.types if slots.BOTH.search(request.text) else ()),
        n=last.n if request.n is None else request.n,
        like=last.like and not another,
        cells=None if another else last.cells,
        species=request.species or last.species,
        tissue=request.tissue or last.tissue,
        library_size=last.library_size if request.library_size is None else request.library_size,
        points_back=last.points_back and not another,
    )


def _look_up(request: Request, last: Request) -> Request | None:
    if request.drugs or request.cells is not None:
        return None
    if request.type_name and not request.gene:
        return replace(request, intent=MARKERS)
    return replace(request, intent=GENE) if request.gene else None


def _expression(request: Request, last: Request) -> Request | None:
    if slots.VERSUS.search(request.text) and request.type_name and last.type_name and not request.genes:
        both = tuple(dict.fromkeys((*last.types, *request.types)))
        return replace(request, intent=EXPRESSION, genes=last.genes, gene=last.gene, types=both)
    pointed = request.cells is not None or request.type_name or _others(request) or _everything(request)
    all_of_them = ALL_OF_THEM.search(request.text) is not None
    if request.drugs or not (request.genes or pointed or request.column or all_of_them):
        return None
    same_cells = not pointed
    if not request.genes and ALL_OF_THEM.search(request.text):
        return replace(request, intent=EXPRESSION)  # which they are, the talk says
    return replace(
        request,
        intent=EXPRESSION,
        genes=request.genes or last.genes,
        gene=(request.genes or last.genes or (None,))[0],
        column=request.column or last.column,
        points_back=same_cells or _others(request),
    )


def _drug(request: Request, last: Request) -> Request | None:
    if request.genes:
        return None
    if slots.VERSUS.search(request.text) and len(request.types) == 1 and last.type_name:
        pair = (Cells(cell_type=last.type_name), Cells(cell_type=request.type_name))
        return replace(request, intent=COMPARE_DRUG, drugs=request.drugs or last.drugs, groups=pair)
    several = len(request.types) > 1 or len(request.values) > 1
    if request.column or several or slots.VERSUS.search(request.text):
        return replace(request, intent=COMPARE_DRUG, drugs=request.drugs or last.drugs)
    if request.cells is not None or request.type_name or _others(request) or _everything(request):
        return replace(request, intent=DRUG, drugs=request.drugs or last.drugs, points_back=_others(request))
    named = request.drugs or drug_by_place(request.text)
    return replace(request, intent=DRUG, drugs=named, points_back=True) if named else None


def _compare_drug(request: Request, last: Request) -> Request | None:
    if request.genes:
        return None
    if request.column:
        return replace(request, intent=COMPARE_DRUG, drugs=request.drugs or last.drugs)
    if request.drugs:
        return replace(request, intent=COMPARE_DRUG, groups=last.groups, column=last.column)
    if len(request.types) > 1 or slots.TWO_CLUSTERS.search(request.text):
        return replace(request, intent=COMPARE_DRUG, drugs=last.drugs)
    if request.cells is not None or request.type_name:
        return replace(request, intent=DRUG, drugs=last.drugs)
    return None


def _rank(request: Request, last: Request) -> Request | None:
    if slots.SPARES.search(request.text) and request.type_name and (last.cells or last.type_name or last.points_back):
        hit = (last.cells or Cells()).model_copy(update={"cell_type": last.type_name} if last.type_name else {})
        return replace(request, intent=RANK, groups=(hit, Cells(cell_type=request.type_name)), type_name="", types=())
    if request.drugs and len(request.types) > 1 and slots.VERSUS.search(request.text):
        return replace(request, intent=COMPARE_DRUG)
    if request.drugs:
        return replace(request, intent=DRUG, points_back=not (request.cells or request.type_name))
    pointed = request.cells is not None or request.type_name or request.column or _others(request)
    if pointed or _everything(request):
        return replace(request, intent=RANK, points_back=_others(request))
    return replace(request, intent=RANK, points_back=True) if request.n is not None else None


def _count(request: Request, last: Request) -> Request | None:
    if request.genes or request.drugs:
        return _of_genes(request)
    if request.type_name or request.cells is not None or request.column or _others(request):
        return replace(
            request,
            intent=COUNT,
            types=request.types or last.types,
            type_name=request.type_name or last.type_name,
            cell_type=request.cell_type or last.cell_type,
            column=request.column or ("" if request.cells is not None else last.column),
        )
    return None


def _compare(request: Request, last: Request) -> Request | None:
    if request.drugs:
        return replace(request, intent=COMPARE_DRUG, groups=last.groups, column=last.column)
    narrowed = slots.ONLY_IN.search(request.text) or _of_values(last.groups) or (last.column and not last.groups)
    if narrowed and request.type_name and not slots.VERSUS.search(request.text) and (last.groups or last.column):
        groups = tuple(group.model_copy(update={"cell_type": request.type_name}) for group in last.groups)
        if last.column and not groups:
            return replace(request, intent=COMPARE, column=last.column, cells=Cells(cell_type=request.type_name))
        return replace(request, intent=COMPARE, groups=groups)
    if request.genes and request.column:
        return replace(request, intent=EXPRESSION)
    own = request.cells is not None or request.type_name
    if own and _others(request):
        return replace(request, intent=COMPARE)
    if len(request.types) > 1 or slots.TWO_CLUSTERS.search(request.text):
        return replace(request, intent=COMPARE)
    same = slots.LIKEWISE.search(request.text)  # "the same with cluster 2" puts it in the place of the first
    if same and len(last.groups) < 2 and (request.cells or request.type_name):
        return replace(request, intent=COMPARE, column="")
    if (
        not same
        and slots.AGAINST.search(request.text)
        and last.groups
        and (_others(request) or request.cells or request.type_name)
    ):
        first = last.groups[0]
        if _others(request):
            return replace(request, intent=COMPARE, groups=(first,))
        said = request.cells or type(first)()
        second = said.model_copy(update={"cell_type": request.type_name}) if request.type_name else said
        return replace(request, intent=COMPARE, groups=(first, second))
    pair = request.column or len(request.types) > 1 or slots.VERSUS.search(request.text)
    if pair or request.cells is not None or request.type_name:
        return replace(request, intent=COMPARE)
    return _of_genes(request)


def _of_values(groups: tuple[Cells, ...]) -> bool:
    """Whether two groups are values of one column: of such a comparison a type that is named next is a part."""
    return len(groups) > 1 and all(group.value for group in groups)


def _map(request: Request, last: Request) -> Request | None:
    coloured = request.genes or request.column or request.type_name or request.cells is not None
    return replace(request, intent=MAP) if coloured and not request.drugs else None


def _annotate(request: Request, last: Request) -> Request | None:
    """After names of types: another group of cells, how many of another type, or a gene in them."""
    if request.drugs:
        return replace(request, intent=DRUG)
    if request.genes:
        return _of_genes(request)
    if slots.ALL_NOW.match(request.text):
        return replace(request, intent=ANNOTATE)
    if request.cells is not None:
        counted = last.type_name and not last.labels and slots.COUNTS.search(last.text)
        if counted and not request.type_name:
            return replace(request, intent=COUNT, type_name=last.type_name, types=last.types, cell_type=last.cell_type)
        return replace(request, intent=SUBSET)
    if request.type_name:
        return replace(request, intent=ANNOTATE)
    if _others(request):
        return replace(request, intent=SUBSET, points_back=True)
    return None


def _of_genes(request: Request) -> Request | None:
    if not request.genes:
        return None
    return replace(request, intent=EXPRESSION, points_back=not (request.cells or request.type_name))


def _others(request: Request) -> bool:
    return slots.THE_OTHERS.search(request.text) is not None


def _everything(request: Request) -> bool:
    return slots.IN_EVERYTHING.search(request.text) is not None or slots.ALL_NOW.match(request.text) is not None
