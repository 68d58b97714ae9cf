"""Why this label and not that one: what each gene adds to the odds between them, beside what is known to mark them.

Where the encoder has reference profiles of both labels, a gene's part in the log-likelihood ratio between them
(`likelihood`) is its `contribution`, which is exact and orders the genes. Beside it stand the odds, which are those of
the read-out over the cell encoder (of the language model where a checkpoint has no read-out).
Integrated gradients (Sundararajan et al. 2017, by captum) lead to these cells from cells that have the same genes at
the average level of the file's other cells: `attribution` is what the level of a gene adds. Whether a gene is there at
all enters the encoder as a step, which has no gradient; so the genes that may matter are also taken away one by one:
`effect` is what the odds lose without the gene, and orders the genes where there are no profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from instructcell import batches
from instructcell.align import AlignedCells
from instructcell.analysis.likelihood import profile_ratio
from instructcell.analysis.measured import checked_rows
from instructcell.batches import AS_FOUND, Reading
from instructcell.checkpoint import Checkpoint
from instructcell.doctor import DatasetReport
from instructcell.errors import LabelError
from instructcell.labels import Label, LabelSet
from instructcell.processor import Answer, Prompt
from instructcell.prompts import annotation_prompt
from instructcell.readout import species_code
from instructcell.retrieval.grounding import MarkerEvidence, marker_evidence, percent

MOST_CELLS = 32  # read for one explanation
BACKGROUND_CELLS = 256  # other cells of the file, whose average is where the path begins
LEAST_BACKGROUND = 3
SMALLEST = 1e-9  # share of a cell's counts: keeps a gene present that no other cell has
N_STEPS, AT_ONCE = 16, 128  # of the path, and cells encoded together
CANDIDATES = 20  # genes at each end, by attribution and by how many more cells have them, that are taken away
LEAST_SHARE = 0.2  # of these cells that express a gene which is named
LEAST_EFFECT = 0.05  # of the strongest gene's, that a gene must have to be named
LEAST_ABSENT = 0.01  # as above, of a gene that is told to be absent: what is not there weighs less
SUPPORTS, CONTRADICTS, MISSING, ABSENT = "supports", "contradicts", "missing", "absent"
COLUMNS = [
    "gene",
    "symbol",
    "role",
    "contribution",
    "effect",
    "attribution",
    "share_of_cells",
    "mean",
    "background_share",
    "background_mean",
    "marks",
    "source",
]
Margin = Callable[[Tensor], Tensor]  # counts [n, G] -> log odds of the label over the runner-up [n]


@dataclass(frozen=True)
class Explanation:
    """What speaks for a label and what against it, in some cells.

    Attributes
    ----------
    label, runner_up
        Names of the two labels of the checkpoint; `label_id`, `runner_up_id` their Cell Ontology ids or "".
    probability, runner_up_probability
        Mean over the cells, of the reader named by `engine`, not calibrated.
    log_odds
        Mean natural log odds of the label over the runner-up.
    n_cells, rows
        How many cells it is about, and the positions of those that were read (32 at most).
    table
        One row per gene that is worth naming: `gene` (human symbol), `symbol` (as the file writes it), `role`
        ("supports", "contradicts", "absent": the runner-up's profile has more of it than these cells, or "missing": a
        marker of the label that these cells lack), `contribution` (natural log per 1,000 counts, to the likelihood
        ratio of the reference profiles; NaN without them), `effect` (log odds lost without the gene; NaN where the
        cells lack it), `attribution` (integrated gradients, log odds), `share_of_cells`, `mean` (counts per 10,000),
        `background_share`, `background_mean`, `marks` ("label", "runner-up", "both" or ""), `source` of the marker or
        "".
    evidence, counter_evidence
        Markers of the label and of the runner-up in these cells, with their sources.
    engine
        "readout" or "lm": what the odds are of.
    likelihood_ratio
        Natural log of how much likelier 1,000 counts of these cells are under the label's reference profile than under
        the runner-up's: the sum of all genes' contributions; None without profiles.
    """

    label: str
    label_id: str
    runner_up: str
    runner_up_id: str
    probability: float
    runner_up_probability: float
    log_odds: float
    n_cells: int
    rows: np.ndarray
    table: pd.DataFrame
    evidence: MarkerEvidence | None
    counter_evidence: MarkerEvidence | None
    engine: str = "readout"
    likelihood_ratio: float | None = None

    def of(self, role: str) -> pd.DataFrame:
        """The genes of one role."""
        return self.table[self.table["role"] == role].reset_index(drop=True)

    @property
    def supporting(self) -> pd.DataFrame:
        """Expressed genes that raise the odds of the label, the strongest first."""
        return self.of(SUPPORTS)

    @property
    def contradicting(self) -> pd.DataFrame:
        """Expressed genes that lower the odds of the label or mark the runner-up, the strongest first."""
        return self.of(CONTRADICTS)

    @property
    def absent(self) -> pd.DataFrame:
        """Genes of the runner-up's profile that these cells lack or have far less of, the most telling first."""
        return self.of(ABSENT)

    @property
    def missing(self) -> pd.DataFrame:
        """Markers of the label that the file measured and these cells lack."""
        return self.of(MISSING)

    def sentence(self, n: int = 3) -> str:
        """Two or three sentences: what speaks for the label, what against it, and why not the runner-up."""
        return " ".join(part for part in (self._why(n), self._why_not(n)) if part)

    def _why(self, n: int) -> str:
        genes = self.supporting.head(n)
        if genes.empty:
            return f"No single gene carries {self.label} against {self.runner_up}."
        return f"For {self.label} rather than {self.runner_up} speak {_listed(genes)}."

    def _why_not(self, n: int) -> str:
        against, missing = self.contradicting.head(n), self.missing.head(n)
        lacks = [] if self.counter_evidence is None else list(self.counter_evidence.not_expressed)
        absent = ", ".join(dict.fromkeys([*lacks, *self.absent["symbol"]][:n]))
        parts = []
        if absent:
            parts.append(f"Of the genes of {self.runner_up} these cells lack {absent}.")
        if not against.empty:
            parts.append(f"Against it speak {_listed(against)}.")
        if not missing.empty:
            parts.append(f"Of its own markers these cells lack {', '.join(missing['symbol'])}.")
        return " ".join(parts)


