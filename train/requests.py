"""Requests of the phrasing grammar as exemplars for the conversation: `python -m train.requests`.

Writes `instructcell/resources/requests.tsv`, on which `python -m train.router` tunes the reader of requests. Phrasings
that training keeps back are kept back here as well, so that `instructcell evaluate --tasks phrasing` judges the chat's
routing on unseen ones. Names of types, drugs and genes are taken out as the conversation does before it asks what a
sentence means.
"""

from __future__ import annotations

import argparse
import csv
from random import Random

from instructcell import intents, requests
from instructcell import router as routing
from instructcell.drugs import DrugSet
from instructcell.labels import LabelSet
from instructcell.mentions import generic
from instructcell.prompts import DRUG_ANSWERS
from instructcell.resources import RESOURCES
from instructcell.tools import drugs_of, open_checkpoint
from train.evaluation.phrasing import CELLS, PLAIN
from train.instructions import CellRecord, Task, instruction, load_catalog

PER_TASK = 200
TISSUES = ("PBMC", "pancreatic islet", "lung", "")
KINDS: dict[Task, str] = {
    "annotation": requests.ANNOTATE,
    "drug": requests.DRUG,
    "generation": requests.GENERATE,
    "markers": requests.MARKERS,
}


def render(labels: LabelSet, drugs: DrugSet, *, per_task: int = PER_TASK, seed: int = 0) -> list[tuple[str, str]]:
    """(intent, text) pairs that all differ, `per_task` of each kind of request."""
    rng, router = Random(seed), routing.load_router()
    found: list[tuple[str, str]] = []
    for task, intent in KINDS.items():
        texts: dict[str, None] = {}
        while len(texts) < per_task:
            record = _record(task, labels, drugs, rng)
            prompt = instruction(task, record, rng, catalog=load_catalog(), settings=PLAIN).prompt
            sentence = " ".join(prompt.replace(CELLS, "these cells").split())
            request = intents.understand(sentence, router=router, labels=labels, drugs=drugs)
            texts.setdefault(" ".join(generic(sentence, request, router.spelled).split()))
        found += [(intent, text) for text in texts]
    return found


def _record(task: Task, labels: LabelSet, drugs: DrugSet, rng: Random) -> CellRecord:
    if task == "drug":
        drug = rng.choice([drug.name for drug in drugs])
        return CellRecord(drug=drug, response=DRUG_ANSWERS[0], species=rng.choice(["human", "mouse"]))
    if task == "annotation":
        return CellRecord(rng.choice(labels.names), species="human", tissue=rng.choice(TISSUES))
    markers = load_catalog().markers
    able = [label.name for label in labels if (label.can_generate if task == "generation" else markers.get(label.name))]
    return CellRecord(rng.choice(able), species="human")


def main() -> None:
    """Write the table."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    checkpoint = open_checkpoint("mini")
    rows = render(checkpoint.labels, drugs_of(checkpoint))
    with (RESOURCES / routing.REQUESTS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([("intent", "text"), *rows])


if __name__ == "__main__":
    main()
