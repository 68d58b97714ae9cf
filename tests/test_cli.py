"""The command line from outside: help, exit codes, results, and what happens with files that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from typer.main import get_command
from typer.testing import CliRunner, Result

from instructcell import __version__
from instructcell.cli import VERBS, app
from instructcell.errors import MatrixError
from instructcell.genes import load_gene_table
from instructcell.output import OutputError, check_output, write_h5ad

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def cells(tmp_path: Path, synthetic_adata: AnnData) -> Path:
    path = tmp_path / "cells.h5ad"
    synthetic_adata.write_h5ad(path)
    return path


def message(result: Result) -> str:
    """The one message of a run that could not use its input."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit) or result.exception is None
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("instructcell: ")]
    assert len(lines) == 1
    return lines[0]


# Help and version


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from instructcell.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'anndata', 'gradio', 'pandas', 'transformers') if m in sys.modules]\n"
        "print(heavy)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(run: Run, verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert f"instructcell {verb}" in result.output.split("Usage:", 1)[1].split("\n", 1)[1]


def test_the_verbs_stand_in_the_order_of_a_first_visit() -> None:
    command = get_command(app)
    assert tuple(command.list_commands(None))[: len(VERBS)] == VERBS  # type: ignore[attr-defined]


def test_version(run: Run) -> None:
    assert run("--version").output.strip() == f"instructcell {__version__}"


def test_an_unknown_verb_is_the_users_mistake(run: Run) -> None:
    assert run("anotate").exit_code == 2


