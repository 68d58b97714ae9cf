"""What a path is, from its name and its first bytes, and what each kind is called."""

from __future__ import annotations

import re
from pathlib import Path

from instructcell.errors import ReadError

# What is known, by the name a biologist would use, with the suffixes of its files.
KINDS = {
    "AnnData": (".h5ad", ".zarr"),
    "10x": (".h5", ".mtx", ".mtx.gz"),
    "MuData": (".h5mu",),
    "loom": (".loom",),
    "table": (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz"),
    "archive": (".zip", ".tar.gz", ".tgz", ".tar", ".h5ad.gz", ".h5.gz", ".h5mu.gz", ".loom.gz"),
}
SUFFIXES = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)
HDF5_SUFFIXES = (".h5ad", ".h5", ".hdf5", ".h5mu", ".loom")
TABLE_SUFFIXES = KINDS["table"]
MTX_SUFFIXES = (".mtx", ".mtx.gz")
ARCHIVE_SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")
PACKED_SUFFIXES = tuple(f"{suffix}.gz" for suffix in HDF5_SUFFIXES)
KNOWN = ".h5ad, .zarr, 10x .h5, a 10x folder or its .mtx, .loom, .h5mu, .csv, .tsv or .txt (also .gz), or a .zip of one"
ZARR_MARKS = (".zgroup", "zarr.json")  # formats 2 and 3
# The tables that stand beside a 10x matrix and hold no expression themselves.
GENE_FILE = re.compile(r"(?:^|[._-])(?:features|genes|quants_mat_cols)\.(?:tsv|txt|csv)(?:\.gz)?$", re.I)
CELL_FILE = re.compile(
    r"(?:^|[._-])(?:barcodes|cells|cell_metadata|quants_mat_rows)\.(?:tsv|txt|csv)(?:\.gz)?$", re.I
)
MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip-compressed file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\x80", "a Python pickle, which is never opened"),
    (b"RDX", "an R data file"),
    (b"BZh", "a bzip2-compressed file"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file"),
)
HDF5_STARTS = (0, 512, 1024, 2048, 4096)  # a MuData file puts a line of its own before the HDF5
GZIP, HDF5, ZIP = MAGIC[1][0], MAGIC[0][0], MAGIC[2][0]


FOREIGN = (
    (
        (".rds", ".rda", ".rdata", ".h5seurat", ".qs"),
        "It is an object of R: save it there as .h5ad, with zellkonverter::writeH5AD or sceasy::convertFormat.",
    ),
    ((".xlsx", ".xls", ".ods"), "Save the sheet with the counts as .csv (CSV UTF-8)."),
    ((".fastq", ".fastq.gz", ".fq.gz", ".bam", ".cram"), "These are reads: count them per gene and cell first."),
    ((".mat", ".npz", ".npy", ".parquet", ".feather", ".pkl"), "Save it as .h5ad or .csv, with gene and cell names."),
)


def kind_of(path: Path) -> str:
    """Name the way to read a path.

    Parameters
    ----------
    path
        A file or a folder.

    Returns
    -------
    str
        "hdf5", "table", "mtx", "zip", "tar", "packed" (one gzipped HDF5 file), "zarr" or "folder".

    Raises
    ------
    ReadError
        It does not exist, is empty, of an unknown kind, or its first bytes belie its name.
    """
    if path.is_dir():
        return "zarr" if any((path / mark).is_file() for mark in ZARR_MARKS) else "folder"
    if not path.is_file():
        raise ReadError(f"{path} does not exist; expected a file ({KNOWN}). Check the path.")
    name, head = path.name.lower(), _head(path)
    if not name.endswith((*SUFFIXES, *HDF5_SUFFIXES, *PACKED_SUFFIXES)):
        foreign = next((words for endings, words in FOREIGN if name.endswith(endings)), "Convert it to one.")
        if what_is(head) == "a text file":
            foreign = "If it is a table of cells and genes, name it .csv or .tsv."
        raise ReadError(f"{path.name} is of an unknown kind ({what_is(head)}); expected {KNOWN}. {foreign}")
    if not head:
        raise ReadError(f"{path.name} is empty (0 bytes); expected {KNOWN}. Copy or download it again.")
    if name.endswith(HDF5_SUFFIXES):
        if not any(head.startswith(HDF5, start) for start in HDF5_STARTS):
            raise ReadError(f"{path.name} is {what_is(head)}, not HDF5 as its name says. {_remedy(head)}")
        return "hdf5"
    if name.endswith((".zip", ".zarr")) and not head.startswith(ZIP):
        raise ReadError(f"{path.name} is {what_is(head)}, not a zip as its name says. {_remedy(head)}")
    if name.endswith((".zip", ".zarr")):
        return "zip"
    if name.endswith(".tar"):
        return "tar"
    zipped = head.startswith(GZIP)
    if zipped != name.endswith((".gz", ".tgz")) or (not zipped and what_is(head) != "a text file"):
        raise ReadError(f"{path.name} is {what_is(head)}, not what its name says. {_remedy(head)}")
    if name.endswith(ARCHIVE_SUFFIXES):
        return "tar"
    if name.endswith(PACKED_SUFFIXES):
        return "packed"
    return "mtx" if name.endswith(MTX_SUFFIXES) else "table"


def is_known(name: str) -> bool:
    """Whether a file of this name could hold cells."""
    return name.lower().endswith((*SUFFIXES, *HDF5_SUFFIXES, *PACKED_SUFFIXES))


def what_is(head: bytes) -> str:
    """What a file is, from its first bytes."""
    if head.startswith(ZIP) and b"[Content_Types].xml" in head:
        return "an Excel workbook or other Office file"
    for magic, words in MAGIC:
        if head.startswith(magic):
            return words
    if not head:
        return "an empty file"
    printable = sum(byte >= 32 or byte in (9, 10, 13) for byte in head)
    return "a text file" if b"\x00" not in head and printable >= 0.95 * len(head) else "a binary file of unknown kind"


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8192)
    except OSError as error:
        raise ReadError(f"{path.name} cannot be opened: {error.strerror or error}. Check its permissions.") from error


def _remedy(head: bytes) -> str:
    what = what_is(head)
    if what == "a text file":
        first = (head.decode("utf-8", errors="replace").splitlines() or [""])[0][:40]
        return f"It begins {first!r}: name a table .csv or .tsv; for a web page, download the file itself."
    if what == "a gzip-compressed file":
        return "Unpack it first, or name a text table .csv.gz or .tsv.gz."
    if what == "an HDF5 file":
        return "Name it .h5ad or .h5."
    if what == "text in UTF-16":
        return "Save it again as UTF-8; Excel calls that CSV UTF-8."
    if "Excel" in what:
        return "Save the sheet with the counts as CSV UTF-8."
    if what == "a zip archive":
        return "Name it .zip, or unpack it and choose the file inside."
    return f"Bring the data as {KNOWN}."
