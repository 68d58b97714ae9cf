"""The file as context: what its cells together say about each of them.

    a sample of the file -> label probabilities -> shares of the tissues (EM) -> readers of their types
                                                                              -> a soft prior on labels
                         -> embeddings          -> neighbours of a cell, whose labels it leans towards
                         -> the answers so far  -> a reader of the file's own cells

Readers are asked beside the language model: a linear one and one of marker genes (`tissue_readers`) on the genes of the
file, then one that learns the types as they look in the file (`readers.own_reader`). The prior is empirical Bayes over
the file: labels of tissues that the file does not hold become less likely, none becomes impossible. Neighbours count
the more, the less sure the model is of the file as a whole, and change nothing in a file that it is sure of. The sample
is chosen by position alone, so that a file has one context however it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch

from instructcell.labels import LabelSet
from instructcell.readers import Reader, own_reader, softmax
from instructcell.reference import Reference

if TYPE_CHECKING:
    from instructcell.tissue_readers import TissueReaders
    from instructcell.unseen_types import UnseenReader, UnseenTypes

SAMPLE_CELLS = 4000  # of a file make its context when the read-out reads them ...
SAMPLE_CELLS_BY_LM = 400  # ... or the language model, which is slower
NEAREST_AT_ONCE = 512  # cells whose similarities to the sample are in memory
RUN_CELLS = 8  # that a sample takes side by side
N_NEIGHBOURS = 15
CELLS_PER_NEIGHBOUR = 20  # smaller files have fewer neighbours, so that a rare type keeps to itself
OUTSIDE = 0.02  # chance that a cell has a label that its tissue is not known for
PRESENT = 0.1  # share of the cells from which on a tissue counts as wholly there
THERE = 0.05  # share of the cells from which on a tissue's types are among those of its readers
FEW_CELLS = 30  # a file of so many cells has half of the weight of the prior and the readers
LEAST_FOR_READERS = 10  # cells whose tissues are told well enough for readers of their types
SHIFT_OF = (2.0, 3.0)  # a familiar file, and a strange one: times the usual distance from training ...
OF_SURPRISE = 0.2  # what a spread more of an unseen type's markers adds to the logarithm of a cell's distance
SHARPER = 0.3  # of the temperature that strange files do without: readers that agree are surer than their mean
STRANGE = 0.5  # from which on an answer says what else was asked
DOUBT_OF = (0.1, 0.18)  # ... or the language model's mean doubt
DOUBT = 0.1  # mean doubt of a file from which on neighbours have their whole weight
FLOOR = 1e-4  # probability below which a neighbour's label is not told from impossible
MOST_SHIFT = 3.0  # times the usual distance that a whole file may lie away and still be measured by its own median
LEAST_FOR_CONTRADICTION = 10  # cells that can contradict what was said of their tissue
CONTRADICTED_BELOW, CONTRADICTED_ABOVE = 0.3, 0.7  # probability of the labels of the tissue that was said, and another
FAR_FILE = 1.5  # times the usual distance from which on an answer says that the file is unusual
OBS_COLUMNS = ("tissue", "tissue_general", "organ")  # of a file that may name its tissue


@dataclass(frozen=True)
class ContextSettings:
    """How much the file counts; fitted by `train.calibrate`, neutral where a checkpoint has no such figures.

    Attributes
    ----------
    floor
        Factor on labels of tissues that the file does not hold, 0..1; 1 switches the prior off.
    neighbour_weight
        Weight of the neighbours beside the cell itself, in a file of great doubt.
    temperature
        Of the probabilities with context.
    linear_weight, marker_weight, own_weight
        Weights of the linear reader, the reader of markers and that of the file's own cells in a strange file, each
        beside the 1 of what was said before; 0 asks none.
    """

    floor: float = 1.0
    neighbour_weight: float = 0.0
    temperature: float = 1.0
    linear_weight: float = 0.0
    marker_weight: float = 0.0
    own_weight: float = 0.0

    @classmethod
    def of(cls, calibration: Mapping[str, float]) -> ContextSettings:
        """From calibration.json; absent figures are neutral."""
        return cls(
            float(calibration.get("context_floor", 1.0)),
            float(calibration.get("neighbour_weight", 0.0)),
            float(calibration.get("context_temperature", 1.0)),
            *(float(calibration.get(f"{name}_weight", 0.0)) for name in ("linear", "marker", "own")),
        )

    @property
    def is_neutral(self) -> bool:
        """Whether context changes nothing."""
        return self.floor >= 1.0 and self.neighbour_weight <= 0.0 and not self.asks_readers

    @property
    def asks_readers(self) -> bool:
        """Whether anything beside the language model is asked."""
        return max(self.linear_weight, self.marker_weight, self.own_weight) > 0


@dataclass(frozen=True)
class TissueHint:
    """A tissue that the user or the file names.

    `tissue` is what it is called here, "" where no label is known to come from it; `looks_like` is the tissue that the
    cells look like instead, "" where they do not contradict.
    """

    said: str
    by: str = "you"
    tissue: str = ""
    looks_like: str = ""


@dataclass(frozen=True)
class FileContext:
    """What a sample of a file says of its cells; M cells of the sample, L labels, Z numbers of an embedding.

    Attributes
    ----------
    tissues
        Shares of the tissues, largest first.
    log_prior
        [L] added to the log-probabilities.
    composition
        [L] mean probability of the labels: what cells of the file are, all together.
    unit, log_probability, distance
        Of the sample: embeddings of unit length [M, Z], probabilities with the prior [M, L], distance from what
        training saw [M].
    n_neighbours, neighbour_weight
        How many neighbours count, and how much beside the cell itself.
    shift
        How much farther the file lies from training than is usual, 1 or more.
    strangeness
        How far the language model cannot be relied on in the file, 0..1.
    readers
        What is asked beside the language model, in turn, with its weight beside the 1 of what was said before.
    unseen
        What tells cells of types that training never saw by their marker genes.
    """

    tissues: dict[str, float]
    log_prior: np.ndarray
    composition: np.ndarray
    unit: np.ndarray = field(repr=False)
    log_probability: np.ndarray = field(repr=False)
    distance: np.ndarray = field(repr=False)
    n_neighbours: int = 0
    neighbour_weight: float = 0.0
    temperature: float = 1.0
    shift: float = 1.0
    strangeness: float = 0.0
    hint: TissueHint | None = None
    readers: tuple[tuple[Reader, float], ...] = field(default=(), repr=False)
    unseen: UnseenReader | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        labels: LabelSet,
        probabilities: np.ndarray,
        embedding: np.ndarray,
        settings: ContextSettings,
        *,
        reference: Reference | None = None,
        hint: TissueHint | None = None,
        counts: sp.csr_matrix | None = None,
        fit: Callable[[Sequence[str]], TissueReaders | None] | None = None,
    ) -> FileContext:
        """The context that a sample makes.

        Parameters
        ----------
        probabilities, embedding
            Calibrated probabilities [M, L] of the sample's cells, each read by itself, and their embeddings [M, Z].
        hint
            The tissue that was said; one that the cells contradict is set aside.
        counts, fit
            Counts [M, G] of the sample's cells, and what makes the readers of the types of some tissues on the file's
            genes (None where it knows too few); without them none is asked.
        """
        names, members = tissue_labels(labels)
        hint = None if hint is None else checked(hint, names, members, probabilities)
        shares = tissue_shares(probabilities, members, None if hint is None else _position(hint, names))
        n_cells = len(probabilities)
        enough = n_cells / (n_cells + FEW_CELLS)
        distance = np.zeros(n_cells) if reference is None else reference.distance(embedding)
        shift = None if reference is None else float(np.median(distance)) / max(reference.usual, 1e-6)
        strange = strangeness(probabilities, shift)
        readers: list[tuple[Reader, float]] = []
        unseen: UnseenTypes | None = None
        if fit is not None and counts is not None and n_cells >= LEAST_FOR_READERS and settings.asks_readers:
            found = fit([name for name, share in zip(names, shares, strict=True) if share >= THERE])
            readers = [] if found is None else found.asked(probabilities, counts, settings, strange, enough)
            unseen = None if found is None else found.unseen
        order = np.argsort(-shares, kind="stable")
        context = cls(
            tissues={names[i]: float(shares[i]) for i in order},
            log_prior=label_prior(shares, members, settings.floor) * enough,
            composition=np.zeros(len(labels)),
            unit=unit_length(embedding),
            log_probability=np.zeros((n_cells, len(labels))),
            distance=distance,
            n_neighbours=min(N_NEIGHBOURS, n_cells // CELLS_PER_NEIGHBOUR),
            temperature=settings.temperature * (1.0 - SHARPER * strange if len(readers) > 1 else 1.0),
            shift=float(np.clip(shift or 1.0, 1.0, MOST_SHIFT)),
            strangeness=strange,
            hint=hint,
        ).asking(readers, probabilities, counts, settings)
        weight = settings.own_weight * strange * enough
        if counts is None or n_cells < LEAST_FOR_READERS:
            return context
        seen = context.apply(probabilities, context.nearest(embedding), counts)
        own = own_reader(seen, counts) if weight > 0 else None
        if own is not None:
            context = context.asking([*readers, (own, weight)], probabilities, counts, settings)
        return context if unseen is None else replace(context, unseen=unseen.in_file(seen, counts))

    def asking(
        self,
        readers: Sequence[tuple[Reader, float]],
        probabilities: np.ndarray,
        counts: sp.csr_matrix | None,
        settings: ContextSettings,
    ) -> FileContext:
        """The same with these readers, whose word the sample's cells have then had.

        Parameters
        ----------
        probabilities, counts
            Of the sample's cells [M, L] and [M, G].
        """
        for reader, weight in readers if counts is not None else ():
            probabilities = reader.beside(probabilities, counts, weight)
        with_prior = normalised(probabilities * np.exp(self.log_prior))
        doubt = 1.0 - float(with_prior.max(axis=1).mean())
        return replace(
            self,
            readers=tuple(readers),
            composition=with_prior.mean(axis=0),
            log_probability=np.log(with_prior + FLOOR),
            neighbour_weight=settings.neighbour_weight * min(1.0, doubt / DOUBT) if self.n_neighbours else 0.0,
        )

    def apply(self, probabilities: np.ndarray, nearest: np.ndarray, counts: sp.csr_matrix | None = None) -> np.ndarray:
        """Probabilities [n, L] of cells whose neighbours in the sample are `nearest` [n, k], seen in the file.

        Parameters
        ----------
        counts
            Of the cells [n, G], for the readers; without them none is asked.
        """
        for reader, weight in self.readers if counts is not None else ():
            probabilities = reader.beside(probabilities, counts, weight)
        scores = np.log(np.clip(probabilities, 1e-8, 1.0)) + self.log_prior
        if self.neighbour_weight > 0:
            scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
            around = self.log_probability[nearest].mean(axis=1)  # [n, L]
            scores = (scores + self.neighbour_weight * around) / (1.0 + self.neighbour_weight)
        scores /= self.temperature
        return softmax(scores)

    def distances(self, distance: np.ndarray, nearest: np.ndarray, surprise: np.ndarray | None = None) -> np.ndarray:
        """Distances [n] of cells from training: half their neighbours', and as if the file lay where files usually lie.

        A whole file that lies far away is another technology before it is full of unseen types.

        Parameters
        ----------
        surprise
            [n] of the cells, as `unseen` reads it: markers of unseen types put a cell farther away.
        """
        if self.n_neighbours:
            distance = 0.5 * distance + 0.5 * self.distance[nearest].mean(axis=1)
        return distance / self.shift * (1.0 if surprise is None else np.exp(OF_SURPRISE * surprise))

    def surprise(self, counts: sp.csr_matrix) -> tuple[np.ndarray | None, np.ndarray]:
        """How much more cells [n, G] look like an unseen type than like a known one [n], and like which [n], or -1."""
        if self.unseen is None:
            return None, np.full(counts.shape[0], -1)
        return self.unseen.read(counts)

    def nearest(self, embedding: np.ndarray) -> np.ndarray:
        """Positions in the sample [n, k] of the cells nearest by angle to those with embeddings [n, Z]."""
        found = []
        for cells in torch.from_numpy(unit_length(embedding)).split(NEAREST_AT_ONCE):
            similarity = cells @ torch.from_numpy(self.unit).T  # [n, M]
            found.append(similarity.topk(self.n_neighbours, dim=1, sorted=False).indices)
        return torch.cat(found).numpy()

    @property
    def looks_like(self) -> list[str]:
        """The tissues of a good part of the cells, the largest first."""
        return [name for name, share in self.tissues.items() if share >= 2 * PRESENT]

    @property
    def sentences(self) -> list[str]:
        """What an answer says of the context: standard terms, one sentence each."""
        said = []
        tissues = " and ".join(self.looks_like)
        hint = self.hint
        if hint is not None and hint.looks_like:
            whose = "You said" if hint.by == "you" else "The file says"
            said.append(f"{whose} {hint.said}, but the cells look like {hint.looks_like}; the hint was set aside.")
        if tissues:
            said.append(f"The file as a whole looks like {tissues}; that was used as context.")
        if self.shift >= FAR_FILE:
            also = (
                ", so marker genes and the file's own groups were asked as well" if self.strangeness >= STRANGE else ""
            )
            said.append(f"The cells differ from those of the training studies{also}; the labels are less certain.")
        return said


def strangeness(probabilities: np.ndarray, shift: float | None) -> float:
    """How unlike the studies a file is that the language model was trained on, 0..1.

    Files of other studies lie farther from all training cells (docs/trials.md). Without that distance the model's doubt
    stands for it.

    Parameters
    ----------
    probabilities
        The language model's [M, L] of the sample's cells.
    shift
        Times the usual distance from training cells; None where a checkpoint does not know where these lie.
    """
    measured = 1.0 - float(probabilities.max(axis=1).mean()) if shift is None else shift
    familiar, strange = DOUBT_OF if shift is None else SHIFT_OF
    return float(np.clip((measured - familiar) / (strange - familiar), 0.0, 1.0))


def sample_rows(n_cells: int, most: int) -> np.ndarray:
    """Positions of at most `most` cells: runs of cells, which are read faster than single ones, evenly spaced."""
    if n_cells <= most:
        return np.arange(n_cells)
    starts = np.linspace(0, n_cells - RUN_CELLS, max(1, most // RUN_CELLS)).round().astype(int)
    return np.unique(starts[:, None] + np.arange(RUN_CELLS))


def tissue_labels(labels: LabelSet) -> tuple[list[str], np.ndarray]:
    """Tissues without what stands in brackets ("PBMC (lupus patients)" is PBMC), and which labels each has [T, L]."""
    of_label = [{plain_tissue(tissue) for tissue in label.tissues} for label in labels]
    names = sorted(set().union(*of_label))
    return names, np.array([[name in those for those in of_label] for name in names], bool).reshape(-1, len(labels))


def plain_tissue(name: str) -> str:
    """A tissue without the remark in brackets behind it."""
    return re.sub(r"\s*\(.*\)", "", name).strip()


def tissue_shares(probabilities: np.ndarray, members: np.ndarray, hinted: int | None = None) -> np.ndarray:
    """Shares [T] of the tissues among cells: a mixture fitted by EM to probabilities [M, L] and members [T, L].

    A hinted tissue counts as if half as many cells again were of it.
    """
    if len(members) == 0:
        return np.zeros(0)
    likelihood = probabilities @ np.where(members, 1.0, OUTSIDE).T  # [M, T]
    prior = np.full(len(members), 1.0 / len(members))
    if hinted is not None:
        prior[hinted] += 0.5 * len(probabilities)
    shares = np.full(len(members), 1.0 / len(members))
    for _ in range(50):
        shares = normalised(likelihood * shares).sum(axis=0) + prior
        shares /= shares.sum()
    return shares


def label_prior(shares: np.ndarray, members: np.ndarray, floor: float) -> np.ndarray:
    """log of a factor per label [L]: 1 for labels of tissues that are there, `floor` for those of others."""
    if len(members) == 0 or floor >= 1.0:
        return np.zeros(members.shape[1])
    there = np.minimum(1.0, shares / PRESENT)[:, None] * members  # [T, L]
    return np.log(np.maximum(there.max(axis=0), floor))


def checked(hint: TissueHint, names: list[str], members: np.ndarray, probabilities: np.ndarray) -> TissueHint:
    """The hint with the tissue it names here, and set aside where the cells' labels come from another."""
    tissue = known_tissue(hint.said, names)
    if not tissue:
        return replace(hint, tissue="", looks_like="")
    mass = probabilities.mean(axis=0) @ members.T  # [T] probability of the labels of each tissue
    best = int(mass.argmax())
    contradicted = mass[names.index(tissue)] < CONTRADICTED_BELOW and mass[best] > CONTRADICTED_ABOVE
    enough = len(probabilities) >= LEAST_FOR_CONTRADICTION
    return replace(hint, tissue=tissue, looks_like=names[best] if contradicted and enough else "")