def explain(
    adata: AnnData,
    rows: Sequence[int] | np.ndarray,
    *,
    checkpoint: Checkpoint,
    label: str | None = None,
    runner_up: str | None = None,
    report: DatasetReport | None = None,
    reading: Reading = AS_FOUND,
    tissue: str | None = None,
    n_genes: int = 10,
    seed: int = 0,
) -> Explanation:
    """Explain the label of some cells against another label.

    Parameters
    ----------
    rows
        Positions of the cells; of more than 32 so many are drawn.
    checkpoint
        The loaded checkpoint that named the cells.
    label, runner_up
        Names of two of its labels ("natural killer cell"); None: the likeliest of these cells, and the next one.
    report, reading, tissue
        As for `annotate`: what the doctor said of the file, and how it was read.
    n_genes
        Genes of each role that are named at most.
    seed
        Of the draw of cells.

    Raises
    ------
    LabelError
        A label is not one of the checkpoint's, both are the same, or the checkpoint has only one.
    InstructCellError
        No cell was chosen.

    Examples
    --------
    >>> explain(adata, rows, checkpoint=checkpoint, runner_up="NK cell").sentence()  # doctest: +SKIP
    """
    chosen = np.unique(checked_rows(rows, adata.n_obs))
    rng = np.random.default_rng(seed)
    read = np.sort(rng.permutation(chosen)[:MOST_CELLS])
    others = np.setdiff1d(np.arange(adata.n_obs), chosen)
    others = np.sort(rng.permutation(others)[:BACKGROUND_CELLS])
    genes = checkpoint.processor.genes
    report = report or batches.look(adata, genes, reading)
    cells = batches.align_rows(adata, genes, report, read, reading)
    background = batches.align_rows(adata, genes, report, others, reading) if len(others) else None
    odds = _Odds(checkpoint, cells, species=reading.species or report.species, tissue=tissue)
    first, second = _two_labels(checkpoint, odds, label, runner_up)
    counts = _dense(cells)
    margin = odds.margin(first, second)
    with torch.no_grad():
        log_odds = float(margin(counts).mean())
    attribution = _attribution(margin, counts, _baseline(counts, background))
    found = _expression(cells, background, genes, report)
    found["attribution"] = attribution
    proof, counter = (_evidence(cells, background, genes, one, _own_names(report)) for one in (first, second))
    _mark(found, proof, counter)
    ratio = profile_ratio(checkpoint, counts, torch.from_numpy(np.asarray(cells.measured, bool)), first, second)
    found["contribution"] = np.nan if ratio is None else ratio.contribution.numpy().astype(np.float64)
    found["of_label"] = np.nan if ratio is None else ratio.more_in_first.numpy().astype(np.float64)
    found["effect"] = np.nan
    if ratio is None:
        _take_away(found, margin, counts, _candidates(found))
        table = _table(found, n_genes, by="effect")
    else:
        named = _table(found, n_genes, by="contribution")
        _take_away(
            found, margin, counts, found.index[found["gene"].isin(named["gene"]) & (found["share_of_cells"] > 0)]
        )
        table = _table(found, n_genes, by="contribution")
    probabilities = odds.probabilities()
    positions = [checkpoint.labels.index(one.name) for one in (first, second)]
    return Explanation(
        label=first.name,
        label_id=first.id,
        runner_up=second.name,
        runner_up_id=second.id,
        probability=float(probabilities[positions[0]]),
        runner_up_probability=float(probabilities[positions[1]]),
        log_odds=log_odds,
        n_cells=len(chosen),
        rows=read,
        table=table,
        evidence=proof,
        counter_evidence=counter,
        engine=odds.engine,
        likelihood_ratio=None if ratio is None else ratio.total,
    )


