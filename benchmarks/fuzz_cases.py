"""The damaged files of `fuzz.py`: whole ones made from the demo cells that ship, and every way to damage them.

Case number i of a seed is always the same file.
"""

from __future__ import annotations

import gzip
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import scipy.io
import scipy.sparse as sp
from anndata import AnnData

from instructcell.resources import demo_path

N_CELLS, N_GENES = 40, 300
CANARY = "canary"  # a file that a pickle would make if anything loaded it

Mutation = Callable[[Path, np.random.Generator], None]

# ---- the files before the damage


def demo_cells() -> AnnData:
    """A few demo cells with their most expressed genes."""
    whole = anndata.read_h5ad(demo_path("islets"))
    genes = np.argsort(-np.asarray(whole.X.sum(axis=0)).ravel(), kind="stable")[:N_GENES]
    adata = whole[:N_CELLS, np.sort(genes)].copy()
    return AnnData(sp.csr_matrix(adata.X, dtype=np.float32), obs=adata.obs[["cell_type", "donor"]], var=adata.var[[]])


def write_sources(folder: Path) -> None:
    """One whole file of each kind, from which every worker makes its cases."""
    adata = demo_cells()
    adata.write_h5ad(folder / "csr.h5ad", compression="gzip")
    adata.layers["counts"], adata.raw = adata.X.copy(), adata.copy()
    adata.obsm["X_pca"], adata.uns["log1p"] = np.ones((N_CELLS, 3)), {"base": 2.0}
    adata.write_h5ad(folder / "rich.h5ad")
    plain = demo_cells()
    plain.X = plain.X.tocsc()
    plain.write_h5ad(folder / "csc.h5ad")
    plain.X = plain.X.toarray()
    plain.write_h5ad(folder / "dense.h5ad", compression="lzf")
    plain.to_df().to_csv(folder / "cells.csv")
    plain.to_df().T.to_csv(folder / "genes.tsv.csv", sep="\t")
    (folder / "cells.csv.gz").write_bytes(gzip.compress((folder / "cells.csv").read_bytes(), mtime=0))
    trio = folder / "mtx"
    trio.mkdir()
    scipy.io.mmwrite(trio / "matrix.mtx", sp.coo_matrix(plain.X.T.astype(int)))
    rows = [f"ENSG{i:011d}\t{name}\tGene Expression" for i, name in enumerate(plain.var_names)]
    (trio / "features.tsv").write_text("\n".join(rows) + "\n")
    (trio / "barcodes.tsv").write_text("\n".join(plain.obs_names) + "\n")
    packed = folder / "mtx.gz"
    packed.mkdir()
    for path in trio.iterdir():
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))


