"""Which intent a sentence has by its meaning: exemplars in the sentence encoder's space, and a regression on them.

The exemplars are those of `resources/intents.tsv`, written by hand, and of `resources/requests.tsv`, rendered by the
phrasing grammar of training (`python -m train.requests`), without the phrasings that are kept for evaluation.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process

from instructcell.errors import ResourceError
from instructcell.requests import INTENTS, OUT_OF_SCOPE
from instructcell.resources import RESOURCES
from instructcell.retrieval import SentenceEncoder, load_sentence_encoder
from instructcell.retrieval.sentence_encoder import WEIGHTS_SHA256

VECTORS = RESOURCES / "index" / "intents.npz"
REQUESTS = "requests.tsv"
NEIGHBOURS = 8  # exemplars that vote
SHARPNESS = 0.06  # cosine difference at which a vote falls to 1/e
FAR = 0.32  # a sentence that is nearer to no exemplar than this is out of scope
SPELLED = 75  # rapidfuzz ratio from which an unknown word is a known one with a typing error
DRUG_LIKE = re.compile(r"(?:nib|mab|lib|mus|cin|platin|taxel|rafenib)$")  # a near drug is asked back about, not mended
REGULARISATION = 30.0  # C of the logistic regression


class Router:
    """Intent recognition by exemplars.

    Parameters
    ----------
    encoder
        Texts -> unit vectors.
    exemplars
        (intent, text) pairs.
    vectors
        Of the exemplars [E, D], to spare the encoding.
    n_spelled
        So many of the first exemplars are spelled rightly; all by default.
    weights
        Of the regression, a row of D weights and an intercept for each intent in alphabetical order [I, D + 1], to
        spare the fit.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        exemplars: Sequence[tuple[str, str]],
        vectors: np.ndarray | None = None,
        n_spelled: int | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.encoder = encoder
        self.intents = np.asarray([intent for intent, _ in exemplars])
        self.texts = [text for _, text in exemplars][:n_spelled]
        self.vectors = encoder.encode([text for _, text in exemplars]) if vectors is None else vectors
        self.weights = self.fit() if weights is None else weights

    def fit(self) -> np.ndarray:
        """Weights of a logistic regression that weighs the intents alike, however many exemplars they have."""
        from sklearn.linear_model import LogisticRegression

        regression = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=500)
        regression.fit(self.vectors, self.intents)
        coefficients, intercepts = regression.coef_, regression.intercept_
        if len(coefficients) == 1:  # of two intents only the second one's are kept
            coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.array([-1, 1]) * intercepts / 2
        return np.column_stack([coefficients, intercepts]).astype(np.float32)

    def chances(self, vector: np.ndarray) -> pd.Series:
        """What the regression makes of a sentence's vector [D]: a probability per intent."""
        scores = self.weights[:, :-1] @ vector + self.weights[:, -1]
        raised = np.exp(scores - scores.max())
        return pd.Series(raised / raised.sum(), np.unique(self.intents))

    def spelled(self, text: str) -> str:
        """The text with words that no exemplar has replaced by the one they nearly are: "wich cel" -> "which cell"."""
        return re.sub(r"[A-Za-z]{3,}", lambda match: self._known_word(match[0]), text)

    def _known_word(self, word: str) -> str:
        low = word.lower()
        if low in self._vocabulary or word.isupper():
            return word
        near = process.extractOne(low, self._common, scorer=fuzz.ratio, score_cutoff=SPELLED)
        return word if near is None else near[0]

    @cached_property
    def common(self) -> frozenset[str]:
        """Words of the exemplars that are no typing errors, as they occur more than once, and no drug's name."""
        return frozenset(word for word in self._common if not DRUG_LIKE.search(word))

    @cached_property
    def _vocabulary(self) -> Counter[str]:
        """Words of the exemplars with how often they occur."""
        return Counter(re.findall(r"[a-z]+", " ".join(self.texts).lower()))

    @cached_property
    def _common(self) -> list[str]:
        """Words that occur more than once: a typing error in an exemplar is none of them."""
        return [word for word, n in self._vocabulary.most_common() if n > 1 and len(word) > 2]

    def votes(self, text: str) -> list[tuple[str, float]]:
        """Intents with their share of the vote, the strongest first."""
        vector = self.encoder.encode([text])[0]  # [D]
        similarity = self.vectors @ vector  # [E]
        nearest = np.argsort(-similarity)[:NEIGHBOURS]
        if similarity[nearest[0]] < FAR:
            return [(OUT_OF_SCOPE, 1.0)]
        weights = np.exp((similarity[nearest] - similarity[nearest[0]]) / SHARPNESS)
        votes = pd.Series(weights).groupby(self.intents[nearest]).sum()
        shares = (votes / votes.sum()).add(self.chances(vector), fill_value=0.0).sort_values(ascending=False) / 2
        return [(str(intent), float(share)) for intent, share in shares.items()]


@lru_cache(maxsize=1)
def load_router() -> Router:
    """The router over the shipped exemplars; loaded once per process."""
    written, exemplars = len(read_exemplars()), all_exemplars()
    vectors, weights = read_vectors(exemplars)
    return Router(load_sentence_encoder(), exemplars, vectors, written, weights)


def all_exemplars() -> list[tuple[str, str]]:
    """(intent, text) pairs: those written by hand, then those of the phrasing grammar."""
    return [*read_exemplars(), *read_exemplars(REQUESTS)]


def read_exemplars(name: str = "intents.tsv") -> list[tuple[str, str]]:
    """(intent, text) pairs of a table of the resources."""
    try:
        with (RESOURCES / name).open(encoding="utf-8", newline="") as file:
            rows = [(row["intent"], row["text"]) for row in csv.DictReader(file, delimiter="\t")]
    except FileNotFoundError as error:
        raise ResourceError(f"{name} is missing from instructcell/resources; install InstructCell again") from error
    strange = sorted({intent for intent, _ in rows} - set(INTENTS))
    if strange:
        raise ResourceError(f"{name} names unknown intents: {', '.join(strange)}; expected {', '.join(INTENTS)}")
    return rows


def read_vectors(exemplars: Sequence[tuple[str, str]]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The exemplars' vectors [E, D] and the regression's weights, or None where they were made from other texts."""
    if not VECTORS.is_file():
        return None, None
    with np.load(VECTORS, allow_pickle=False) as saved:
        if str(saved["texts"]) != _fingerprint(exemplars):
            return None, None
        return saved["vectors"].astype(np.float32), saved["weights"]


def write_vectors() -> None:
    """Encode the exemplars and keep their vectors and the regression's weights; part of `make resources`."""
    exemplars = all_exemplars()
    made = Router(load_sentence_encoder(), exemplars)
    np.savez_compressed(
        VECTORS, vectors=made.vectors.astype(np.float16), weights=made.weights, texts=_fingerprint(exemplars)
    )


def _fingerprint(exemplars: Sequence[tuple[str, str]]) -> str:
    texts = "\n".join("\t".join(exemplar) for exemplar in exemplars)
    return hashlib.sha256(f"{WEIGHTS_SHA256}\n{texts}".encode()).hexdigest()