def known_tissue(said: str, names: list[str]) -> str:
    """The tissue of ours that a text names, "" for none: equal words first, then the one that shares all of its."""
    words = _words(said)
    same = [name for name in names if _words(name) == words]
    if same:
        return same[0]
    within = [name for name in names if _words(name) <= words or (words and words <= _words(name))]
    return within[0] if len(within) == 1 else ""


SYNONYMS = {"blood": "pbmc", "pbmcs": "pbmc", "islets": "islet", "pancreas": "pancreatic", "pulmonary": "lung"}
EMPTY_WORDS = {"peripheral", "mononuclear", "cells", "cell", "human", "mouse", "of", "the", "langerhans", "tissue"}


def _words(text: str) -> frozenset[str]:
    """The words of a tissue that tell it from others."""
    words = re.findall(r"[a-z0-9.]+", plain_tissue(text).lower())
    return frozenset(SYNONYMS.get(word, word) for word in words if word not in EMPTY_WORDS)


def _position(hint: TissueHint, names: list[str]) -> int | None:
    """Which tissue a hint is to be believed of."""
    return names.index(hint.tissue) if hint.tissue and not hint.looks_like else None


def normalised(values: np.ndarray) -> np.ndarray:
    """Rows [N, L] that sum to 1."""
    return values / values.sum(axis=1, keepdims=True)


def unit_length(embedding: np.ndarray) -> np.ndarray:
    """Rows [N, Z] of length 1, float32."""
    rows = embedding.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
