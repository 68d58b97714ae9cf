"""Cells go to their places, signals come from theirs, and losses weigh what they should."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, T5Config
from transformers.utils import ModelOutput

from instructcell.config import InstructCellConfig
from instructcell.errors import ConfigError
from instructcell.model import InstructCellForConditionalGeneration, inject_cells, readout_loss, text_loss
from instructcell.processor import CELL, SIGNAL, Answer, Prompt

FAMILIES = ["t5", "qwen"]
K = tiny.N_EMBEDDINGS
PROMPTS = [
    Prompt.parse("annotate: {cells}"),
    Prompt(("compare ", CELL, " with ", CELL, CELL, "?")),
    Prompt.about("hello"),
]
ANSWERS = [Answer.of("B cell"), Answer(("a ", SIGNAL, " and ", SIGNAL)), Answer((SIGNAL,))]


@pytest.fixture(params=FAMILIES)
def family(request, tiny_processor, tiny_causal_processor):
    """(model, processor) of each family."""
    processor = tiny_processor if request.param == "t5" else tiny_causal_processor
    return tiny.make_model(processor, n_classes=3), processor


def make_cells(n: int, seed: int = 0) -> torch.Tensor:
    return torch.poisson(torch.full((n, tiny.N_GENES), 1.5), generator=torch.Generator().manual_seed(seed))


def full_batch(processor) -> dict:
    return {
        **processor(PROMPTS, ANSWERS),
        "counts": make_cells(4),
        "measured": torch.ones(tiny.N_GENES, dtype=torch.bool),
        "signal_counts": make_cells(3, seed=1),
        "cell_targets": torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1]]).bool(),
        "signal_targets": torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1]]).bool(),
    }


class PassThrough(nn.Module):
    """A backbone whose hidden states are its input embeddings."""

    def __init__(self, lm: PreTrainedModel) -> None:
        super().__init__()
        self.embeddings, self.config = lm.get_input_embeddings(), lm.config

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, inputs_embeds, attention_mask=None, **kwargs):
        return ModelOutput(logits=inputs_embeds, hidden_states=(inputs_embeds,))


@pytest.fixture
def identity_model(tiny_causal_processor):
    model = tiny.make_model(tiny_causal_processor)
    model.lm = PassThrough(model.lm)
    return model


def test_each_cell_lands_on_its_own_placeholders(tiny_causal_processor, identity_model):
    batch, counts = tiny_causal_processor(PROMPTS), make_cells(4)
    out = identity_model(**batch, counts=counts).logits
    cells = identity_model.projector(identity_model.encode_cells(counts))  # [N, K, D]
    where = (batch["input_ids"] == tiny_causal_processor.cell_token_id).nonzero().tolist()
    assert len(where) == 4 * K
    for i, (row, column) in enumerate(where):
        torch.testing.assert_close(out[row, column], cells[i // K, i % K])


def test_rows_without_cells_leave_embeddings_unchanged(tiny_causal_processor, identity_model):
    batch = tiny_causal_processor(PROMPTS)
    plain = identity_model.get_input_embeddings()(batch["input_ids"])
    out = identity_model(**batch, counts=make_cells(4)).logits
    text = batch["input_ids"] != tiny_causal_processor.cell_token_id
    assert torch.equal(out[text], plain[text])


def test_placeholders_and_cells_must_match(tiny_processor, tiny_t5_model):
    batch = tiny_processor(PROMPTS, ANSWERS)
    with pytest.raises(ValueError, match="8 <CELL> positions but 6 cell embeddings"):
        tiny_t5_model(**batch, counts=make_cells(3))
    with pytest.raises(ValueError, match="no counts"):
        tiny_t5_model(**batch)
    with pytest.raises(ValueError, match="3 <SIGNAL>s but 2 cells"):
        tiny_t5_model(**batch, counts=make_cells(4), signal_counts=make_cells(2))


def test_injected_cells_keep_their_gradient():
    cells = torch.randn(1, 2, 3, requires_grad=True)
    out = inject_cells(torch.zeros(1, 4, 3), torch.tensor([[1, 7, 7, 1]]), cells, 7)
    assert torch.equal(out[0, 1:3], cells[0])
    out.sum().backward()
    assert torch.equal(cells.grad, torch.ones_like(cells))


def test_a_padded_batch_gives_what_single_rows_give(family):
    model, processor = family
    counts, n_cells, n_signals = make_cells(4), [1, 3, 0], [0, 2, 1]
    together = model(**processor(PROMPTS, ANSWERS), counts=counts)
    first_cell = first_signal = 0
    for row in range(3):
        batch = processor(PROMPTS[row : row + 1], ANSWERS[row : row + 1])
        cells = counts[first_cell : first_cell + n_cells[row]]
        alone = model(**batch, counts=cells if n_cells[row] else None)
        width = batch["labels"].shape[1]
        torch.testing.assert_close(together.logits[row, :width], alone.logits[0], atol=1e-5, rtol=1e-4)
        if n_signals[row]:
            signals = together.signal_hidden[first_signal : first_signal + n_signals[row]]
            torch.testing.assert_close(signals, alone.signal_hidden, atol=1e-5, rtol=1e-4)
        first_cell, first_signal = first_cell + n_cells[row], first_signal + n_signals[row]


def test_left_padding_moves_nothing_in_a_causal_model(tiny_causal_processor, tiny_qwen_model):
    counts = make_cells(4)
    left, right = (
        tiny_qwen_model(**tiny_causal_processor(PROMPTS, ANSWERS, padding_side=side), counts=counts)
        for side in ("left", "right")
    )
    torch.testing.assert_close(left.signal_hidden, right.signal_hidden, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(left.text_loss, right.text_loss)


def test_pseudo_cells_of_a_batch_are_those_of_single_rows(family):
    model, processor = family
    together = model(**processor(PROMPTS, ANSWERS), counts=make_cells(4)).signal_hidden
    alone = model(**processor(PROMPTS[2:], ANSWERS[2:])).signal_hidden
    a, b = (model.cell_decoder.sample(s, None, torch.Generator().manual_seed(0)) for s in (together[2:], alone))
    assert torch.equal(a, b)


def test_one_hidden_state_per_signal_in_the_order_of_the_batch(family):
    model, processor = family
    hidden = model(**processor(PROMPTS, ANSWERS), counts=make_cells(4)).signal_hidden
    assert hidden.shape == (3, model.config.hidden_size)
    assert not torch.allclose(hidden[0], hidden[1])


def test_a_cell_without_any_count_gives_a_finite_loss_and_gradient(family):
    model, processor = family
    batch = full_batch(processor)
    batch["counts"] = torch.zeros_like(batch["counts"])
    batch["signal_counts"] = torch.zeros_like(batch["signal_counts"])
    output = model(**batch)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_prompt_tokens_are_never_in_the_loss(tiny_causal_processor, tiny_qwen_model):
    batch = tiny_causal_processor(PROMPTS[2:], ANSWERS[2:])
    logits = torch.randn(1, batch["labels"].shape[1] - 1, tiny_qwen_model.config.vocab_size, requires_grad=True)
    text_loss(logits, batch["labels"][:, 1:]).backward()
    in_loss = logits.grad.abs().sum(-1)[0] > 0
    assert in_loss.tolist() == (batch["labels"][0, 1:] != -100).tolist()
    assert int(in_loss.sum()) == len(ANSWERS[2].parts) + 1  # the signal and the end


def test_the_text_loss_is_the_mean_of_row_means_and_follows_the_weights(tiny_processor, tiny_t5_model):
    batch = tiny_processor(PROMPTS, ANSWERS)
    output = tiny_t5_model(**batch, counts=make_cells(4))
    rows = []
    for row in range(3):
        labels = batch["labels"][row]
        kept = labels != -100
        log_prob = torch.log_softmax(output.logits[row], -1)
        rows.append(-log_prob[kept, labels[kept]].mean())
    torch.testing.assert_close(output.text_loss, torch.stack(rows).mean())
    weighted = tiny_t5_model(**batch, counts=make_cells(4), example_weight=torch.tensor([1.0, 0.0, 3.0]))
    torch.testing.assert_close(weighted.text_loss, (rows[0] + 3 * rows[2]) / 4)


def test_a_row_without_answer_tokens_does_not_count():
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, 2, -100], [-100] * 3])
    torch.testing.assert_close(text_loss(logits, labels), text_loss(logits[:1], labels[:1]))
    assert text_loss(logits[1:], labels[1:]) == 0


def test_the_readout_loss_sums_over_the_allowed_classes():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    targets = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]]).bool()
    probability = torch.softmax(logits, -1)
    expected = -(torch.log(probability[0, :2].sum()) + torch.log(probability[1, 1])) / 2
    torch.testing.assert_close(readout_loss(logits, targets), expected)
    assert readout_loss(logits, torch.zeros_like(targets)) == 0


def test_the_loss_is_the_weighted_sum_of_its_parts(tiny_processor):
    model = tiny.make_model(tiny_processor, n_classes=3)
    model.config.generation_weight, model.config.readout_weight, model.config.signal_weight = 0.5, 2.0, 3.0
    torch.manual_seed(0)
    o = model(**full_batch(tiny_processor), kl_weight=0.1)
    generation = o.generation_nll + 0.1 * o.generation_kl + o.library_loss
    expected = o.text_loss + 0.5 * generation + 2.0 * o.readout_loss + 3.0 * o.signal_loss
    torch.testing.assert_close(o.loss, expected)


def test_targets_without_a_readout_are_refused(tiny_processor):
    model, batch = tiny.make_model(tiny_processor), full_batch(tiny_processor)
    for name in ("cell_targets", "signal_targets"):
        targets = {key: batch[key] for key in ("cell_targets", "signal_targets") if key == name}
        plain = {key: value for key, value in batch.items() if not key.endswith("_targets")}
        with pytest.raises(ValueError, match="n_(signal_)?classes"):
            model(**plain, **targets)


def test_label_smoothing_raises_the_loss_of_a_sure_answer():
    logits = torch.tensor([[[20.0, 0.0]]])
    labels = torch.tensor([[0]])
    assert text_loss(logits, labels) < 1e-3 < text_loss(logits, labels, label_smoothing=0.1)


def test_genes_that_are_unmeasured_do_not_matter(family):
    model, processor = family
    measured = torch.arange(tiny.N_GENES) < 50
    counts = make_cells(4)
    noisy = torch.where(measured, counts, counts + 7)
    a, b = (model(**processor(PROMPTS, ANSWERS), counts=c, measured=measured).logits for c in (counts, noisy))
    assert torch.equal(a, b)


def test_the_scale_of_a_cell_does_not_matter(family):
    model, processor = family
    counts = make_cells(4)
    a, b = (model(**processor(PROMPTS, ANSWERS), counts=c).logits for c in (counts, counts * 13.0))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_saved_and_loaded_model_gives_equal_logits(family, tmp_path):
    model, processor = family
    model.save_pretrained(tmp_path)
    batch = {**processor(PROMPTS, ANSWERS), "counts": make_cells(4)}
    for auto in (InstructCellForConditionalGeneration, AutoModelForSeq2SeqLM):
        back = auto.from_pretrained(tmp_path)
        assert not back.training
        torch.testing.assert_close(back(**batch).logits, model(**batch).logits)
        torch.testing.assert_close(back(**batch).signal_hidden, model(**batch).signal_hidden)


def test_a_model_in_half_precision_keeps_its_cell_modules_whole(family, tmp_path):
    model, processor = family
    model.save_pretrained(tmp_path)
    half = InstructCellForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.get_input_embeddings().weight.dtype == half.projector.layers[0].weight.dtype == torch.bfloat16
    assert half.cell_encoder.to_embeddings.weight.dtype == half.cell_decoder.to_genes.weight.dtype == torch.float32
    output = half(**full_batch(processor))
    assert torch.isfinite(output.loss)
    assert torch.allclose(output.text_loss.float(), model(**full_batch(processor)).text_loss, rtol=0.05)


def test_weights_are_saved_as_safetensors_and_tied_ones_once(tiny_t5_model, tmp_path):
    tiny_t5_model.save_pretrained(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name != "config.json") == [".json", ".safetensors"]
    back = InstructCellForConditionalGeneration.from_pretrained(tmp_path)
    assert back.lm.lm_head.weight is back.get_input_embeddings().weight


def test_the_configuration_comes_back(tiny_t5_model, tmp_path):
    tiny_t5_model.config.save_pretrained(tmp_path)
    back = InstructCellConfig.from_pretrained(tmp_path)
    assert isinstance(back.backbone_config, T5Config)
    assert back.is_encoder_decoder
    assert (back.encoder_config, back.decoder_config) == (
        tiny_t5_model.config.encoder_config,
        tiny_t5_model.config.decoder_config,
    )
    assert (back.cell_token_id, back.n_classes) == (tiny_t5_model.config.cell_token_id, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projector": {"n_latent": 9, "n_model": 32}}, "projector.n_latent"),
        ({"encoder": {"n_genes": 5, "n_latents": 8}}, "n_latents"),
        ({"encoder": {"n_genes": 0, "n_latent": 8}}, "at least 1"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tiny_t5_model, change, message):
    fields = {k: getattr(tiny_t5_model.config, k) for k in ("backbone_config", "encoder", "projector", "decoder")}
    with pytest.raises(ConfigError, match=message):
        InstructCellConfig(**{**fields, **change})


def test_the_model_trains_and_gradients_reach_every_part(family):
    model, processor = family
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch, losses = full_batch(processor), []
    for _ in range(12):
        output = model(**batch, kl_weight=0.5, num_items_in_batch=7)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append((float(output.loss.detach()), float(output.text_loss.detach())))
    assert losses[-1][0] < losses[0][0]
    assert losses[-1][1] < 0.8 * losses[0][1]
    for name, part in model.named_children():
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0, name


def test_only_the_projector_trains_when_the_rest_is_frozen(family):
    model, processor = family
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    model(**full_batch(processor)).loss.backward()
    assert all((p.grad is not None) == name.startswith("projector") for name, p in model.named_parameters())


def test_trainer_trains_the_model(tiny_processor, tmp_path):
    from transformers import Trainer, TrainingArguments

    model = tiny.make_model(tiny_processor, n_classes=3)
    rows = [{"row": i} for i in range(4)]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            tmp_path, max_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True, save_steps=2,
            remove_unused_columns=False, disable_tqdm=True, gradient_accumulation_steps=2,
        ),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=lambda _: full_batch(tiny_processor),
    )  # fmt: skip
    before = copy.deepcopy(model.projector.layers[0].weight)
    result = trainer.train()
    assert result.training_loss > 0
    assert not torch.equal(before, model.projector.layers[0].weight)
    assert trainer.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize("family_name", FAMILIES)
def test_a_lora_adapter_attaches_and_trains(family_name, tiny_processor, tiny_causal_processor):
    peft = pytest.importorskip("peft")
    processor = tiny_processor if family_name == "t5" else tiny_causal_processor
    model = tiny.make_model(processor, n_classes=3)
    targets = ["q", "v"] if family_name == "t5" else ["q_proj", "v_proj"]
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=targets, modules_to_save=["projector", "cell_encoder"])
    )
    adapted(**full_batch(processor)).loss.backward()
    trained = {name for name, p in adapted.named_parameters() if p.grad is not None}
    assert any("lora_A" in name for name in trained)
    assert not any("cell_decoder" in name for name in trained)
    batch = processor(PROMPTS[:1])
    assert adapted.generate(**batch, counts=make_cells(1), max_new_tokens=3).shape[0] == 1


def test_what_hugging_face_models_can_do(tiny_t5_model):
    assert callable(tiny_t5_model.push_to_hub)
    assert tiny_t5_model.can_generate()
    assert tiny_t5_model.get_encoder() is tiny_t5_model.lm.encoder
    assert isinstance(tiny_t5_model, PreTrainedModel)


def test_a_pretrained_backbone_gets_the_new_tokens(tiny_processor, tmp_path):
    from transformers import T5ForConditionalGeneration

    config = tiny.tiny_t5_config()
    config.vocab_size = 40  # fewer than the processor's tokens
    torch.manual_seed(0)
    backbone = T5ForConditionalGeneration(config)
    backbone.save_pretrained(tmp_path)
    model = InstructCellForConditionalGeneration.from_backbone(tmp_path, tiny_processor, encoder={"n_latent": 8})
    assert model.get_input_embeddings().num_embeddings == len(tiny_processor.tokenizer)
    query = "encoder.block.0.layer.0.SelfAttention.q.weight"
    assert torch.equal(model.lm.get_parameter(query), backbone.get_parameter(query))
    assert torch.equal(model.get_input_embeddings().weight[:40], backbone.shared.weight)
    model(**tiny_processor(PROMPTS, ANSWERS), counts=make_cells(4)).loss.backward()


def test_a_checkpoint_without_the_readout_draws_it_anew(tiny_processor, tmp_path):
    tiny.make_model(tiny_processor).save_pretrained(tmp_path)
    model = InstructCellForConditionalGeneration.from_pretrained(tmp_path, n_classes=3)
    assert torch.isfinite(model.cell_classifier.weight).all()
    assert model.cell_classifier.weight.std() > 0


def test_a_seeded_loss_stays_what_it_was(tiny_processor):
    model = tiny.make_model(tiny_processor, n_classes=3, seed=0)
    torch.manual_seed(0)
    output = model(**full_batch(tiny_processor))
    assert output.text_loss.item() == pytest.approx(GOLDEN_TEXT_LOSS, abs=2e-3)


GOLDEN_TEXT_LOSS = 6.3005