class Tripwire:
    """Unpickling this makes a file: nothing on the reading path may."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (Path(tempfile.gettempdir()) / CANARY,))


# ---- damage to bytes, of any kind of file


def flip(path: Path, rng: np.random.Generator) -> None:
    """Other values for 1 to 64 bytes, half of the time near the beginning, where the structure stands."""
    content = bytearray(path.read_bytes())
    end = max(min(len(content), 4096) if rng.random() < 0.5 else len(content), 1)
    for at in rng.integers(0, end, 2 ** int(rng.integers(0, 7))):
        if at < len(content):
            content[at] = int(rng.integers(0, 256))
    path.write_bytes(content)


def truncate(path: Path, rng: np.random.Generator) -> None:
    """Only the beginning."""
    content = path.read_bytes()
    path.write_bytes(content[: int(rng.integers(0, len(content)))])


def blank(path: Path, rng: np.random.Generator) -> None:
    """A stretch of zeros or ones."""
    content = bytearray(path.read_bytes())
    start, n = int(rng.integers(0, len(content))), 2 ** int(rng.integers(1, 12))
    content[start : start + n] = bytes([int(rng.choice([0, 255]))]) * len(content[start : start + n])
    path.write_bytes(content)


def repeat(path: Path, rng: np.random.Generator) -> None:
    """A stretch stands twice, so that all after it is shifted."""
    content = path.read_bytes()
    start, n = int(rng.integers(0, len(content))), int(rng.integers(1, 3000))
    path.write_bytes(content[: start + n] + content[start:])


def drop(path: Path, rng: np.random.Generator) -> None:
    """A stretch is missing."""
    content = path.read_bytes()
    start, n = int(rng.integers(0, len(content))), int(rng.integers(1, 3000))
    path.write_bytes(content[:start] + content[start + n :])


def swap(path: Path, rng: np.random.Generator) -> None:
    """Two stretches change places."""
    content = bytearray(path.read_bytes())
    n = int(rng.integers(1, max(len(content) // 4, 2)))
    one, other = (int(start) for start in rng.integers(0, max(len(content) - n, 1), 2))
    first, second = bytes(content[one : one + n]), bytes(content[other : other + n])
    content[one : one + n], content[other : other + n] = second, first
    path.write_bytes(content)


def offset(path: Path, rng: np.random.Generator) -> None:
    """Eight bytes that could be an address or a length become a very large, a negative or another near number."""
    content = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, max(len(content) - 8, 1))) // 8 * 8
        value = int(rng.choice([0, 1, 8, 2**31, 2**40, 2**62, 2**63 - 1, at, len(content)]))
        content[at : at + 8] = value.to_bytes(8, "little")
    path.write_bytes(content)


def pickled(path: Path, rng: np.random.Generator) -> None:
    """A pickle under the name of the file, alone or before its content."""
    content = pickle.dumps(Tripwire())
    path.write_bytes(content if rng.random() < 0.5 else content + path.read_bytes())


BYTES: list[Mutation] = [flip, flip, truncate, blank, repeat, drop, swap, offset, pickled]


# ---- damage to the structure of an .h5ad


def some_dataset(file: h5py.File, rng: np.random.Generator) -> str:
    """The path of a dataset of the file."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return str(rng.choice(sorted(names)))


def some_object(file: h5py.File, rng: np.random.Generator) -> str:
    """The path of a group or dataset of the file."""
    names: list[str] = []
    file.visit(names.append)
    return str(rng.choice(sorted(names)))


def odd_values(n: int, rng: np.random.Generator) -> Any:
    """An array of a type nobody expects, about `n` long."""
    length = int(rng.choice([0, 1, max(n - 1, 0), n, n + 1, 2 * n]))
    kinds: list[Callable[[], Any]] = [
        lambda: np.full(length, np.nan, dtype=np.float32),
        lambda: np.full(length, np.inf),
        lambda: np.full(length, -1.5, dtype=np.float16),
        lambda: np.full(length, 2**63 - 1, dtype=np.int64),
        lambda: np.full(length, 2**64 - 1, dtype=np.uint64),
        lambda: np.full(length, 1 + 2j),
        lambda: np.full(length, True),
        lambda: np.full(length, b"many"),
        lambda: np.array(["word"] * length, dtype=h5py.string_dtype()),
        lambda: np.zeros(length, dtype=[("a", "f4"), ("b", "S3")]),
        lambda: np.zeros((length, 2, 2)),
        lambda: np.void(pickle.dumps(Tripwire())),
        lambda: np.array([pickle.dumps(Tripwire())] * max(length, 1), dtype=h5py.opaque_dtype(np.dtype("V96"))),
        lambda: h5py.Empty("f4"),
        lambda: 3.0,
        lambda: "a word",
    ]
    return kinds[int(rng.integers(len(kinds)))]()


def replace(file: h5py.File, rng: np.random.Generator) -> None:
    """A dataset holds something else."""
    name = some_dataset(file, rng)
    n, attributes = file[name].size or 0, dict(file[name].attrs)
    del file[name]
    try:
        file[name] = odd_values(n, rng)
    except (TypeError, ValueError):
        file[name] = np.zeros(3)
    if rng.random() < 0.8:
        for key, value in attributes.items():
            file[name].attrs[key] = value


def words_in_x(file: h5py.File, rng: np.random.Generator) -> None:
    """Words, objects or numbers of an odd type where the values of X stand."""
    name = "X/data" if isinstance(file["X"], h5py.Group) else "X"
    shape, attributes = file[name].shape, dict(file[name].attrs)
    dtype = rng.choice(np.array(["S4", "O", "c16", "?", "u8", "f2", "V4"]))
    del file[name]
    kind = h5py.string_dtype() if dtype == "O" else np.dtype(str(dtype))
    file.create_dataset(name, shape=shape, dtype=kind)
    for key, value in attributes.items():
        file[name].attrs[key] = value


