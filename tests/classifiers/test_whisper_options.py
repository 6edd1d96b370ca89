"""Beams, language, task and initial prompt of a frozen Whisper, against transformers' own generation."""

import pytest
import torch
from transformers import GenerationMixin

from cdasr.classifiers import fallback, whisper_beams, whisper_decoder
from cdasr.classifiers.load import load_recogniser
from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
from tests.classifiers.test_whisper_decoder import noisy, prefix, speech
from tests.classifiers.whisper import make_whisper

pytestmark = pytest.mark.usefixtures("no_limit")
PROMPT = "one two"


@pytest.fixture(scope="module")
def whisper_dir(tmp_path_factory):
    return make_whisper(tmp_path_factory.mktemp("whisper"), max_target_positions=40)


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
    one = whisper_beams.search(recogniser, greedy.audio, lengths)  # a beam of one is greedy decoding
    for name in ("read", "lengths"):
        assert torch.equal(getattr(one, name), getattr(greedy, name)), name
    for name in ("values", "hidden", "boundaries", "log_probs"):
        torch.testing.assert_close(getattr(one, name), getattr(greedy, name), atol=2e-3, rtol=1e-3)


def test_beams_end_where_an_utterance_has_too_many_tokens(recogniser, monkeypatch):
    monkeypatch.setattr(whisper_decoder, "SPARE_TOKENS", 2)
    waves, lengths = speech()
    found = recogniser.with_beams(3)(waves, lengths)
    assert bool((found.lengths <= recogniser.most_tokens(lengths)).all()) and len(found.lengths.unique()) > 1


def test_the_n_best_are_the_beams_of_transformers_with_their_scores(recogniser):
    waves, lengths = speech(4)
    found, best = recogniser.with_beams(4, nbest=3)(waves, lengths), recogniser.with_beams(4)(waves, lengths)
    plain = GenerationMixin.generate(  # WhisperForConditionalGeneration's own searches again for each of several
        recogniser.model, recogniser.log_mel(waves, lengths), num_beams=4, num_return_sequences=4,
        decoder_input_ids=found.tokens[:, :prefix(recogniser, found)], return_dict_in_generate=True, output_scores=True)
    texts = [" ".join(text.split()).lower() for text in recogniser.processor.batch_decode(
        plain.sequences, skip_special_tokens=True)]
    for item, ranked in enumerate(found.ranked):
        known = {}
        for text, score in list(zip(texts, plain.sequences_scores.tolist()))[4 * item:4 * item + 4]:
            known.setdefault(text, score)
        assert [one.text for one in ranked] == list(known)[:3] and len(ranked) > 1
        assert [one.score for one in ranked] == pytest.approx(list(known.values())[:3], abs=1e-4)
        assert ranked[0].acoustic == pytest.approx(ranked[0].score * int(found.lengths[item]), rel=1e-4)
        assert all(" ".join(word.word for word in one.words) == one.text for one in ranked)
        assert all(one.start <= other.start for one, other in zip(ranked[-1].words, ranked[-1].words[1:]))
    assert best.ranked is None and best.texts() == found.texts()
    length = best.read.shape[1]
    torch.testing.assert_close(found.values[:, :length], best.values, atol=1e-4, rtol=1e-4)
    assert found.audio.shape == best.audio.shape and torch.equal(found.samples, lengths)


def test_an_answer_that_is_drawn_again_has_no_others(whisper_dir, recogniser, monkeypatch):
    waves, lengths = speech(4)
    beams = recogniser.with_beams(3, nbest=3)(waves, lengths)
    scores = beams.log_probs.sum(dim=1) / beams.lengths
    monkeypatch.setattr(fallback, "LEAST_LOG_PROB", float(scores.median()))
    monkeypatch.setattr(fallback, "better_rows", lambda old, new: torch.ones(len(new.values), dtype=torch.bool))
    found = WhisperDecoderRecogniser.from_pretrained(whisper_dir).with_beams(3, nbest=3)(waves, lengths)
    drawn = [bool(score < scores.median()) for score in scores]
    assert any(drawn) and not all(drawn)
    for again, ranked, before, text in zip(drawn, found.ranked, beams.ranked, found.texts()):
        assert ranked[0].text == text and (len(ranked) == 1 if again else ranked == before)


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
