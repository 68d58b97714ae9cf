"""What a session does for each kind of request, one module for each of what requests are about."""

from __future__ import annotations

from collections.abc import Callable

from instructcell import requests
from instructcell.flows import choosing, desk, drugs, files, genes, pseudo, types
from instructcell.flows.conversation import Answer, Conversation
from instructcell.requests import Request

FLOWS: dict[str, Callable[[Conversation, Request], Answer]] = {
    requests.ANNOTATE: types.annotate,
    requests.SUBSET: types.annotate,
    requests.GENERATE: pseudo.generate,
    requests.DRUG: drugs.predict_response,
    requests.MARKERS: genes.knowledge,
    requests.GENE: genes.knowledge,
    requests.DESCRIBE: files.describe,
    requests.DOWNLOAD: desk.download,
    requests.HELP: desk.show_help,
    requests.SMALL_TALK: desk.small_talk,
    requests.OUT_OF_SCOPE: desk.out_of_scope,
    requests.QUALITY: files.quality,
    requests.CLUSTER: files.cluster,
    requests.EMBED: files.embed,
    requests.EXPLAIN: types.explain,
    requests.FIND: choosing.find,
    requests.EXPRESSION: genes.expression,
    requests.COMPARE: genes.compare,
    requests.REAL: pseudo.compare_real,
    requests.RANK: drugs.rank,
    requests.COMPARE_DRUG: drugs.compare_drug,
    requests.SELECT: choosing.select,
    requests.MAP: choosing.draw_map,
    requests.UNDO: desk.undo,
    requests.RESTART: desk.restart,
    requests.COUNT: types.count,
    requests.DRUG_FACTS: drugs.drug_facts,
}
