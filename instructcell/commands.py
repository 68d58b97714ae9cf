"""The intent that words of command settle, and what words narrow a sure intent down to."""

from __future__ import annotations

import re
from collections.abc import Callable

from instructcell import sentences, slots
from instructcell.mentions import (
    ask_for_unknown,
)
from instructcell.requests import (
    ANNOTATE,
    CLUSTER,
    COMPARE,
    COMPARE_DRUG,
    COUNT,
    DESCRIBE,
    DOWNLOAD,
    DRUG,
    DRUG_FACTS,
    EMBED,
    EXPLAIN,
    EXPRESSION,
    FIND,
    GENE,
    GENERATE,
    HELP,
    MAP,
    MARKERS,
    OUT_OF_SCOPE,
    QUALITY,
    RANK,
    REAL,
    RESTART,
    SELECT,
    SMALL_TALK,
    SUBSET,
    UNDO,
    Request,
)
from instructcell.retrieval.names import load_name_book


def points_at(request: Request) -> bool:
    return request.points_back or request.points_here


def speaks_of_calls(text: str) -> bool:
    """Whether a sentence is about the cells at hand by its words: doubt, certainty, quality, clusters, the map."""
    hints = (slots.DOUBT, slots.SETTLED, slots.HOW_SURE, slots.QUALITY, slots.CLUSTERING)
    return any(hint.search(text) for hint in hints)


def within_talk(request: Request, best: str) -> str | None:
    """What is meant of the cells at hand where the words alone would ask for knowledge, or for more than there is."""
    text = request.text
    asks_what = slots.WHAT_IS_IT.search(text) is not None
    if best == GENE and request.genes and (request.fragment or points_at(request)) and not asks_what:
        return EXPRESSION  # "GNLY?", "do they have GNLY?"
    why = slots.WHY.search(text) or re.search(r"\bwhy\b", text, re.IGNORECASE)
    has = points_at(request) and slots.THEY_HAVE.search(text) and not why
    if best == EXPLAIN and request.genes and has:
        return EXPRESSION
    if (
        request.type_name
        and points_at(request)
        and slots.BUT_NOT.search(text)
        and best in (MARKERS, EXPRESSION, COMPARE)
    ):
        return COMPARE  # "what do they express that CD8 T cells don't"
    of_genes = request.genes and not (request.types or request.values or request.cells)
    if best == COMPARE and of_genes and (len(request.genes) > 1 or slots.VERSUS.search(text)):
        return EXPRESSION  # "Ins1 vs Ins2 per genotype"
    if best in (ANNOTATE, COUNT) and request.genes and slots.WHICH_EXPRESS.search(text) and not request.types:
        return EXPRESSION
    doubts = slots.DOUBT.search(text) and request.type_name and not slots.COMPARES.search(text)
    if doubts and best in (COUNT, ANNOTATE, SUBSET, SELECT):
        return EXPLAIN
    return COUNT if shifted(request, best) else None


def shifted(request: Request, best: str) -> bool:
    """ "Is hfd expanding the beta cells?": how many there are in each group."""
    groups = request.type_name and (request.column or request.values) and not request.genes
    known = request.knows_drug
    apart = known or best in (EXPRESSION, QUALITY, GENERATE, DOWNLOAD, REAL, RANK)
    return bool(groups and slots.ABUNDANCE.search(request.text)) and not apart


def of_drug(request: Request) -> bool:
    """Whether a sentence speaks of a drug without its name."""
    words = (slots.DRUGS, slots.IT, slots.SENSITIVE)
    return any(word.search(request.text) for word in words)


