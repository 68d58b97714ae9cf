"""What is done to a sentence before it is understood: spelling, numbers in words, corrections, several requests in one.

Nothing here knows the data: names of cells, genes and drugs that are passed in as protected stay as they are written.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "κ": "kappa"}
# As people type to a colleague; the word behind must be one where a single letter may be a name.
SHORT_WORDS = {
    r"'?em": "them", r"u": "you", r"ur": "your", r"abt": "about", r"tho": "though", r"wld": "would", r"shld": "should",
    r"cld": "could", r"btw": "by the way", r"w/o": "without", r"acc(?:ording)?\.?\s+to": "according to",
    r"cuz|coz": "because", r"dont": "don't", r"doesnt": "doesn't", r"arent": "aren't", r"isnt": "isn't",
    r"whats": "what's", r"thats": "that's", r"theres": "there's", r"cant": "can't", r"pos": "positive",
    r"neg": "negative", r"cols?": "column", r"pls|plz": "please", r"cell\s?comp": "cell composition",
    r"diff(?=\s+(?:in|between|btw|of|genes?)\b)": "different", r"lbls?": "labels",
}  # fmt: skip
SHORT_WORD = re.compile(
    "|".join(rf"(?P<w{at}>(?<![\w.'-]){word}(?![\w-]))" for at, word in enumerate(SHORT_WORDS)), re.IGNORECASE
)
NO_LETTER = r"(?<!type )(?<!plan )(?<!group )(?<!vitamin )(?<!hepatitis )(?<!cohort )(?<!panel )(?<!arm )(?<!and/or )"
LETTER_CELLS = re.compile(  # "T against NK", "the B's", "than B"
    rf"\bthe\s+(?P<the>[BT])(?:'s|s)\b|{NO_LETTER}(?<![\w'-])(?P<before>[BT])(?=\s+(?:vs\.?|versus|against|than|over|hit)\b)"
    r"|(?<=against )(?P<a>[BT])(?![\w'-]|\s+cell)|(?<=versus )(?P<b>[BT])(?![\w'-]|\s+cell)"
    r"|(?<=vs )(?P<c>[BT])(?![\w'-]|\s+cell)"
    r"|(?<=than )(?P<d>[BT])(?![\w'-]|\s+cell)"
)
SHORT_AND = re.compile(r"(?<=[\w+])\s+n\s+(?=\w)|^n\s+(?=\w)(?!n\b)")
SHORT_WITH = re.compile(r"(?<=\w)\s+w/?\s+(?=[A-Za-z])")
UNITS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17,
    "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90,
}  # fmt: skip
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000}
ORDINALS = {
    "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
    "twelfth": 12, "fifteenth": 15, "twentieth": 20, "hundredth": 100,
}  # fmt: skip
NUMBER_WORD = "|".join([*UNITS, *SCALES])
SPELT_NUMBER = re.compile(
    rf"\b(?:half\s+a\s+dozen|(?:an?\s+(?=dozen|hundred|thousand))?(?:{NUMBER_WORD})"
    rf"(?:(?:\s+and\s+|[\s-])(?:{NUMBER_WORD}))*)\b",
    re.IGNORECASE,
)
ORDINAL_CELL = re.compile(rf"\b(?:(\d+)(?:st|nd|rd|th)|({'|'.join(ORDINALS)}))\s+cell\b", re.IGNORECASE)
SHORT_CLUSTER = re.compile(r"(?<![\w-])(?:cl|c)\s?#?(\d{1,2})(?![\w-])")
# Words of courtesy and of thought that lead up to a request and are none themselves.
COURTESY = re.compile(
    r"^\W*(?:(?:hi|hello|hey|dear|good\s+(?:morning|afternoon|evening)|thanks|thank\s+you|many\s+thanks|great|wonderful"
    r"|perfect|cool|nice|excellent|super|lovely|brilliant|awesome|interesting|that(?:'s|\s+is)\s+(?:\w+\s+)?(?:helpful"
    r"|great|nice|interesting|good)|fine|alright|all\s+right|hm+|ok(?:ay)?|so|well|sorry\s+for\s+\w+(?:\s+\w+){0,3}"
    r"\s+but|sorry\s+to\s+\w+(?:\s+\w+){0,3}\s+but|one\s+more\s+(?:thing|question)|by\s+the\s+way|btw|quick\s+question)"
    r"(?:\s+(?:there|all|again|you|so|very|much|a\s+lot|everyone|team|then|work|job))*\s*(?:[,.!:;…-]+\s*|\s+(?=so\b|ok\b"
    r"|but\b)|(?<=\bso)\s+|(?<=\bok)\s+|(?<=but)\s+|(?<=okay)\s+|(?<=hmm)\s+))+(?=\w)",
    re.IGNORECASE,
)
# "No, I meant ...": the request before once more, with what is said now.
CORRECTION = re.compile(
    r"^\W*(?:(?:(?:no+|nope|typo|misprint|sorry|oops|ups|whoops|wait|actually|hm+|ah|oh|er+|argh|my\s+(?:bad|mistake)|pardon|stop"
    r"|not\s+that(?:\s+one)?|wrong(?:\s+(?:one|pair|gene|cluster|type|drug|file|number|cells))?|(?:that'?s\s+)?not\s+enough|(?:that'?s\s+)?too\s+(?:many|few|much))\b[\s,.:;!…-]*)*(?:i\s+(?:really\s+|actually\s+)?(?:meant?|wanted|was\s+"
    r"asking\s+(?:about|for))|make\s+(?:it|that)|rather|instead|let'?s\s+(?:say|take|make\s+it)|it\s+should\s+(?:be|read|say)"
    r"|should\s+(?:have\s+been|be))\b[\s,:-]*(?:to\s+say\b)?|(?:(?:no+|nope|sorry|oops|ups|whoops|wait|actually|ah|oh|er+"
    r"|my\s+(?:bad|mistake)|pardon|not\s+that(?:\s+one)?|wrong(?:\s+(?:one|pair|gene|cluster|type|drug|file|number|cells))?)\b[\s,.:;!…-]+)+)",
    re.IGNORECASE,
)
WAS_MEANT = re.compile(  # "typo! INS was what I wanted"
    r"^\W*(?:(?:typo|sorry|oops|no|argh|my\s+(?:bad|mistake))\W+)*(?P<what>[^,.;!?]{2,60}?)\s+(?:is|was|were|are)\s+what\s+i\s+"
    r"(?:really\s+|actually\s+)?(?:want|wanted|meant?|was\s+(?:after|asking\s+(?:for|about)))\b",
    re.IGNORECASE,
)
REJECTED = re.compile(
    r"(?:^\W*|,\s*|\s+)(?:and\s+)?not\s+(?:in\s+|on\s+|for\s+|of\s+)?[^,.;?!]+?(?=\s*(?:,|;|\bbut\b|[.?!]*$))",
    re.IGNORECASE,
)
# Where a further request begins: a verb of command, or a question of its own.
BEGINS = (
    r"(?:please\s+|also\s+|then\s+|afterwards\s+|finally\s+|now\s+|next\s+)*(?:(?:annotate|label|do\s+the\s+same|take(?!\s+(?:it|that|this)\s+back)|(?:cluster|group)(?!s?\s*#?\d)|show|tell|plot|draw|compare|generate"
    r"|simulate|make|create|select|keep|pick|choose|find|search|count|list|rank|predict|check|export|download|save|undo"
    r"|explain|describe|give|use|switch|colou?r|overlay|put|start|restart|reset|run|do\s+(?:they|these|those|you)|does|is\s+(?:it|there)"
    r"|are\s+(?:they|these|those|there)|would|could\s+(?:they|it)|how\s+(?:many|much|do|does|are|is|would|good|similar)"
    r"|what(?:'s|\s+(?:is|are|does|do|fraction|share|percentage|kind|type|about|else|marks))|which|why|where|who)\b)"
)
CUT = re.compile(
    rf"\s*(?:[,;.?!]+\s*(?:and\s+|then\s+|and\s+then\s+)?|\s+and\s+(?:then\s+)?|\s+then\s+)(?={BEGINS})", re.IGNORECASE
)
THEN = re.compile(r"(?:\s*[,;.])?\s+(?:and\s+)?then\s+(?=\w)", re.IGNORECASE)
RELATIVE = re.compile(
    r"\b(?:cells?|ones|genes?|those|types?|clusters?|drugs?)\s*,?$", re.IGNORECASE
)  # "cells, which ..."
COMMAND = re.compile(rf"^\W*{BEGINS}", re.IGNORECASE)
# Words that carry no question of their own: what is left beside them and the names makes a sentence or a fragment.
LINKING = frozenset(
    """
    a about again ah all alone also an and anything as at be but by cell cells celltype celltypes cluster clusters
    course dear drug drugs else enough everything exclusively fine first for from gene genes group groups hm hmm i in
    instead into it its just last like me mean meant more my nd need no not now of oh ok okay on one ones only oops or
    other others our per plain please pls population rather really resistant rest right same second sensitive so sorry
    sth such sure than that the their them then there these they this those though time to together too treatment
    type types uh unsure us versus vs wait want wanted we well with within without yes you condition sample samples
    compared specifically separately inside exercise everyone next argh lol haha cool nice ups whoops against what's
    whats of about how what each counts umi umis top best number repeat redo rerun predicted
    """.split()  # noqa: SIM905 - a list of words reads best as text
)
ASKS = re.compile(
    r"^\W*(?:(?:and|so|but|then|now|ok|also|oh|well|haha|lol)\W+)*(?:(?:what|how)(?!\s+(?:about|of)\b)|which|who|whose|why|where|when|is|are|was|do|does|did"
    r"|can|could|would|will|should|has|have)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Part:
    """One request of a sentence; `corrects` when it takes the place of the request before."""

    text: str
    corrects: bool = False


AND_WHETHER = re.compile(
    r"[\s,;]+and\s+(?:also\s+)?(?:if|whether)\s+(?P<who>they|these|those|it)\s+(?P<does>are|is|have|has|\w+s?)\b",
    re.IGNORECASE,
)


PLUS_A_FIGURE = re.compile(  # "cell types plus a UMAP"
    r"\s+(?:plus|\+|along\s+with|together\s+with)\s+"
    r"(?=(?:an?\s+|the\s+)?(?:umap|map|dot\s?plot|histogram|figure|bar\s?plot)\b)",
    re.IGNORECASE,
)


def _asked(match: re.Match[str]) -> str:
    """ "And also if they have PPY" as a question of its own."""
    who, does = match["who"], match["does"].lower()
    return f"; {does} {who}" if does in ("are", "is") else f"; do {who} {'have' if does == 'has' else does}"


def parts_of(text: str) -> list[Part]:
    """The requests of a sentence in order, without words of courtesy: "cluster them and show the map" holds two."""
    text = PLUS_A_FIGURE.sub("; show ", AND_WHETHER.sub(_asked, text))
    pieces: list[str] = []
    for piece in _cut(_courteous(text)):
        piece = _courteous(piece)
        if pieces and not piece.strip(" .?!,;"):
            continue
        pieces.append(piece)
    return [corrected(piece) for piece in pieces]


def corrected(text: str) -> Part:
    """A request without "no, I meant" before it."""
    if (meant := WAS_MEANT.match(text)) is not None:
        return Part(meant["what"], corrects=True)
    match = CORRECTION.match(text)
    rest = text[match.end() :] if match else text
    return Part(rest, corrects=True) if match and re.search(r"\w", rest) else Part(text)


def without_rejected(text: str) -> str:
    """ "delta cells, not beta cells" -> "delta cells"; the text as it is when nothing would be left."""
    rest = REJECTED.sub(" ", text).strip(" ,;")
    return rest if re.search(r"\w", rest) else text


def _courteous(text: str) -> str:
    rest = COURTESY.sub("", text)
    return rest if re.search(r"\w{2}", rest) else text


def _cut(text: str) -> list[str]:
    """A sentence cut where further requests begin; a piece that asks nothing stays with its neighbour."""
    starts = [0]
    for match in CUT.finditer(text):
        before = text[starts[-1] : match.start()]
        relative = re.match(r"which\b|who\b|where\b", text[match.end() :], re.IGNORECASE) and (
            "." not in match[0] and "?" not in match[0] and RELATIVE.search(before) and " and" not in match[0]
        )
        if relative or len(before.split()) < 1 or not _stands(before):
            continue
        starts.append(match.end())
    ends = [*starts[1:], len(text)]
    pieces = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    pieces = [re.sub(r"[\s,;]*(?:\b(?:and|then)\b[\s,;]*)*$", "", piece, flags=re.IGNORECASE) for piece in pieces]
    further = [one for piece in pieces for one in THEN.split(piece)]
    whole = [one for one in further if len(one.split()) > 1 or re.fullmatch(r"[A-Za-z]{5,}", one)]
    return further if len(whole) == len(further) else pieces


def _stands(piece: str) -> bool:
    """Whether what lies before a cut is a request itself: it begins as one does."""
    return (
        CORRECTION.match(piece) is not None
        or COMMAND.search(_courteous(piece)) is not None
        or ASKS.search(piece) is not None
        or bool(
            re.match(
                r"^\W*(?:\d+\s+[a-z]+|i\s+(?:need|want)|i(?:'d|\s+would)\s+like|back\s+to|only|just|remove|drop|exclude|filter|restrict|qc|umap)\b",
                piece,
                re.IGNORECASE,
            )
        )
    )


def spelled_out(text: str) -> str:
    """Greek letters by name, straight quotes, numbers in digits: "cluster one" -> "cluster 1"."""
    for letter, name in GREEK.items():
        text = re.sub(rf"{letter}[-\s]?(?=cells?\b)", f"{name} ", text).replace(letter, name)
    text = text.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    text = re.sub(r"(?<=[\w+])\s+v\.?\s+(?=\w)", " vs ", text)
    text = SHORT_WORD.sub(lambda match: list(SHORT_WORDS.values())[int((match.lastgroup or "w0")[1:])], text)
    text = SHORT_WITH.sub(" with ", SHORT_AND.sub(" and ", text)).lstrip()
    text = re.sub(r"(?<!\w)CD([48])s\b", r"CD\1 T cells", text)
    text = re.sub(r"(?<!\w)(CD1[46])s\b", r"\1 monocytes", text)
    text = re.sub(r"(?<!\w)([A-Z]{2,5})s\b", r"\1", text)  # DCs, NKs
    text = LETTER_CELLS.sub(lambda match: f"{next(filter(None, match.groups()))} cells", text)
    text = re.sub(r"(?<!\w)macs\b(?!\s+(?:sort|enrich|bead|column))", "macrophages", text)
    text = re.sub(r"\bsupporting\b(?!\s+cells?\b)", "confirming", text)  # no supporting cells
    text = re.sub(r"\bcel(s?)\b", r"cell\1", text)  # mistyped; CEL in capitals is a gene
    text = re.sub(r"\b(clusters?|cells?)\s+(?:number\s+|no\.?\s+)?(zero|one)\b", _pointed, text, flags=re.IGNORECASE)
    text = SPELT_NUMBER.sub(_digits, text)
    text = ORDINAL_CELL.sub(lambda match: f"cell {match[1] or ORDINALS[match[2].lower()]}", text)
    return SHORT_CLUSTER.sub(r"cluster \1", text)


def _pointed(match: re.Match[str]) -> str:
    return f"{match[1]} {0 if match[2].lower() == 'zero' else 1}"


def _digits(match: re.Match[str]) -> str:
    words = [word for word in re.split(r"[\s-]+", match[0].lower()) if word not in ("and", "a", "an")]
    if words == ["one"]:
        return match[0]
    if words[0] == "half":
        return "6"
    total = current = 0
    for word in words:
        if word in UNITS:
            current += UNITS[word]
        elif word == "thousand":
            total, current = total + max(current, 1) * 1000, 0
        else:
            current = max(current, 1) * SCALES[word]
    return str(total + current)


def residue(text: str) -> list[str]:
    """Words of a text, from which the names were taken, that ask something themselves."""
    words = re.findall(r"[a-z][a-z'-]+", text.lower())
    return [word for word in words if word not in LINKING]


def is_fragment(text: str, rest: str) -> bool:
    """Whether a sentence is a name or two and no question: "and cluster 3?"; `rest` is it without the names."""
    return ASKS.match(text) is None and not residue(rest)


SWAPPED = {"hwo": "how", "teh": "the", "hte": "the", "adn": "and", "nad": "and", "tyr": "try"}  # of three letters


def mended(text: str, vocabulary: Collection[str], protected: Collection[str]) -> str:
    """Words with a typing error replaced by the word of the vocabulary that they surely are: "selct" -> "select"."""
    from rapidfuzz import fuzz, process

    def mend(match: re.Match[str]) -> str:
        word = match[0]
        low = word.lower()
        if low in vocabulary or low in protected or word.isupper() or len(low) < 3:
            return word
        if len(low) == 3:
            return SWAPPED.get(low, word)
        alike = [one for one in vocabulary if one[0] == low[0] and abs(len(one) - len(low)) < 3]
        if swapped := next((one for one in alike if sorted(one) == sorted(low)), None):
            return swapped
        near = process.extractOne(low, alike, scorer=fuzz.ratio, score_cutoff=85) if len(low) > 4 else None
        return word if near is None else near[0]

    return re.sub(r"[A-Za-z]+", mend, text)