def remove(file: h5py.File, rng: np.random.Generator) -> None:
    """A group or dataset is missing."""
    del file[some_object(file, rng)]


def lose_attribute(file: h5py.File, rng: np.random.Generator) -> None:
    """An attribute is missing, or all of an object are."""
    attributes = file[some_object(file, rng)].attrs
    names = sorted(attributes)
    for name in names if rng.random() < 0.3 else [rng.choice(names)] if names else []:
        del attributes[name]


def change_attribute(file: h5py.File, rng: np.random.Generator) -> None:
    """An attribute says something else."""
    attributes = file[some_object(file, rng)].attrs
    odd = ["", "csr_matrix", "csc_matrix", "dataframe", "categorical", "array", "dict", "9.9.9", -1, 2**40, [1, 2, 3]]
    name = str(rng.choice(sorted(attributes) or ["encoding-type"]))
    attributes[name] = odd[int(rng.integers(len(odd)))]


def wrong_shape(file: h5py.File, rng: np.random.Generator) -> None:
    """The shape of the sparse matrix lies, a little or by much."""
    if "shape" not in file["X"].attrs:
        resize(file, rng)
        return
    n_cells, n_genes = file["X"].attrs["shape"]
    shapes = [(n_genes, n_cells), (n_cells, 1), (0, 0), (n_cells + 1, n_genes), (n_cells, 2**40), (2**40, n_genes)]
    shapes += [(-1, n_genes), (2**62, 2**62), (n_cells,), (n_cells, n_genes, 1), (n_cells - 1, n_genes - 1)]
    file["X"].attrs["shape"] = np.array(shapes[int(rng.integers(len(shapes)))], dtype=np.int64)


def wrong_entries(file: h5py.File, rng: np.random.Generator) -> None:
    """Indices outside, pointers that go back, infinite or negative values."""
    if not isinstance(file["X"], h5py.Group):
        row = int(rng.integers(file["X"].shape[0]))
        file["X"][row] = rng.choice([np.nan, np.inf, -1.0, 1e30])
        return
    name = str(rng.choice(["data", "indices", "indptr"]))
    values = file["X"][name]
    odd = [np.nan, np.inf, -np.inf, -3.0, 1e38] if name == "data" else [-1, 2**30, N_GENES, N_CELLS, 2**31 - 1]
    for at in rng.integers(0, values.shape[0], int(rng.integers(1, 20))):
        values[int(at)] = rng.choice(np.array(odd))


def resize(file: h5py.File, rng: np.random.Generator) -> None:
    """A dataset is longer, shorter, enormous or of another rank, and unwritten."""
    name = some_dataset(file, rng)
    dataset = file[name]
    shape, dtype, attributes = dataset.shape or (), dataset.dtype, dict(dataset.attrs)
    length = int(rng.choice([0, 1, 10**4, 10**7, 10**9, 10**12]))
    shapes = [(length,), (length, 10), (length, *shape[1:]), (*shape, 3)]
    del file[name]
    chunks = True if rng.random() < 0.5 else None
    file.create_dataset(name, shape=shapes[int(rng.integers(4))], dtype=dtype, chunks=chunks)
    for key, value in attributes.items():
        file[name].attrs[key] = value


def wrong_tables(file: h5py.File, rng: np.random.Generator) -> None:
    """obs or var do not fit: other lengths, codes without a category, repeated or missing names."""
    table = file[str(rng.choice(["obs", "var"]))]
    choice = int(rng.integers(5))
    names = table["_index"]
    if choice == 0:
        values = names[()][:-3]
        del table["_index"]
        table["_index"] = values
    elif choice == 1:
        names[()] = names[0]
    elif choice == 2:
        names[()] = "\x01\ufffd\u202e" * 50
    elif choice == 3 and "cell_type" in table:
        table["cell_type/codes"][::2] = int(rng.choice([-5, 100, 127]))
    else:
        table.attrs["column-order"] = ["cell_type", "nothing", "nothing"]


