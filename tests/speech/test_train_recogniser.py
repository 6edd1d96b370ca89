"""Training a recogniser, or one further: any class that the batches hear alone, in the case of its vocabulary."""

import pytest
import torch

from cdasr.classifiers.load import load_recogniser
from cdasr.speech.train_recogniser import label_encoder, train_recogniser
from tests.classifiers.ctc_models import write_model
from tests.training.helpers import RECOGNISER


@pytest.mark.parametrize("name", ["wav2vec2-group", "data2vec"])
def test_a_copy_of_any_ctc_model_is_trained_further(name, tmp_path, write_wav, tone):
    rows = [{"ID": f"u{number}", "duration": str(0.5 + 0.1 * number), "text": "AB c",
             "wav": str(write_wav(f"{number}.wav", tone(0.5 + 0.1 * number, 300)))} for number in range(4)]
    start = load_recogniser(write_model(tmp_path / "start", name))
    before = [parameter.clone() for parameter in start.parameters()]
    tuned = train_recogniser(rows, rows, tmp_path / "run", RECOGNISER, lambda wave, rng: wave, "cpu", start)
    assert all(torch.equal(old, new) for old, new in zip(before, start.parameters()))
    assert any(not torch.equal(old, new) for old, new in zip(before, tuned.parameters()))
    assert not any(parameter.requires_grad for parameter in tuned.parameters())
    again = load_recogniser(tmp_path / "run" / "model")
    wave, length = torch.randn(1, 8000), torch.tensor([8000])
    torch.testing.assert_close(again(wave, length).values, tuned(wave, length).values, atol=0, rtol=0)


def test_labels_are_in_the_case_of_the_vocabulary(tmp_path, recogniser_dir):
    lower = load_recogniser(write_model(tmp_path / "lower", "wav2vec2-group")).processor.tokenizer
    upper = load_recogniser(recogniser_dir).processor.tokenizer
    assert lower.convert_ids_to_tokens(label_encoder(lower)("AB c")) == ["a", "b", "|", "c"]
    assert upper.convert_ids_to_tokens(label_encoder(upper)("one two")) == list("ONE|TWO")


def test_only_ctc_models_of_waveforms_are_trained_further(tmp_path):
    class Other:
        pass

    with pytest.raises(ValueError, match="a Other cannot be trained further"):
        train_recogniser([], [], tmp_path, RECOGNISER, None, "cpu", Other())
