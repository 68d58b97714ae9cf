"""Which intent a sentence has: the reader's probabilities, the shipped weights, and their training."""

from collections import Counter

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from instructcell import router
from instructcell.errors import ResourceError
from instructcell.requests import INTENTS
from instructcell.retrieval.sentence_encoder import WEIGHTS_SHA256


class FlagReader:
    """A fake whose right answer is known: each flag word is one intent's."""

    intents = ("markers", "gene", "help")

    def chances(self, texts, previous=""):
        found = np.array([[word in text for word in ("red", "green", "blue")] for text in texts], dtype=float) + 0.01
        return found / found.sum(axis=1, keepdims=True)


def test_votes_are_the_mean_over_the_wordings_the_likeliest_first():
    flags = router.Router(FlagReader(), ["red"])
    votes = flags.votes("a green question", "a green and red one")
    assert [intent for intent, _ in votes] == ["gene", "markers", "help"]
    assert sum(chance for _, chance in votes) == pytest.approx(1)
    assert votes[0][1] == pytest.approx((1.01 / 1.03 + 1.01 / 2.03) / 2)


def test_typing_errors_are_mended_by_the_words_of_the_exemplars():
    known = router.Router(FlagReader(), ["which cells are these", "which cluster", "these cluster names"])
    assert known.spelled("wich clustr are theese") == "which cluster are these"
    assert known.spelled("GCG in which XBP") == "GCG in which XBP"


@pytest.mark.parametrize(
    ("text", "previous", "intent"),
    [
        ("who is in this tube, then?", "", "annotate"),
        ("what would you throw at them?", "annotate", "rank_drugs"),
        ("make me a couple of hundred fake Schwann cells", "", "generate"),
        ("I'd have bet they were basophils", "annotate_subset", "explain"),
        ("is there much of it in the tumour half?", "expression", "expression"),
        ("which antibodies pick out Langerhans cells?", "", "markers"),
        ("who won the cup final?", "", "out_of_scope"),
    ],
)
def test_the_shipped_reader_understands_sentences_that_it_was_not_tuned_on(text, previous, intent):
    assert text not in {exemplar.text for exemplar in router.read_exemplars()}
    assert router.load_router().votes(text, previous=previous)[0][0] == intent


def test_the_turn_before_settles_what_a_fragment_asks():
    shipped = router.load_router()
    assert shipped.votes("and in the controls?", previous="expression")[0][0] == "expression"
    assert shipped.votes("and in the controls?", previous="drug")[0][0] in ("drug", "compare_drug")


def test_there_are_exemplars_of_every_intent():
    many = Counter(exemplar.intent for exemplar in router.read_exemplars())
    assert set(many) <= set(INTENTS)
    assert set(many) == set(router.load_reader().intents)
    assert min(many.values()) >= 100
    assert not {exemplar.text for exemplar in router.read_exemplars() if exemplar.text != exemplar.text.strip()}


def test_weights_of_another_encoder_and_missing_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(router, "WEIGHTS", tmp_path / "router.safetensors")
    with pytest.raises(ResourceError, match="missing"):
        router.load_reader()
    about = {"encoder": "0" * 64, "intents": " ".join(INTENTS), "scale": "2", "temperature": "1"}
    save_file(load_file(router.RESOURCES / "router.safetensors"), tmp_path / "router.safetensors", metadata=about)
    with pytest.raises(ResourceError, match="tuned for the sentence encoder"):
        router.load_reader()
    about |= {"encoder": WEIGHTS_SHA256, "intents": "annotate juggle"}
    save_file(load_file(router.RESOURCES / "router.safetensors"), tmp_path / "router.safetensors", metadata=about)
    with pytest.raises(ResourceError, match="juggle"):
        router.load_reader()


def test_a_table_with_an_unknown_intent_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(router, "RESOURCES", tmp_path)
    (tmp_path / "intents.tsv").write_text("intent\tprevious\ttext\njuggle\t\tthree balls\n", encoding="utf-8")
    with pytest.raises(ResourceError, match="juggle"):
        router.read_exemplars()
    with pytest.raises(ResourceError, match="missing"):
        router.read_exemplars("none.tsv")


def test_what_training_writes_is_what_is_read(tmp_path, monkeypatch):
    """The low-rank changes, added to the encoder's weights, give the scores that training saw."""
    import torch

    from train import router as training

    torch.manual_seed(0)
    exemplars = [router.Exemplar(intent, f"{intent} number {i}") for i in range(3) for intent in INTENTS]
    texts = [(exemplar.text,) for exemplar in exemplars]
    reader = training.Reader(rank=2, names=INTENTS)
    before = reader.kept()
    training.fit(reader, exemplars, texts, epochs=1)
    kept = reader.kept()
    assert any(not torch.equal(before[name], kept[name]) for name in kept if name.endswith(".B"))
    about = {
        "encoder": WEIGHTS_SHA256,
        "intents": " ".join(INTENTS),
        "scale": str(reader.scale),
        "temperature": "1.0",
    }
    save_file(kept, tmp_path / "router.safetensors", metadata=about)
    monkeypatch.setattr(router, "WEIGHTS", tmp_path / "router.safetensors")
    read = router.load_reader()
    reader.eval()
    with torch.inference_mode():
        seen = reader(["which types are these?"], ["cluster"]).softmax(dim=-1).numpy()
    assert read.chances(["which types are these?"], "cluster") == pytest.approx(seen, abs=2e-3)
