"""Every class of CTC recogniser, random and small, written with `save_pretrained`, against plain transformers calls."""

import json

import pytest
import torch

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.classifiers.load import load_recogniser
from tests.classifiers.ctc_models import MODELS, TINY, write_model, write_processor

LENGTHS = (9000, 16_000, 5000, 9001)


@pytest.fixture(params=MODELS)
def folder(request, tmp_path):
    return write_model(tmp_path / request.param, request.param)


def test_a_batch_is_what_transformers_makes_of_each_waveform_in_one_pass(folder, monkeypatch):
    recogniser = load_recogniser(folder)
    recogniser = recogniser.with_hidden_layers((0, -1))
    waves = [torch.randn(length) * 0.3 + 0.1 for length in LENGTHS]
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).requires_grad_()
    passes, plain = [], type(recogniser.model).forward
    monkeypatch.setattr(type(recogniser.model), "forward", lambda *a, **k: passes.append(1) or plain(*a, **k))
    logits = recogniser(padded, torch.tensor(LENGTHS))
    assert len(passes) == (len(LENGTHS) if folder.name in ("shortened", "sew") else 1)
    monkeypatch.undo()
    for row, wave in enumerate(waves):
        inputs = recogniser.processor(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
        alone = recogniser.model(inputs)
        frames = alone.logits.shape[1]
        assert frames == int(logits.lengths[row]) == int(recogniser.frame_lengths(torch.tensor([len(wave)])))
        torch.testing.assert_close(logits.values[row, :frames], alone.logits[0], atol=1e-4, rtol=1e-3)
        single = recogniser(wave[None], torch.tensor([len(wave)]))
        torch.testing.assert_close(logits.hidden[row, :frames], single.hidden[0], atol=1e-3, rtol=1e-3)
        assert recogniser.decode(logits.values, logits.lengths)[row] == " ".join(
            recogniser.processor.batch_decode(alone.logits.argmax(-1))[0].split())
    assert logits.hidden.shape == (*logits.values.shape[:2], 2 * TINY["hidden_size"])
    (logits.values[1, :20].square().sum() + logits.hidden[1].square().sum()).backward()
    assert padded.grad[1].abs().max() > 0 and padded.grad[[0, 2, 3]].abs().max() == 0
    assert all(part.grad is None and not part.requires_grad for part in recogniser.parameters())
    assert not any("forward" in vars(part) or part._forward_pre_hooks for part in recogniser.modules())


def test_frame_times_are_where_the_frames_hear(folder):
    recogniser = load_recogniser(folder)
    stride = {"shortened": 1280}.get(folder.name, 320)
    assert recogniser.stride == stride and recogniser.receptive_field == 930
    times = recogniser.frame_times(3)
    assert times.tolist() == pytest.approx([(464.5 + stride * frame) / 16_000 for frame in range(3)])
    if folder.name == "wav2vec2-layer":
        wave = torch.randn(1, 4000, requires_grad=True)
        recogniser.model.base_model.feature_extractor(wave)[0, :, 2].sum().backward()
        heard = wave.grad[0].nonzero()
        assert float(heard.float().mean()) / 16_000 == pytest.approx(float(times[2]), abs=1e-4)
        assert int(heard.max() - heard.min()) + 1 == recogniser.receptive_field


def test_weights_are_safetensors_and_survive_a_round_trip(tmp_path):
    recogniser = load_recogniser(write_model(tmp_path / "one", "hubert"))
    recogniser.save_pretrained(tmp_path / "two")
    assert (tmp_path / "two" / "model.safetensors").is_file() and not list((tmp_path / "two").glob("*.bin"))
    wave, length = torch.randn(1, 8000), torch.tensor([8000])
    again = load_recogniser(tmp_path / "two")
    torch.testing.assert_close(again(wave, length).values, recogniser(wave, length).values, atol=0, rtol=0)


@pytest.mark.parametrize("normalise", [True, False])
def test_features_are_normalised_as_the_model_says(tmp_path, normalise):
    recogniser = load_recogniser(write_model(tmp_path / "model", "wav2vec2-layer", normalise=normalise))
    wave = torch.randn(1, 8000) * 3 + 1
    fed = (wave - wave.mean()) / wave.std(unbiased=False) if normalise else wave
    torch.testing.assert_close(recogniser(wave, torch.tensor([8000])).values, recogniser.model(fed).logits,
                               atol=1e-4, rtol=1e-3)


def test_vocabularies_have_any_delimiter_or_none(tmp_path):
    best = torch.tensor([[5, 5, 0, 5, 4, 6, 0, 7, 0, 0]])
    values, lengths = 9.0 * torch.nn.functional.one_hot(best, 9).float(), torch.tensor([10])
    without = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "d", "a", "b", "c", "'"])}
    for number, (options, text) in enumerate((({}, "aa bc"), ({"delimiter": " "}, "aa bc"),
                                              ({"vocabulary": without, "delimiter": None}, "aadbc"))):
        recogniser = load_recogniser(write_model(tmp_path / str(number), "wav2vec2-group", **options))
        assert recogniser.decode(values, lengths) == [text]
        assert [word.word for word in recogniser.words(values, lengths)[0]] == text.split()