def link(file: h5py.File, rng: np.random.Generator) -> None:
    """Links that go in a circle, nowhere, or to another file."""
    name = some_object(file, rng)
    choice = int(rng.integers(5))
    if choice == 0:
        file["uns/circle"] = file["/"]
        return
    del file[name]
    if choice == 1:
        file[name] = file["/"]
    elif choice == 2:
        file[name] = h5py.SoftLink(f"/{name}")
    elif choice == 3:
        file[name] = h5py.ExternalLink("/etc/passwd", "/")
    else:
        file.create_dataset(name, shape=(100,), dtype="u1", external=[("/etc/passwd", 0, 100)])


def nest(file: h5py.File, rng: np.random.Generator) -> None:
    """Groups in groups in groups, or very many."""
    group = file["uns"]
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(10, 2000))):
            group = group.create_group("g")
    else:
        for i in range(int(rng.integers(100, 3000))):
            group.create_group(f"g{i}")


def in_hdf5(change: Callable[[h5py.File, np.random.Generator], None]) -> Mutation:
    """A change to the open file as a mutation of the path; a few of them take two at once."""

    def mutate(path: Path, rng: np.random.Generator) -> None:
        with h5py.File(path, "a") as file:
            change(file, rng)

    mutate.__name__ = change.__name__
    return mutate


HDF5 = [
    in_hdf5(change)
    for change in (
        replace, words_in_x, remove, lose_attribute, change_attribute, wrong_shape, wrong_entries, resize, wrong_tables,
        link, nest,
    )
]  # fmt: skip


# ---- damage to text


def edit_lines(change: Callable[[list[bytes], np.random.Generator], list[bytes]]) -> Mutation:
    """A change to the lines as a mutation of the path, gzipped or not."""

    def mutate(path: Path, rng: np.random.Generator) -> None:
        zipped = path.suffix == ".gz"
        content = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
        content = b"\n".join(change(content.split(b"\n"), rng))
        path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)

    mutate.__name__ = change.__name__
    return mutate


def odd_field(rng: np.random.Generator) -> bytes:
    """What may stand in a table where a number should."""
    odd = [
        b"many",
        b"",
        b"NaN",
        b"inf",
        b"-1e400",
        b"1e308",
        b"0x10",
        b"1,5",
        b'"',
        b"'",
        b"\x00",
        b"\xff\xfe",
        b"None",
    ]
    odd += [b"=CMD()", b"9" * 400, b"a" * 200_000, b"1;2", b"\t", b"1.2.3", b"True", b"2-Sep", "∞".encode(), b"#N/A"]
    return odd[int(rng.integers(len(odd)))]


def separator_of(lines: list[bytes]) -> bytes:
    return max((b",", b"\t", b" "), key=lines[0].count)


def wrong_fields(lines: list[bytes], rng: np.random.Generator) -> list[bytes]:
    """Some fields, of any line or of the first, hold something else."""
    separator = separator_of(lines)
    for _ in range(int(rng.integers(1, 10))):
        at = 0 if rng.random() < 0.2 else int(rng.integers(len(lines)))
        fields = lines[at].split(separator)
        fields[int(rng.integers(len(fields)))] = odd_field(rng)
        lines[at] = separator.join(fields)
    return lines


def wrong_column(lines: list[bytes], rng: np.random.Generator) -> list[bytes]:
    """A whole column holds something else."""
    separator, odd = separator_of(lines), odd_field(rng)[:50]
    at = int(rng.integers(len(lines[0].split(separator))))
    changed = [line.split(separator) for line in lines]
    for fields in changed:
        if at < len(fields):
            fields[at] = odd
    return [separator.join(fields) for fields in changed]


