"""Beams, language, task and initial prompt of a frozen Whisper, against transformers' own generation."""

import pytest
import torch

from cdasr.classifiers import whisper_decoder
from cdasr.classifiers.load import load_recogniser
from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
from tests.classifiers.test_whisper_decoder import noisy, prefix, speech
from tests.classifiers.whisper import make_whisper

PROMPT = "one two"


@pytest.fixture(scope="module")
def whisper_dir(tmp_path_factory):
    return make_whisper(tmp_path_factory.mktemp("whisper"), max_target_positions=40)


@pytest.fixture(autouse=True)
def no_limit(monkeypatch):
    """Untrained decoders do not stop; these tests let them go on as transformers does."""
    monkeypatch.setattr(whisper_decoder, "SPARE_TOKENS", 1000)


@pytest.fixture
def recogniser(whisper_dir):
    return WhisperDecoderRecogniser.from_pretrained(whisper_dir, fallback=False)


def plain_tokens(recogniser, waves, lengths, **options):
    return recogniser.model.generate(recogniser.log_mel(waves, lengths), **options)


def text_tokens(logits):
    """The tokens of each item behind the prefix, without ends."""
    end = logits.classifier.ends[0]
    return [[token for token in row if token != end] for row in logits.read.tolist()]


@pytest.mark.parametrize("prompt", [None, PROMPT])
def test_beams_are_those_of_transformers(whisper_dir, prompt):
    recogniser = WhisperDecoderRecogniser.from_pretrained(whisper_dir, fallback=False, initial_prompt=prompt)
    waves, lengths = speech()
    found = recogniser.with_beams(3)(waves, lengths)
    given = {} if prompt is None else {"prompt_ids": recogniser.processor.get_prompt_ids(prompt, return_tensors="pt")}
    plain = plain_tokens(recogniser, waves, lengths, num_beams=3, **given)
    texts = [recogniser.processor.decode(row, skip_special_tokens=True) for row in plain]
    assert found.texts() == [" ".join(text.split()).removeprefix(prompt or "").strip() for text in texts]
    greedy = recogniser(waves, lengths)
    assert text_tokens(found) != text_tokens(greedy), "the beams find something else"
    assert recogniser.beam_size == 1 and torch.equal(recogniser(waves, lengths).read, greedy.read)


def test_what_beams_found_is_an_observation_like_any_other(recogniser):
    waves, lengths = speech()
    beams = recogniser.with_beams(3)
    found = beams(waves, lengths)
    again = beams(waves, lengths, like=found)
    torch.testing.assert_close(again.values, found.values)
    assert found.redecode() is found and [word.word for word in found.words()[0]] == found.texts()[0].lower().split()
    assert bool((found.boundaries.diff(dim=1) >= 0).all()) and found.boundaries.shape[1] == found.values.shape[1] + 1
    log_probs = recogniser.model(decoder_input_ids=found.tokens[:, :-1], input_features=recogniser.log_mel(
        waves, lengths)).logits.log_softmax(dim=-1)
    for row, length in enumerate(found.lengths.tolist()):
        own = log_probs[row, prefix(recogniser, found) - 1:][range(length), found.read[row, :length]]
        assert bool((found.log_probs[row, :length] >= own - 1e-4).all()), "suppressed tokens have no share"


def test_times_and_likelihoods_equal_those_of_greedy_decoding_of_the_same_tokens(recogniser):
    waves, lengths = speech()
    greedy = recogniser(waves, lengths)
    one = recogniser._search(greedy.audio, lengths)[0]  # a beam of one is greedy decoding
    for name in ("read", "lengths"):
        assert torch.equal(getattr(one, name), getattr(greedy, name)), name
    for name in ("values", "hidden", "boundaries", "log_probs"):
        torch.testing.assert_close(getattr(one, name), getattr(greedy, name), atol=2e-3, rtol=1e-3)


def test_beams_end_where_an_utterance_has_too_many_tokens(recogniser, monkeypatch):
    monkeypatch.setattr(whisper_decoder, "SPARE_TOKENS", 2)
    waves, lengths = speech()
    found = recogniser.with_beams(3)(waves, lengths)
    assert bool((found.lengths <= recogniser.most_tokens(lengths)).all()) and len(found.lengths.unique()) > 1


def test_the_initial_prompt_goes_before_everything(whisper_dir, recogniser):
    waves, lengths = speech()
    prompted = WhisperDecoderRecogniser.from_pretrained(whisper_dir, fallback=False, initial_prompt=PROMPT)
    ids = prompted.processor.get_prompt_ids(PROMPT, return_tensors="pt")
    found, bare = prompted(waves, lengths), recogniser(waves, lengths)
    assert torch.equal(found.tokens[:, :len(ids)], ids.expand(len(waves), -1))
    assert prefix(prompted, found) == len(ids) + prefix(recogniser, bare)
    assert found.texts() != bare.texts() and not any(text.startswith(PROMPT) for text in found.texts())
    plain = plain_tokens(prompted, waves, lengths, prompt_ids=ids)
    assert [row[row != prompted.ends[0]].tolist() for row in plain[:, -found.read.shape[1]:]] == text_tokens(found)
    enhanced = prompted(noisy(waves, lengths), lengths, like=found)
    assert torch.equal(enhanced.tokens, found.tokens)
    fused = enhanced.fused(found, 1.0)  # lockstep, all weight on the first version
    assert fused.texts() == found.texts() and torch.equal(fused.tokens[:, :len(ids)], found.tokens[:, :len(ids)])


def test_options_that_a_model_does_not_have_are_refused_in_a_line(whisper_dir, recogniser_dir, tmp_path):
    with pytest.raises(ValueError, match="language 'klingon': the model does not have it; its languages are de en"):
        load_recogniser(whisper_dir, language="klingon")
    assert load_recogniser(whisper_dir, language="German").generation.language == "German"
    with pytest.raises(ValueError, match="initial prompt: [0-9]+ tokens; the model takes 19"):
        load_recogniser(whisper_dir, initial_prompt="one two " * 20)
    with pytest.raises(ValueError, match="initial prompt '<|en|>'"):
        load_recogniser(whisper_dir, initial_prompt="<|en|>")
    with pytest.raises(ValueError, match="option 'initial_prompt': it is of Whisper"):
        load_recogniser(recogniser_dir, initial_prompt="one")


def test_an_english_model_is_english(whisper_dir):
    recogniser = load_recogniser(whisper_dir)
    english = recogniser.model.generation_config
    english.lang_to_id, english.task_to_id, english.is_multilingual = None, None, False
    english.language, english.task = None, None
    for option in ({"language": "de"}, {"task": "translate"}):
        with pytest.raises(ValueError, match="an English model"):
            WhisperDecoderRecogniser(recogniser.model, recogniser.processor, **option)
    WhisperDecoderRecogniser(recogniser.model, recogniser.processor, language="English", task="transcribe")
