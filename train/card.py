"""The model card of a checkpoint, written from its evaluation; no figure in it is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instructcell.checkpoint import Checkpoint
from train.recipe import Recipe

SOURCES = {
    "pancreas_baron_human_donor1": "Baron et al. 2016, GSE84133, donor human1",
    "pancreas_baron_human_donors234": "Baron et al. 2016, GSE84133, donors human2-4",
    "pancreas_baron_mouse": "Baron et al. 2016, GSE84133, mouse",
    "pancreas_grun_muraro": "Grun et al. 2016, GSE81076; Muraro et al. 2016, GSE85241",
    "pancreas_bastidas_ponce_mouse": "Bastidas-Ponce et al. 2019, GSE132188",
    "pbmc_zheng_sorted": "Zheng et al. 2017, sorted PBMC (10x Genomics)",
    "pbmc_symphony_3tech": "10x Genomics PBMC, three chemistries (Korsunsky et al. 2019)",
    "pbmc_kang_ifnb_donor101": "Kang et al. 2018, GSE96583",
    "breast_tumour_immune": "breast tumour immune cells, sample of Spectra (Kunes et al. 2023)",
    "lung_zilionis_mouse": "Zilionis et al. 2019, GSE127465",
    "embryo_yan_human": "Yan et al. 2013, GSE36552",
    "embryo_goolam_mouse": "Goolam et al. 2016, E-MTAB-3321",
    "melanoma_icb_sade_feldman": "Sade-Feldman et al. 2018, GSE120575",
    "a375_plx4720": "Ho et al. 2018, GSE108383",
    "lung_lines_mixology_celseq2": "Tian et al. 2019, GSE118767; drug response of the lines from GDSC1",
}

HEADLINE = (
    "pancreas_baron_human_donor1",
    "pancreas_baron_mouse",
    "pancreas_grun_muraro",
    "pbmc_symphony_3tech",
    "pbmc_zheng_sorted",
    "lung_lines_mixology_celseq2",
)
NOT_RUN = "Not run."
RESULTS_START, RESULTS_END = "<!-- results: written by make evaluate -->", "<!-- end of results -->"

LIMITS = """\
- It knows the labels listed in `labels.json` and no others. A cell type it never met is mostly called by its nearest
  relative; `unknown` only marks low confidence.
- The sorted PBMC populations overlap (their labels are sorting runs): T-cell subtypes are uncertain, and say so.
- On an unseen islet donor PP, epsilon and quiescent stellate cells are at times taken for their frequent neighbours.
- Rare labels (fewer than ten training cells, see `n_training_cells`) are weak, in annotation and in generation.
- Drug response in the lung lines is a property of the line and thus confounded by identity: only HCC827 is sensitive to
  gefitinib. The melanoma labels belong to patients, of whom there are 13; predictions for new patients are no evidence (see the table).