def wrong_lines(lines: list[bytes], rng: np.random.Generator) -> list[bytes]:
    """Lines missing, doubled, shuffled, empty, cut or much longer."""
    at = int(rng.integers(len(lines)))
    longer = lines[at] + separator_of(lines) + b"1,1\t1 " * int(rng.choice([1, 100, 100_000]))
    ways: list[Callable[[], list[bytes]]] = [
        lambda: lines[:at] + lines[at + 1 :],
        lambda: [*lines[:at], lines[at], *lines[at:]],
        lambda: [lines[i] for i in rng.permutation(len(lines))],
        lambda: [*lines[:at], *[b""] * 50, *lines[at:]],
        lambda: [*lines[:at], lines[at][: len(lines[at]) // 2], *lines[at + 1 :]],
        lambda: [*lines[:at], longer, *lines[at + 1 :]],
        lambda: lines[:1],
        lambda: [*[b"# comment"] * 30, *lines],
        lambda: [b"".join(lines)],
    ]
    return ways[int(rng.integers(len(ways)))]()


def other_text(lines: list[bytes], rng: np.random.Generator) -> list[bytes]:
    """Other separators, quotes, encodings or ends of lines."""
    text = b"\n".join(lines)
    ways: list[Callable[[], bytes]] = [
        lambda: text.replace(separator_of(lines), bytes(rng.choice(np.array([b";", b" ", b"|", b"\t\t", b"\x01"])))),
        lambda: text.decode("utf-8", "replace").encode("utf-16"),
        lambda: text.replace(b"\n", b"\r"),
        lambda: text.replace(b"\n", b"\r\n"),
        lambda: text.replace(b"0", b'"0'),
        lambda: b'"' + text,
        lambda: b"\xef\xbb\xbf" + text,
        lambda: text.replace(b".", b","),
        lambda: b"<html><body>Please log in</body></html>\n" * 20,
    ]
    return [ways[int(rng.integers(len(ways)))]()]


def first_numbers(lines: list[bytes], rng: np.random.Generator) -> list[bytes]:
    """The line of a matrix that tells its size lies."""
    at = next((i for i, line in enumerate(lines) if not line.startswith(b"%")), 0)
    odd = [b"0", b"-1", b"1", b"99999999999", b"1e9", b"many", b"", str(N_CELLS + 1).encode(), str(2**63).encode()]
    numbers = lines[at].split(b" ")
    for _ in range(int(rng.integers(1, 3))):
        numbers[int(rng.integers(len(numbers)))] = odd[int(rng.integers(len(odd)))]
    return [*lines[:at], b" ".join(numbers), *lines[at + 1 :]]


def banner(lines: list[bytes], rng: np.random.Generator) -> list[bytes]:
    """The matrix announces another kind of content."""
    kinds = ["array real general", "coordinate complex general", "coordinate pattern general", "coordinate", ""]
    kinds += ["coordinate integer symmetric", "coordinate real skew-symmetric", "vector real general"]
    return [b"%%MatrixMarket matrix " + str(rng.choice(np.array(kinds))).encode(), *lines[1:]]


TEXT = [edit_lines(change) for change in (wrong_fields, wrong_column, wrong_lines, other_text)]
MATRIX = [
    edit_lines(change) for change in (first_numbers, first_numbers, banner, wrong_fields, wrong_lines, other_text)
]


# ---- one case


def make_case(case: int, seed: int, sources: Path, folder: Path, only: str | None = None) -> tuple[Path, str, str]:
    """Write case number `case` of a seed into `folder`: (what to read, kind, name of the damage)."""
    rng = np.random.default_rng([seed, case])
    kind = only or str(rng.choice(["h5ad", "csv", "mtx"], p=[0.5, 0.25, 0.25]))
    if kind == "h5ad":
        source = str(rng.choice(["csr.h5ad", "rich.h5ad", "csc.h5ad", "dense.h5ad"]))
        mutations = HDF5 if rng.random() < 0.6 else BYTES
    elif kind == "csv":
        source = str(rng.choice(["cells.csv", "genes.tsv.csv", "cells.csv.gz"]))
        mutations = TEXT if rng.random() < 0.6 else BYTES
    else:
        source = str(rng.choice(["mtx", "mtx.gz"]))
        mutations = MATRIX if rng.random() < 0.6 else BYTES
    path = folder / source
    (shutil.copytree if (sources / source).is_dir() else shutil.copyfile)(sources / source, path)
    damaged = path
    if path.is_dir():
        files = sorted(path.iterdir())
        damaged = next(file for file in files if "matrix" in file.name)
        if mutations is not MATRIX and rng.random() < 0.6:
            damaged = files[int(rng.integers(len(files)))]
    mutation = mutations[int(rng.integers(len(mutations)))]
    mutation(damaged, rng)
    return path, kind, mutation.__name__
