"""What cells can be doing whatever their type: a few well-known gene programmes, and which of them a text means."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from instructcell.retrieval.sentence_encoder import load_sentence_encoder

MEANT = 0.6  # cosine between a text and a phrase, from which the programme is meant


@dataclass(frozen=True)
class Programme:
    """Genes that are on together: what it is called, how people speak of such cells, and who published the genes."""

    name: str
    phrases: tuple[str, ...]
    genes: tuple[str, ...]
    source: str


PROGRAMMES = (
    Programme(
        "cell cycle",
        ("dividing cells", "proliferating cells", "cycling cells in mitosis", "cells that divide and proliferate"),
        ("MKI67", "TOP2A", "PCNA", "TYMS", "MCM5", "CDK1", "NUSAP1", "UBE2C", "BIRC5", "TPX2", "CENPF", "RRM2"),
        "cell cycle genes of Tirosh et al., Science 2016",
    ),
    Programme(
        "interferon response",
        (
            "cells that respond to interferon",
            "interferon stimulated cells",
            "cells with an antiviral interferon response",
        ),
        ("ISG15", "IFI6", "IFIT1", "IFIT2", "IFIT3", "MX1", "OAS1", "IFI44L", "RSAD2", "STAT1"),
        "Hallmark interferon alpha response, Liberzon et al., Cell Systems 2015",
    ),
    Programme(
        "hypoxia",
        ("hypoxic cells", "cells that lack oxygen", "cells under hypoxia"),
        ("VEGFA", "SLC2A1", "PGK1", "LDHA", "ADM", "NDRG1", "ENO1", "P4HA1", "BNIP3", "ALDOA"),
        "hypoxia signature of Buffa et al., British Journal of Cancer 2010",
    ),
    Programme(
        "stress of dissociation",
        ("stressed cells", "cells under stress", "cells stressed by dissociation", "heat shock response in cells"),
        ("FOS", "FOSB", "JUN", "JUNB", "EGR1", "ATF3", "IER2", "HSPA1A", "HSPA1B", "HSPB1", "DNAJB1"),
        "dissociation-affected genes of van den Brink et al., Nature Methods 2017",
    ),
    Programme(
        "exhaustion of T cells",
        ("exhausted T cells", "exhausted cells", "dysfunctional T cells"),
        ("PDCD1", "HAVCR2", "LAG3", "TIGIT", "CTLA4", "TOX", "ENTPD1", "LAYN"),
        "exhaustion genes of Zheng et al., Cell 2017",
    ),
    Programme(
        "cytotoxicity",
        ("cytotoxic cells", "cells that kill", "killer cells that kill tumour cells", "cytolytic cells"),
        ("GZMA", "GZMB", "GZMH", "PRF1", "NKG7", "GNLY", "FASLG", "KLRD1"),
        "cytolytic genes, Gene Ontology GO:0001906 (cell killing)",
    ),
    Programme(
        "antigen presentation on MHC class II",
        ("cells that present antigen", "antigen presenting cells with MHC class II"),
        ("HLA-DRA", "HLA-DRB1", "HLA-DPA1", "HLA-DPB1", "HLA-DQA1", "CD74", "CIITA", "HLA-DMA"),
        "Gene Ontology GO:0019886 (antigen processing and presentation via MHC class II)",
    ),
)


def meant_by(text: str) -> tuple[Programme, float] | None:
    """The programme whose phrases are nearest to a text with their cosine, or None when none is near enough."""
    scores = _phrase_vectors() @ load_sentence_encoder().encode([text])[0]
    best = int(np.argmax(scores))
    owner = [programme for programme in PROGRAMMES for _ in programme.phrases][best]
    return (owner, float(scores[best])) if scores[best] >= MEANT else None


@lru_cache(maxsize=1)
def _phrase_vectors() -> np.ndarray:
    """Unit vectors of all phrases [n, D]."""
    return load_sentence_encoder().encode([phrase for programme in PROGRAMMES for phrase in programme.phrases])
