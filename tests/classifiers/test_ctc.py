"""The frozen recogniser says what transformers says, in batches as alone, and none of its weights has a gradient."""

import pytest
import torch

from cdasr.classifiers.ctc import CTCRecogniser


def group_norm_folder(recogniser_dir, folder):
    """A model like wav2vec2-base-960h: group norm, no attention mask."""
    from transformers import AutoProcessor, Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config.from_pretrained(recogniser_dir, feat_extract_norm="group", do_stable_layer_norm=False)
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    processor = AutoProcessor.from_pretrained(recogniser_dir)
    processor.feature_extractor.return_attention_mask = False
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(params=["layer", "group"])
def recogniser(request, recogniser_dir, tmp_path):
    return CTCRecogniser.from_pretrained(
        recogniser_dir if request.param == "layer" else group_norm_folder(recogniser_dir, tmp_path))


def test_logits_are_those_of_plain_transformers(recogniser):
    waves = [torch.randn(length) * 0.3 + 0.1 for length in (9000, 16_000, 5000)]
    lengths = torch.tensor([len(wave) for wave in waves])
    logits = recogniser(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths)
    for row, wave in enumerate(waves):
        inputs = recogniser.processor(wave.numpy(), sampling_rate=16_000, return_tensors="pt")
        plain = recogniser.model(inputs.input_values).logits
        assert int(logits.lengths[row]) == plain.shape[1]
        torch.testing.assert_close(logits.values[row:row + 1, :plain.shape[1]], plain, atol=2e-4, rtol=1e-3)
        assert recogniser.decode(logits.values, logits.lengths)[row] == recogniser.processor.batch_decode(
            plain.argmax(-1))[0].strip()


def test_nothing_can_train_it(recogniser):
    assert not any(parameter.requires_grad for parameter in recogniser.parameters())
    assert not recogniser.train().model.training
    assert not recogniser(torch.randn(1, 8000), torch.tensor([8000])).values.requires_grad


def test_gradients_pass_to_the_waveforms_and_to_no_weight(recogniser):
    waves = torch.randn(2, 8000, requires_grad=True)
    logits = recogniser(waves, torch.tensor([8000, 6000]))
    logits.values[1, 0].square().sum().backward()
    assert waves.grad[1, :6000].abs().max() > 0
    assert waves.grad[0].abs().max() == 0 and waves.grad[1, 6000:].abs().max() == 0, "items do not see each other"
    assert all(parameter.grad is None for parameter in recogniser.parameters())


def test_frames_and_times_follow_the_configuration(recogniser):
    assert recogniser.stride == 320
    logits = recogniser(torch.randn(1, 8000), torch.tensor([8000]))
    assert logits.hidden.shape[:2] == logits.values.shape[:2]
    times = recogniser.frame_times(logits.values.shape[1])
    assert torch.allclose(times.diff(), torch.tensor(0.02)) and 0 < float(times[0]) < 0.03


def test_too_short_and_not_a_recogniser(recogniser, tmp_path):
    with pytest.raises(ValueError, match="shorter than one frame"):
        recogniser(torch.randn(1, 100), torch.tensor([100]))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no CTC recogniser could be loaded"):
        CTCRecogniser.from_pretrained(tmp_path / "nothing")


def test_words_have_times_and_confidences(recogniser_dir):
    recogniser = CTCRecogniser.from_pretrained(recogniser_dir)
    ids = recogniser.processor.tokenizer.get_vocab()
    best = [0, 0, ids["O"], ids["N"], ids["N"], 0, ids["E"], ids["|"], 0, ids["T"], ids["W"], ids["O"], 0, ids["R"]]
    values = torch.full((2, len(best), len(ids)), -8.0)
    for frame, token in enumerate(best):
        values[:, frame, token] = 4.0 if frame < 8 else -4.0
    words, short = recogniser.words(values, torch.tensor([13, 3]))
    assert [word.word for word in words] == ["one", "two"] and [word.word for word in short] == ["o"]
    assert words[0].confidence > 0.99 > words[1].confidence > 0.8, "each the mean posterior of its own frames"
    times = recogniser.frame_times(len(best)).tolist()
    assert words[0].start < times[2] < times[6] < words[0].end < words[1].start < times[9]
    assert words[1].end - words[1].start == pytest.approx(3 * recogniser.stride / recogniser.sample_rate)


def test_tokens_that_are_words_run_together_only_with_themselves(recogniser_dir, tmp_path):
    from cdasr.speech.train_recogniser import make_processor

    model = CTCRecogniser.from_pretrained(recogniser_dir).model
    recogniser = CTCRecogniser(model, make_processor(["six two"], tmp_path, 16_000, units="words"))
    ids = recogniser.processor.tokenizer.get_vocab()
    assert recogniser.whole_words and not CTCRecogniser.from_pretrained(recogniser_dir).whole_words
    for tokens, heard in (("SIX SIX - SIX | - TWO TWO", "SIX TWO"), ("- SIX - - TWO TWO - TWO", "SIX TWO"),
                          ("SIX - | - SIX TWO SIX -", "SIX SIX TWO SIX"), ("- - - - - - - -", "")):
        best = torch.tensor([[ids.get(token, 0) for token in tokens.split()]])
        values, lengths = 9.0 * torch.nn.functional.one_hot(best, len(ids)).float(), torch.tensor([8])
        assert recogniser.decode(values, lengths) == [heard]
        words = recogniser.words(values, lengths)[0]
        assert [word.word for word in words] == heard.lower().split()
        assert all(word.confidence > 0.99 for word in words)


def test_hidden_layers_come_side_by_side_from_one_pass(recogniser, monkeypatch):
    waves, lengths = torch.randn(1, 8000), torch.tensor([8000])
    inputs = recogniser.processor(waves[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    states = recogniser.model(inputs.input_values, output_hidden_states=True).hidden_states
    recogniser = recogniser.with_hidden_layers((0, -1))
    passes, plain = [], type(recogniser.model).forward
    monkeypatch.setattr(type(recogniser.model), "forward", lambda *a, **k: passes.append(1) or plain(*a, **k))
    hidden = recogniser(waves, lengths).hidden
    expected = torch.cat([torch.nn.functional.layer_norm(states[layer], states[layer].shape[-1:])
                          for layer in (0, -1)], dim=-1)
    torch.testing.assert_close(hidden, expected, atol=1e-3, rtol=1e-3)
    assert len(passes) == 1