def order(request: Request, *, loaded: bool) -> str | None:
    """What words of command settle, whatever they are about: undo, restart, and what is never done."""
    text = request.text
    if slots.UNDO.search(text):
        return UNDO
    if slots.RESTART.search(text):
        return RESTART
    if text.strip(" ?!.").lower() == HELP:
        return HELP
    if slots.INJECTION.search(text) or slots.NOT_READ.search(text) or slots.VERSE.search(text):
        return OUT_OF_SCOPE
    if loaded and (slots.OF_COLUMN.search(text) or slots.OF_ENCODERS.search(text)):
        return DESCRIBE
    if slots.EMBEDS.search(text):
        return EMBED
    if loaded and slots.MAP_OF.match(text) and not request.drugs:
        return MAP
    if loaded and slots.CHART.search(text) and slots.OF_TYPES.search(text) and not (request.genes or request.drugs):
        return COUNT
    if loaded and slots.CAUGHT.search(text) and not (request.type_name or request.genes):
        return ANNOTATE
    if slots.GIVES_AWAY.search(text) and request.type_name:
        return MARKERS
    if slots.WHO_ARE_YOU.search(text):
        return SMALL_TALK
    if loaded and slots.SPECIES.search(text) and not request.type_name:
        return DESCRIBE
    if slots.HANDS_OUT.search(text):
        return DOWNLOAD
    if loaded and slots.COLOURED.search(text) and request.genes:
        return MAP
    named = request.type_name or request.cells or request.values
    if loaded and slots.GOES_ON.match(text) and named and not (request.drugs or slots.REAL.search(text)):
        return COMPARE
    if loaded and slots.FINER.match(text):
        return CLUSTER
    if loaded and slots.EVIDENCE.search(text) and not (request.genes or request.drugs):
        return EXPLAIN
    if loaded and slots.KEPT_FROM_NOW.search(text) and request.cells is not None and not sentences.ASKS.match(text):
        return SELECT
    if loaded and slots.OPEN_FILES.search(text):
        return DESCRIBE
    if loaded and slots.RESTORES.search(text) and not request.file:
        return SELECT
    if (
        loaded
        and request.cells is not None
        and request.cells.response
        and not (request.drugs or slots.DRUGS.search(text))
    ):
        if slots.COMPARES.search(text):
            return COMPARE  # of the response predicted before: "how do they differ from the sensitive ones?"
        return SELECT if slots.WHO_RESPONDS.search(text) else None
    return None


def command(request: Request, best: str, *, loaded: bool, made: bool) -> str | None:
    """The intent that words of command settle, whatever the votes say; None where they do not."""
    text = request.text
    names = request.type_name or request.gene or request.cells or request.drugs or request.column
    pointed = loaded and (points_at(request) or speaks_of_calls(text))
    if best in (OUT_OF_SCOPE, HELP, SMALL_TALK) and not (names or pointed):
        return None
    known_drug = request.knows_drug
    for settle in (
        _about_drug_facts,
        _why,
        _judging,
        _labelling,
        _counting,
        _offering,
        _about_pseudo,
        _about_drugs,
        _making,
        _comparing_gene,
        _about_genes,
        _choosing,
        _comparing,
        _mapping,
        _looking_up,
    ):
        found = settle(request, best, loaded=loaded, made=made, known_drug=known_drug)
        if found is not None:
            return found
    return None


def _about_drug_facts(request: Request, best: str, *, known_drug: bool, **_: bool) -> str | None:
    """ "Which EGFR inhibitors do you know?", "what is the target of gefitinib?", "how good are these predictions?" """
    asks = slots.DRUG_KNOWLEDGE.search(request.text) or (not request.drugs and slots.AN_INHIBITOR.search(request.text))
    return DRUG_FACTS if asks and (known_drug or slots.DRUGS.search(request.text) or best == DRUG_FACTS) else None