# ---- the odds


class _Odds:
    """What a checkpoint's reader makes of aligned cells: log odds that can be differentiated by the counts."""

    def __init__(self, checkpoint: Checkpoint, cells: AlignedCells, *, species: str | None, tissue: str | None) -> None:
        self.checkpoint, self.cells = checkpoint, cells
        self.engine = "lm" if checkpoint.readout is None else "readout"
        self.device = checkpoint.model.device
        self.measured = torch.from_numpy(np.asarray(cells.measured, bool)).to(self.device)
        self.species = species_code(species).to(self.device)
        self.prompt = Prompt.parse(annotation_prompt(species=species, tissue=tissue))

    def margin(self, label: Label, other: Label) -> Margin:
        """Counts [n, G] -> log odds [n] of `label` over `other`."""
        names = self.checkpoint.labels
        a, b = names.index(label.name), names.index(other.name)
        if self.engine == "readout":
            return lambda counts: (lambda said: said[:, a] - said[:, b])(self._read_out(counts))
        return lambda counts: self._say(counts, label.name) - self._say(counts, other.name)

    @torch.no_grad()
    def probabilities(self) -> np.ndarray:
        """Mean probability of each label over the cells [L]."""
        if self.engine == "readout":
            return self._read_out(_dense(self.cells).to(self.device)).exp().mean(0).cpu().numpy()
        said = torch.stack([self._say(_dense(self.cells), name) for name in self.checkpoint.labels.names], dim=1)
        return torch.softmax(said, dim=1).mean(0).cpu().numpy()

    def _read_out(self, counts: Tensor) -> Tensor:
        """Log probabilities of the labels [n, L]."""
        assert self.checkpoint.readout is not None
        embeddings = self.checkpoint.model.encode_cells(counts.to(self.device), self.measured)
        return self.checkpoint.readout(embeddings.float(), self.species.expand(len(counts), -1))

    def _say(self, counts: Tensor, name: str) -> Tensor:
        """Log probability that the language model answers with a name [n]."""
        model, n = self.checkpoint.model, len(counts)
        batch = self.checkpoint.processor([self.prompt] * n, [Answer.of(name)] * n).to(self.device)
        logits = model(**batch, counts=counts.to(self.device), measured=self.measured).logits
        labels = batch["labels"]
        if not model.config.is_encoder_decoder:  # position t predicts token t + 1
            logits, labels = logits[:, :-1], labels[:, 1:]
        said = torch.log_softmax(logits.float(), dim=-1).gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        return (said * (labels >= 0)).sum(1)


