"""What a sentence leaves out because the talk before supplies it, put back in words before the sentence is read.

After talk of clusters "and 3?" is "and cluster 3?"; after 100 pseudo-cells "a quarter of that" is "25"; "what is the
largest one made of" names the largest group. Nothing is guessed: where the talk supplies nothing, the words stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from instructcell.retrieval.names import load_name_book

CLUSTER, TYPE = "cluster", "type"


@dataclass(frozen=True)
class Talk:
    """What the talk before supplies.

    Attributes
    ----------
    kind
        What groups were talked of last: "cluster", "type" or "".
    clusters, types
        The groups there are, the largest first; empty where none were made.
    made
        Number of the pseudo-cells that were asked for last, if that was the last request.
    analysed
        Whether the last request was an analysis that can be done of fewer cells.
    """

    kind: str = ""
    clusters: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    made: int | None = None
    analysed: bool = False


@dataclass(frozen=True)
class Filled:
    """A sentence with what it left out; `corrects` when it changes the number of the request before."""

    text: str
    corrects: bool = False


def filled(text: str, talk: Talk) -> Filled:
    """A sentence with the words that it leaves out.

    Examples
    --------
    >>> filled("ok, and 3", Talk(kind="cluster", clusters=("0", "1", "2", "3"))).text
    'ok, and cluster 3'
    """
    text = with_cells(text)
    text = SCOPED.sub("only in", text) if talk.analysed else text
    text = with_clusters(text, talk)
    text = with_largest(text, talk)
    return with_amount(text, talk)


# ---- "the acinar ones"

ONES = re.compile(r"\b((?:[\w+-]+\s+){0,2}[\w+-]+)\s+(?:ones|guys|calls|lot|crowd)\b", re.IGNORECASE)
PLURAL_NAMES = re.compile(r"\b(alpha|beta|delta|gamma|epsilon|acinar|ductal|stellate|endothelial)s\b", re.IGNORECASE)


CALLED = re.compile(
    r"\b(?:cells?|ones)\s+(?:that\s+|which\s+)?(?:(?:you|we|they|i)\s+)?(?:call(?:ed)?|label(?:led|ed)?|named?)\s+(?:as\s+)?([\w+-]+)\b(?!\s+cells?)",
    re.IGNORECASE,
)
SAID_ALONE = re.compile(r"^(\W*(?:(?:o+h+|a+h+|ok|so|and|right|the)\W+)*)([\w+-]+)([.!?]+\s)", re.IGNORECASE)
SCOPED = re.compile(r"\b(?:restrict|limit|narrow|confine|reduce)\s+(?:that|this|it)(?:\s+down)?\s+to\b", re.IGNORECASE)
# What says which cells without the word: "acinar and endothelial", "aren't your ductal cells just acinar?".
ADJECTIVE = re.compile(
    r"(?<![\w-])(?<!column )(?<!gene )(?<!interferon )(?<!ifn )(?<!tgf )(?<!tnf )((?:(?:activated|quiescent)\s+)?"
    r"(?:alpha|beta|delta|gamma|epsilon|acinar|ductal|stellate|endothelial|dendritic|epithelial))(?![\w-])(?!\s*=)"
    r"(?=\W*$|\s*[,.?!;:)]|\s+(?:and|or|vs\.?|versus|than|but|because|instead|again|too|now|please|only|not|in|on|by|for"
    r"|from|with|to|is|are|was|have|has|do|does|did|express\w*|still|then|apart|against|compared|between|across|per|among|specifically|respond\w*|makes?|be)\b)",
    re.IGNORECASE,
)
OVER = re.compile(r"\b(?P<a>[\w+-]+)(?:\s+cells?)?\s+over\s+(?P<b>[\w+-]+)(?:\s+cells?)?\b", re.IGNORECASE)


def with_cells(text: str) -> str:
    """ "The acinar ones", "the alphas" -> "the acinar cells", "the alpha cells", where such a type is known."""
    text = PLURAL_NAMES.sub(r"\1 cells", text)
    text = CALLED.sub(lambda match: f"{match[1]} cells" if _names_a_type(match[1]) else match[0], text)
    text = ADJECTIVE.sub(lambda match: f"{match[1]} cells", text)
    text = SAID_ALONE.sub(lambda m: f"{m[1]}{m[2]} cells{m[3]}" if _names_a_type(m[2]) else m[0], text)
    text = OVER.sub(lambda match: _versus(match) or match[0], text)
    return ONES.sub(lambda match: f"{match[1]} cells" if _names_a_type(match[1]) else match[0], text)


def _versus(match: re.Match[str]) -> str:
    """ "Alpha over beta" as "alpha cells versus beta cells"; "" where one of them is no type."""
    pair = (match["a"], match["b"])
    return " versus ".join(f"{one} cells" for one in pair) if all(map(_names_a_type, pair)) else ""


def _names_a_type(words: str) -> bool:
    """Whether the last words before "cells" name a type."""
    said = f"{words} cells"
    return any(mention.end == len(said) and mention.start < len(words) for mention in load_name_book().cell_types(said))


# ---- "and 3?"

NUMBER = r"\d{1,3}"
AND_NUMBERS = rf"(?:\s*(?:,|;|&|\+|/|and|or|vs\.?|versus|against|instead\s+of|rather\s+than|not)\s*{NUMBER})*"
LEADS = (
    r"(?:ok(?:ay)?|and|so|but|now|then|what\s+about|how\s+about|what\s+of|what'?s|whats|what\s+is|who'?s\s+in|or|also|same|no"
    r"|well|fine|again|next|just|only|not|why|why\s+not|with|for|in|of|on|to|from|the|it\s+for|cluster|group|oops|sorry|i\s+mean|meant|i"
    r"|number|no\.?|nr\.?|\#)"
)
ALONE = re.compile(
    rf"^\W*(?:{LEADS}\W+)*\#?(?P<numbers>{NUMBER}{AND_NUMBERS})(?:\s+(?:too|as\s+well|also|then|please|instead|now|again))*\W*$",
    re.IGNORECASE,
)
NUMBERED = re.compile(
    rf"\b(?:number|group(?:\s+number)?|no\.|nr\.?)\s*\#?({NUMBER})\b(?!\s*(?:cells?|genes?|%))|(?<!\w)\#({NUMBER})\b",
    re.I,
)
FIRST_NUMBER = re.compile(
    rf"^(\W*(?:(?:and|so|but|ok|now|top\s+genes|genes|markers)\W+)*)({NUMBER})(?=\s+(?:is|are|was|has|have|does|do|looks?|vs|versus|against)\b)",
    re.I,
)
# A number that is an amount, a limit or a place, and not a name.
AMOUNT_BEHIND = (
    r"(?!\s*(?:%|percent|cells?\b|genes?|counts?|umis?|reads?|more\b|others?\b|random|pseudo|synthetic|simulated|fake|new\b"
    r"|drugs?|compounds?|times\b|x\b|fold|groups?\b|types?\b|clusters?\b|of\s+(?:them|those|these|each)|top\b|best\b|:|-?th\b"
    r"|such\b|words?\b|sentences?\b|lines?\b|steps?\b|minutes?\b|markers?\b|donors?|samples?))(?![\w.,]*\d)"
)
PLACED = re.compile(
    r"\b(?P<before>hits?|kills?|spares?|affects?|in|of|for|from|is|are|does|do|would|and|or|vs\.?|versus|against|than|between|to|with|about|call|on|inside"
    rf"|split|compare|over|into|drop|exclude|remove|keep|select|take|label|annotate|identify|swap|replace|exchange|DE|DEGs?)\s+(?P<number>{NUMBER})\b{AMOUNT_BEHIND}",
    re.IGNORECASE,
)
PAIR = re.compile(
    rf"\b(?P<a>{NUMBER})\s+(?P<link>from|vs\.?|versus|against|than|and|or|with|to)\s+(?P<b>{NUMBER})\b{AMOUNT_BEHIND}",
    re.I,
)
NO_NAME_BEFORE = re.compile(
    r"\b(?:first|last|top|best|resolution|seed|least|most|only|than|below|above|under|over|clusters?|cells?|confidence"
    r"|set\s+(?:it|that)|day|week|donor|patient|sample|batch|mouse|human|type|file|group|grade|stage|lane|plate|age)\W*$",
    re.IGNORECASE,
)


def with_clusters(text: str, talk: Talk) -> str:
    """A bare number after talk of clusters as a cluster; a number alone also when there is no such cluster."""
    if not talk.clusters or re.search(r"\bresolution\b|\bseed\b", text, re.IGNORECASE):
        return text
    match = ALONE.match(text)
    asks = match is not None and text.rstrip().endswith("?") and talk.made is None
    if talk.kind != CLUSTER and not (asks and match and match["numbers"] in talk.clusters):
        return text
    if match:
        named = re.sub(NUMBER, r"cluster \g<0>", match["numbers"])
        before = re.sub(
            r"(?:\b(?:number|no\.?|nr\.?|cluster|group)|\#)\W*$", "", text[: match.start("numbers")], flags=re.I
        )
        return f"{before}{named}{text[match.end('numbers') :]}"
    text = FIRST_NUMBER.sub(
        lambda match: f"{match[1]}cluster {match[2]}" if match[2] in talk.clusters else match[0], text
    )
    text = NUMBERED.sub(lambda match: f"cluster {match[1] or match[2]}", text)
    known = set(talk.clusters)

    def pair(match: re.Match[str]) -> str:
        if not {match["a"], match["b"]} <= known or NO_NAME_BEFORE.search(match.string[: match.start()]):
            return match[0]
        return f"cluster {match['a']} {match['link']} cluster {match['b']}"

    def name(match: re.Match[str]) -> str:
        lead = match.string[: match.start("number")]
        counted = NO_NAME_BEFORE.search(match.string[: match.start("before")]) or NO_NAME_BEFORE.search(lead)
        compared = match["before"].lower() in ("than", "over") and match["number"] in known
        if match["number"] not in known or (counted and not compared):
            return match[0]
        return f"{match['before']} cluster {match['number']}"

    return PLACED.sub(name, PAIR.sub(pair, text))


# ---- "the largest one"

MOST = r"biggest|largest|most\s+(?:big|large|abundant|common|frequent|numerous|prevalent|populous)|commonest"
r"|main|dominant|top|major"
LEAST = r"smallest|tiniest|rarest|least\s+(?:abundant|common|frequent|numerous)|scarcest"
PLACES = {"second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4, "next": 2}
SUPERLATIVE = (
    rf"(?:(?P<place>{'|'.join(PLACES)})[\s-]+)?(?:(?P<most>{MOST})|(?P<least>{LEAST}))"
    r"(?:\s+(?:cell\s+)?(?P<noun>ones?|clusters?|groups?|types?|populations?|cells?|cell\s+types?|compartments?|fractions?|kinds?"
    r"|sorts?)(?:\s+of\s+cells?)?)?"
)
HAS_MOST = (
    r"(?:has|have|holds?|with|contains?|makes?\s+up|got)\s+(?:the\s+)?(?:(?P<has_most>most|largest\s+number)|(?P<has_least>fewest"
    r"|least))(?:\s+(?:of\s+(?:the|my|all)\s+)?cells)?"
)
TAIL = (
    r"(?:\s+(?:here|there|overall|in\s+(?:here|it|there|this|my|the|our)(?:\s+[\w-]+){0,3}|of\s+(?:all|them|these|those)"
    r"|by\s+(?:number|size)|then|please|now|by\s+far))*"
)
ASKS_WHICH = re.compile(
    r"^\W*(?:(?:and|so|ok(?:ay)?|but|now|then|tell\s+me|show\s+me|give\s+me)\W+)*"
    r"(?:(?:which|what|who)(?:'s|\b)(?:\s+(?P<asked>of\s+(?:these|those|them|the\s+\w+)|ones?|clusters?|groups?|populations?|cell\s+types?"
    r"|types?|kinds?(?:\s+of\s+cells?)?|cells?))*\s*(?:is|are|was|would\s+be)?\s*(?:the\s+|my\s+|our\s+)?)?"
    rf"(?:the\s+)?(?:{SUPERLATIVE}|{HAS_MOST}){TAIL}\W*$",
    re.IGNORECASE,
)
POINTED = re.compile(rf"\b(?:the|my|our|that)\s+{SUPERLATIVE}", re.IGNORECASE)
# "the main markers", "the top genes", "the largest difference" are no groups of cells.
NO_GROUP = re.compile(
    r"^\s*(?!of\b|in\b|here\b|is\b|are\b|made\b|one\b|express\w*|has\b|have\b|do\b|does\b|sensitive\b|look\w*|then\b|and\b|vs\b"
    r"|versus\b|against\b|than\b|with\b|from\b|to\b|by\b|on\b|please\b|called\b|consist\w*|differ\w*)[a-z]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rank:
    """A place among groups by size: 1 for the largest, 2 for the second, -1 for the smallest; and of what groups."""

    place: int
    kind: str


def asks_rank(text: str, talk: Talk) -> Rank | None:
    """Whether a sentence asks which group is the largest, or has some other place; None where it does not."""
    match = ASKS_WHICH.match(text)
    if match is None or ((match["most"] or "").lower() in ("top", "main", "major") and not match["noun"]):
        return None
    asked, noun = (match["asked"] or "").lower(), (match["noun"] or "").lower()
    if re.search("type|kind|cell", asked) and re.search("cluster|group|population|compartment", noun):
        return None  # "what type is the largest cluster" asks about that cluster
    return Rank(_place(match, match["has_least"]), _kind(f"{match['noun'] or ''} {match['asked'] or ''}", talk))


def with_largest(text: str, talk: Talk) -> str:
    """ "What is the largest one made of" with the name of the largest group; a question which it is stays."""
    if asks_rank(text, talk) is not None:
        return text

    def name(match: re.Match[str]) -> str:
        rest = match.string[match.end() :]
        kind = _kind(match["noun"] or "", talk)
        groups = talk.clusters if kind == CLUSTER else talk.types
        place = _place(match)
        if (match["noun"] is None and NO_GROUP.match(rest)) or place > len(groups) or not groups:
            return match[0]
        found = groups[place - 1 if place > 0 else place]
        return f"cluster {found}" if kind == CLUSTER else f"the {_plural(found)}"

    return POINTED.sub(name, text)


def _place(match: re.Match[str], has_least: str | None = None) -> int:
    if match["least"] or has_least:
        return -1
    return PLACES[match["place"].lower()] if match["place"] else 1


def _kind(noun: str, talk: Talk) -> str:
    low = noun.lower()
    if "cluster" in low:
        return CLUSTER
    if "type" in low or "kind" in low or "cell" in low:
        return TYPE
    return talk.kind or TYPE


def _plural(name: str) -> str:
    return f"{name}s" if not name.endswith("s") else name


# ---- "half as many"

FRACTIONS = {"half": 0.5, "third": 1 / 3, "quarter": 0.25, "fifth": 0.2, "tenth": 0.1}
TIMES = {"double": 2.0, "twice": 2.0, "triple": 3.0, "thrice": 3.0, "quadruple": 4.0}
THAT = (
    r"(?:that(?:\s+(?:many|number|much|amount))?|them|those|these|it|this|the\s+(?:number|amount|count)"
    r"|as\s+(?:many|much)|so\s+many)"
)
FRACTION_OF = re.compile(
    rf"\b(?:only\s+|just\s+)?(?:an?\s+|one\s+)?(?P<part>{'|'.join(FRACTIONS)})\s+(?:of\s+)?{THAT}(?:\s+as\s+(?:that|before))?\b",
    re.I,
)
PERCENT_OF = re.compile(rf"\b(?P<percent>\d{{1,3}})\s*(?:%|percent)\s+of\s+{THAT}\b", re.IGNORECASE)
TIMES_THAT = re.compile(
    rf"\b(?:(?P<word>{'|'.join(TIMES)})|(?P<n>\d{{1,3}})(?:\s*x|\s+times))\s+{THAT}(?:\s+as\s+(?:that|before))?\b",
    re.IGNORECASE,
)
DOUBLE_IT = re.compile(rf"\b(?:(?P<word>double|triple|quadruple)|(?P<halve>halve))\b(?:\s+{THAT})?", re.IGNORECASE)
FEWER = re.compile(r"\b(?P<n>\d[\d,]*)\s+(?:fewer|less)\b(?!\s+than)", re.IGNORECASE)
ASKS_OF_THEM = re.compile(
    r"^\W*(?:(?:and|so|but)\s+)*(?:is|are|were|do|does|did|which|why|who|where|how\s+(?!about\b)\w+)\b", re.IGNORECASE
)
SAME_NUMBER = re.compile(
    r"\b(?:(?:the\s+)?same\s+(?:number|amount|n|quantity)(?:\s+of)?|(?:just\s+)?as\s+many(?:\s+(?:of|as\s+before))?|equally\s+many)\b",
    re.IGNORECASE,
)


def with_amount(text: str, talk: Talk) -> Filled:
    """ "Half as many", "double it", "the same number of" after pseudo-cells were asked for, as a number."""
    made = talk.made
    if made is None or ASKS_OF_THEM.match(text):
        return Filled(text)
    for pattern, value in (
        (FRACTION_OF, lambda match: made * FRACTIONS[match["part"].lower()]),
        (PERCENT_OF, lambda match: made * int(match["percent"]) / 100),
        (TIMES_THAT, lambda match: made * (TIMES[match["word"].lower()] if match["word"] else int(match["n"]))),
        (DOUBLE_IT, lambda match: made * (0.5 if match["halve"] else TIMES[match["word"].lower()])),
        (FEWER, lambda match: made - int(match["n"].replace(",", ""))),
        (SAME_NUMBER, lambda match: made),
    ):
        if match := pattern.search(text):
            number = max(1, round(value(match)))
            return Filled(f"{text[: match.start()]}{number}{text[match.end() :]}", corrects=True)
    return Filled(text)
