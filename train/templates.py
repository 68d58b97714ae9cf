"""Render requests and answers from the phrasing grammar of `train.phrasings`.

A rendering is a frame ("what [kind] [is_np][hint]?") expanded with a `random.Random`, surrounded by what people write
around a request (greetings, where the sample comes from, a list of options, an unrelated sentence) and roughened by
typing errors. Cells stand in a prompt as `{cells}`, pseudo-cells in an answer as `{signal}`; the collator puts the
special tokens there.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from random import Random
from typing import Literal

from train.phrasings import FRAMES, RULES, SPECIES_NAMES, TASKS, TECHNOLOGY_NAMES, TISSUE_NAMES, Alt, Frame, Task

CELLS = "{cells}"
SIGNAL = "{signal}"
CANONICAL_SHARE = 0.25
NOISE = 0.3
N_MARKERS = 5  # how many genes an answer names unless the request says how many

Style = Literal["short", "sentence"]


@dataclass(frozen=True)
class RenderContext:
    """What is known about the cells and the request of one rendering.

    `label` is the answer of an annotation, word for word (one of `options` where these are listed). `cell_type` holds
    the names a type may be called by in a prompt, the canonical name first. `response` is "sensitive" or "resistant",
    `drug_names` are the names a prompt may use for `drug`. `guess` is a type the user asks about ("is this a beta
    cell?"). `contradicted` says that `tissue` is a hint the cells do not fit.
    """

    label: str = ""
    cell_type: tuple[str, ...] = ()
    species: str = ""
    tissue: str = ""
    technology: str = ""
    condition: str = ""
    options: tuple[str, ...] = ()
    drug: str = ""
    drug_names: tuple[str, ...] = ()
    drug_target: str = ""
    response: str = ""
    n_cells: int = 1
    n_signals: int = 1
    markers: tuple[str, ...] = ()
    guess: str = ""
    guess_right: bool = True
    contradicted: bool = False

    def __post_init__(self) -> None:
        if self.n_cells < 1 or self.n_signals < 1:
            raise ValueError(f"n_cells and n_signals must be at least 1, got {self.n_cells} and {self.n_signals}")
        texts = (self.label, self.species, self.tissue, self.technology, self.condition, self.drug, self.guess)
        if any("{" in text for text in (*texts, *self.cell_type, *self.options, *self.drug_names, *self.markers)):
            raise ValueError("names must not contain '{': it marks the places of cells and signals")
        if self.options and self.label and self.label not in self.options:
            raise ValueError(f"the answer {self.label!r} is not among the options {self.options}")


@dataclass(frozen=True)
class Rendered:
    """One request and its answer: `prompt` with `{cells}`, `answer` with `{signal}`, how it answers, and its frame."""

    prompt: str
    answer: str
    style: Style
    frame_id: str


# ---------------------------------------------------------------------------------------------------- rendering


def render(
    task: Task,
    context: RenderContext,
    rng: Random,
    *,
    held_out: bool = False,
    noise: float = NOISE,
    canonical_share: float = CANONICAL_SHARE,
) -> Rendered:
    """Render one request and its answer.

    Parameters
    ----------
    task : {"annotation", "generation", "drug", "markers"}
    context : RenderContext
        What the prompt may mention and the answer must say; every hint of it is mentioned.
    rng : random.Random
        The only source of chance: same state, same rendering.
    held_out : bool
        Use only the frames that training never sees, to test robustness to phrasing.
    noise : float
        Probability of typing errors, 0 to 1; missing capitals and punctuation come at half of it.
    canonical_share : float
        Share of the short canonical prompts (0 when `held_out`).

    Raises
    ------
    ValueError
        When the context lacks what the task needs.

    Examples
    --------
    >>> render("annotation", RenderContext(label="B cell"), Random(0), held_out=True).answer
    'It looks like a B cell.'
    """
    _check(task, context)
    if not held_out and not context.guess and rng.random() < canonical_share:
        return _canonical_variant(task, context, rng, noise)
    features = _features(task, context, held_out)
    frame = _pick(_frames_for(task, features, held_out), rng)
    slots = _slots(task, context, rng)
    pieces, style = _request(frame, features, slots, rng)
    if task == "markers" and slots["count"] in pieces:
        slots["markers"] = slots["counted_markers"]
    prompt = _write(pieces, rng, noise)
    return Rendered(prompt, _answer(task, context, frame, style, features, slots, rng), style, frame.id)


def canonical(task: Task, context: RenderContext) -> Rendered:
    """Render the short prompt that batch work uses ("human pancreatic islet | annotate: {cells}").

    Raises
    ------
    ValueError
        When the context lacks what the task needs.

    Examples
    --------
    >>> canonical("drug", RenderContext(drug="gefitinib", response="resistant")).prompt
    'response to gefitinib: {cells}'
    """
    _check(task, context)
    tissue = TISSUE_NAMES.get(context.tissue, (context.tissue,))[0]
    request = _canonical_request(task, context, context.cell_type[0] if context.cell_type else "", context.drug)
    prefix = ", ".join(filter(None, (f"{context.species} {tissue}".strip(), context.condition)))
    prompt = f"{prefix} | {request}" if prefix else request
    return Rendered(prompt, _short_answer(task, context), "short", f"{task}/canonical")


def distinct_renderings(
    task: Task, n: int, seed: int, *, context: RenderContext | None = None, held_out: bool = False, noise: float = 0.0
) -> list[Rendered]:
    """Sample `n` renderings whose prompts all differ, of one context (an example of the task unless given).

    Raises
    ------
    ValueError
        When sampling does not find `n` different prompts.
    """
    rng, found = Random(seed), dict[str, Rendered]()
    for _ in range(50 * n + 1000):
        rendered = render(task, context or EXAMPLES[task], rng, held_out=held_out, noise=noise)
        found.setdefault(rendered.prompt, rendered)
        if len(found) == n:
            return list(found.values())
    raise ValueError(f"found {len(found)} different {task} prompts, expected {n}; ask for fewer")


EXAMPLES: dict[Task, RenderContext] = {
    "annotation": RenderContext(label="type B pancreatic cell", species="human", tissue="pancreatic islet"),
    "generation": RenderContext(label="B cell", cell_type=("B cell", "B lymphocyte"), species="human", tissue="PBMC"),
    "drug": RenderContext(drug="gefitinib", response="sensitive", species="human", n_cells=3),
    "markers": RenderContext(label="pancreatic D cell", cell_type=("pancreatic D cell",), markers=("SST", "HHEX")),
}


def _check(task: Task, context: RenderContext) -> None:
    """Refuse a context without the values its task is about."""
    needed: dict[Task, tuple[str, ...]] = {
        "annotation": ("label",),
        "generation": ("cell_type",),
        "drug": ("drug", "response"),
        "markers": ("cell_type", "markers"),
    }
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; known are {', '.join(TASKS)}")
    missing = [name for name in needed[task] if not getattr(context, name)]
    if missing:
        raise ValueError(f"a {task} rendering needs {' and '.join(missing)} in its context")


# ------------------------------------------------------------------------------------------------ the request

# A piece of text and how far noise may change it: freely, lightly (names stay recognisable), not at all.
FREE, NAME, FIXED = 0, 1, 2
Piece = tuple[str, int]
Slots = Mapping[str, Piece]


def _request(frame: Frame, features: frozenset[str], slots: Slots, rng: Random) -> tuple[list[Piece], Style]:
    """Expand a frame and put around it what it does not say itself: cells, hints, options, courtesies."""
    wants_cells = frame.task in ("annotation", "drug")
    inline_hint = _reaches(frame.text, "hint") and rng.random() < 0.5
    inline_cells = wants_cells and CELLS not in frame.text and _reaches(frame.text, "np_s") and rng.random() < 0.4
    inside = features | {"inside" if inline_cells else "outside"}
    core = _expand(frame.text, inside if inline_hint else inside - _HINTS, slots, rng)
    before: list[list[Piece]] = []
    after: list[list[Piece]] = []

    def beside(rule: str, share_before: float) -> None:
        (before if rng.random() < share_before else after).append(_expand(f"[{rule}]", features, slots, rng))

    style: Style = frame.style
    if "options" in features:
        style = "short"
        if "options" not in frame.when.split():
            beside("options_sentence", 0.3)
    if style == "sentence" and "guess" not in features and rng.random() < 0.2:
        style = "short"
        after.append(_expand("[short_directive]", features, slots, rng))
    elif style == "short" and "options" not in features and rng.random() < 0.08:
        style = "sentence"
        after.append(_expand("[sentence_directive]", features, slots, rng))
    prefix = features & _HINTS and not inline_hint and rng.random() < 0.45
    if features & _HINTS and not inline_hint and not prefix:
        beside("hint_sentence", 0.6)
    if wants_cells and not inline_cells and CELLS not in frame.text:
        core = _attach_cells(core, before, after, features, slots, rng)
    _courtesies(before, after, features, slots, rng)
    if prefix:
        before.insert(0, _expand("[prefix]", features, slots, rng))
    return _join([*before, core, *after], rng), style


def _attach_cells(
    core: list[Piece],
    before: list[list[Piece]],
    after: list[list[Piece]],
    features: frozenset[str],
    slots: Slots,
    rng: Random,
) -> list[Piece]:
    """Put the cells before the request, after it, or right behind it as in "annotate this cell: {cells}"."""
    where = rng.random()
    if where < 0.35:
        before.append(_expand("[attach]", features, slots, rng))
    elif where < 0.7:
        after.append(_expand("[attach]", features, slots, rng))
    else:
        text, kind = core[-1]
        if kind == FREE and rng.random() < 0.5:
            core[-1] = (text.rstrip("?.:") + ":", FREE)
        core = [*core, (" ", FREE), (CELLS, FIXED)]
    return core


def _courtesies(
    before: list[list[Piece]], after: list[list[Piece]], features: frozenset[str], slots: Slots, rng: Random
) -> None:
    """Add a greeting, one or two sentences that do not matter, thanks; most requests have none."""
    if rng.random() < 0.2:
        for _ in range(1 if rng.random() < 0.7 else 2):
            story = _expand("[story]", features, slots, rng)
            if story not in before and story not in after:
                (before if rng.random() < 0.7 else after).insert(0, story)
    if rng.random() < 0.2:
        before.insert(0, _expand("[greeting]", features, slots, rng))
    if rng.random() < 0.15:
        after.append(_expand("[closing]", features, slots, rng))


def _join(sentences: list[list[Piece]], rng: Random) -> list[Piece]:
    """Join sentences with a space or a line break, each with a capital letter when the writer cares for it."""
    capitals, space = rng.random() < 0.6, "\n" if rng.random() < 0.12 else " "
    pieces: list[Piece] = []
    for number, sentence in enumerate(sentences):
        text, kind = sentence[0]
        if number:
            ended = pieces[-1][0].endswith((".", "?", "!", ",", ":", "|", "\n", ")", CELLS))
            pieces.append((space if ended or rng.random() < 0.3 else f".{space}", FREE))
        continues = bool(pieces) and pieces[-2][0].endswith((",", "|", ":"))
        if capitals and kind == FREE and text and not continues:
            sentence = [(text[0].upper() + text[1:], FREE), *sentence[1:]]
        pieces.extend(sentence)
    return pieces


def _canonical_request(task: Task, context: RenderContext, cell_type: str, drug: str) -> str:
    """The short prompt without its prefix."""
    if task == "annotation":
        options = f" options: {'; '.join(context.options)}" if context.options else ""
        return f"annotate: {CELLS}{options}"
    if task == "drug":
        return f"response to {drug}: {CELLS}"
    if task == "markers":
        return f"markers of {cell_type}:"
    return f"generate {cell_type}:" if context.n_signals == 1 else f"generate {context.n_signals} {plural(cell_type)}:"


def _canonical_variant(task: Task, context: RenderContext, rng: Random, noise: float) -> Rendered:
    """The canonical prompt with any of the names a type, drug, species or tissue goes by, rarely with case changes."""
    plain = canonical(task, context)
    if rng.random() < 0.5:
        return plain
    cell_type = rng.choice(context.cell_type) if context.cell_type else ""
    drug = rng.choice(context.drug_names or (context.drug,))
    request = _canonical_request(task, context, cell_type, drug)
    features = _features(task, context, held_out=False)
    prefix = ""
    if features & _HINTS:
        prefix = "".join(text for text, _ in _expand("[prefix]", features, _slots(task, context, rng), rng)) + " "
    if context.condition:
        prefix = f"{prefix.strip(' |:()')}, {context.condition} | ".removeprefix(", ")
    prompt = prefix + request
    if rng.random() < noise / 2 and not context.options:
        prompt = _recase(prompt, rng)
    return Rendered(prompt, plain.answer, "short", plain.frame_id)


# -------------------------------------------------------------------------------------------------- the answer


def _answer(
    task: Task,
    context: RenderContext,
    frame: Frame,
    style: Style,
    features: frozenset[str],
    slots: Slots,
    rng: Random,
) -> str:
    """Write the answer in the style that was asked for; a sentence always holds the label word for word."""
    if style == "short":
        return slots["markers"][0] if task == "markers" else _short_answer(task, context)
    rule = f"answer_{task}"
    if "guess" in frame.when.split():
        rule = "answer_guess_right" if context.guess_right else "answer_guess_wrong"
    elif frame.polarity:
        rule = "answer_drug_yes" if frame.polarity == context.response else "answer_drug_no"
    pieces = _expand(f"[{rule}]", features, slots, rng)
    text = _capital("".join(text for text, _ in pieces))
    if context.contradicted and task == "annotation" and context.tissue:
        text += " " + _capital("".join(t for t, _ in _expand("[answer_contradiction]", features, slots, rng)))
    return text


def _short_answer(task: Task, context: RenderContext) -> str:
    """The label, the response, the signals or the gene list alone."""
    if task == "annotation":
        return context.label
    if task == "drug":
        return context.response
    return _signals(context.n_signals) if task == "generation" else ", ".join(context.markers[:N_MARKERS])


def _signals(n: int) -> str:
    return " ".join([SIGNAL] * n)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# ------------------------------------------------------------------------------------------ values of the context

_HINTS = frozenset({"species", "tissue", "tech"})
_STIMULATED = " stimulated"  # "IFN-beta stimulated" is something done to the cells, "healthy" is not
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
_NUMBER_WORDS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def _features(task: Task, context: RenderContext, held_out: bool) -> frozenset[str]:
    """Name what the context holds, for the conditions of the grammar."""
    features = {task, "many" if max(context.n_cells, context.n_signals) > 1 else "one"}
    present = {
        "species": context.species,
        "tissue": context.tissue,
        "tech": context.technology,
        "condition": context.condition,
        "stimulus": context.condition.endswith(_STIMULATED),
        "state": context.condition and not context.condition.endswith(_STIMULATED),
        "options": context.options,
        "target": context.drug_target,
        "guess": context.guess,
        "count": len(context.markers) > 1,
        "held": held_out,
    }
    return frozenset(features | {name for name, value in present.items() if value})


def _slots(task: Task, context: RenderContext, rng: Random) -> dict[str, Piece]:
    """The values that stand for `{name}` in the grammar, each in one of the ways people write it."""
    n = max(context.n_cells, context.n_signals)
    label = context.label or (context.cell_type[0] if context.cell_type else "")
    slots: dict[str, Piece] = {
        "cells": (CELLS, FIXED),
        "n": (_number(n, rng), FIXED),
        "number": (str(rng.randint(2, 60)), FIXED),
        "weekday": (rng.choice(_WEEKDAYS), FREE),
        "species": (rng.choice(SPECIES_NAMES.get(context.species, (context.species,))), NAME),
        "tissue": (_either(TISSUE_NAMES, context.tissue, rng), NAME),
        "a_tissue": (with_article(_either(TISSUE_NAMES, context.tissue, rng)), NAME),
        "technology": (_either(TECHNOLOGY_NAMES, context.technology, rng), NAME),
        "condition": (context.condition, NAME),
        "stimulus": (context.condition.removesuffix(_STIMULATED), NAME),
        "label": (label, FIXED),
        "labels": (plural(label), FIXED),
        "a_label": (with_article(label), FIXED),
    }
    if context.options:
        slots["options"] = (_list_options(context.options, rng), FIXED)
        slots["options_or"] = (_options_or(context.options), FIXED)
    if task == "drug":
        slots["drug"] = (rng.choice(context.drug_names or (context.drug,)), NAME)
        slots["drug_name"] = (context.drug, FIXED)
        slots["target"] = (context.drug_target, NAME)
        slots["a_target"] = (with_article(context.drug_target), NAME)
        slots["response"] = (context.response, FIXED)
    elif task == "annotation":
        slots["a_guess"] = (plural(context.guess) if n > 1 else with_article(singular(context.guess)), NAME)
    else:
        name = singular(rng.choice(context.cell_type))
        slots["type"], slots["types"], slots["a_type"] = (name, NAME), (plural(name), NAME), (with_article(name), NAME)
    if task == "generation":
        slots["signals"] = (_signals(context.n_signals), FIXED)
    elif task == "markers":
        count = rng.randint(min(2, len(context.markers)), min(8, len(context.markers)))
        slots["count"] = (_number(count, rng), FIXED)
        slots["markers"] = (", ".join(context.markers[:N_MARKERS]), FIXED)
        slots["counted_markers"] = (", ".join(context.markers[:count]), FIXED)
    return slots


def _either(names: Mapping[str, tuple[str, ...]], value: str, rng: Random) -> str:
    return rng.choice(names[value]) if value in names else value


def _number(n: int, rng: Random) -> str:
    return _NUMBER_WORDS[n] if n < len(_NUMBER_WORDS) and rng.random() < 0.35 else str(n)


def _options_or(options: Sequence[str]) -> str:
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"


def _list_options(options: Sequence[str], rng: Random) -> str:
    """Write a list of options in one of the usual ways; names with commas are never parted by commas."""
    commas = any("," in option for option in options)
    way = rng.choice([w for w in range(9) if (w > 2 or not commas) and (w != 6 or len(options) <= 26)])
    if way <= 1:
        return ", ".join(options)
    if way == 2:
        return _options_or(options)
    if way == 3:
        return "; ".join(options)
    if way == 4:
        return " | ".join(options)
    if way == 5:
        return ", ".join(f'"{option}"' for option in options)
    if way == 6:
        return " ".join(f"({chr(ord('a') + number)}) {option}" for number, option in enumerate(options))
    if way == 7:
        return " ".join(f"{number}. {option}" for number, option in enumerate(options, start=1))
    return "\n" + "\n".join(f"- {option}" for option in options) + "\n"


# -------------------------------------------------------------------------------------------------- inflection

# Words that name a cell by themselves; any other last word needs "cell" behind it ("CD34+" -> "CD34+ cell").
_CELL_NOUN = re.compile(
    r"(cell|cyte|phage|blast|phil|mere|zygote|morula|progenitor|precursor|platelet|embryo|blastocyst|egg|treg"
    r"|\b(p?dc|pa?sc|hspc|hsc|mdc|mono|ctl|pmn|wbc|ec|ilc[123]?))$",
    re.IGNORECASE,
)
_HEAD = re.compile(r"(.+?)( (?:of|at) .+)", re.DOTALL)  # "cell of the morula": the noun stands first
_SPELLED_VOWEL = re.compile(
    r"(?!one\b)([AEFHILMNORSX][A-Z0-9 -]|Ngn|8|11\b|18\b|[AEIO][a-z]|[aeioαε]|u(?!ni|te|se|ri))", re.ASCII
)


@lru_cache(maxsize=4096)
def singular(name: str) -> str:
    """Name one cell of a type: "NK cells" -> "NK cell", "Monocytes" -> "Monocyte", "CD34+" -> "CD34+ cell"."""
    if not name:
        return name
    if match := _HEAD.fullmatch(name):
        return singular(match[1]) + match[2]
    if name.endswith("s") and _CELL_NOUN.search(name[:-1]):
        return name[:-1]
    return name if _CELL_NOUN.search(name) else f"{name} cell"


@lru_cache(maxsize=4096)
def plural(name: str) -> str:
    """Name several cells of a type: "B cell" -> "B cells", "Treg" -> "Tregs", "CD34+" -> "CD34+ cells"."""
    one = singular(name)
    if match := _HEAD.fullmatch(one):
        return f"{match[1]}s{match[2]}"
    return f"{one}s" if one else one


@lru_cache(maxsize=4096)
def with_article(name: str) -> str:
    """Put "a" or "an" before a name as it is spoken: "an NK cell", "an A549 cell", "a B cell"."""
    return f"{'an' if _SPELLED_VOWEL.match(name) else 'a'} {name}" if name else name


# ---------------------------------------------------------------------------------------------------- expansion

_PART = re.compile(r"\[(\w+)\]|\{(\w+)\}")
Parts = tuple[tuple[str, str], ...]  # ("text" | "rule" | "slot", value)
Rules = Mapping[str, tuple[list[float], list[Parts]]]


@cache
def _parts(text: str) -> Parts:
    """Cut a text of the grammar into plain text, nonterminals and slots."""
    parts, end = [], 0
    for match in _PART.finditer(text):
        if match.start() > end:
            parts.append(("text", text[end : match.start()]))
        rule, slot = match.groups()
        parts.append(("rule", rule) if rule else ("slot", slot))
        end = match.end()
    if end < len(text):
        parts.append(("text", text[end:]))
    return tuple(parts)


def _holds(when: str, features: frozenset[str]) -> bool:
    """Whether all features of a condition are there, and none of its "!" ones."""
    return all((word[1:] not in features) if word[0] == "!" else (word in features) for word in when.split())


@cache
def _live_rules(features: frozenset[str]) -> Rules:
    """The grammar with these features: alternatives that need others are gone, and so is what depends on them."""
    alive = {name: [alt for alt in alts if _holds(alt.when, features)] for name, alts in RULES.items()}
    while True:
        dead = {name for name, alts in alive.items() if not alts}
        kept = {name: [alt for alt in alts if _uses(alt.text).isdisjoint(dead)] for name, alts in alive.items()}
        if kept == alive:
            break
        alive = kept
    return {name: _weighted(alts) for name, alts in alive.items() if alts}


def _weighted(alts: Iterable[Alt]) -> tuple[list[float], list[Parts]]:
    alts = list(alts)
    return list(accumulate(alt.weight for alt in alts)), [_parts(alt.text) for alt in alts]


def _uses(text: str) -> frozenset[str]:
    return frozenset(value for kind, value in _parts(text) if kind == "rule")


@cache
def _reaches(text: str, rule: str) -> bool:
    """Whether a text can expand through a rule."""
    return any(name == rule or any(_reaches(alt.text, rule) for alt in RULES[name]) for name in _uses(text))


@cache
def _frames_for(task: Task, features: frozenset[str], held_out: bool) -> tuple[Frame, ...]:
    """The frames that can be used: a guess must be asked about, and every nonterminal needs a live alternative."""
    rules = _live_rules(features | {"outside"})
    frames = [frame for frame in FRAMES[task] if frame.held_out == held_out and _holds(frame.when, features)]
    fitting = [frame for frame in frames if _uses(frame.text) <= rules.keys()]
    asking = [frame for frame in fitting if "guess" in frame.when.split()]
    return tuple(asking or fitting)


def _pick(frames: tuple[Frame, ...], rng: Random) -> Frame:
    return frames[int(rng.random() * len(frames))]


def _expand(text: str, features: frozenset[str], slots: Slots, rng: Random) -> list[Piece]:
    """Expand a text of the grammar into pieces; neighbouring free texts are merged."""
    pieces: list[Piece] = []
    _expand_into(pieces, _parts(text), _live_rules(features), slots, rng)
    return pieces or [("", FREE)]


def _expand_into(pieces: list[Piece], parts: Parts, rules: Rules, slots: Slots, rng: Random) -> None:
    for kind, value in parts:
        if kind == "rule":
            totals, alternatives = rules[value]
            _expand_into(pieces, alternatives[bisect_right(totals, rng.random() * totals[-1])], rules, slots, rng)
            continue
        piece = (value, FREE) if kind == "text" else slots[value]
        if piece[1] == FREE and pieces and pieces[-1][1] == FREE:
            pieces[-1] = (pieces[-1][0] + piece[0], FREE)
        else:
            pieces.append(piece)


# ---------------------------------------------------------------------------------------------------------- noise

_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: "".join(row[max(0, at - 1) : at] + row[at + 1 : at + 2] for row in _KEYS for at in [row.find(key)] if at >= 0)
    for key in "".join(_KEYS)
}


def _write(pieces: list[Piece], rng: Random, noise: float) -> str:
    """Write the pieces as a person types them: sometimes with errors, in one case, or without punctuation."""
    if noise and rng.random() < noise:
        pieces = _mistype(pieces, rng)
    if noise and rng.random() < noise / 2:
        pieces = _unpunctuate(pieces)
    if noise and rng.random() < noise / 2:
        way = rng.choice((str.lower, str.lower, str.lower, str.upper, str.title))
        pieces = [(text if kind == FIXED else way(text), kind) for text, kind in pieces]
    return _tidy("".join(text for text, _ in pieces))


def _tidy(text: str) -> str:
    """Leave one space between words, none before a mark, and no comma before the end of a sentence."""
    text = re.sub(r"\n *[.?!]+", "\n", text)  # the mark after a list that ends its line
    return re.sub(r",([?.!:])", r"\1", re.sub(r" +([?.,;:!])", r"\1", re.sub(r"  +", " ", text))).strip(" \n,")


def _mistype(pieces: list[Piece], rng: Random) -> list[Piece]:
    """Put one to three typing errors into free text and, rarely, one into a longer name."""
    pieces = list(pieces)
    free = [at for at, (text, kind) in enumerate(pieces) if kind == FREE and len(text) > 4]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        if free:
            at = rng.choice(free)
            pieces[at] = (_typo(pieces[at][0], rng, shortest=3), FREE)
    names = [at for at, (text, kind) in enumerate(pieces) if kind == NAME and len(text) > 6]
    if names and rng.random() < 0.2:
        at = rng.choice(names)
        pieces[at] = (_typo(pieces[at][0], rng, shortest=6), NAME)
    return pieces


_LETTERS = {length: re.compile(rf"(?<![^\W_])[^\W\d_]{{{length},}}(?![^\W_])") for length in (3, 6)}


def _typo(text: str, rng: Random, *, shortest: int) -> str:
    """Swap, drop, double or mishit one letter inside a word of at least `shortest` letters; its first letter stays."""
    words = [match.span() for match in _LETTERS[shortest].finditer(text)]
    if not words:
        return text
    start, end = rng.choice(words)
    at = rng.randrange(start + 1, end)
    letter, way = text[at], rng.randrange(4)
    if way == 0 and at + 1 < end:
        return f"{text[:at]}{text[at + 1]}{letter}{text[at + 2 :]}"
    if way == 1:
        return text[:at] + text[at + 1 :]
    if way == 2:
        return text[:at] + letter + text[at:]
    return text[:at] + rng.choice(_NEIGHBOURS.get(letter.lower(), letter)) + text[at + 1 :]


def _unpunctuate(pieces: list[Piece]) -> list[Piece]:
    """Leave out commas, apostrophes and the marks at the ends of sentences, as in a hurried message."""
    return [(text if kind != FREE else re.sub(r"[?.!,'](?=\s|$|\w)", "", text), kind) for text, kind in pieces]


def _recase(prompt: str, rng: Random) -> str:
    """Change the case of a prompt, but not of its places for cells."""
    way = rng.choice((str.upper, str.capitalize, str.lower))
    return CELLS.join(way(part) for part in prompt.split(CELLS))