def test_a_plugin_that_cannot_be_loaded_says_why_when_it_is_called(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    import instructcell.cli as cli

    entry = EntryPoint("brew", "no_such_package.command:brew", cli.COMMAND_GROUP)
    monkeypatch.setattr(cli.metadata, "entry_points", lambda group: [entry])
    registered = list(app.registered_commands)
    cli._load_plugins()
    try:
        assert "'brew' could not be loaded from no_such_package.command:brew" in message(run("brew", "--strong", "now"))
    finally:
        app.registered_commands[:] = registered


# What the verbs do


def test_inspect_reports_the_file_and_the_models_genes_in_it(
    run: Run, cells: Path, synthetic_adata: AnnData, tiny_checkpoint: Path
) -> None:
    shown = run("inspect", cells, "--model", tiny_checkpoint)
    assert shown.exit_code == 0 and f"{synthetic_adata.n_obs:,} cells" in shown.stdout
    report = json.loads(run("inspect", cells, "--model", tiny_checkpoint, "--json").stdout)
    assert report["n_cells"] == synthetic_adata.n_obs and report["scale"] == "counts"
    assert 0 < report["coverage"] <= 1


def test_inspect_says_that_a_file_could_not_be_annotated(
    run: Run, synthetic_adata: AnnData, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    synthetic_adata.var_names = [f"thing{i}" for i in range(synthetic_adata.n_vars)]
    synthetic_adata.write_h5ad(tmp_path / "things.h5ad")
    shown = run("inspect", "things.h5ad", "--model", tiny_checkpoint)
    assert shown.exit_code == 0 and "cannot be annotated as it is**: 0 of 200 model genes" in shown.stdout
    document = json.loads(run("inspect", "things.h5ad", "--model", tiny_checkpoint, "--json").stdout)
    assert document["refused"].startswith("0 of 200 model genes")


def test_annotate_writes_types_and_leaves_the_cells_as_they_were(
    run: Run, cells: Path, synthetic_adata: AnnData, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "annotated.h5ad"
    result = run("annotate", cells, "-o", output, "--model", tiny_checkpoint, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["n_cells"] == synthetic_adata.n_obs == len(document["cells"])
    annotated = anndata.read_h5ad(output)
    assert {"instructcell_cell_type", "instructcell_cell_type_id", "instructcell_confidence"} <= set(annotated.obs)
    assert annotated.uns["instructcell"]["command"] == "annotate"
    assert np.array_equal(_dense(annotated), _dense(synthetic_adata))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["annotated.h5ad", "cells.h5ad"]


def test_annotate_by_a_column_names_its_clusters_and_context_can_be_left_out(
    run: Run, synthetic_adata: AnnData, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    synthetic_adata.obs["leiden"] = ["0", "1"] * (synthetic_adata.n_obs // 2)
    synthetic_adata.write_h5ad(tmp_path / "clusters.h5ad")
    command = ("annotate", tmp_path / "clusters.h5ad", "--model", tiny_checkpoint, "--by", "leiden", "--no-context")
    document = json.loads(run(*command, "--json").stdout)
    assert [row["cluster"] for row in document["clusters"]] == ["0", "1"]
    assert sum(row["cells"] for row in document["clusters"]) == synthetic_adata.n_obs
    assert document["context"] == []
    shown = run(*command)
    assert "clusters of leiden" in shown.stdout
    refused = run(*command[:-2], "donor")
    assert refused.exit_code == 2 and "found no column 'donor' in obs" in refused.stderr


def test_annotate_without_output_writes_nothing_and_says_so(
    run: Run, cells: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    result = run("annotate", cells, "--model", tiny_checkpoint)
    assert result.exit_code == 0 and "nothing written" in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["cells.h5ad"]


def test_quiet_keeps_stderr_empty(run: Run, cells: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = run("annotate", cells, "-o", tmp_path / "out.h5ad", "--model", tiny_checkpoint, "--quiet")
    assert result.exit_code == 0 and result.stderr == ""


def test_embed_writes_an_embedding_of_every_cell(run: Run, cells: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = run("embed", cells, "-o", "embedded.h5ad", "--model", tiny_checkpoint, "--json")
    assert result.exit_code == 0, result.output
    embedding = anndata.read_h5ad(tmp_path / "embedded.h5ad").obsm["X_instructcell"]
    document = json.loads(result.stdout)
    assert embedding.shape == (document["n_cells"], document["n_latent"])


def test_a_mouse_file_needs_no_flag_and_orthologs_are_said(run: Run, cells: Path, tiny_checkpoint: Path) -> None:
    adata = anndata.read_h5ad(cells)
    table = load_gene_table().set_index("symbol")["mouse_symbol"]
    names = [table.get(name, "") or f"Gm{i}" for i, name in enumerate(adata.var_names)]
    adata.var_names = names
    adata[:, ~adata.var_names.duplicated()].write_h5ad("mouse.h5ad")
    shown = run("annotate", "mouse.h5ad", "--model", tiny_checkpoint, "--json")
    assert "one-to-one human orthologs" in json.loads(shown.stdout)["context"][0]
    assert "orthologs" not in str(json.loads(run("annotate", cells, "--model", tiny_checkpoint, "--json").stdout))


def test_annotate_says_who_read_the_cells(run: Run, cells: Path, tiny_checkpoint: Path) -> None:
    document = json.loads(run("annotate", cells, "--model", tiny_checkpoint, "--json").stdout)
    assert document["engine"] == "lm" and document["n_by_lm"] == document["n_cells"]
    assert "read by the language model" in run("annotate", cells, "--model", tiny_checkpoint).stdout
    assert "no fast read-out" in message(run("annotate", cells, "--model", tiny_checkpoint, "--engine", "readout"))
    assert "auto, lm, readout" in message(run("annotate", cells, "--model", tiny_checkpoint, "--engine", "warp"))


@pytest.mark.parametrize("verb", ["inspect", "annotate", "embed", "drug", "generate"])
def test_what_the_user_says_of_a_file_is_told_to_the_doctor(
    run: Run, cells: Path, tiny_checkpoint: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instructcell import batches, doctor

    told: list[dict[str, str]] = []

    def look(adata: AnnData, **arguments: str) -> None:
        told.append(arguments)
        raise MatrixError("found enough; stop here")

    for module in (doctor, batches):
        monkeypatch.setattr(module, "inspect", look)
    drug = json.loads((tiny_checkpoint / "drugs.json").read_text())[0]["name"]
    arguments = {
        "embed": (cells, "-o", "out.h5ad"),
        "drug": (cells, "--drug", drug),
        "generate": ("--cell-type", _generable(tiny_checkpoint), "--like", cells, "-o", "out.h5ad"),
    }.get(verb, (cells,))
    said = ("--layer", "counts", "--scale", "log2", "--species", "mouse", "--gene-column", "symbol")
    message(run(verb, *arguments, *said, "--model", tiny_checkpoint))
    assert len(told) == 1 and told[0].pop("genes") and "INS" in told[0].pop("markers")["type B pancreatic cell"]
    assert told[0] == {"layer": "counts", "scale": "log2", "species": "mouse", "gene_column": "symbol"}


def test_a_file_of_few_of_the_models_genes_is_read_when_the_user_insists(
    run: Run, synthetic_adata: AnnData, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    synthetic_adata[:, :10].copy().write_h5ad(tmp_path / "panel.h5ad")
    command = ("annotate", "panel.h5ad", "-o", "out.h5ad", "--model", tiny_checkpoint)
    assert "10 of 200 model genes" in message(run(*command))
    result = run(*command, "--few-genes-ok")
    assert result.exit_code == 0, result.output
    assert anndata.read_h5ad(tmp_path / "out.h5ad").uns["instructcell"]["arguments"]["force"]


def test_an_interrupted_run_says_how_to_continue_and_does(
    run: Run, cells: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instructcell import tools

    command = ("annotate", cells, "-o", "out.h5ad", "--model", tiny_checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(tools, "scored", _interrupt)
        interrupted = run(*command)
    assert interrupted.exit_code == 130 and "--resume" in interrupted.stderr
    assert not (tmp_path / "out.h5ad").exists()
    assert "holds another run" in message(run(*command, "--labels", "B cell", "--resume"))
    assert run(*command, "--resume").exit_code == 0
    assert (tmp_path / "out.h5ad").exists() and not (tmp_path / "out.h5ad.partial").exists()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_zarr_folder_becomes_a_zarr_folder(
    run: Run, synthetic_adata: AnnData, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    synthetic_adata.write_zarr(tmp_path / "cells.zarr")
    command = ("annotate", "cells.zarr", "--model", tiny_checkpoint)
    assert "call it out.zarr" in message(run(*command, "-o", "out.h5ad"))
    result = run(*command, "-o", "out.zarr")
    assert result.exit_code == 0, result.output
    annotated = anndata.read_zarr(tmp_path / "out.zarr")
    assert np.array_equal(_dense(annotated), _dense(synthetic_adata))
    assert annotated.obs["instructcell_cell_type"].notna().all() and "X_instructcell" in annotated.obsm
    assert "exists already" in message(run(*command, "-o", "out.zarr"))
    assert run(*command, "-o", "out.zarr", "--force").exit_code == 0


def test_generate_writes_the_same_integer_counts_for_the_same_seed(
    run: Run, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    label = _generable(tiny_checkpoint)
    for name in ("one.h5ad", "two.h5ad"):
        result = run(
            "generate", "--cell-type", label, "-n", 5, "--seed", 3, "-o", name, "--model", tiny_checkpoint, "--json"
        )
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["n_cells"] == 5
    one, two = anndata.read_h5ad(tmp_path / "one.h5ad"), anndata.read_h5ad(tmp_path / "two.h5ad")
    assert np.issubdtype(one.X.dtype, np.integer)
    assert np.array_equal(_dense(one), _dense(two))


def test_drug_writes_a_response_per_cell(run: Run, cells: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    drug = json.loads((tiny_checkpoint / "drugs.json").read_text())[0]["name"]
    result = run("drug", cells, "--drug", drug, "-o", "response.h5ad", "--model", tiny_checkpoint, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["drug"] == drug
    response = anndata.read_h5ad(tmp_path / "response.h5ad").obs
    assert set(response["instructcell_drug_response"]) <= {"sensitive", "resistant"}
    assert response["instructcell_p_sensitive"].between(0, 1).all()


def test_an_unknown_drug_is_refused_by_name_with_the_known_ones(
    run: Run, cells: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    known = json.loads((tiny_checkpoint / "drugs.json").read_text())[0]["name"]
    said = message(run("drug", cells, "--drug", "moonlight", "-o", "response.h5ad", "--model", tiny_checkpoint))
    assert "moonlight" in said and known in said
    assert not (tmp_path / "response.h5ad").exists()


def test_an_unknown_cell_type_is_refused_by_name(run: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    said = message(run("generate", "--cell-type", "xyzzy", "-o", "pseudo.h5ad", "--model", tiny_checkpoint))
    assert "xyzzy" in said and not (tmp_path / "pseudo.h5ad").exists()


def test_an_unknown_label_is_refused_by_name(run: Run, cells: Path, tiny_checkpoint: Path) -> None:
    assert "xyzzy" in message(run("annotate", cells, "--labels", "xyzzy", "--model", tiny_checkpoint))


def test_an_unknown_checkpoint_is_refused_by_name(run: Run, cells: Path) -> None:
    assert "no-such-model" in message(run("annotate", cells, "--model", "no-such-model"))


def test_markers_of_a_cell_type_and_of_genes(run: Run) -> None:
    found = json.loads(run("markers", "delta cell", "--json").stdout)["results"]
    assert "SST" in {row["gene"] for row in found}
    found = json.loads(run("markers", "--genes", "INS,IAPP", "--json").stdout)["results"]
    assert "CL:0000169" in {row["cl_id"] for row in found}  # the beta cell of the pancreas


def test_markers_answers_a_question_about_a_gene_and_refuses_one_without_support(run: Run) -> None:
    document = json.loads(run("markers", "what does GCG do?", "--json").stdout)
    assert "glucagon" in document["answer"] and document["results"]
    assert "sky" in message(run("markers", "why is the sky blue?"))


@pytest.mark.parametrize("arguments", [(), ("delta cell", "--genes", "INS")])
def test_markers_wants_either_a_query_or_genes(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("markers", *arguments).exit_code == 2


def test_ask_answers_about_a_file(run: Run, cells: Path, tiny_checkpoint: Path) -> None:
    result = run("ask", cells, "Which cell types are these?", "--model", tiny_checkpoint)
    assert result.exit_code == 0 and len(result.stdout.strip()) > 20
    document = json.loads(run("ask", cells, "Which cell types are these?", "--model", tiny_checkpoint, "--json").stdout)
    assert document["answer"].strip() and document["question"] == "Which cell types are these?"


def test_ask_without_a_file_answers_from_the_index(run: Run, tiny_checkpoint: Path) -> None:
    result = run("ask", "What marks a delta cell?", "--model", tiny_checkpoint)
    assert result.exit_code == 0 and "SST" in result.stdout


def test_ask_writes_the_cells_it_made(run: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    question = f"Generate 4 cells of type {_generable(tiny_checkpoint)}"
    result = run("ask", question, "-o", "made.h5ad", "--model", tiny_checkpoint)
    assert result.exit_code == 0, result.output
    assert anndata.read_h5ad(tmp_path / "made.h5ad").n_obs == 4


def test_ask_with_only_a_file_begins_a_conversation(run: Run, cells: Path, tiny_checkpoint: Path) -> None:
    result = run("ask", cells, "--model", tiny_checkpoint)  # which ends at once: nothing is typed
    assert result.exit_code == 0 and "is loaded" in result.stdout


# Files that cannot be used


def _text(path: Path, adata: AnnData) -> None:
    path.write_text("gene,cell\nINS,3\n")


def _truncated(path: Path, adata: AnnData) -> None:
    adata.write_h5ad(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _no_genes_shared(path: Path, adata: AnnData) -> None:
    adata.var_names = [f"thing_{i}" for i in range(adata.n_vars)]
    adata.write_h5ad(path)


def _empty(path: Path, adata: AnnData) -> None:
    adata[:0].copy().write_h5ad(path)


def _all_zero(path: Path, adata: AnnData) -> None:
    AnnData(np.zeros((3, adata.n_vars), np.float32), var=pd.DataFrame(index=adata.var_names)).write_h5ad(path)


def _nan(path: Path, adata: AnnData) -> None:
    counts = _dense(adata).astype(np.float32)
    counts[0, 0] = np.nan
    AnnData(counts, var=pd.DataFrame(index=adata.var_names)).write_h5ad(path)


def _negative(path: Path, adata: AnnData) -> None:
    counts = _dense(adata).astype(np.float32)
    counts[0, 0] = -1.0
    AnnData(counts, var=pd.DataFrame(index=adata.var_names)).write_h5ad(path)


@pytest.mark.parametrize("spoil", [_text, _truncated, _no_genes_shared, _empty, _all_zero, _nan, _negative])
@pytest.mark.parametrize("verb", ["annotate", "drug"])
def test_a_file_that_cannot_be_used_gives_one_message_and_writes_nothing(
    run: Run,
    spoil: Callable[[Path, AnnData], None],
    verb: str,
    synthetic_adata: AnnData,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    spoil(tmp_path / "bad.h5ad", synthetic_adata.copy())
    drug = json.loads((tiny_checkpoint / "drugs.json").read_text())[0]["name"]
    more = ("--drug", drug) if verb == "drug" else ()
    said = message(run(verb, "bad.h5ad", *more, "-o", "out.h5ad", "--model", tiny_checkpoint))
    assert len(said) > 40
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["bad.h5ad"]


def test_a_missing_file_is_named(run: Run, tiny_checkpoint: Path) -> None:
    assert "nowhere.h5ad" in message(run("annotate", "nowhere.h5ad", "--model", tiny_checkpoint))


def test_a_bug_of_ours_keeps_its_traceback(run: Run, cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instructcell.cells.read", lambda source, **_: 1 // 0)
    result = run("inspect", cells)
    assert result.exit_code == 1 and isinstance(result.exception, ZeroDivisionError)


# Where results go


def test_the_input_is_never_replaced(run: Run, cells: Path) -> None:
    before = cells.read_bytes()
    assert "never replaced" in message(run("annotate", cells, "-o", cells, "--force"))
    assert cells.read_bytes() == before


def test_an_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    path = tmp_path / "there.h5ad"
    path.write_text("kept")
    with pytest.raises(OutputError, match="--force"):
        check_output(path)
    assert check_output(path, force=True) == path


@pytest.mark.parametrize("name", ["result.csv", "no_such_folder/result.h5ad", "folder.h5ad"])
def test_a_place_that_cannot_take_the_result_is_named_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.h5ad").mkdir()
    with pytest.raises(OutputError, match=name.split("/")[0]):
        check_output(tmp_path / name)


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "there.h5ad"
    path.write_text("kept")

    def full(self: AnnData, part: Path, **options: object) -> None:
        Path(part).write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(AnnData, "write_h5ad", full)
    with pytest.raises(OutputError, match="No space left"):
        write_h5ad(AnnData(np.ones((1, 1), np.float32)), path)
    assert path.read_text() == "kept" and [found.name for found in tmp_path.iterdir()] == ["there.h5ad"]


def _dense(adata: AnnData) -> np.ndarray:
    return np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X)


def _generable(checkpoint: Path) -> str:
    labels = json.loads((checkpoint / "labels.json").read_text())
    return next(label["name"] for label in labels if label["can_generate"])
