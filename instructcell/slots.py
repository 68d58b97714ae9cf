"""What a sentence says of which cells, which groups and which columns: slots of the tools, found in its words.

Names are resolved against the data and the resources. A word that is nearly a name of the data ("condtion") is taken
for it when nothing else comes near; what stays open is left empty, and the session asks back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pandas as pd
from rapidfuzz import fuzz, process

from instructcell.retrieval.names import Mention
from instructcell.toolbox.arguments import UNSURE, Cells
from instructcell.toolbox.cells import OWN_CLUSTERS, cluster_column
from instructcell.toolbox.data import groupings

NEAR = 86  # rapidfuzz ratio from which a word is a column's name or value with a typing error
SHORTEST_NEAR = 5  # letters; shorter words must be written as they are

UNDO = re.compile(
    r"^\W*(?:(?:oops|no|ok|please|wait|sorry|hm+|that was wrong|can you|could you)\W+)*"
    r"(?:undo|revert|roll\s+(?:it|that)?\s*back|(?:take|put)\s+(?:that|it|this)\s+back|(?:go|step)\s+"
    r"back(?!\s+to\s+(?:all|the))"
    r"|(?:go\s+)?(?:one|a)\s+step\s+back|ctrl\s*-?\s*z)\b",
    re.IGNORECASE,
)
RESTART = re.compile(
    r"^\W*(?:(?:ok|please|let'?s|let us|can we|could we|now|i want to|can you)\W+)*"
    r"(?:start\s+(?:again|over|anew|from\s+scratch)|begin\s+(?:again|anew)|restart|reset|from\s+scratch"
    r"|(?:clear|forget|wipe|drop|delete)\s+(?:everything|all(?:\s+(?:that|results|of\s+(?:it|this)))?)\s*)[\s.!?]*"
    r"(?:please|everything|all|the\s+(?:session|conversation|chat))?[\s.!?]*$",
    re.IGNORECASE,
)
POINTS_BACK = re.compile(
    r"\b(?:them|those|they|their|the same ones|of which|that (?:group|population|selection))\b", re.IGNORECASE
)
POINTS_HERE = re.compile(
    r"\b(?:these|this (?:group|selection|cell|population)|the (?:selected|chosen|selection)|my selection)\b",
    re.IGNORECASE,
)
EVERYTHING = re.compile(
    r"\b(?:all (?:of )?(?:the |my |these )?(?:\d[\d,]* )?cells|every cell|the (?:whole|entire) (?:file"
    r"|data\s?set|sample|data)|all data)\b"
    r"(?!\s+(?:but|except|called|of|in|that|which|with|where))",
    re.IGNORECASE,
)
UNSURE_WORDS = re.compile(
    r"\b(?:unsure|uncertain|doubtful|ambiguous|unclear|dubious|shaky|questionable|borderline|low[- ]confidence"
    r"|not\s+(?:so\s+|very\s+|really\s+)?(?:sure|certain|confident)|weak(?:ly)?\s+(?:called|ones"
    r"|calls?|cells)|least\s+(?:sure|certain|confident)"
    r"|weak\s+(?:calls?|ones))\b",
    re.IGNORECASE,
)
SURE_WORDS = re.compile(
    r"\b(?:(?:confident|sure|certain|high[- ]confidence|reliable|safe)\s+(?:ones|cells|calls|labels)"
    r"|(?:most|very)\s+(?:confident|sure|certain)|ones\s+you\s+are\s+(?:sure|certain|confident))\b",
    re.IGNORECASE,
)
LIMIT = r"(0?\.\d+|1\.0|\d{1,3}\s*(?:%|percent))"
BELOW = re.compile(
    rf"\b(?:confidence|probability|sure|certain)\b\W*(?:is\s+|of\s+)?(?:below|under|less\s+than"
    rf"|lower\s+than|smaller\s+than|<)\s*{LIMIT}",
    re.IGNORECASE,
)
ABOVE = re.compile(
    rf"\b(?:confidence|probability|sure|certain)\b\W*(?:is\s+|of\s+)?(?:above|over|more\s+than"
    rf"|higher\s+than|at\s+least|greater\s+than|>=?)\s*{LIMIT}",
    re.IGNORECASE,
)
UNKNOWN = re.compile(r"\bunknowns?\b(?!\s+gene)", re.IGNORECASE)
RESPONSE = re.compile(
    r"\b(resistant|sensitive|non-?responding|responding)\s+(?:ones?|cells?|population|group|fraction"
    r"|subset|part)\b|\b(?:the|only|just)\s+(resistant|sensitive)\b(?!\s+to)",
    re.IGNORECASE,
)
OTHERS = re.compile(
    r"\b(?:all|everything|every cell|the cells)\s+(?:but|except(?:\s+for)?|other\s+than|besides)\b"
    r"|\b(?:not|without|exclude|excluding|drop|remove)\s+(?:the\s+)?(?=\w)",
    re.IGNORECASE,
)
THE_OTHERS = re.compile(
    r"\b(?:the\s+(?:others?|rest|remaining\s+(?:ones|cells))|all\s+(?:the\s+)?others?(?:\s+cells)?"
    r"|(?:the\s+)?other\s+cells)\b",
    re.IGNORECASE,
)
LIKE = re.compile(
    r"\b(?:like|similar\s+to|resembl\w+)\s+(?:these|those|them|the\s+(?:selected|chosen|unsure|ones)"
    r"|cluster|my|this|that)\b|\blook-?alikes?\b|\bmore\s+of\s+(?:these|those|them)\b|\bsame\s+kind\b",
    re.IGNORECASE,
)
ON_MAP = re.compile(
    r"\b(?:put|show|place|overlay|overlaid|plot|draw|project|lay|add|see|display|paint|visuali[sz]e"
    r"|where)\b.*\b(?:map|umap|plot|embedding|over\s+(?:my|the|real)|on\s+(?:my|top))\b"
    r"|\bon\s+(?:the|a|my)\s+(?:map|umap)\b|\boverlay\b",
    re.IGNORECASE,
)
WHY = re.compile(r"^\W*(?:(?:and|but|ok|so|hm+)\W+)*(?:why|how\s+come|what\s+makes\s+you|on\s+what\s+grounds"
    r"|based\s+on\s+what|what\s+speaks\s+for)\b",
    re.IGNORECASE,
)
WHY_NOT = re.compile(
    r"\bwhy\s+(?:are\s+|is\s+)?(?:they|these|those|it|this|that)?\s*(?:not|aren'?t|isn'?t)\b"
    r"|\bnot\b.{0,12}\binstead\b|\bcould\b.*\b(?:they|these|those|it|this)\b.*\bbe\b|\bspeaks?\s+"
    r"against\b|\bsure\b.*\bnot\b",
    re.IGNORECASE,
)
EXPRESSES = re.compile(
    r"\b(?:that|which|who|and)\s+(?:all\s+|also\s+)?(?:express(?:es)?|have|has|contain)\b"
    r"|\bexpressing\b|\bpositive\s+for\b|-positive\b|\bpositive\b|\w\+(?=\s|$)|\bwith\s+(?=[A-Z])",
    re.IGNORECASE,
)
AMOUNT = re.compile(
    r"\bexpress\w*|\blevels?\b|\bpositive\b|\bcounts?\s+of\b|\bplot\b|\bdot\s?plot\b|\bviolin\b"
    r"|\bhow\s+(?:much|strongly|high)\b|\bdetected\b|\bis\b.*\b(?:on|high|low|present|found)\b"
    r"|\w\+(?=\s|$)",
    re.IGNORECASE,
)
COMPARES = re.compile(
    r"\bcompar\w+|\bdifferen\w+|\bdiffer\b|\bversus\b|\bvs\b\.?|\bdistinguish\w*|\bcontrast\w*"
    r"|\bDEGs?\b|\bDE\s+genes\b|\bsets?\b.*\bapart\b|\bspecial\s+about\b"
    r"|\bcharacteri[sz]es?\b|\b(?:up|down)-?\s?regulated\b|\bmore\s+(?:sensitive|resistant)\b"
    r"|\bchanged?\b|\bhigher\s+in\b|\bup\s+in\b|\bthan\b",
    re.IGNORECASE,
)
# Words that hold pseudo-cells against real ones, beside those of any comparison.
RESEMBLES = re.compile(
    r"\bresembl\w+|\blook\w*\s+like\b|\bmatch\w*|\b(?:close|similar|alike)\b|\bgood\b|\btell\b.*\bfrom\b",
    re.IGNORECASE,
)
REAL = re.compile(
    r"\b(?:real|measured|actual|original|true|my)\s+(?:[\w-]+\s+)?(?:ones?|cells?|data|counterparts?)\b"
    r"|\breal(?:istic|ism)?\b|\boriginals\b",
    re.IGNORECASE,
)
DRUGS = re.compile(r"\b(?:drugs?|compounds?|treatments?|inhibitors?|medicines?|therap(?:y|ies))\b", re.IGNORECASE)
# Questions about each of several groups: "which type responds best?"
EACH_GROUP = re.compile(
    r"\b(?:which|what)\s+(?:\w+\s+){0,2}?(?:types?|clusters?|groups?|conditions?|donors?|populations?|samples?)\b"
    r"|\b(?:each|every|per)\b",
    re.IGNORECASE,
)
WHICH_DRUG = re.compile(
    r"\b(?:which|what|any|best|rank|list|order|suggest|recommend|screen|try|test)\b.*\b(?:drugs?"
    r"|compounds?|treatments?|inhibitors?|medicines?|therap(?:y|ies))\b"
    r"|\bdrugs?\b.*\b(?:rank|best|most)\w*|\bwhat\b.*\b(?:sensitive|vulnerable)\s+to\b",
    re.IGNORECASE,
)
MAKES = re.compile(
    r"\b(?:generat|simulat|synthesi[sz]|fabricat|fak|conjur|invent|hallucinat|mock|pseudo|artificial"
    r"|synthetic|virtual|in[- ]silico|augment|upsampl|oversampl|lookalike)\w*"
    r"|\bmak(?:e|ing)\b(?!\s+(?:clusters|groups|sure|up\s+of))|\bcreat(?:e|ing)\b|\bproduc(?:e"
    r"|ing)\b(?=.*\bcells?\b)|\bcook\s+up\b|\bwhip\s+up\b|\bcome\s+up\s+with\b|\bmade[- ]up\b"
    r"|\bspawn\b|\bdream\s+up\b",
    re.IGNORECASE,
)
CHOOSES = re.compile(
    r"^\W*(?:(?:and|now|ok|okay|please|then|so|let'?s|let us|can you|could you|i want to|show me|show|give me)\W+)*"
    r"(?:only|just|select|keep|choose|pick(?:\s+out)?|filter|restrict|limit|narrow|subset|focus|zoom"
    r"|take|highlight|look\s+only|continue\s+with|work\s+with|everything\s+(?:but|except)|all\s+(?:but"
    r"|except)|drop|exclude|remove)\b",
    re.IGNORECASE,
)
SHOWS_CELLS = re.compile(
    r"^\W*(?:(?:and|now|ok|please)\W+)*(?:show(?:\s+me)?|which|what|list|find|where|give\s+me)\b", re.IGNORECASE
)
COUNTS = re.compile(
    r"\b(?:how\s+many|what\s+(?:fraction|share|percentage|proportion|part)|number\s+of|count"
    r"|percentage\s+of|fraction\s+of|share\s+of)\b",
    re.IGNORECASE,
)
BY = re.compile(
    r"\b(?:by|per|across|between|among|over|colou?red\s+by|for\s+each|in\s+each)\s+(?:the\s+|all\s+"
    r"|my\s+|different\s+)*([A-Za-z][\w-]*(?:\s+[A-Za-z][\w-]*)?)",
    re.IGNORECASE,
)
RESOLUTION = re.compile(r"\bresolution\s*(?:of|=|:|at|to)?\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
SPECIAL = re.compile(r"\bspecial\s+about\b|\bsets?\b.*\bapart\b|\bcharacteri[sz]es?\b", re.IGNORECASE)
QUALITY = re.compile(r"\bQC\b|\bquality\s+(?:control|check|of)\b|\bdoublets?\b|\bmito(?:chondrial)?\b", re.IGNORECASE)
SPLITS = (
    re.compile(r"\bbetween\s+(?P<a>.+?)\s+(?:and|versus|vs\.?)\s+(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"\b(?:compare|contrast|separate|distinguish(?:es)?)\s+(?P<a>.+?)\s+(?:with|to|against|and"
        r"|from|versus|vs\.?)\s+(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"\b(?:more|better|less|worse|stronger|harder|higher|lower)\b(?:\s+\w+)?\s+(?:in|on|against|for)\s+(?P<a>.+?)"
        r"\s+than\s+(?:(?:in|on|against|for)\s+)?(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"\b(?:do|does|did|are|is|hit|hits|kill)\s+(?P<a>.+?)\s+(?:differ(?:ent)?|more\s+\w+|more"
        r"|higher|better|less\s+\w+|less|stronger)\s+(?:from|than)\s+(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"\b(?:up|higher|upregulated|up-regulated|down|lower|downregulated|different)\s+in\s+"
        r"(?P<a>.+?)\s+(?:compared\s+(?:to|with)|than\s+in|versus|vs\.?|against|relative\s+to)\s+"
        r"(?P<b>.+)$", re.IGNORECASE),
    re.compile(
        r"^(?:.*?\b(?:in|of|for|genes|test|on)\s+)?(?P<a>.+?)\s+(?:versus|vs\.?|against|compared\s+"
        r"(?:to|with))\s+(?P<b>.+)$", re.IGNORECASE),
)  # fmt: skip
FILES = r"(?:files?|data\s?sets?|uploads?)"
CLOSES_FILE = re.compile(
    r"^\W*(?:(?:please|now|ok|can you|could you)\W+)*(?:(?:close|unload)\b|(?:forget|remove|drop|delete)\s+"
    rf"(?:(?!from\b|in\b|of\b)[\w.()-]+\s+){{0,4}}(?:{FILES}|\S+\.[a-z]\w{{1,5}})\W*$)",
    re.IGNORECASE,
)
CLOSES_THIS = re.compile(rf"\b(?:this|the|my|that)\s+(?:current\s+|loaded\s+)?{FILES}\b", re.IGNORECASE)
PLACES = {
    "first": 0, "1st": 0, "second": 1, "2nd": 1, "third": 2, "3rd": 2, "fourth": 3, "4th": 3, "fifth": 4, "5th": 4,
    "last": -1, "latest": -1, "newest": -1,
}  # fmt: skip
FILE_PLACE = re.compile(rf"\b({'|'.join(PLACES)}|other|previous)\s+(?:(?:up)?loaded\s+)?{FILES}\b", re.IGNORECASE)
FILE_NUMBER = re.compile(r"\bfile\s+(?:number\s+|no\.?\s*|#\s*)?(\d{1,2})\b(?!\s*(?:cells|genes))", re.IGNORECASE)
FILE_WORD = re.compile(
    rf"\b([a-z0-9]+(?:\s[a-z0-9]+)?)\s+{FILES}\b"
    r"|\b(?:switch|go|change)\s+(?:back\s+)?to\s+(?:the\s+|my\s+)?([a-z0-9]+)\b",
    re.IGNORECASE,
)
EVERYDAY = frozenset("the data cell cells count counts gene genes matrix sample samples file h5ad csv tsv all".split())
WHICH_FILE = re.compile(rf"\b(?:other|previous|another|next|(?:{'|'.join(PLACES)}))\s+{FILES}\b", re.IGNORECASE)
Parse = Callable[[str], Cells | None]


def find_cells(text: str, obs: pd.DataFrame | None, placed: Cells | None) -> Cells | None:
    """Conditions on the cells that the words state, cell types aside; `placed` is what positions and columns say."""
    given = {} if placed is None else placed.short()
    if match := BELOW.search(text):
        given["confidence_below"] = _limit(match[1])
    elif match := ABOVE.search(text):
        given["confidence_above"] = _limit(match[1])
    elif UNSURE_WORDS.search(text):
        given["confidence_below"] = UNSURE
    elif SURE_WORDS.search(text):
        given["confidence_above"] = UNSURE
    if UNKNOWN.search(text) and "value" not in given:
        given["cell_type"] = "unknown"
    if match := RESPONSE.search(text):
        said = (match[1] or match[2]).lower()
        given["response"] = "resistant" if said.startswith(("resistant", "non")) else "sensitive"
    return Cells(**given) if given else None


def find_groups(
    text: str, types: Sequence[Mention], parse: Parse, column: str, obs: pd.DataFrame | None
) -> tuple[Cells, ...]:
    """Two groups of cells that a sentence holds against each other; one, when it is held against the rest; or none."""
    if pair := _cluster_pair(text, parse):
        return pair
    for split in SPLITS:
        match = split.search(text.strip(" ?.!"))
        if match is None:
            continue
        first, second = match["a"], match["b"]
        a, b = parse(first), parse(second)
        if a is not None and b is not None and a != b:
            return a, b
        if a is not None and THE_OTHERS.search(second):
            return (a,)
    if len(types) > 1:
        return tuple(Cells(cell_type=mention.written) for mention in types[:2])
    if column and obs is not None and column in obs and obs[column].nunique() == 2 and column in groupings(obs):
        values = sorted(groupings(obs)[column].unique())
        return Cells(column=column, value=values[0]), Cells(column=column, value=values[1])
    whole = parse(text)
    return () if whole is None else (whole,)


def find_column(text: str, obs: pd.DataFrame | None) -> str:
    """The column of obs that a sentence groups or colours by; "" when it names none."""
    if obs is None:
        return ""
    columns = {_plain(str(name)): str(name) for name in obs.columns}
    for match in BY.finditer(text):
        words = match[1].lower().split()
        for said in (" ".join(words), words[0]):
            if (found := _column(said, columns, obs)) is not None:
                return found
    return ""


def _column(said: str, columns: dict[str, str], obs: pd.DataFrame) -> str | None:
    """The column that some words mean: as it is written, plural, one of ours, or with a typing error."""
    known = {
        "cell type": "instructcell_cell_type",
        "type": "instructcell_cell_type",
        "celltype": "instructcell_cell_type",
        "confidence": "instructcell_confidence",
        "response": "instructcell_drug_response",
        "cluster": cluster_column(obs) or OWN_CLUSTERS,
    }
    for word in (_plain(said), _plain(said).removesuffix("s")):
        if word in known:
            return known[word]
        if word in columns:
            return columns[word]
    if len(said) < SHORTEST_NEAR:
        return None
    near = process.extractOne(_plain(said), list(columns), scorer=fuzz.ratio, score_cutoff=NEAR)
    return None if near is None else columns[near[0]]


def near_value(word: str, obs: pd.DataFrame) -> Cells | None:
    """The group that a word means with a typing error ("stimm"), where one column has a value like it and no other."""
    if len(word) < SHORTEST_NEAR:
        return None
    found = []
    for column, values in groupings(obs).items():
        near = process.extractOne(
            word.lower(), {value: value.lower() for value in values.unique()}, scorer=fuzz.ratio, score_cutoff=NEAR
        )
        if near is not None:
            found.append(Cells(column=column, value=str(near[2])))
    return found[0] if len(found) == 1 else None


def find_file(text: str, files: Sequence[str], current: str = "") -> str:
    """The loaded file that a sentence names or points at ("the second file"); "" when none is, or there is no choice.

    A name may lack its ending; one word of it is enough where no other file has that word: "the PBMC file".
    """
    closes = CLOSES_FILE.search(text) is not None
    if not files or (len(files) < 2 and not closes):
        return ""
    low = text.lower()
    everyday = "file the data" not in low  # what cells from memory are called
    listed = [name for name in files if name != "the data" or not everyday]
    named = [name for name in listed if name.lower() in low]
    if not named:
        stems = {name: re.split(r"\.", name.lower())[0] for name in listed}
        named = [
            name
            for name, stem in stems.items()
            if len(stem) > 2 and stem not in EVERYDAY and re.search(rf"(?<!\w){re.escape(stem)}(?!\w)", low)
        ]
    if named:
        return max(named, key=len)
    return _file_by_place(low, files, current, closes=closes) or _file_by_word(low, listed)


def _file_by_place(low: str, files: Sequence[str], current: str, *, closes: bool) -> str:
    """The file that is pointed at by its place: "the second file", "file 2", "the other data set", "this file"."""
    if match := FILE_NUMBER.search(low):
        place = int(match[1]) - 1
        return files[place] if 0 <= place < len(files) else ""
    match = FILE_PLACE.search(low)
    if match is None:
        return current if closes and CLOSES_THIS.search(low) else ""
    if match[1] in PLACES:
        place = PLACES[match[1]]
        return files[place] if place < len(files) else ""
    others = [name for name in files if name != current]
    return others[0] if len(others) == 1 else ""


def _file_by_word(low: str, files: Sequence[str]) -> str:
    """The only file with a word in its name that stands before "file" or "data set", or after "switch to"."""
    said = {word for match in FILE_WORD.finditer(low) for word in (match[1] or match[2]).split()}
    said |= {word.removesuffix("s") for word in said}
    found = [name for name in files if said & (set(re.findall(r"[a-z0-9]{3,}", name.lower())) - EVERYDAY)]
    return found[0] if len(found) == 1 else ""


def _cluster_pair(text: str, parse: Parse) -> tuple[Cells, ...]:
    match = re.search(
        r"\bclusters?\s+(\w+)\s*(?:and|vs\.?|versus|with|to|against|from|,|or)\s*(?:clusters?\s+)?(\d+)\b",
        text,
        re.IGNORECASE,
    )
    if match is None:
        return ()
    pair = [parse(f"cluster {match[at]}") for at in (1, 2)]
    return tuple(one for one in pair if one is not None) if all(one is not None for one in pair) else ()


def _limit(text: str) -> float:
    number = float(re.sub(r"[%\s]|percent", "", text))
    return min(number / 100 if number > 1 or "%" in text or "percent" in text else number, 1.0)


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text).strip().lower()
