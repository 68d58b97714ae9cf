"""The phrasing grammar: how people ask for cell types, pseudo-cells, drug response and marker genes.

Written for this project. `RULES` maps a nonterminal to its weighted alternatives, `FRAMES` lists the sentence frames
of each task. In a text, ``[name]`` is a nonterminal, ``{name}`` a value of the context and ``{cells}`` / ``{signals}``
the places of cells and pseudo-cells. A modifier carries its own space (``[hint]`` is "" or " from human blood"). Words
start in lower case; `train.templates` decides about capitals, punctuation and typing errors.

``when`` names the features an alternative needs ("many tissue", "!options"): the task, `one` or `many` cells,
`inside` / `outside` for where the cells stand, `held` for a rendering that tests robustness to phrasing, and one
feature for each value that the context holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["annotation", "generation", "drug", "markers"]
TASKS: tuple[Task, ...] = ("annotation", "generation", "drug", "markers")


@dataclass(frozen=True)
class Alt:
    """One alternative of a nonterminal: its text, its weight and the features it needs."""

    text: str
    weight: float = 1.0
    when: str = ""


@dataclass(frozen=True)
class Frame:
    """One way to put a request.

    ``style`` is the answer it asks for: "short" (the label alone) or "sentence". ``held_out`` frames are never trained
    on; they measure robustness to unseen phrasings. ``polarity`` is what a yes/no question about a drug asks for.
    """

    id: str
    task: Task
    text: str
    style: Literal["short", "sentence"]
    when: str = ""
    weight: float = 1.0
    held_out: bool = False
    polarity: str = ""


def _frames(task: Task, style: Literal["short", "sentence"], kind: str, texts: str, **shared: str) -> tuple[Frame, ...]:
    """Read one frame a line: ``~`` marks a held-out frame, ``many:`` and the like a feature it needs."""
    frames = []
    for number, line in enumerate(filter(None, (line.strip() for line in texts.splitlines())), start=1):
        held_out, line = line.startswith("~"), line.removeprefix("~ ")
        when, text = line.split(":: ", 1) if ":: " in line else ("", line)
        needs = f"{shared.get('when', '')} {when}".strip()
        name = f"{task}/{kind}-{number:02d}"
        frames.append(Frame(name, task, text, style, needs, held_out=held_out, polarity=shared.get("polarity", "")))
    return tuple(frames)


ANNOTATION = (
    *_frames(
        "annotation",
        "sentence",
        "question",
        """
        what [kind] [is_np][hint]?
        which [kind] [is_np][hint]?
        what [is_np][hint]?
        what exactly [is_np][hint]?
        what is the [identity] of [np][hint]?
        what would be the [identity] of [np][hint]?
        to which [kind] [do_np] belong[hint]?
        which [kind] [do_np] belong to[hint]?
        which [kind] [do_np] represent[hint]?
        what [kind] [do_np] look like to you[hint]?
        what [do_np] look like[hint]?
        how would you [annotate] [np][hint]?
        how should I [annotate] [np][hint]?
        what would you call [np][hint]?
        what do you make of [np][hint]?
        what [kind] do you think [np_is][hint]?
        what do you think [np_is][hint]?
        which [kind] would you assign to [np][hint]?
        which [kind] fits [np] best[hint]?
        which [kind] explains [expression] of [np][hint]?
        [judging] [expression], what [kind] [is_np][hint]?
        [judging] [expression], which [kind] would you say [np_is][hint]?
        given [expression], what [is_np][hint]?
        do you know what [kind] [np_is][hint]?
        do you recognise [np][hint]?
        any idea what [kind] [np_is][hint]?
        any guess what [np_is][hint]?
        so what [is_np][hint]?
        ok, and what [kind] [is_np][hint]?
        what sort of [cell_word] do I have here[hint]?
        what am I looking at[hint]: what [kind] [is_np]?
        I have [np][hint]. what [kind] is that?
        we sequenced [np][hint]. what [kind] could that be?
        what is the most [likely] [kind] of [np][hint]?
        what is your best guess for the [identity] of [np][hint]?
        what's the [identity] of [np][hint]?
        what's [np][hint], in terms of cell type?
        many:: what [kind] [is_np] made of[hint]?
        many:: what do [np_p] have in common, which [kind] [are_they][hint]?
        many:: which population [is_np][hint]?
        ~ under which name does the field know [np][hint]?
        ~ if you had to put a name on [np][hint], which [kind] would it be?
        ~ in your opinion, what did we capture here when we sequenced [np][hint]?
        ~ what would a cell biologist write under a picture of [np][hint]?
        """,
    ),
    *_frames(
        "annotation",
        "sentence",
        "polite",
        """
        [could_you] tell me what [kind] [np_is][hint]?
        [could_you] tell me which [kind] [np_is][hint]?
        [could_you] tell me what [np_is][hint]?
        [could_you] [annotate] [np] for me[hint]?
        [could_you] [annotate] [np][hint] and say what you think?
        [could_you] help me [annotate] [np][hint]?
        [could_you] have a look at [np][hint] and tell me the [identity]?
        [could_you] work out the [identity] of [np][hint]?
        [could_you] let me know the [identity] of [np][hint]?
        would you mind telling me what [kind] [np_is][hint]?
        would it be possible to [annotate] [np][hint]?
        I would like to know what [kind] [np_is][hint].
        I would like to know the [identity] of [np][hint].
        I need to know which [kind] [np_is][hint].
        I am trying to find out what [kind] [np_is][hint].
        I wonder what [kind] [np_is][hint].
        I'm not sure what [np_is][hint]. can you help?
        I'm struggling to [annotate] [np][hint]. what would you say?
        I cannot tell what [kind] [np_is][hint], can you?
        I [grateful] if you could tell me what [kind] [np_is][hint].
        I [grateful] if you could [annotate] [np][hint].
        I [grateful] if you could find the time to look at [np][hint] and tell me which [kind] you see.
        please help me [annotate] [np][hint].
        please tell me what [kind] [np_is][hint].
        please explain what [kind] [np_is][hint].
        let us find out what [kind] [np_is][hint].
        tell me about [np][hint]: what [kind] [is_np_again]?
        ~ I was hoping you might shed some light on the [identity] of [np][hint].
        ~ may I trouble you for the [identity] of [np][hint]?
        ~ could I ask you to put a cell type to [np][hint]?
        """,
    ),
    *_frames(
        "annotation",
        "short",
        "command",
        """
        [annotate] [np][hint]
        [annotate] [np][hint].
        please [annotate] [np][hint].
        [predict] the [identity] of [np][hint]
        [predict] the [identity] of [np][hint].
        [predict] the [kind] of [np][hint]
        [assign] a [kind] to [np][hint]
        [assign] a cell type label to [np][hint].
        [give] the [identity] of [np][hint]
        [give] the cell type label for [np][hint].
        [give] me the [identity] of [np][hint].
        [give] a label for [np][hint]
        name [np][hint]
        name the [kind] of [np][hint].
        label the following[hint]: {cells}
        run cell type annotation on [np][hint]
        do cell type annotation for [np][hint]
        return the cell type of [np][hint]
        output the cell type label of [np][hint]
        ~ put the right cell type name on [np][hint]
        ~ tag [np][hint] with a cell type
        ~ fill in the cell type column for [np][hint]
        """,
    ),
    *_frames(
        "annotation",
        "short",
        "fragment",
        """
        cell type[hint]?
        celltype[hint]:
        cell type of [np][hint]?
        cell type of [np][hint]
        [identity] of [np][hint]?
        [identity][hint]?
        label for [np][hint]:
        type of [np][hint]?
        cell type label[hint]:
        annotation[hint]:
        cell type annotation[hint]
        which type[hint]?
        what type[hint]?
        type?[hint]
        {cells} = ?
        {cells} is a
        {cells} ->
        {cells}: cell type[hint]?
        {cells} what is it[hint]?
        annotate {cells}[hint]
        [np]: type?
        q: cell type of {cells}[hint]? a:
        question: what [kind] [is_np][hint]? answer:
        ~ cell type unknown[hint], needs a name: {cells}
        ~ [np][hint]: best matching cell type
        """,
    ),
    *_frames(
        "annotation",
        "short",
        "options",
        """
        which of these [is_np][hint]: {options}?
        which of the following [kinds] [is_np][hint]? {options}
        is it {options_or}[hint]?
        [np_is] one of {options}[hint]. which one?
        [annotate] [np][hint] as one of: {options}
        [annotate] [np][hint] using only these labels: {options}
        choose the [kind] of [np][hint] from {options}
        pick the best label for [np][hint]: {options}
        {options}: which one fits [np][hint] best?
        from the list {options}, which [kind] [is_np][hint]?
        my labels are {options}. [annotate] [np][hint].
        {options} - what [is_np][hint]?
        ~ out of {options}, what would you settle on for [np][hint]?
        ~ I can only use the names {options}; where [do_np] belong[hint]?
        """,
        when="options",
    ),
    *_frames(
        "annotation",
        "sentence",
        "guess",
        """
        [is_np][hint] {a_guess}?
        could [subject] be {a_guess}[hint]?
        would you call [np] {a_guess}[hint]?
        I think [np_is] {a_guess}[hint]. am I right?
        [np_is] {a_guess}[hint], right?
        is it correct that [np_is] {a_guess}[hint]?
        a colleague says [np_is] {a_guess}[hint]. do you agree?
        do you agree that [np_is] {a_guess}[hint]?
        [could_you] confirm that [np_is] {a_guess}[hint]?
        [could_you] check whether [np_is] {a_guess}[hint]?
        ~ my money is on {a_guess} for [np][hint]: true?
        """,
        when="guess",
    ),
)

GENERATION = (
    *_frames(
        "generation",
        "short",
        "command",
        """
        [generate] [target]
        [generate] [target].
        [generate] [target]
        please [generate] [target].
        [generate] [profile] of [plain_target]
        [generate] [profile] for [plain_target].
        [give] me [target].
        [give] [profile] of [plain_target]
        [pseudo] [generation] of [plain_target]
        new sample: [target]
        simulate the counts of [plain_target].
        write [profile] of [plain_target].
        [generate] counts for [target]
        run a simulation of [target]
        now [generate] [target]
        next: [target]
        output [target]
        ~ dream up [target].
        ~ roll me [target]
        ~ render [plain_target] as counts
        """,
    ),
    *_frames(
        "generation",
        "short",
        "fragment",
        """
        [target]
        one:: {type} [profile_word][cond][where]:
        one:: {type}[cond][where] ->
        one:: pseudo-cell, {type}[cond][where]
        one:: synthetic {type}[cond][where]:
        one:: cell type: {type}[cond][where]; [profile_word]:
        one:: {a_type}[cond][where], please
        [profile_word] of [plain_target]:
        sample: [plain_target]
        ~ wanted: [target]
        ~ one:: {type}[cond][where], counts out
        """,
    ),
    *_frames(
        "generation",
        "sentence",
        "polite",
        """
        [could_you] [generate] [target]?
        [could_you] [generate] [target] for me?
        [could_you] [give] me [target]?
        [could_you] [generate] [profile] of [plain_target]?
        [could_you] show me what [plain_target] would look like?
        would you mind [generating] [target]?
        would it be possible to [generate] [target]?
        is it possible to [generate] [target]?
        I would like [target].
        I would like you to [generate] [target].
        I would like to have [target] to test my pipeline.
        I need [target].
        I need [target] for a simulation study.
        I need some data: [target].
        I want to see [target].
        I [grateful] if you could [generate] [target].
        I [thankful] for [target].
        we are short of {types}[where], so please [generate] [target].
        our data set has too few {types}[where]. [could_you] [generate] [target]?
        please [generate] [target], as realistic as you can.
        please help me to [generate] [target].
        let us [generate] [target].
        may I have [target]?
        ~ I'd be thrilled to receive [target].
        ~ my classifier is starving for examples: [could_you] cook up [target]?
        """,
    ),
    *_frames(
        "generation",
        "sentence",
        "question",
        """
        one:: what does [typical] {type} look like[cond_where]?
        what would [profile] of [plain_target] look like?
        what could [plain_target] look like in a count matrix?
        what are the counts of [plain_target]?
        which counts would you expect in [plain_target]?
        how would [plain_target] look like?
        one:: how does [typical] {type} express its genes[cond_where]? show me.
        do you know how {types} look like[cond_where]? [generate] [n_cells].
        can I get [target]?
        can we [generate] [target]?
        suppose I sequenced [plain_target]: what would I see?
        imagine [plain_target]. what are its counts?
        ~ if I caught [plain_target] on a chip, which counts would come out?
        ~ got any [pseudo_word] {types}[cond][where] to spare, say [n_cells]?
        """,
    ),
)

DRUG = (
    *_frames(
        "drug",
        "sentence",
        "sensitive",
        """
        [is_np][hint] sensitive to [drug]?
        [do_np][hint] respond to [drug]?
        will [subject][hint] respond to [drug]?
        would [subject][hint] respond to [drug]?
        would [drug] work on [np][hint]?
        would [drug] [kill] [np][hint]?
        will [drug] [kill] [np][hint]?
        is [drug] effective against [np][hint]?
        does [drug] have an effect on [np][hint]?
        can [drug] [kill] [np][hint]?
        should I expect [np][hint] to respond to [drug]?
        do you think [np_is] sensitive to [drug][hint]?
        do you think that [drug] works on [np][hint]?
        is there any hope that [drug] works on [np][hint]?
        I wonder whether [np_is] sensitive to [drug][hint].
        [could_you] tell me if [np_is] sensitive to [drug][hint]?
        [could_you] tell me whether [drug] works on [np][hint]?
        I [grateful] if you could tell me whether [np_is] sensitive to [drug][hint].
        ~ would you bet on [drug] against [np][hint]?
        ~ has [drug] got a chance with [np][hint]?
        """,
        polarity="sensitive",
    ),
    *_frames(
        "drug",
        "sentence",
        "resistant",
        """
        [is_np][hint] resistant to [drug]?
        [do_np][hint] resist [drug]?
        will [subject][hint] survive [drug]?
        would [subject][hint] survive treatment with [drug]?
        do you think [np_is] resistant to [drug][hint]?
        [could_you] tell me if [np_is] resistant to [drug][hint]?
        I fear that [np_is] resistant to [drug][hint]. is that so?
        ~ will [subject][hint] shrug off [drug]?
        """,
        polarity="resistant",
    ),
    *_frames(
        "drug",
        "sentence",
        "question",
        """
        what is the response of [np][hint] to [drug]?
        what happens if I treat [np][hint] with [drug]?
        what would [drug] do to [np][hint]?
        what response to [drug] do you predict for [np][hint]?
        how [do_np][hint] respond to [drug]?
        how [do_np][hint] react to [drug]?
        how will [subject][hint] react to [drug]?
        how sensitive [is_np][hint] to [drug]?
        how well does [drug] work on [np][hint]?
        [is_np][hint] [sensitive_or_resistant] to [drug]?
        are we dealing with [sensitive_or_resistant] cells[hint] when it comes to [drug], looking at [np]?
        [could_you] predict how [subject][hint] would respond to [drug]?
        [could_you] predict the [drug_plain] response of [np][hint]?
        [could_you] tell me how [subject][hint] will react to [drug]?
        [could_you] tell me whether [np_is] [sensitive_or_resistant] to [drug][hint]?
        [could_you] check the [drug_plain] sensitivity of [np][hint]?
        I would like to know whether [np_is] [sensitive_or_resistant] to [drug][hint].
        I would like to know how [subject][hint] will respond to [drug].
        I need to know if [np_is] [sensitive_or_resistant] to [drug][hint].
        we plan to treat [np][hint] with [drug]. what should we expect?
        we consider [drug] for [np][hint]. [sensitive_or_resistant]?
        I [grateful] if you could predict the response of [np][hint] to [drug].
        please tell me how [subject][hint] will respond to [drug].
        ~ give me your verdict on [drug] for [np][hint], would you?
        ~ once [drug] is in the dish, what becomes of [np][hint]?
        """,
    ),
    *_frames(
        "drug",
        "short",
        "command",
        """
        predict the response of [np][hint] to [drug]
        predict the response of [np][hint] to [drug].
        predict [drug_plain] response for [np][hint]
        predict [drug_plain] sensitivity of [np][hint].
        [classify_drug] [np][hint] as [sensitive_or_resistant] to [drug]
        [classify_drug] [np][hint] by [drug_plain] response.
        estimate the sensitivity of [np][hint] to [drug].
        [give] the [drug_plain] response of [np][hint]
        say whether [np_is] [sensitive_or_resistant] to [drug][hint].
        decide: [sensitive_or_resistant] to [drug]? [np][hint]
        drug: [drug]. [classify_drug] [np][hint].
        test [np][hint] against [drug]
        run drug response prediction for [drug] on [np][hint]
        ~ call the [drug_plain] outcome for [np][hint]
        ~ rule on [drug] versus [np][hint]
        """,
    ),
    *_frames(
        "drug",
        "short",
        "fragment",
        """
        response to [drug][hint]:
        response of [np][hint] to [drug]?
        [drug_plain] response[hint]?
        [drug_plain] response of [np][hint]
        [drug_plain] sensitivity[hint]:
        [drug_plain]: [sensitive_or_resistant][hint]?
        [sensitive_or_resistant] to [drug][hint]?
        {cells} + [drug_plain] = ?
        {cells} [drug_plain]?
        {cells}: [sensitive_or_resistant] to [drug_plain][hint]?
        [drug_plain] -> {cells}[hint]:
        effect of [drug] on [np][hint]?
        outcome under [drug][hint]:
        drug = [drug_plain][hint]; response =
        ~ [drug_plain] vs {cells}[hint]: verdict?
        """,
    ),
)

MARKERS = (
    *_frames(
        "markers",
        "sentence",
        "question",
        """
        what marks {a_type}[hint]?
        what marks {types}[hint]?
        what are the [markers] of {types}[hint]?
        what are [good] [markers] for {types}[hint]?
        what is [a_good_marker] for {types}[hint]?
        which genes [mark] {types}[hint]?
        which genes [mark] {a_type}[hint]?
        which [markers] should I use for {types}[hint]?
        which [markers] do people use for {types}[hint]?
        which genes are [specific] {types}[hint]?
        which genes are typical of {types}[hint]?
        which transcripts are enriched in {types}[hint]?
        which genes distinguish {types} from other cells[hint]?
        what genes do {types} express[hint]?
        what genes should I look at to find {types}[hint]?
        what is the gene signature of {types}[hint]?
        what is {a_type} known to express[hint]?
        how do I recognise {types}[hint]?
        how can I recognise {a_type} from its genes[hint]?
        how do I find {types} in my data[hint]?
        how can I tell that a cell is {a_type}[hint]?
        how would you identify {types} by expression[hint]?
        by which genes can I identify {types}[hint]?
        do you know [good] [markers] for {types}[hint]?
        are there [good] [markers] for {types}[hint]?
        I am looking for {types}[hint]. which genes help?
        I think one cluster is {types}[hint]. what should I check?
        ~ what gives {a_type} away in a count matrix[hint]?
        ~ which genes would you stain for to see {types}[hint]?
        ~ what is the transcriptional fingerprint of {types}[hint]?
        """,
    ),
    *_frames(
        "markers",
        "sentence",
        "polite",
        """
        [could_you] tell me the [markers] of {types}[hint]?
        [could_you] tell me which genes [mark] {types}[hint]?
        [could_you] list [count][markers] of {types}[hint]?
        [could_you] give me [count][markers] for {types}[hint]?
        [could_you] name [count][markers] of {types}[hint]?
        [could_you] recommend [count][good] [markers] for {types}[hint]?
        would you mind listing [count][markers] for {types}[hint]?
        I would like to know the [markers] of {types}[hint].
        I need [count][markers] for {types}[hint].
        I need to identify {types}[hint]. which genes should I plot?
        I [grateful] if you could list [count][markers] of {types}[hint].
        I [thankful] for [count][good] [markers] of {types}[hint].
        please tell me what marks {types}[hint].
        please remind me of the [markers] of {types}[hint].
        ~ I keep forgetting which genes belong to {types}[hint], could you jog my memory?
        ~ might you point me to [count]genes that betray {types}[hint]?
        """,
    ),
    *_frames(
        "markers",
        "short",
        "command",
        """
        list [count][markers] of {types}[hint]
        list [count][markers] for {types}[hint].
        name [count][markers] of {types}[hint]
        name [count]genes that [mark] {types}[hint].
        [give] [count][markers] of {a_type}[hint]
        [give] me [count][markers] for {types}[hint].
        please list [count][markers] of {types}[hint].
        show [count][markers] of {types}[hint]
        tell me [count][markers] for {types}[hint]
        find [count][markers] for {types}[hint]
        suggest [count][markers] for {types}[hint]
        recommend [count][markers] to identify {types}[hint]
        ~ jot down [count][markers] for {types}[hint]
        ~ line up [count]genes that stand for {types}[hint]
        """,
    ),
    *_frames(
        "markers",
        "short",
        "fragment",
        """
        {type} markers[hint]?
        {type} markers[hint]
        {type} marker genes[hint]:
        {type} signature[hint]:
        [markers] of {types}[hint]
        [markers] of {types}[hint]?
        [markers] for {type}[hint]:
        [markers], {types}[hint]
        top [count]{type} genes[hint]
        genes specific for {types}[hint]:
        genes that [mark] {types}[hint]:
        canonical genes of {a_type}[hint]:
        {types}[hint]: which genes?
        q: [markers] of {types}[hint]? a:
        ~ {types} at a glance[hint], genes only:
        ~ gene panel against {types}[hint]:
        """,
    ),
)

FRAMES: dict[Task, tuple[Frame, ...]] = {
    "annotation": ANNOTATION,
    "generation": GENERATION,
    "drug": DRUG,
    "markers": MARKERS,
}


def _alts(texts: str, **shared: str) -> tuple[Alt, ...]:
    """Read one alternative a line: ``3* `` its weight, ``many:: `` a feature it needs, ``""`` no text."""
    alts = []
    for line in filter(None, (line.strip() for line in texts.splitlines())):
        weight, line = line.split("* ", 1) if line[0].isdigit() and "* " in line[:5] else ("1", line)
        when, text = line.split(":: ", 1) if ":: " in line else ("", line)
        needs = f"{shared.get('when', '')} {when}".strip()
        alts.append(Alt(text.replace('"', ""), float(weight), needs))
    return tuple(alts)


# Who is meant: np_s takes a singular verb, np_p a plural one. A nonterminal without a live alternative takes its users
# with it, so that one cell never becomes "are these cells".
NOUN_PHRASES = {
    "np_s": _alts(
        """
        6* one outside:: this cell
        3* one outside:: the cell
        2* one outside:: my cell
        one outside:: this single cell
        one outside:: this one
        one outside:: the uploaded cell
        one outside:: the cell above
        one outside:: the attached cell
        one outside:: this unknown cell
        4* one inside:: this cell {cells}
        4* one inside:: {cells}
        2* one inside:: the cell {cells}
        one inside:: the following cell {cells}
        one inside:: cell {cells}
        one inside:: this cell ({cells})
        one inside:: this one, {cells},
        3* many outside:: this cluster
        2* many outside:: this group of cells
        many outside:: the cluster
        many outside:: this population
        many outside:: this set of cells
        many outside:: my cluster
        many outside:: cluster {number}
        3* many inside:: this cluster {cells}
        many inside:: the cluster {cells}
        many inside:: this group of cells ({cells})
        many inside:: the population {cells}
        many inside:: cluster {number} ({cells})
        """
    ),
    "np_p": _alts(
        """
        7* many outside:: these cells
        3* many outside:: the cells
        2* many outside:: my cells
        2* many outside:: these {n} cells
        many outside:: those cells
        many outside:: all of these cells
        many outside:: the selected cells
        many outside:: the uploaded cells
        many outside:: the cells of this cluster
        many outside:: these unknown cells
        5* many inside:: these cells {cells}
        3* many inside:: {cells}
        2* many inside:: the cells {cells}
        many inside:: cells {cells}
        many inside:: these {n} cells {cells}
        many inside:: the following cells {cells}
        many inside:: these cells ({cells})
        """
    ),
    "np": _alts(
        """
        6* [np_s]
        8* [np_p]
        one outside:: it
        2* many outside:: them
        """
    ),
    "subject": _alts(
        """
        6* [np_s]
        8* [np_p]
        one outside:: it
        2* many outside:: they
        """
    ),
    "is_np": _alts(
        """
        6* is [np_s]
        8* are [np_p]
        2* one outside:: is this
        one outside:: is it
        2* many outside:: are they
        many outside:: are these
        """
    ),
    "np_is": _alts(
        """
        6* [np_s] is
        8* [np_p] are
        one outside:: this is
        one outside:: it is
        many outside:: they are
        many outside:: these are
        """
    ),
    "do_np": _alts(
        """
        6* does [np_s]
        8* do [np_p]
        many outside:: do they
        """
    ),
    "is_np_again": _alts("one:: is it\nmany:: are they\nmany:: are these"),
    "are_they": _alts("one:: is it\nmany:: are they"),
    "cell_word": _alts("one:: cell\nmany:: cells"),
}

# What is known about the sample. The last line of each keeps the nonterminal empty when nothing is known.
HINTS = {
    "hint": _alts(
        """
        3* species tissue !tech:: "" from {species} {tissue}
        species tissue !tech:: "" from a {species} {tissue} sample
        species tissue !tech:: "" in {species} {tissue}
        species tissue !tech:: "" ({species} {tissue})
        species tissue !tech:: "" ({species}, {tissue})
        species tissue !tech:: "", {species} {tissue}
        2* species tissue tech:: "" from {species} {tissue} ({technology})
        species tissue tech:: "" from {species} {tissue}, sequenced with {technology}
        species tissue tech:: "" ({species} {tissue}, {technology})
        species tissue tech:: "" in {technology} data of {species} {tissue}
        species !tissue !tech:: "" from {species}
        species !tissue !tech:: "" ({species})
        species !tissue !tech:: "" in {species}
        species !tissue tech:: "" from {species}, {technology} data
        species !tissue tech:: "" ({species}, {technology})
        2* !species tissue !tech:: "" from {tissue}
        !species tissue !tech:: "" from {a_tissue} sample
        !species tissue !tech:: "" in {tissue}
        !species tissue !tech:: "" ({tissue})
        !species tissue !tech:: "" of the {tissue}
        !species tissue tech:: "" from {tissue}, {technology}
        !species tissue tech:: "" ({tissue}, {technology})
        !species !tissue tech:: "" ({technology})
        !species !tissue tech:: "" from a {technology} run
        !species !tissue tech:: "" measured with {technology}
        !species !tissue !tech:: ""
        """
    ),
    "where": _alts("[hint]"),
    "cond_where": _alts("[cond][where]"),
    "cond": _alts(
        """
        3* stimulus:: "" stimulated with {stimulus}
        stimulus:: "" after {stimulus}
        stimulus:: "" treated with {stimulus}
        stimulus:: "" under {stimulus}
        stimulus:: "" ({condition})
        stimulus:: "", {condition}
        2* state:: "" ({condition})
        state:: "", {condition}
        state:: "", condition {condition}
        !condition:: ""
        """
    ),
    "prefix": _alts(
        """
        6* species tissue !tech:: {species} {tissue} |
        2* species tissue tech:: {species} {tissue} |
        species tissue tech:: {species} {tissue} {technology} |
        species tissue tech:: {technology}, {species} {tissue} |
        species tissue tech:: {species} | {tissue} | {technology} |
        species tissue !tech:: {species}, {tissue} |
        species tissue !tech:: {species} {tissue}:
        species tissue !tech:: ({species} {tissue})
        species !tissue !tech:: {species} |
        species !tissue !tech:: {species}:
        species !tissue tech:: {species} {technology} |
        !species tissue !tech:: {tissue} |
        !species tissue !tech:: {tissue}:
        !species tissue tech:: {tissue} {technology} |
        !species !tissue tech:: {technology} |
        """
    ),
    "hint_sentence": _alts(
        """
        3* species tissue !tech:: the sample is {species} {tissue}.
        species tissue !tech:: the data come from {species} {tissue}.
        species tissue !tech:: we took {tissue} from {species}.
        species tissue !tech:: species: {species}. tissue: {tissue}.
        species tissue !tech:: tissue: {tissue}, species: {species}.
        species tissue !tech:: I work on {species} {tissue}.
        species tissue !tech:: this is {species} {tissue}.
        2* species tissue tech:: the sample is {species} {tissue}, sequenced with {technology}.
        species tissue tech:: species: {species}, tissue: {tissue}, technology: {technology}.
        species tissue tech:: this is {technology} data of {species} {tissue}.
        species tissue tech:: we ran {technology} on {species} {tissue}.
        2* species !tissue !tech:: the species is {species}.
        species !tissue !tech:: species: {species}.
        species !tissue !tech:: the data are {species}.
        species !tissue tech:: it is {species} data from {technology}.
        species !tissue tech:: species: {species}; platform: {technology}.
        2* !species tissue !tech:: the tissue is {tissue}.
        !species tissue !tech:: tissue: {tissue}.
        !species tissue !tech:: the sample comes from {tissue}.
        !species tissue tech:: tissue: {tissue}. technology: {technology}.
        !species tissue tech:: the {tissue} sample was run on {technology}.
        !species !tissue tech:: it is a {technology} run.
        !species !tissue tech:: technology: {technology}.
        """
    ),
}

WORDS = {
    "kind": _alts("6* cell type\n2* type of cell\n2* kind of cell\ntype\nsort of cell\ncelltype\ncell identity"),
    "kinds": _alts("3* cell types\ntypes\nlabels"),
    "identity": _alts(
        "5* cell type\n2* identity\n2* cell identity\ntype\nlabel\ncell type label\nmost likely cell type"
    ),
    "annotate": _alts(
        "5* annotate\n3* identify\n2* classify\n2* label\nname\ncharacterise\ntype\nassign a cell type to"
    ),
    "predict": _alts("3* predict\n2* determine\ninfer\nfind\nwork out\nestimate"),
    "assign": _alts("2* assign\ngive\nattach\nadd"),
    "give": _alts("3* give\nprovide\nreturn\nreport\nsend"),
    "likely": _alts("3* likely\nprobable\nplausible"),
    "judging": _alts("2* judging by\nbased on\nlooking at\ngoing by\nfrom"),
    "expression": _alts(
        "the expression\nthe genes that are expressed\nthe transcriptome\nthe expression profile\nthe counts\n"
        "the marker genes"
    ),
    "could_you": _alts(
        """
        4* can you
        4* could you
        3* could you please
        2* can you please
        2* would you
        would you please
        would you be so kind as to
        could you possibly
        might you be able to
        are you able to
        do you think you could
        would you be able to
        held:: is there a chance you could
        """
    ),
    "grateful": _alts(
        "3* would be grateful\nwould be very grateful\nwould be most thankful\nwould appreciate it\n"
        "would really appreciate it\n"
        "would be so happy\nheld:: would be forever in your debt"
    ),
    "thankful": _alts("3* would be grateful\nwould be very grateful\nwould be most thankful\nwould be so happy"),
    # generation
    "generate": _alts(
        "6* generate\n3* simulate\n3* create\n2* make\n2* sample\n2* produce\nsynthesise\nsynthesize\ndraw\nbuild"
    ),
    "generating": _alts("3* generating\nsimulating\ncreating\nmaking"),
    "generation": _alts("generation\nsimulation"),
    "pseudo_word": _alts("3* synthetic\n2* simulated\n2* artificial\nin silico\nfake\nnew"),
    "pseudo": _alts("2* pseudo-cell\nin silico\nsynthetic"),
    "profile_word": _alts("2* expression profile\ntranscriptome\nprofile\ncounts"),
    "profile": _alts(
        "2* the expression profile\nan expression profile\nthe transcriptome\na transcriptome\n"
        "a count profile\nthe gene expression"
    ),
    "typical": _alts("2* a typical\nan average\na representative\na normal"),
    "n_cells": _alts("one:: one\none:: one of them\nmany:: {n} of them\nmany:: {n}"),
    "plain_target": _alts(
        """
        3* one:: {a_type}[cond][where]
        one:: one {type}[cond][where]
        one:: a single {type}[cond][where]
        3* many:: {n} {types}[cond][where]
        many:: several {types} ({n})[cond][where]
        """
    ),
    "target": _alts(
        """
        5* one:: {a_type}[cond][where]
        2* one:: one {type}[cond][where]
        one:: 1 {type}[cond][where]
        one:: a single {type}[cond][where]
        one:: another {type}[cond][where]
        one:: a cell of type {type}[cond][where]
        one:: a pseudo-cell of type {type}[cond][where]
        one:: a pseudo-cell ({type})[cond][where]
        one:: one [pseudo_word] {type}[cond][where]
        6* many:: {n} {types}[cond][where]
        2* many:: {n} [pseudo_word] {types}[cond][where]
        many:: {n} cells of type {type}[cond][where]
        many:: {n} pseudo-cells of type {type}[cond][where]
        many:: {n} new {types}[cond][where]
        many:: a batch of {n} {types}[cond][where]
        """
    ),
    # drug response
    "drug_plain": _alts("{drug}"),
    "drug": _alts(
        """
        6* {drug}
        2* target:: {drug}, {a_target} inhibitor,
        target:: the {target} inhibitor {drug}
        target:: {drug} (targets {target})
        treatment with {drug}
        the drug {drug}
        """
    ),
    "kill": _alts("2* kill\nstop\naffect\nhit"),
    "classify_drug": _alts("2* classify\nlabel\nrate"),
    "sensitive_or_resistant": _alts("2* sensitive or resistant\nresistant or sensitive"),
    # markers
    "markers": _alts(
        "4* markers\n4* marker genes\ncanonical markers\nknown markers\ngene markers\ntypical genes\nsignature genes"
    ),
    "good": _alts("3* good\nreliable\nwell-known\nestablished\nclassic"),
    "a_good_marker": _alts("2* a good marker\nthe best marker\na reliable marker gene"),
    "mark": _alts("3* identify\n2* mark\ndefine\ncharacterise\nlabel"),
    "specific": _alts("2* specific for\nspecific to\ncharacteristic of\nhighly expressed in"),
    "count": _alts('3* ""\n2* count:: {count} ""\ncount:: the top {count} ""'),
}

AROUND = {
    "attach": _alts(
        """
        4* {cells}
        one:: cell: {cells}
        one:: here is the cell: {cells}
        one:: this is the cell: {cells}
        many:: cells: {cells}
        many:: here are the cells: {cells}
        many:: these are the cells: {cells}
        cells: {cells}
        data: {cells}
        expression: {cells}
        input: {cells}
        """
    ),
    "options_sentence": _alts(
        """
        3* options: {options}
        2* choose from: {options}.
        choose one of {options}.
        pick one: {options}
        possible answers: {options}.
        possible labels: {options}
        candidates: {options}
        the answer is one of {options}.
        it must be one of the following: {options}.
        use one of these labels: {options}.
        allowed: {options}
        held:: I only accept {options}.
        """
    ),
    "short_directive": _alts(
        """
        2* annotation:: label only.
        2* annotation:: answer with the label only.
        annotation:: only the cell type, please.
        annotation:: just the name.
        annotation:: reply with the cell type and nothing else.
        drug:: sensitive or resistant?
        drug:: answer with sensitive or resistant.
        drug:: one word is enough.
        drug:: in one word.
        generation:: only the counts.
        generation:: just the cells, no text.
        generation:: no words, please.
        markers:: genes only.
        markers:: just the gene symbols.
        markers:: a plain list, please.
        markers:: only the list.
        2* no explanation.
        no explanation needed.
        keep it short.
        only the answer, please.
        short answer please.
        reply with the answer and nothing else.
        don't explain, just answer.
        held:: spare me the prose.
        """
    ),
    "sentence_directive": _alts(
        """
        answer in a full sentence.
        please answer in a sentence.
        write a complete sentence.
        a full sentence please.
        answer in one sentence.
        held:: no bare words, a proper sentence.
        """
    ),
    "greeting": _alts(
        """
        4* hi,
        4* hello,
        2* hi there,
        2* hey,
        good morning.
        good afternoon!
        good evening,
        hello again.
        dear InstructCell,
        hi InstructCell,
        hello! I hope you are well.
        I hope this message finds you well.
        hi! thanks for your help so far.
        quick question:
        one more question:
        sorry to bother you.
        question:
        ok,
        great, thanks.
        held:: greetings, wise machine.
        held:: ahoy!
        held:: top of the morning to you.
        """
    ),
    "story": _alts(
        """
        I am new to single-cell analysis.
        I am a wet-lab biologist and have never done this before.
        I am preparing a figure for our paper.
        this is for our lab meeting on {weekday}.
        my supervisor wants the answer by {weekday}.
        the weather is terrible today.
        it has been a long week.
        I just got the data back from the sequencing core.
        the library was sequenced last {weekday}.
        we are writing a grant.
        reviewer 2 asked for this.
        I have been staring at this plot for hours.
        my colleague and I disagree about it.
        I already removed doublets and low-quality cells.
        the quality control looked fine.
        there are about {number}00 cells in the file.
        the UMAP has {number} clusters.
        I used scanpy for the preprocessing.
        we froze the sample in liquid nitrogen.
        the coffee machine is broken again.
        I will present this next {weekday}.
        it is my first week in the lab.
        by the way, the file is called sample{number}.h5ad.
        the donor was {number} years old.
        we used a new dissociation protocol.
        I lost my notes.
        sorry for the long message.
        I asked the same question on a forum but got no answer.
        the train was late this morning.
        held:: my cat walked over the keyboard while the pipeline ran.
        held:: the conference deadline is at midnight and the printer is on fire.
        held:: our plate reader broke down in {weekday}'s run.
        """
    ),
    "closing": _alts(
        """
        4* thanks!
        3* thank you.
        2* thank you very much!
        thanks in advance.
        thanks a lot for your help.
        many thanks
        cheers
        best wishes
        thx
        please
        I look forward to your answer.
        I really need this, thank you.
        have a nice day!
        no hurry.
        it is urgent.
        held:: much obliged, over and out.
        held:: kind regards from the bench
        """
    ),
}

ANSWERS = {
    "annotation": _alts(
        """
        5* one:: this is most likely {a_label}.
        2* one:: this cell is most likely {a_label}.
        2* one:: it looks like {a_label}.
        one:: the expression fits {a_label}.
        one:: I would call this cell {a_label}.
        one:: this cell belongs to the type: {label}.
        2* the most likely cell type is {label}.
        the cell type is {label}.
        4* many:: these cells are most likely {labels}.
        2* many:: these are most likely {labels}.
        many:: they look like {labels}.
        many:: their expression fits {labels}.
        many:: I would call these cells {labels}.
        """
    ),
    "guess_right": _alts(
        """
        one:: yes, this is most likely {a_label}.
        one:: yes, it looks like {a_label}.
        many:: yes, these are most likely {labels}.
        many:: yes, they look like {labels}.
        """
    ),
    "guess_wrong": _alts(
        """
        one:: no, this is most likely {a_label}.
        one:: no, it looks like {a_label}.
        many:: no, these are most likely {labels}.
        many:: no, they look like {labels}.
        """
    ),
    "contradiction": _alts(
        """
        one:: the cell does not look as if it came from {a_tissue} sample.
        one:: that is unexpected in {a_tissue} sample, but it is what the expression says.
        many:: the cells do not look as if they came from {a_tissue} sample.
        many:: that is unexpected in {a_tissue} sample, but it is what the expression says.
        """
    ),
    "generation": _alts(
        """
        3* one:: here is a pseudo-cell: {signals}
        2* one:: here is {a_label}: {signals}
        one:: this is what {a_label} could look like: {signals}
        one:: a generated {label}: {signals}
        3* many:: here are {n} pseudo-cells: {signals}
        2* many:: here are {n} generated {labels}: {signals}
        many:: these are {n} {labels}: {signals}
        """
    ),
    "drug": _alts(
        """
        3* one:: this cell is predicted to be {response} to {drug_name}.
        one:: it is most likely {response} to {drug_name}.
        one:: I expect this cell to be {response} to {drug_name}.
        3* many:: these cells are predicted to be {response} to {drug_name}.
        many:: they are most likely {response} to {drug_name}.
        many:: I expect these cells to be {response} to {drug_name}.
        predicted response to {drug_name}: {response}.
        """
    ),
    "drug_yes": _alts(
        """
        one:: yes, this cell is predicted to be {response} to {drug_name}.
        many:: yes, these cells are predicted to be {response} to {drug_name}.
        """
    ),
    "drug_no": _alts(
        """
        one:: no, this cell is predicted to be {response} to {drug_name}.
        many:: no, these cells are predicted to be {response} to {drug_name}.
        """
    ),
    "markers": _alts(
        """
        3* markers of {label} are {markers}.
        2* typical genes of {a_label} are {markers}.
        you can recognise {labels} by {markers}.
        look at {markers}.
        """
    ),
}

RULES: dict[str, tuple[Alt, ...]] = {
    **NOUN_PHRASES,
    **HINTS,
    **WORDS,
    **AROUND,
    **{f"answer_{name}": alternatives for name, alternatives in ANSWERS.items()},
}

SPECIES_NAMES = {
    "human": ("human", "human", "human", "Homo sapiens"),
    "mouse": ("mouse", "mouse", "murine", "Mus musculus"),
}

# The first name is the one canonical prompts use. Keys are the tissue names of the training files.
TISSUE_NAMES = {
    "pancreatic islet": ("pancreatic islet", "pancreatic islets", "pancreas", "islets of Langerhans", "islet"),
    "embryonic pancreas E15.5": (
        "embryonic pancreas",
        "embryonic pancreas E15.5",
        "developing pancreas",
        "fetal pancreas",
    ),
    "PBMC": ("PBMC", "PBMCs", "blood", "peripheral blood", "peripheral blood mononuclear cells"),
    "PBMC (lupus patients)": ("PBMC", "PBMCs of lupus patients", "lupus PBMC", "blood"),
    "breast tumour": ("breast tumour", "breast cancer", "breast tumor", "breast carcinoma"),
    "lung (healthy / tumour)": ("lung", "lung", "lung tissue", "lung tumour or healthy lung"),
    "preimplantation embryo": ("preimplantation embryo", "early embryo", "pre-implantation embryo", "embryo"),
    "melanoma tumour (CD45+)": ("melanoma tumour", "melanoma", "CD45+ cells of melanoma", "melanoma tumor"),
    "melanoma cell line": ("melanoma cell line", "melanoma line", "cultured melanoma", "melanoma"),
    "lung adenocarcinoma cell line": (
        "lung adenocarcinoma cell line",
        "lung cancer cell line",
        "NSCLC line",
        "lung line",
    ),
}

TECHNOLOGY_NAMES = {
    "inDrop": ("inDrop", "inDrops", "droplet"),
    "celseq": ("CEL-seq", "CELseq"),
    "celseq2": ("CEL-seq2", "CELseq2"),
    "CEL-seq2": ("CEL-seq2", "CELseq2", "plate-based"),
    "10x 3p v1": ("10x 3' v1", "10x v1", "10x Genomics", "10x"),
    "10x 3p v2": ("10x 3' v2", "10x v2", "Chromium v2", "10x"),
    "10x 5p": ("10x 5'", "10x 5 prime", "10x"),
    "Smart-seq2": ("Smart-seq2", "SMART-seq2", "plate-based full length"),
}
