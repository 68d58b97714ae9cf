"""A few of the damaged files of `benchmarks/fuzz.py`: read or refused in a sentence, never anything else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import fuzz  # noqa: E402
import fuzz_cases  # noqa: E402


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_a_sentence() -> None:
    report = fuzz.fuzz(range(60), seed=7, workers=1)
    assert len(report.outcomes) == 60
    assert not report.failures, report.to_markdown()
    assert {outcome.status for outcome in report.outcomes} == {"read", "refused"}
    assert {outcome.kind for outcome in report.outcomes} == {"h5ad", "csv", "mtx"}


def test_a_case_is_the_same_file_every_time(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    fuzz_cases.write_sources(tmp_path / "sources")
    for case in range(6):
        made = []
        for again in ("one", "two"):
            folder = tmp_path / f"{again}{case}"
            folder.mkdir()
            path, kind, damage = fuzz_cases.make_case(case, 0, tmp_path / "sources", folder, "csv")
            made.append((path.read_bytes(), kind, damage))
        assert made[0] == made[1]


def test_what_a_pickle_would_do_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pickle.loads(pickle.dumps(fuzz_cases.Tripwire()))
    assert (tmp_path / fuzz_cases.CANARY).exists()