def _two_labels(checkpoint: Checkpoint, odds: _Odds, label: str | None, runner_up: str | None) -> tuple[Label, Label]:
    """The labels that were named; the likeliest ones for those that were not."""
    labels = checkpoint.labels
    if len(labels) < 2:
        raise LabelError(f"the checkpoint knows {len(labels)} label, expected at least 2 to tell apart")
    order = np.argsort(-odds.probabilities(), kind="stable")
    second = None if runner_up is None else _label(labels, runner_up)
    likeliest = [labels[int(at)] for at in order]
    first = _label(labels, label) if label is not None else next(one for one in likeliest if one != second)
    second = second or next(one for one in likeliest if one != first)
    if first == second:
        raise LabelError(f"{first.name!r} cannot be compared with itself; name another cell type")
    return first, second


def _label(labels: LabelSet, name: str) -> Label:
    """The label that a name means: its own, or one of the ontology's for the same type ("alpha cell")."""
    from instructcell.retrieval.names import load_name_book

    found = labels.find(name) or labels.find(load_name_book().cell_type(name) or "")
    if found is None:
        near = ", ".join(labels.close_to(name, 5)) or ", ".join(labels.names[:5])
        raise LabelError(f"{name!r} is not a cell type this checkpoint knows. Close ones: {near}")
    return found


# ---- what each gene adds


def _dense(cells: AlignedCells) -> Tensor:
    return torch.from_numpy(np.asarray(cells.counts.toarray(), np.float32))


def _baseline(counts: Tensor, background: AlignedCells | None) -> Tensor:
    """Where the path begins [n, G]: the same genes at their average level in the other cells, at the cell's depth.

    All levels are equal where there are too few other cells. Zero counts would not do: the encoder reads relative
    expression, which is the same at every depth.
    """
    level = torch.ones(counts.shape[1])
    if background is not None and background.counts.shape[0] >= LEAST_BACKGROUND:
        other = _dense(background)
        level = (other / other.sum(1, keepdim=True).clamp_min(SMALLEST)).mean(0).clamp_min(SMALLEST)
    start = (counts > 0) * level
    return start * (counts.sum(1, keepdim=True) / start.sum(1, keepdim=True).clamp_min(SMALLEST))


def _attribution(margin: Margin, counts: Tensor, baseline: Tensor) -> np.ndarray:
    """Integrated gradients of the log odds, mean over the cells [G]."""
    from captum.attr import IntegratedGradients

    found = IntegratedGradients(margin).attribute(
        counts, baseline, n_steps=N_STEPS, internal_batch_size=AT_ONCE, method="gausslegendre"
    )
    return found.detach().mean(0).cpu().numpy().astype(np.float64)


def _candidates(found: pd.DataFrame) -> list[int]:
    """The genes that may matter most: at both ends of the attribution and of the share of cells, and all markers."""
    expressed = found["share_of_cells"] >= LEAST_SHARE
    more = (found["share_of_cells"] - found["background_share"].fillna(0.0)).where(expressed)
    both_ends = []
    for by in (found["attribution"].where(expressed), more):
        order = by.dropna().sort_values(kind="stable").index
        both_ends += [*order[::-1][:CANDIDATES], *order[:CANDIDATES]]
    return list(dict.fromkeys([*both_ends, *found.index[expressed & (found["marks"] != "")]]))