- Pseudo-cells follow the studies above; genes that a study did not measure are extrapolated from the others.
- Not for clinical use."""


def model_card(checkpoint: Checkpoint, recipe: Recipe, evaluation: dict[str, Any]) -> str:
    """README.md of a checkpoint folder."""
    n_parameters = sum(p.numel() for p in checkpoint.model.parameters()) / 1e6
    return "\n".join(
        [
            _front_matter(),
            f"# InstructCell {recipe.output}",
            "",
            f"A T5 with a cell encoder and a pseudo-cell decoder, {n_parameters:.1f} million parameters, trained from scratch with",
            f"`instructcell train {recipe.output}` on the cells below. It reads {len(checkpoint.processor.genes):,} genes, names",
            f"{len(checkpoint.labels)} cell types and stages, predicts the response to {', '.join(checkpoint.drugs.names)},",
            f"and generates {sum(label.can_generate for label in checkpoint.labels)} types as integer counts.",
            "",
            f"Every figure was measured by `instructcell evaluate` on the weights with sha256 `{checkpoint.hash[:16]}`; brackets hold",
            "95 % bootstrap intervals.",
            "",
            *([recipe.note.strip(), ""] if recipe.note else []),
            "## Data and splits",
            "",
            *splits_table(evaluation),
            "",
            "## Annotation of held-out cells",
            "",
            *annotation_table(evaluation),
            "",
            "Baselines are refitted in the same run on the training cells of the same file (islet targets: of the islet files) and the",
            "genes shared with the target; they choose among that file's labels, as the column *with options* does. *or narrower* also",
            "accepts a finer type than the authors' label.",
            "",
            *readout_lines(evaluation),
            "## Pseudo-cells",
            "",
            *generation_table(evaluation),
            "",
            "## Drug response of held-out cells",
            "",
            *drug_table(evaluation),
            "",
            *phrasing_lines(evaluation),
            "",
            "## Limits",
            "",
            LIMITS,
            "",
            "## Licence",
            "",
            "MIT, as the code. The training data are public; their accessions stand above, attribution of the resources in NOTICE.",
            "",
        ]
    )


def _front_matter() -> str:
    return "---\nlicense: mit\nlibrary_name: instructcell\ntags: [single-cell, scRNA-seq, cell-type-annotation]\n---"


def splits_table(evaluation: dict[str, Any]) -> list[str]:
    rows = [
        f"| {name} | {SOURCES.get(name, '')} | {split['training']:,} | {split['held_out']:,} | {_rule(split['rule'])} |"
        for name, split in evaluation["splits"].items()
    ]
    return ["| file | source | training cells | held out | held out by |", "|---|---|---|---|---|", *rows]


def annotation_table(evaluation: dict[str, Any], only: tuple[str, ...] = ()) -> list[str]:
    if "annotation" not in evaluation:
        return [NOT_RUN]
    header = ["| file | cells | accuracy | macro-F1 | or narrower | with options | logistic regression | 10-NN | ECE |"]
    rows = []
    for name, found in evaluation["annotation"].items():
        if only and name not in only:
            continue
        base = found["baselines"]
        rows.append(
            f"| {name} | {found['cells']:,} | {figure_text(found['accuracy'])} | {figure_text(found['macro_f1'])} | "
            f"{found['accuracy_or_narrower']:.3f} | {figure_text(found['accuracy_with_options'])} | "
            f"{_accuracy(base, 'logistic regression')} | {_accuracy(base, '10-NN')} | {found['ece']:.3f} |"
        )
    return [*header, "|---|---|---|---|---|---|---|---|---|", *rows]


def readout_lines(evaluation: dict[str, Any]) -> list[str]:
    """How well the fast read-out stands for the language model; nothing where the checkpoint has none."""
    found = evaluation.get("readout")
    if not found:
        return []
    n_cells, same, left = (
        sum(row[key] for row in found.values()) for key in ("cells", "same_label", "left_to_the_language_model")
    )
    with_tissue = [row for row in found.values() if "same_label_with_tissue" in row]
    named = sum(row["same_label_with_tissue"] for row in with_tissue) / max(sum(row["cells"] for row in with_tissue), 1)
    rows = [
        f"| {name} | {row['cells']:,} | {row['same_label'] / row['cells']:.2%} | "
        f"{row['left_to_the_language_model'] / row['cells']:.1%} | {row['accuracy']:.3f} | "
        f"{row['accuracy_of_the_language_model']:.3f} |"
        for name, row in found.items()
    ]
    return [
        "## Large tables",
        "",
        "Files of up to 20,000 cells are read by the language model, cell by cell. Larger ones are read by a read-out of the cell",
        "embeddings that was fitted to the language model's answers (`readout.safetensors`); cells it is not certain of go to the",
        "language model all the same. `--engine` chooses; `uns[\"instructcell\"]` and the summary say which was used. Beside the",
        f"language model on the same {n_cells:,} held-out cells the label is the same, `unknown` included, for {same / n_cells:.2%} of them,",
        f"with {left / n_cells:.1%} left to the language model; with the tissue named in the prompt for {named:.2%}.",
        "",
        "| file | held-out cells | same label | left to the language model | accuracy | accuracy of the language model |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def generation_table(evaluation: dict[str, Any]) -> list[str]:
    if "generation" not in evaluation:
        return [NOT_RUN]
    found = evaluation["generation"]
    pseudo, real, noise = found["pseudo"], found["real_training"], found["independent_poisson"]
    return [
        f"The {found['types']} sorted PBMC populations, as many pseudo-cells as held-out real ones ({found['cells']}), in the 50 principal",
        "components of the held-out real cells.",
        "",
        "| cells | MMD to held-out, mean over types | relative to real | S-KNN | R-KNN |",
        "|---|---|---|---|---|",
        f"| real training cells | {real['mean_mmd']:.3f} | 1.00 | {real['s_knn']:.3f} | {real['r_knn']:.3f} |",
        f"| **pseudo-cells** | {pseudo['mean_mmd']:.3f} | {found['mmd_ratio']:.2f} | {pseudo['s_knn']:.3f} | {pseudo['r_knn']:.3f} |",
        f"| independent Poisson per type | {noise['mean_mmd']:.3f} | {found['mmd_ratio_poisson']:.2f} | {noise['s_knn']:.3f} | {noise['r_knn']:.3f} |",
    ]


def drug_table(evaluation: dict[str, Any]) -> list[str]:
    if "drug" not in evaluation:
        return [NOT_RUN]
    rows = []
    for found in evaluation["drug"]:
        ours, base = found["instructcell"], found["logistic_regression"]
        rows.append(
            f"| {', '.join(found['drugs'])} | {found['file']} | {found['cells']} | {figure_text(ours['balanced_accuracy'])} | "
            f"{figure_text(ours['auroc'])} | {figure_text(base['balanced_accuracy'])} | {figure_text(base['auroc'])} |"
        )
    head = "| drug | file | cells | balanced accuracy | AUROC | logistic regression: balanced accuracy | AUROC |"
    averaged = [
        f"There the cells of one patient are judged together; so averaged, logistic regression has an AUROC of "
        f"{figure_text(found['logistic_regression_by_patient']['auroc'])}. Few patients are held out: an interval that reaches 0.5 "
        "is not told from chance."
        for found in evaluation["drug"]
        if "logistic_regression_by_patient" in found
    ]
    words = ["Intervals of the melanoma rows are over patients.", *averaged]
    return [head, "|---|---|---|---|---|---|---|", *rows, "", " ".join(words)]


def phrasing_lines(evaluation: dict[str, Any]) -> list[str]:
    if "phrasing" not in evaluation:
        return [NOT_RUN]
    found = evaluation["phrasing"]
    return [
        f"Asked in phrasings that training never saw, annotation is right for {figure_text(found['accuracy'])} of {found['cells']} held-out",
        f"cells of all files; in the canonical phrasing for {figure_text(found['canonical'])}.",
    ]


def results_block(evaluation: dict[str, Any]) -> str:
    """The README's tables: annotation of the headline targets, pseudo-cells, drug response."""
    return "\n".join(
        [
            *annotation_table(evaluation, HEADLINE),
            "",
            *generation_table(evaluation),
            "",
            *drug_table(evaluation),
            "",
            *phrasing_lines(evaluation),
        ]
    )


def update_readme(readme: Path, evaluation: dict[str, Any]) -> bool:
    """Put the tables between the README's result marks; False when it has none."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, start, rest = text.partition(RESULTS_START)
    _, end, after = rest.partition(RESULTS_END)
    if not start or not end:
        return False
    readme.write_text(f"{before}{start}\n{results_block(evaluation)}\n{end}{after}", encoding="utf-8")
    return True


def write_card(checkpoint: Checkpoint, recipe: Recipe, evaluation: dict[str, Any], folder: Path) -> Path:
    """Write README.md into a checkpoint folder."""
    path = folder / "README.md"
    path.write_text(model_card(checkpoint, recipe, evaluation), encoding="utf-8")
    return path


def figure_text(found: dict[str, float]) -> str:
    """A value with its interval."""
    if found["low"] != found["low"]:  # not defined on any redrawn sample
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _accuracy(baselines: dict[str, Any], name: str) -> str:
    return f"{baselines[name]['accuracy']:.3f}" if name in baselines else "one label"


def _rule(rule: Any) -> str:
    if isinstance(rule, dict):
        return "; ".join(f"{column} {', '.join(map(str, groups))}" for column, groups in rule.items())
    return str(rule)