def test_mms_adapters_bring_their_own_weights_and_vocabulary(tmp_path):
    from safetensors.torch import save_file

    base = ["<pad>", "<s>", "</s>", "<unk>", "|"]
    vocabulary = {"eng": {token: index for index, token in enumerate([*base, "a", "b", "c", "'"])},
                  "fra": {token: index for index, token in enumerate([*base, "é", "à"])}}
    folder = write_model(tmp_path / "mms", "mms", vocabulary=vocabulary)
    english = CTCRecogniser.from_pretrained(folder)
    adapter = {name: torch.randn_like(value) * 0.3 for name, value in english.model._get_adapters().items()}
    adapter.update({"lm_head.weight": torch.randn(7, 24), "lm_head.bias": torch.randn(7)})
    save_file(adapter, folder / "adapter.fra.safetensors")
    french = load_recogniser(folder, target_lang="fra")
    wave, length = torch.randn(1, 8000), torch.tensor([8000])
    plain = type(french.model).from_pretrained(folder)
    plain.load_adapter("fra")
    inputs = french.processor(wave[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    torch.testing.assert_close(french(wave, length).values, plain.eval()(inputs).logits, atol=1e-4, rtol=1e-3)
    assert french.logits_size == 7 and french.tokens[5:] == ["é", "à"] and english.tokens[5:7] == ["a", "b"]
    french.save_pretrained(tmp_path / "copy")
    copy = load_recogniser(tmp_path / "copy")
    torch.testing.assert_close(copy(wave, length).values, french(wave, length).values, atol=0, rtol=0)
    assert copy.tokens == french.tokens
    with pytest.raises(ValueError, match="no CTC recogniser could be loaded"):
        load_recogniser(folder, target_lang="deu")


def test_options_reach_transformers(tmp_path):
    folder = write_model(tmp_path / "model", "wavlm")
    for options in ({"dtype": "bfloat16"}, {"torch_dtype": torch.bfloat16}):
        recogniser = load_recogniser(folder, attn_implementation="eager", **options)
        assert recogniser.model.dtype == torch.bfloat16 and recogniser.model.config._attn_implementation == "eager"
        assert recogniser.source["options"] == {"dtype": "bfloat16", "attn_implementation": "eager"}
        assert recogniser(torch.randn(1, 8000), torch.tensor([8000])).values.dtype == torch.float32
    for bad, reason in (({"dtype": "float17"}, "there is no 'float17'"), ({"trust_remote_code": True}, "never run"),
                        ({"attn_implementation": "magic"}, "magic")):
        with pytest.raises(ValueError, match=reason):
            load_recogniser(folder, **bad)


def test_what_is_no_ctc_recogniser_of_waveforms_says_so(tmp_path):
    from transformers import BertConfig, Wav2Vec2BertConfig, Wav2Vec2BertForCTC, Wav2Vec2Model

    pretrained = write_model(tmp_path / "pretrained", "wav2vec2-group")
    Wav2Vec2Model.from_pretrained(pretrained).save_pretrained(pretrained)
    with pytest.raises(ValueError, match="pretrained, but not fine-tuned"):
        load_recogniser(pretrained)
    features = tmp_path / "features"
    write_processor(features)
    Wav2Vec2BertForCTC(Wav2Vec2BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=9,
                                          intermediate_size=16)).save_pretrained(features)
    with pytest.raises(ValueError, match="does not take waveforms"):
        load_recogniser(features)
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="'bert' is no speech recogniser"):
        load_recogniser(tmp_path / "bert")
    recogniser = load_recogniser(write_model(tmp_path / "good", "wav2vec2-group"))
    with pytest.raises(ValueError, match="no layer 3"):
        recogniser.with_hidden_layers((0, 3))


@pytest.mark.parametrize("weights", ["safetensors", "bin"])
def test_folders_of_older_versions_are_read_too(tmp_path, weights):
    """As on the hub: no processor_config.json, a bare preprocessor_config.json, weight norm under its old names."""
    from safetensors.torch import load_file, save_file

    folder = write_model(tmp_path / "model", "wav2vec2-group")
    wave, length = torch.randn(1, 8000), torch.tensor([8000])
    known = load_recogniser(folder)
    for path in folder.glob("*.json"):
        if path.name not in ("config.json", "vocab.json"):
            path.unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(
        {"do_normalize": True, "feature_size": 1, "padding_side": "right", "padding_value": 0.0,
         "return_attention_mask": False, "sampling_rate": 16_000}))
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {**specials, "do_lower_case": False, "word_delimiter_token": "|", "tokenizer_class": "Wav2Vec2CTCTokenizer",
         "processor_class": "Wav2Vec2ProcessorWithLM"}))
    state = load_file(folder / "model.safetensors")
    for old, new in (("weight_g", "parametrizations.weight.original0"),
                     ("weight_v", "parametrizations.weight.original1")):
        state = {name.replace(new, old): value for name, value in state.items()}
    assert any(name.endswith("conv.weight_g") for name in state)
    (folder / "model.safetensors").unlink()
    if weights == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    found = load_recogniser(folder)
    torch.testing.assert_close(found(wave, length).values, known(wave, length).values, atol=0, rtol=0)
    assert found.tokens == known.tokens and found.blank == 0 and found.normalise
