"""The project as a whole: who imports whom, what the wheel holds, what the README promises."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import instructcell
from instructcell.cells import read
from instructcell.resources import demo_path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("encoders", "instructcell", "chat_ui", "train")
MAY_IMPORT = {
    "encoders": {"encoders"},
    "instructcell": {"encoders", "instructcell"},
    "chat_ui": {"encoders", "instructcell", "chat_ui"},
    "train": {"encoders", "instructcell", "train"},
}
LARGEST_FILE = 45 * 1024**2  # bytes
MACHINE_PATH = re.compile(r"(?<![\w.~)\]}-])/(?:work|root|home|tmp/bash\w*|opt/(?:pypi|wheels)[\w-]*)/\w")


def tracked_files() -> list[Path]:
    """Files under version control; every file that could be, where there is no git."""
    if shutil.which("git") and (ROOT / ".git").exists():
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]
    return [path for name in (*PACKAGES, "tests", "docs") for path in (ROOT / name).rglob("*") if path.is_file()]


def imported_packages(source: str) -> set[str]:
    """Our packages that a module imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names & set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): sorted(imported_packages(path.read_text()) - MAY_IMPORT[package])
        for path in (ROOT / package).rglob("*.py")
    }
    assert not {path: names for path, names in wrong.items() if names}


def test_an_import_inside_a_function_is_seen() -> None:
    assert imported_packages("def f():\n    from train.command import train\n    import chat_ui.app") == {
        "train",
        "chat_ui",
    }


def test_only_tokens_spells_the_special_tokens() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path.name == "tokens.py":
                continue
            spelled = [
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and node.value in ("<CELL>", "<SIGNAL>")
            ]
            assert not spelled, f"{path.relative_to(ROOT)} spells {spelled}"


def test_importing_instructcell_loads_nothing_heavy() -> None:
    script = "import sys, instructcell; print([m for m in ('torch', 'pandas', 'anndata', 'rich') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.strip() == "[]"


def test_a_foreign_encoders_package_is_reported_by_name(tmp_path: Path) -> None:
    foreign = tmp_path / "encoders"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    run = subprocess.run(
        [sys.executable, "-c", "import instructcell"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert run.returncode != 0
    assert "WrongPackageError" in run.stderr and str(foreign / "__init__.py") in run.stderr


def test_a_missing_encoders_package_is_reported_by_name(tmp_path: Path) -> None:
    with pytest.raises(instructcell.WrongPackageError, match="'encoders' was not found"):
        instructcell.check_encoders(tmp_path / "encoders", None)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(instructcell, "nothing_of_this_name")
    assert {"read", "Session", "pp", "tl", "pl"} <= set(dir(instructcell))


def test_the_public_names_are_there() -> None:
    assert callable(instructcell.read) and callable(instructcell.Session)
    assert callable(instructcell.pp.inspect) and callable(instructcell.pl.umap)
    for name in ("annotate", "embed", "drug_response", "generate", "markers"):
        assert callable(getattr(instructcell.tl, name))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith(".pyc") or "/runs/" in name]


def test_the_wheel_holds_all_that_the_product_reads(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    data = [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in tracked_files()
        if path.is_relative_to(ROOT / package)
    ]
    assert not set(data) - inside
    for needed in (
        r"instructcell/checkpoints/mini/.*\.safetensors",
        r"instructcell/resources/.*",
        r"train/recipes/.*\.ya?ml",
    ):
        assert any(re.fullmatch(needed, name) for name in inside), needed


def test_the_wheel_installed_into_an_empty_environment_answers(wheel: Path, tmp_path: Path) -> None:
    """Its own console script, entry points and checkpoint; the libraries are lent by the environment of the tests."""
    venv.create(tmp_path / "venv", with_pip=False)
    python, program = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "instructcell"
    target = f"--python={python}"
    pip = [sys.executable, "-m", "pip", target, "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    own = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    (own / "lent.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n")
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = subprocess.run(
        [python, "-c", "import instructcell, chat_ui, train; print(instructcell.__file__, chat_ui.__file__)"],
        capture_output=True, text=True, cwd=tmp_path, check=True, env=bare,
    )  # fmt: skip
    assert all(name.startswith(str(own)) for name in where.stdout.split())
    cells = read(demo_path("pbmc"))[:40].copy()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    run = subprocess.run(
        [program, "annotate", "cells.h5ad", "-o", "named.h5ad", "--json"],
        capture_output=True, text=True, cwd=tmp_path, check=True, env=bare,
    )  # fmt: skip
    assert json.loads(run.stdout)["n_cells"] == 40
    assert "instructcell_cell_type" in read(tmp_path / "named.h5ad").obs
    verbs = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, env=bare).stdout
    assert {"chat", "train", "evaluate"} <= set(verbs.split())


def readme_commands(program: str) -> set[str]:
    """Words that follow `program` in the README's code."""
    text = (ROOT / "README.md").read_text()
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))
    return set(re.findall(rf"(?:^|[\n`$]){program} ([a-z][a-z-]*)", code))


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"chat", "test"} <= readme_commands("make") <= targets


def test_every_verb_of_the_readme_exists() -> None:
    from typer.main import get_command

    from instructcell.cli import app

    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert {"annotate", "generate", "drug"} <= readme_commands("instructcell") <= verbs


def test_files_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text())
    local = [link for link in links if "://" not in link]
    assert local and not [link for link in local if not (ROOT / link).exists()]


def test_the_makefile_documents_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    documented = re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE)
    assert sorted(phony) == sorted(documented)


def test_pins_begin_with_torch_and_cover_the_dependencies() -> None:
    import tomllib

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    wanted = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in project["dependencies"] + extras}  # type: ignore[index]
    assert next(iter(pins)) == "torch"
    assert not wanted - pinned
    assert not [pin for pin in pins.values() if "+" in pin]


def test_no_tracked_file_is_too_large() -> None:
    assert not [path.name for path in tracked_files() if path.stat().st_size > LARGEST_FILE]


def test_no_tracked_file_names_a_folder_of_somebodys_machine() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # weights, indices, pictures
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
    assert not found