def _take_away(found: pd.DataFrame, margin: Margin, counts: Tensor, candidates: Sequence[int] | pd.Index) -> None:
    """Write `effect`: the log odds that go with each of some genes; it stays NaN for the others."""
    with torch.no_grad():
        whole = margin(counts).mean()
        each = max(1, AT_ONCE // len(counts))
        for start in range(0, len(candidates), each):
            some = list(candidates[start : start + each])
            without = counts.repeat(len(some), 1, 1)  # [genes, n, G]
            without[torch.arange(len(some)), :, torch.tensor(some)] = 0.0
            left = margin(without.flatten(0, 1)).unflatten(0, (len(some), -1)).mean(1)
            found.loc[some, "effect"] = (whole - left).cpu().numpy()


# ---- what is known of each gene


def _expression(
    cells: AlignedCells, background: AlignedCells | None, genes: Sequence[str], report: DatasetReport
) -> pd.DataFrame:
    """One row per gene of the checkpoint: its share and mean in these cells and in the others."""
    own = _own_names(report)
    found = pd.DataFrame({"gene": list(genes), "symbol": [own.get(gene, gene) for gene in genes]})
    found["share_of_cells"], found["mean"] = _share_and_mean(cells)
    there = (np.nan, np.nan) if background is None else _share_and_mean(background)
    found["background_share"], found["background_mean"] = there
    found["measured"] = np.asarray(cells.measured, bool)
    return found


def _share_and_mean(cells: AlignedCells) -> tuple[np.ndarray, np.ndarray]:
    """Share of cells with each gene [G], and mean counts per 10,000 [G]."""
    counts = _dense(cells).numpy()
    total = counts.sum(axis=1, keepdims=True)
    scaled = np.divide(counts * 1e4, total, out=np.zeros_like(counts), where=total > 0)
    return (counts > 0).mean(axis=0), scaled.mean(axis=0)


def _own_names(report: DatasetReport) -> dict[str, str]:
    """Human symbol -> the mouse symbol, for a file of mouse cells; empty for human ones."""
    if report.species != "mouse":
        return {}
    from instructcell.genes import shipped_indices

    _, _, orthologs = shipped_indices()
    return {human: mouse for mouse, human in orthologs.items()}


def _evidence(
    cells: AlignedCells,
    background: AlignedCells | None,
    genes: Sequence[str],
    label: Label,
    own: dict[str, str],
) -> MarkerEvidence | None:
    """The markers of a label in these cells; None for a label that the ontology does not have."""
    try:
        return marker_evidence(
            cells.counts,
            genes,
            cells.measured,
            label.id or label.name,
            background=None if background is None else background.counts,
            gene_names=own,
        )
    except LabelError:
        return None


def _mark(found: pd.DataFrame, proof: MarkerEvidence | None, counter: MarkerEvidence | None) -> None:
    """Write `marks`, `source` and `lacking` (a marker of the label that these cells do not express)."""
    from instructcell.retrieval.marker_table import load_marker_table

    table = load_marker_table()
    sources: list[dict[str, str]] = []
    for evidence in (proof, counter):
        owner = None if evidence is None else table.owner(evidence.cl_id)
        rows = table.of_type(owner, 50) if owner else table.of_type("")
        sources.append(dict(zip(rows["gene"], rows["source"], strict=True)))
    of_label, of_other = sources
    marks = {True: {True: "both", False: "label"}, False: {True: "runner-up", False: ""}}
    found["marks"] = [marks[gene in of_label][gene in of_other] for gene in found["gene"]]
    found["source"] = [of_label.get(gene) or of_other.get(gene) or "" for gene in found["gene"]]
    absent = set() if proof is None else set(proof.not_expressed)
    found["lacking"] = found["symbol"].isin(absent) & (found["marks"] == "label")


def _table(found: pd.DataFrame, n: int, *, by: str) -> pd.DataFrame:
    """The genes worth naming: the strongest for and against, the runner-up's that are absent, the label's missing."""
    known = found.dropna(subset=[by])
    strong = known[known[by].abs() >= LEAST_EFFECT * known[by].abs().max()] if len(known) else known
    expressed = strong["share_of_cells"] >= LEAST_SHARE
    supports = strong[(strong["of_label"] != 0) & expressed & (strong[by] > 0) & ~strong["lacking"]].sort_values(
        by, ascending=False, kind="stable"
    )
    against = strong[expressed & (strong[by] < 0)].sort_values(by, kind="stable")
    weak = known[(known["of_label"] == 0) & (known[by] > 0)]
    absent = weak[weak[by] >= LEAST_ABSENT * known[by].abs().max()].sort_values(by, ascending=False, kind="stable")
    missing = found[found["lacking"] & found["measured"] & (found["share_of_cells"] < LEAST_SHARE)]
    parts = [
        part.head(n).assign(role=role)
        for part, role in ((supports, SUPPORTS), (against, CONTRADICTS), (absent, ABSENT), (missing, MISSING))
    ]
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _listed(genes: pd.DataFrame) -> str:
    """ "INS (98 % of these cells; marks it), IAPP (91 %)"."""
    words = {"label": "; a marker of it", "both": "; a marker of both", "runner-up": "; a marker of the other"}
    return ", ".join(
        f"{row.symbol} ({percent(float(row.share_of_cells), decimals=0)} of these cells{words.get(str(row.marks), '')})"
        for row in genes.itertuples()
    )
