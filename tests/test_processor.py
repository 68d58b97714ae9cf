"""Prompts and answers become ids, and back."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import AutoProcessor

from instructcell.errors import CheckpointError, ConfigError
from instructcell.processor import CELL, SIGNAL, Answer, InstructCellProcessor, Prompt, build_tokenizer
from instructcell.tokens import CELL_TOKEN, SIGNAL_TOKEN


def test_each_cell_takes_k_tokens_and_text_stands_around_them(tiny_processor):
    p = tiny_processor
    ids = p([Prompt(("annotate: ", CELL, CELL, " now"))])["input_ids"][0].tolist()
    expected = p.encode_text("annotate: ") + [p.cell_token_id] * 4 + p.encode_text(" now") + [p.tokenizer.eos_token_id]
    assert ids == expected


def test_a_template_says_where_its_cells_stand():
    assert Prompt.parse("annotate: {cells}!", n_cells=2) == Prompt(("annotate: ", CELL, CELL, "!"))
    assert Prompt.parse("markers of B cell:") == Prompt(("markers of B cell:",))
    assert Prompt.parse("{cells} and {cells}", 2).n_cells == 4


def test_a_users_question_keeps_its_braces():
    prompt = Prompt.about("what does {cells} mean? ", 1)
    assert prompt == Prompt(("what does {cells} mean? ", CELL))
    assert Prompt.about("what marks a B cell?").n_cells == 0


@pytest.mark.parametrize("typed", [CELL_TOKEN, SIGNAL_TOKEN, "</s>", "<pad>", f"a{CELL_TOKEN}{CELL_TOKEN}b", "<CELL"])
@pytest.mark.parametrize("fixture", ["tiny_processor", "tiny_causal_processor"])
def test_typed_special_tokens_stay_text(typed, fixture, request):
    p: InstructCellProcessor = request.getfixturevalue(fixture)
    special = set(p.tokenizer.all_special_ids)
    assert not special & set(p.encode_text(typed))
    assert p.tokenizer.decode(p.encode_text(typed)) == typed
    batch = p([Prompt.about(typed, 1)], [Answer((typed, SIGNAL))])
    assert int((batch["input_ids"] == p.cell_token_id).sum()) == tiny.N_EMBEDDINGS
    assert int((batch["labels"] == p.signal_token_id).sum()) == 1


def test_the_special_tokens_of_a_prompts_frame_are_read_as_such(tiny_processor):
    p = tiny_processor
    assert p([Prompt.parse("annotate: {cells}")])["input_ids"][0, -1] == p.tokenizer.eos_token_id


def test_instructions_are_lower_cased_and_answers_keep_their_case(tiny_processor):
    p = tiny_processor
    loud, quiet = p([Prompt.about("ANNOTATE")]), p([Prompt.about("annotate")])
    assert torch.equal(loud["input_ids"], quiet["input_ids"])
    labels = p([Prompt.about("annotate")], [Answer.of("B cell")])["labels"][0]
    assert labels.tolist() == p.label_ids("B cell")
    assert p.decode_answer(labels) == "B cell"


def test_a_causal_model_keeps_the_case_of_instructions(tiny_causal_processor):
    p = tiny_causal_processor
    assert "CD8A" in p.tokenizer.decode(p([Prompt.about("is CD8A high?")])["input_ids"][0])


def test_causal_labels_ignore_the_prompt_and_padding(tiny_causal_processor):
    p = tiny_causal_processor
    prompts = [Prompt.parse("annotate: {cells}"), Prompt.parse("annotate: {cells}", 3)]
    answers = [Answer.of("B cell"), Answer.of("sensitive")]
    batch = p(prompts, answers)
    for row, answer in enumerate(answers):
        ids, labels = batch["input_ids"][row], batch["labels"][row]
        answer_ids = p.label_ids(answer.parts[0])
        assert labels[labels != -100].tolist() == answer_ids
        assert ids[labels != -100].tolist() == answer_ids
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_hides_behind_the_mask(side, tiny_processor):
    p = tiny_processor
    prompts = [Prompt.parse("annotate: {cells}"), Prompt.parse("annotate: {cells}", 4)]
    batch = p(prompts, padding_side=side)
    alone = p(prompts[:1])["input_ids"][0]
    assert torch.equal(batch["input_ids"][0][batch["attention_mask"][0].bool()], alone)
    assert batch["attention_mask"][0, 0 if side == "left" else -1] == 0


def test_prompts_for_generation_end_at_the_right_edge_of_a_causal_batch(tiny_causal_processor):
    batch = tiny_causal_processor([Prompt.about("a"), Prompt.about("a longer one")])
    assert batch["attention_mask"][:, -1].all()


def test_text_of_any_script_is_known_to_the_tokenizer(tiny_processor):
    p = tiny_processor
    text = "β-cells, 细胞 🧬\t\n\x00é"
    ids = p.encode_text(text)
    assert p.tokenizer.unk_token_id not in ids
    assert p.tokenizer.decode(ids) == text


def test_a_saved_processor_comes_back(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    assert (tmp_path / "genes.tsv").read_text().splitlines()[:2][0] == "symbol\tensembl_id"
    prompts, answers = [Prompt.about(f"Typed {CELL_TOKEN}", 2)], [Answer(("a ", SIGNAL))]
    for back in (InstructCellProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert back.genes == tiny_processor.genes
        assert back.ensembl_ids == tiny_processor.ensembl_ids
        before, after = tiny_processor(prompts, answers), back(prompts, answers)
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_processor_without_genes_says_so(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    (tmp_path / "genes.tsv").write_text("gene\nINS\n")
    with pytest.raises(CheckpointError, match="symbol"):
        InstructCellProcessor.from_pretrained(tmp_path)


def test_a_gene_named_twice_is_refused(tiny_processor):
    with pytest.raises(ConfigError, match="twice"):
        InstructCellProcessor(tiny_processor.tokenizer, ["INS", "INS"])
    with pytest.raises(ConfigError, match="Ensembl"):
        InstructCellProcessor(tiny_processor.tokenizer, ["INS", "GCG"], ["ENSG00000254647"])


def test_signals_have_no_place_in_a_prompt():
    with pytest.raises(TypeError, match="CELL"):
        Prompt(("generate ", SIGNAL))
    with pytest.raises(TypeError, match="SIGNAL"):
        Answer((CELL,))


def test_one_answer_per_prompt(tiny_processor):
    with pytest.raises(ValueError, match="1 answers for 2 prompts"):
        tiny_processor([Prompt.about("a"), Prompt.about("b")], [Answer.of("c")])


def test_the_tokenizer_has_the_size_asked_for():
    tokenizer = build_tokenizer(["annotate: b cell", "a t cell and a b cell"] * 50, vocab_size=280)
    assert len(tokenizer) <= 280
    assert tokenizer.convert_tokens_to_ids(CELL_TOKEN) < 5


def test_a_chat_template_frames_the_prompt(tiny_causal_processor):
    from instructcell.processor import _frame_of

    tokenizer = build_tokenizer(tiny.TEXTS, 300)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert _frame_of(tokenizer, tiny.tiny_qwen_config()) == ("<user>", "</s><assistant>")
    assert _frame_of(tokenizer, tiny.tiny_t5_config()) == ("", "</s>")
