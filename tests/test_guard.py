"""Files that could hang, crash or fill this process are found out in another one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from odd_cells import make_adata

from instructcell.cells import read
from instructcell.errors import ReadError
from instructcell.reading import guard, probe
from instructcell.reading.guard import check_hdf5, check_memory


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    make_adata().write_h5ad(tmp_path / "c.h5ad")
    return tmp_path / "c.h5ad"


def test_a_good_file_tells_the_size_of_each_dataset(whole):
    with h5py.File(whole) as file:
        assert check_hdf5(whole)["/X/data"] == file["X/data"].size * file["X/data"].dtype.itemsize


def huge_and_unwritten(file: h5py.File) -> None:
    del file["X"]
    file.create_dataset("X", shape=(40, 10**12), dtype="f4", chunks=(40, 1000))


def huge_and_contiguous(file: h5py.File) -> None:
    del file["X"]
    file.create_dataset("X", shape=(40, 10**12), dtype="f4")


def another_file(file: h5py.File) -> None:
    file["uns/other"] = h5py.ExternalLink("/etc/hostname", "/")


def values_of_another_file(file: h5py.File) -> None:
    file.create_dataset("uns/other", shape=(5,), dtype="u1", external=[("/etc/hostname", 0, 5)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(5,), dtype="f4")
    layout[:] = h5py.VirtualSource("/somewhere/else.h5", "data", shape=(5,))
    file.create_virtual_dataset("uns/other", layout)


def bottomless(file: h5py.File) -> None:
    group = file["uns"]
    for _ in range(100):
        group = group.create_group("deeper")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (huge_and_unwritten, "most of which were never written"),
        (huge_and_contiguous, "most of which were never written"),
        (another_file, "points into another file"),
        (values_of_another_file, "keeps its values in another file"),
        (virtual, "keeps its values in another file"),
        (bottomless, "64 levels of groups"),
    ],
)
def test_what_would_take_memory_or_read_elsewhere_is_refused(whole, change, words):
    with h5py.File(whole, "a") as file:
        change(file)
    with pytest.raises(ReadError, match=words):
        read(whole)


def test_a_group_that_holds_itself_ends(whole):
    with h5py.File(whole, "a") as file:
        file["uns/again"] = file["uns"]
    assert check_hdf5(whole)
    with pytest.raises(ReadError, match="cannot be read"):
        read(whole)


def stand_in(folder: Path, code: str) -> str:
    """A probe that does something else."""
    (folder / "probe.py").write_text(code)
    return str(folder / "probe.py")


def test_a_loop_is_stopped_by_the_clock(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "__file__", stand_in(tmp_path, "while True: pass"))
    monkeypatch.setattr(guard, "LITTLE_WORK", 0.01)
    with pytest.raises(ReadError, match="could not be looked through within"):
        check_hdf5(whole, timeout=0.5)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of this kind there")
def test_a_loop_is_stopped_by_its_share_of_the_processor(whole, tmp_path, monkeypatch):
    loop = f"import sys; sys.path.insert(0, {str(Path(probe.__file__).parent)!r}); import importlib.util as u\n"
    loop += f"spec = u.spec_from_file_location('p', {probe.__file__!r}); p = u.module_from_spec(spec)\n"
    loop += "spec.loader.exec_module(p); p.limit(2**32, 1)\nwhile True: pass"
    monkeypatch.setattr(probe, "__file__", stand_in(tmp_path, loop))
    with pytest.raises(ReadError, match="following its structure did not end"):
        check_hdf5(whole, timeout=60)


def test_a_probe_that_waits_for_its_turn_is_given_time(whole, tmp_path, monkeypatch):
    code = "import time; time.sleep(1.5); print('{\"sizes\": {}}')"
    monkeypatch.setattr(probe, "__file__", stand_in(tmp_path, code))
    monkeypatch.setattr(guard, "LITTLE_WORK", 60.0)  # however slowly this machine starts a Python
    monkeypatch.setattr(guard, "MOST_PATIENCE", 1000)
    assert check_hdf5(whole, timeout=0.3) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
def test_a_crash_of_the_library_is_a_sentence(whole, tmp_path, monkeypatch):
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(probe, "__file__", stand_in(tmp_path, crash))
    with pytest.raises(ReadError, match=r"the HDF5 library crashed on it \(SIGSEGV\)"):
        check_hdf5(whole)


def test_a_probe_without_h5py_or_switched_off_does_not_stand_in_the_way(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "__file__", stand_in(tmp_path, f"raise SystemExit({probe.NO_H5PY})"))
    assert check_hdf5(whole) == {} == check_hdf5(whole, timeout=None)
    assert read(whole).shape == (40, 300)


def test_a_missing_filter_is_named_with_its_remedy(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "__file__", stand_in(tmp_path, 'print(\'{"lacks": "zstd"}\')'))
    with pytest.raises(ReadError, match=r"compressed with zstd.*instructcell\[hdf5plugin\]"):
        read(whole)


def test_large_datasets_are_looked_at_in_places(tmp_path, monkeypatch, capsys):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("X", data=np.arange(100_000), chunks=(1000,), compression="gzip")
        file["Y"] = np.zeros((1000, 100))
        file["names"] = np.array(["a", "b"] * 100, dtype=h5py.string_dtype())
        file["one"], file["none"], file["nothing"] = "word", np.zeros(0), h5py.Empty("f4")
    monkeypatch.setattr(probe, "READ_IN_ALL", 0)
    monkeypatch.setattr(probe, "limit", lambda *_: None)
    assert probe.main(str(tmp_path / "c.h5"), 0, 0) == 0
    sizes = {"/X": 800_000, "/Y": 800_000, "/names": 1600, "/one": 8, "/none": 0, "/nothing": 0}
    assert json.loads(capsys.readouterr().out) == {"sizes": sizes}


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(whole, monkeypatch):
    with pytest.raises(ReadError, match="needs 1,000,000.0 GB of memory.*backed=True"):
        check_memory("c.h5ad", 10**6 * 2**30)
    monkeypatch.setattr(guard, "SPARE_MEMORY", 2**60)
    with pytest.raises(ReadError, match="GB are free"):
        read(whole)


def test_the_probe_imports_nothing_of_ours(whole):
    done = subprocess.run(
        [sys.executable, "-P", "-I", probe.__file__, str(whole), str(2**32), "10"], capture_output=True, check=True
    )
    assert "sizes" in json.loads(done.stdout)