def _why(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    about = request.type_name or request.cells is not None or points_at(request) or len(request.text.split()) <= 4
    asks = slots.WHY.search(request.text) or (slots.WHY_NOT.search(request.text) and request.type_name)
    doubts = slots.DOUBT.search(request.text) and not slots.COMPARES.search(request.text)
    if not loaded or request.drugs or request.gene:
        return None
    return EXPLAIN if (asks and about) or doubts else None


def _judging(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "Run QC on the first 30 cells", but not "how good are the pseudo-cells?" """
    return QUALITY if slots.QUALITY.search(request.text) and not slots.MAKES.search(request.text) else None


def _labelling(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "Annotate what is left"; a list of types is a choice among them."""
    if loaded and slots.HOW_SURE.search(request.text) and not request.drugs:
        return SUBSET if request.cells is not None or points_at(request) else ANNOTATE
    if not loaded or not slots.LABELS_THEM.search(request.text) or request.labels or request.genes:
        return None
    return SUBSET if request.cells is not None or request.points_back else ANNOTATE


def _counting(request: Request, best: str, *, loaded: bool, known_drug: bool, **_: bool) -> str | None:
    """ "How many alpha, beta and delta cells?", "the composition per donor", "which cluster has the CD8 T cells?" """
    text = request.text
    if not loaded or known_drug or request.genes or slots.AMOUNT.search(text):
        return None
    if shifted(request, best):
        return COUNT
    if slots.MAKES.search(text) and not slots.THERE.search(text):
        return None
    if slots.PRESENCE.search(text) and request.type_name and best in (EXPLAIN, HELP, OUT_OF_SCOPE, SMALL_TALK, FIND):
        best = ANNOTATE
    if best in (QUALITY, EXPLAIN, DOWNLOAD, HELP, RANK, COMPARE_DRUG, REAL):
        return None
    if slots.AGREES.search(text) and request.column:
        return COUNT
    counts = slots.COUNTS.search(text) or slots.COMPOSITION.search(text)
    if counts and re.search(r"\b(?:genes?|features|donors?|samples?|files?|columns?|counts?\s+per)\b", text, re.I):
        counts = slots.COMPOSITION.search(text) if request.column else None
    if counts and slots.HOW_MANY_CLUSTERS.search(text):
        return CLUSTER
    if slots.WHICH_GROUP_HAS.search(text) and request.type_name:
        return COUNT
    if not counts:
        present = (slots.PRESENCE.search(text) or slots.WHICH_ARE.match(text)) and request.type_name and best != COMPARE
        return ANNOTATE if present and not slots.COMPARES.search(text) else None
    several = len(request.types) > 1 or request.column or slots.BOTH.search(text)
    whole = not request.type_name and (request.cells is not None or points_at(request) or slots.LEFT.search(text))
    rejected = request.type_name and slots.NOT_OF_TYPE.search(text)
    if several or whole or rejected:
        return COUNT
    return ANNOTATE if request.type_name and request.n is None else None


def _offering(request: Request, best: str, **_: bool) -> str | None:
    """ "Are these T cells, B cells or monocytes?" """
    if not request.labels or request.drugs or request.genes or slots.COMPARES.search(request.text):
        return None
    if best not in (ANNOTATE, SUBSET, EXPLAIN, FIND, SELECT) or slots.CHOOSES.search(request.text):
        return None
    return ANNOTATE if request.cells is None else SUBSET


def _about_pseudo(request: Request, best: str, *, made: bool, **_: bool) -> str | None:
    making = slots.MAKES.search(request.text) and (request.n is not None or request.type_name or request.like)
    generated = re.search(
        r"\b(?:generated|simulated|synthetic|pseudo|fake|artificial|virtual)\b", request.text, re.IGNORECASE
    )
    if not made or best == DOWNLOAD:
        return None
    if generated and request.n is None and best != HELP:
        held = slots.REAL.search(request.text) and slots.RESEMBLES.search(request.text)
        if held or (best == QUALITY and not slots.QUALITY.search(request.text)):
            return REAL
    if best == REAL or (
        slots.REAL.search(request.text) and (slots.COMPARES.search(request.text) or request.points_back)
    ):
        return REAL
    if request.points_back and slots.ANY_GOOD.search(request.text) and not request.genes:
        return REAL
    if (
        request.on_map
        and (request.points_back or generated)
        and not re.search(r"\bcolou?r", request.text)
        and not making
    ):
        return REAL
    return None


def _about_drugs(request: Request, best: str, *, known_drug: bool, **_: bool) -> str | None:
    text = request.text
    if not request.drugs and len(request.values) > 1 and best in (DRUG, COMPARE_DRUG) and not of_drug(request):
        return COMPARE  # "the effect of IFNg compared to DMSO", where these are groups of the file
    if known_drug:
        several = len({mention.drug.name for mention in request.drugs if mention.drug is not None}) > 1
        compares = slots.COMPARES.search(text) or request.column or slots.EACH_GROUP.search(text)
        held = slots.VERSUS.search(text) and (len(request.types) > 1 or request.values)
        return COMPARE_DRUG if (compares or held) and not several else None
    if request.drugs:  # a drug that is not known is refused by name
        return None
    if best in (DRUG, RANK, OUT_OF_SCOPE, COMPARE_DRUG) and ask_for_unknown(text):
        return DRUG
    if request.cells is not None and request.cells.response and not slots.DRUGS.search(text):
        return None
    about_genes = slots.NO_DRUG_WORDS.search(text) and not slots.DRUGS.search(slots.BY.sub(" ", text))
    if about_genes or (request.column and slots.WHICH_GENES.search(text)):
        return None
    pointed = request.cells is not None or request.type_name or points_at(request)
    if slots.TRIES.search(text) and pointed and best in (RANK, DRUG, COMPARE_DRUG, SELECT, EXPLAIN, OUT_OF_SCOPE):
        return RANK
    asks = slots.WHICH_DRUG.search(text) and best not in (HELP, OUT_OF_SCOPE, GENE, MARKERS, DESCRIBE)
    ranks = best == RANK and (slots.DRUGS.search(text) or slots.ACTS.search(text))
    return RANK if asks or ranks else None


def _making(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    if not slots.MAKES.search(request.text) or best in (DOWNLOAD, HELP, OUT_OF_SCOPE, REAL, CLUSTER, UNDO):
        return None
    wanted = request.n is not None or request.type_name or request.like
    return GENERATE if wanted and best in (GENERATE, ANNOTATE, SUBSET, SELECT, MARKERS, DESCRIBE, FIND, MAP) else None


def _comparing_gene(request: Request, best: str, *, loaded: bool, known_drug: bool, **_: bool) -> str | None:
    """ "Is KRT19 higher in ductal than in acinar cells?" """
    if not loaded or known_drug or not request.genes or best in (GENE, MARKERS):
        return None
    groups = request.types or request.values or request.cells or request.column
    two = len(request.types) > 1 or (groups and slots.SPLIT_BETWEEN.search(request.text))
    return COMPARE if two and slots.COMPARES.search(request.text) else None


def _about_genes(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "How many of those express GZMB?"; cells that express a gene are chosen by it, if that is what is asked."""
    written = {mention.written.lower() == mention.id.lower() for mention in load_name_book().genes(request.text)}
    if best == FIND and written == {False}:  # "cells that secrete insulin"
        return None
    if not loaded or not request.genes or re.search(r"\bmark(?:s|ers?)\b", request.text, re.IGNORECASE):
        return None
    if _which_express(request, best, loaded=loaded) and best in (GENE, MARKERS):
        return EXPRESSION
    if slots.DISTRIBUTION.search(request.text):
        return EXPRESSION
    drawn = request.on_map or slots.COLOURED.search(request.text)
    if best == MAP or (drawn and not slots.COUNTS.search(request.text)):
        return MAP
    if slots.COUNTS.search(request.text) and slots.AMOUNT.search(request.text):
        return EXPRESSION
    if slots.MOST_OF_IT.search(request.text) and slots.EACH_GROUP.search(request.text):
        return EXPRESSION
    if slots.CHOOSES.search(request.text) and (
        slots.EXPRESSES.search(request.text) or slots.LACKS.search(request.text) or best == SELECT
    ):
        return SELECT
    if best in (EXPRESSION, FIND) or (
        slots.AMOUNT.search(request.text) and best in (GENE, SELECT, ANNOTATE, SUBSET, QUALITY, DESCRIBE, MARKERS)
    ):
        return None if best == GENE and not (points_at(request) or request.cells or request.type_name) else EXPRESSION
    return None


def _which_express(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "Which cells express CD20?" where there are cells to look at."""
    return EXPRESSION if loaded and request.genes and slots.WHICH_EXPRESS.search(request.text) else None


def _choosing(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    if not loaded or best in (RANK, DRUG, COMPARE_DRUG, DOWNLOAD, EXPRESSION, HELP):
        return None
    chooses = slots.CHOOSES.search(request.text) and request.type_name and request.n is None
    if best in (QUALITY, GENERATE) and (not chooses or slots.MAKES.search(request.text)):
        return None
    if best in (EXPLAIN, COMPARE) and (slots.COMPARES.search(request.text) or slots.WHY.search(request.text)):
        return None
    named = request.cells is not None or request.type_name or points_at(request)
    if slots.CHOOSES.search(request.text) and (named or best == SELECT) and not request.on_map:
        asks_types = re.search(
            r"\b(?:annotate|which types?|what (?:are|is|types?)|cell types?)\b", request.text, re.IGNORECASE
        )
        choices = best == ANNOTATE and request.labels
        return None if asks_types or choices else SELECT
    said = request.cells.short() if request.cells is not None else {}
    by_answers = {"confidence_below", "confidence_above", "response"} & set(said) or said.get("cell_type")
    shows = slots.SHOWS_CELLS.search(request.text) and not slots.COUNTS.search(request.text)
    return SELECT if by_answers and shows and best in (SELECT, ANNOTATE, SUBSET, MAP, FIND, EXPLAIN) else None


def _comparing(request: Request, best: str, *, loaded: bool, known_drug: bool, **_: bool) -> str | None:
    if not loaded or known_drug or best in (HELP, OUT_OF_SCOPE) or (best == GENE and request.gene):
        return None
    text = request.text
    groups = request.cells is not None or request.type_name or points_at(request) or request.column
    special = slots.SPECIAL.search(text) and best in (COMPARE, EXPLAIN, DESCRIBE, SUBSET, MARKERS, ANNOTATE, GENE)
    likely = best == COMPARE or (best == MARKERS and (request.cells is not None or request.column))
    pair = len(request.types) > 1 or points_at(request) or request.cells is not None or request.column
    differs = slots.COMPARES.search(text) and (
        likely
        or (pair and best not in (REAL, DRUG, RANK, COMPARE_DRUG, QUALITY, DOWNLOAD) and not slots.MAKES.search(text))
    )
    versus = slots.VERSUS.search(text) and best not in (REAL, DRUG, RANK, GENERATE)
    its = points_at(request) or slots.IT.search(text) or re.search(r"\btheir\b", text, re.IGNORECASE)
    top = slots.TOP_GENES.search(text) and (request.cells is not None or its or request.column)
    about = bool(groups) or bool(its and slots.TOP_GENES.search(text))
    return COMPARE if about and (special or differs or top or versus) else None


def _mapping(request: Request, best: str, *, loaded: bool, **_: bool) -> str | None:
    """ "Show them on the map" where nothing was generated."""
    if loaded and slots.COLOURED.search(request.text) and best in (MAP, ANNOTATE, SUBSET, SELECT, DESCRIBE):
        return MAP
    if not loaded or not request.on_map or best in (DOWNLOAD, GENERATE, CLUSTER) or request.drugs:
        return None
    return MAP if best in (MAP, REAL) or request.points_back or request.points_here or request.column else None


def _looking_up(request: Request, best: str, **_: bool) -> str | None:
    """ "Which genes would tell me that I have some?" """
    asks = slots.WHICH_GENES.search(request.text) and request.type_name and best in (EXPLAIN, GENE, HELP, DESCRIBE)
    return MARKERS if asks and not (request.genes or request.cells or points_at(request)) else None


# What words and slots narrow a sure intent down to: "show it on the map" is about a gene's expression, and a map.
NARROWER: dict[str, tuple[Callable[..., str | None], ...]] = {
    DRUG: (_about_drugs,),
    EXPRESSION: (_comparing_gene, _about_genes),
    GENE: (_which_express, _about_genes),
    MARKERS: (_which_express,),
    MAP: (_about_genes,),
    COMPARE_DRUG: (_about_drugs,),
    DESCRIBE: (_judging,),
    ANNOTATE: (_choosing,),
    SUBSET: (_choosing,),
}
NARROWED = (COMPARE_DRUG, COMPARE, SELECT, MAP, EXPRESSION, QUALITY)
