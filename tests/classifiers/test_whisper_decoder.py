"""The frozen Whisper decoder hears what transformers hears; coordinates are its logits, and strategies run on them."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cdasr.classifiers import fallback, whisper_decoder
from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.classifiers.fallback import MOST_COMPRESSION, compression_ratio
from cdasr.classifiers.items import rows_of
from cdasr.classifiers.load import load_recogniser
from cdasr.classifiers.token_times import centred_boundaries, warped_boundaries
from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser, isometry
from cdasr.coupled.models import CoupledRun, LogitsModel
from cdasr.networks.layers import align_frames
from cdasr.speech.audio import read_audio
from cdasr.speech.domain import SPEECH
from cdasr.speech.pipeline import Pipeline
from cdasr.speech.signal_model import SpectrogramModel
from cdasr.training.logits import train_logits
from tests.classifiers.whisper import make_whisper
from tests.conftest import TINY_LOGITS, TINY_SIGNAL
from tests.training.helpers import BANK, COUPLED, LOGITS, add_noise, cache_of, fingerprint, log, train_coupled

pytestmark = pytest.mark.usefixtures("no_limit")
COUPLED_STRATEGIES = ("card", "cascade", "parallel", "alternating", "nested")


@pytest.fixture(scope="module")
def whisper_dir(tmp_path_factory):
    return make_whisper(tmp_path_factory.mktemp("whisper"))


def speech(items=8):
    """Warbling chords (B, T), zero-padded, and their lengths: something else is heard in each."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(4000, 32_000, (items,), generator=generator)
    time = torch.arange(32_000) / 16_000
    pitch = 100 + 3000 * torch.rand(items, 3, 1, generator=generator)
    waves = 0.2 * torch.sin(2 * torch.pi * pitch * time + 3 * torch.sin(6 * torch.pi * time)).mean(dim=1)
    return waves * (torch.arange(32_000) < lengths[:, None]), lengths


def noisy(waves, lengths):
    noise = 0.1 * torch.randn(waves.shape, generator=torch.Generator().manual_seed(1))
    return waves + noise * (torch.arange(waves.shape[1]) < lengths[:, None])


def prefix(recogniser, logits):
    return logits.tokens.shape[1] - logits.values.shape[1]


# -- what is heard ----------------------------------------------------------------------------------------------------


def plain_tokens(recogniser, waves, lengths, **options):
    inputs = recogniser.processor([wave[:length].numpy() for wave, length in zip(waves, lengths)],
                                  sampling_rate=16_000, return_tensors="pt")
    return recogniser.model.generate(inputs.input_features, **options)


def test_it_hears_what_transformers_hears(recogniser):
    waves, lengths = speech()
    logits, plain = recogniser(waves, lengths), plain_tokens(recogniser, waves, lengths)
    texts = [" ".join(text.split()) for text in recogniser.processor.batch_decode(plain, skip_special_tokens=True)]
    assert recogniser.decode(logits.values, logits.lengths) == texts and len(set(texts)) == len(texts)
    assert len(logits.lengths.unique()) > 2, "texts of several lengths"
    best, _ = recogniser.best(logits.values, logits.lengths)
    for row, length in enumerate(logits.lengths.tolist()):
        assert torch.equal(best[row, :length], logits.tokens[row, prefix(recogniser, logits):][:length])
    end = recogniser.ends[0]
    assert all((tokens != end).sum() in (length, length - 1) for tokens, length in zip(plain, logits.lengths.tolist()))


@pytest.mark.parametrize("language", ["de", None])
def test_language_and_task_are_options_or_detected(whisper_dir, language, tmp_path):
    options = {"language": language, "task": "translate", "fallback": False}
    recogniser = WhisperDecoderRecogniser.from_pretrained(whisper_dir, **options)
    if language is None:
        recogniser.model.generation_config.language = recogniser.generation.language = None
    ids = recogniser.model.generation_config.lang_to_id
    waves, lengths = speech()
    logits = recogniser(waves, lengths)
    plain = plain_tokens(recogniser, waves, lengths, task="translate", language=language)
    assert torch.equal(logits.tokens[:, prefix(recogniser, logits):], plain)
    detected = recogniser.model.detect_language(recogniser.log_mel(waves, lengths))
    assert torch.equal(logits.tokens[:, 1], torch.full((8,), ids["<|de|>"]) if language else detected)
    recogniser.save_pretrained(tmp_path)
    again = WhisperDecoderRecogniser.from_pretrained(tmp_path, fallback=False)
    assert torch.equal(again(waves, lengths).tokens, logits.tokens), "the options are saved with the model"


def test_a_batch_is_heard_as_each_item_alone(recogniser):
    waves, lengths = speech()
    together = recogniser(waves, lengths)
    again = recogniser(noisy(waves, lengths), lengths, like=together)
    for row, length in enumerate(lengths.tolist()):
        alone = recogniser(waves[row:row + 1, :length], lengths[row:row + 1])
        positions = int(alone.lengths)
        assert int(together.lengths[row]) == positions
        forced = recogniser(noisy(waves, lengths)[row:row + 1, :length], lengths[row:row + 1], like=alone)
        for known, single in ((together, alone), (again, forced)):
            for name, count in (("values", positions), ("hidden", positions), ("boundaries", positions + 1)):
                torch.testing.assert_close(getattr(known, name)[row, :count], getattr(single, name)[0, :count],
                                           atol=2e-3, rtol=1e-3)


def test_one_encoder_pass_an_observation_and_one_decoder_pass_a_token(recogniser):
    waves, lengths = speech(3)
    calls = {"encoder": 0, "decoder": 0}
    for name, module in (("encoder", recogniser.model.get_encoder()), ("decoder", recogniser.model.get_decoder())):
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    logits = recogniser(waves, lengths)
    assert calls == {"encoder": 1, "decoder": logits.values.shape[1]}
    calls.update(encoder=0, decoder=0)
    recogniser(waves, lengths, like=logits)
    assert calls == {"encoder": 1, "decoder": 1}
    calls.update(encoder=0, decoder=0)
    assert recogniser.redecode(logits) is logits and calls == {"encoder": 0, "decoder": 0}
    recogniser.redecode(recogniser(waves[:, :4000], lengths.clamp(max=4000), like=logits))
    assert calls["encoder"] == 1


# -- coordinates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank, tokens", [(32, 500), (20, 500), (32, 16)])
def test_coordinates_are_isometric_to_logits(rank, tokens):
    weight = torch.randn(tokens, rank) @ torch.diag(torch.logspace(0, -4, rank)) @ torch.randn(rank, 32) + 3.0
    basis, root = isometry(weight)
    h = torch.randn(50, 32, dtype=torch.float64)
    logits = h @ weight.double().T
    logits = logits - logits.mean(dim=1, keepdim=True)
    z = h @ root
    exact = {"compute_mode": "donot_use_mm_for_euclid_dist"}  # by products, distances near 0 are lost to rounding
    torch.testing.assert_close(torch.cdist(z, z, **exact), torch.cdist(logits, logits, **exact), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(z @ basis.T, logits, atol=1e-4, rtol=1e-5)
    assert torch.equal((z @ basis.T).argmax(dim=1), logits.argmax(dim=1))


def test_coordinates_are_unique_so_they_are_the_same_on_every_machine():
    weight = torch.randn(300, 8, dtype=torch.float64)
    centred = weight - weight.mean(dim=0)
    basis, root = isometry(weight)
    torch.testing.assert_close(root, root.T)
    assert torch.linalg.eigvalsh(root).min() > 0, "symmetric and positive: there is one such root of W'W"
    torch.testing.assert_close(root @ root, centred.T @ centred)
    torch.testing.assert_close(basis.T @ basis, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(isometry(weight.flip(0))[1], root)  # of the same logits in another order


def test_the_decoders_logits_come_back_from_coordinates(recogniser):
    waves, lengths = speech()
    logits = recogniser(waves, lengths)
    first = prefix(recogniser, logits)
    plain = recogniser.model(recogniser.log_mel(waves, lengths), decoder_input_ids=logits.tokens[:, :-1],
                             output_hidden_states=True)
    known = plain.logits[:, first - 1:] - plain.logits[:, first - 1:].mean(dim=-1, keepdim=True)
    again = recogniser(waves, lengths, like=logits)
    recogniser = recogniser.with_hidden_layers((1, -1))
    layers = recogniser(waves, lengths), recogniser(waves, lengths, like=logits)
    wanted = torch.cat([torch.nn.functional.layer_norm(plain.decoder_hidden_states[layer][:, first - 1:], (32,))
                        for layer in (1, 2)], dim=-1)
    for row, length in enumerate(logits.lengths.tolist()):
        for made in (logits, again):
            torch.testing.assert_close(recogniser.logits(made.values)[row, :length], known[row, :length],
                                       atol=1e-4, rtol=1e-4)
        for made in layers:
            torch.testing.assert_close(made.hidden[row, :length], wanted[row, :length], atol=1e-4, rtol=1e-4)


def test_nothing_can_train_it_and_gradients_reach_the_audio_alone(recogniser):
    waves, lengths = speech(2)
    waves.requires_grad_()
    logits = recogniser.train()(waves, lengths)
    logits.values[1, 0].square().sum().backward()
    assert waves.grad[1, :lengths[1]].abs().max() > 0
    assert waves.grad[0].abs().max() == 0 and waves.grad[1, lengths[1]:].abs().max() == 0
    assert not recogniser.model.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in recogniser.parameters())
    assert not recogniser(waves.detach(), lengths).values.requires_grad


def test_the_data_type_passes_through_and_tokens_stay_the_best_of_the_coordinates(whisper_dir):
    recogniser = WhisperDecoderRecogniser.from_pretrained(whisper_dir, dtype=torch.bfloat16, fallback=False,
                                                          attn_implementation="eager")
    assert recogniser.model.dtype == torch.bfloat16 and recogniser.model.config._attn_implementation == "eager"
    logits = recogniser(*speech())
    assert logits.values.dtype == torch.float32
    best, _ = recogniser.best(logits.values, logits.lengths)
    for row, length in enumerate(logits.lengths.tolist()):
        assert torch.equal(best[row, :length], logits.tokens[row, prefix(recogniser, logits):][:length])


# -- hypotheses -------------------------------------------------------------------------------------------------------


def test_all_observations_of_an_utterance_have_the_positions_of_the_first(recogniser):
    waves, lengths = speech()
    heard = recogniser(noisy(waves, lengths), lengths)
    clean = recogniser(waves, lengths, like=heard)
    assert clean.values.shape == heard.values.shape and torch.equal(clean.lengths, heard.lengths)
    assert torch.equal(clean.tokens, heard.tokens) and torch.equal(clean.boundaries, heard.boundaries)
    assert (clean.values - heard.values).abs().max() > 0.1


def test_other_audio_at_a_hypothesis_is_right_up_to_its_first_new_token_and_is_read_as_its_greedy_decoding(recogniser):
    waves, lengths = speech()
    heard = recogniser(noisy(waves, lengths), lengths)
    seen = recogniser(waves, lengths, like=heard)
    free = recogniser(waves, lengths)
    best, _ = recogniser.best(seen.values, seen.lengths)
    own, _ = recogniser.best(free.values, free.lengths)
    first = prefix(recogniser, heard)
    changed = 0
    for row, length in enumerate(heard.lengths.tolist()):
        differs = (best[row, :length] != heard.tokens[row, first:][:length]).nonzero()
        if len(differs):
            until = min(int(differs[0]) + 1, own.shape[1])
            assert torch.equal(best[row, :until], own[row, :until])
            changed += 1
    assert changed > 4
    read = recogniser.redecode(seen)
    assert recogniser.decode(read.values, read.lengths) == recogniser.decode(free.values, free.lengths)
    assert torch.equal(read.lengths, free.lengths) and not torch.equal(read.lengths, heard.lengths)
    assert torch.equal(read.tokens, free.tokens)


def test_reading_keeps_what_the_logits_say(recogniser):
    waves, lengths = speech(3)
    heard = recogniser(waves, lengths)
    wanted = torch.full((3,), 7)  # a token that the logits process would rather have in position 2
    assert not torch.isin(heard.tokens[:, prefix(recogniser, heard) + 2], wanted).any()
    values = heard.values.clone()
    values[:, 2] += 50.0 * recogniser.basis[wanted]
    read = recogniser.redecode(heard.with_values(values))
    tokens = read.tokens[:, prefix(recogniser, read):]
    torch.testing.assert_close(read.values[:, :3], values[:, :3])
    assert torch.equal(recogniser.best(read.values, read.lengths)[0][:, 2], wanted)
    assert torch.equal(tokens[:, :2], heard.tokens[:, prefix(recogniser, heard):][:, :2])
    assert torch.equal(tokens[:, 2], wanted)
    for row in range(3):  # what follows is greedy decoding given that token
        more = recogniser(waves[row:row + 1], lengths[row:row + 1], like=rows_of(read, torch.tensor([row])))
        best, _ = recogniser.best(more.values, more.lengths)
        assert torch.equal(best[0, 3:int(more.lengths)], tokens[row, 3:int(read.lengths[row])])


# -- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment_heads", [True, False])
def test_positions_follow_one_another_within_the_utterance(alignment_heads, tmp_path):
    recogniser = WhisperDecoderRecogniser.from_pretrained(make_whisper(tmp_path, alignment_heads=alignment_heads),
                                                          fallback=False)
    assert recogniser.heads == ({0: [1], 1: [0]} if alignment_heads else {0: [0, 1], 1: [0, 1]})
    waves, lengths = speech()
    logits = recogniser(waves, lengths)
    assert logits.boundaries.shape == (8, logits.values.shape[1] + 1)
    assert (logits.boundaries[:, 0] == 0).all() and (logits.boundaries.diff(dim=1) >= 0).all()
    torch.testing.assert_close(logits.boundaries.gather(1, logits.lengths[:, None])[:, 0], lengths / 16_000)
    words = recogniser.words(logits.values, logits.lengths, logits.boundaries)
    for spoken, text, seconds in zip(words, recogniser.decode(logits.values, logits.lengths), lengths / 16_000):
        assert " ".join(word.word for word in spoken) == text
        assert all(0 <= word.start <= word.end <= seconds + 1e-6 and 0 < word.confidence <= 1 for word in spoken)
        assert all(one.end <= other.start + 1e-6 for one, other in zip(spoken, spoken[1:]))


def test_warped_times_are_those_of_transformers(recogniser):
    waves, lengths = speech(4)
    logits = recogniser(waves, lengths)
    plain = recogniser.model(recogniser.log_mel(waves, lengths), decoder_input_ids=logits.tokens[:, :-1])
    recogniser.model.set_attn_implementation("eager")
    plain = recogniser.model(recogniser.log_mel(waves, lengths), decoder_input_ids=logits.tokens[:, :-1],
                             output_attentions=True)
    first = prefix(recogniser, logits)
    for row, length in enumerate(logits.lengths.tolist()):
        outputs = _Outputs(plain.cross_attentions, logits.tokens, row, first - 1 + length)
        known = recogniser.model._extract_token_timestamps(
            outputs, recogniser.generation.alignment_heads, num_frames=int(lengths[row]) // 160,
            num_input_ids=first - 1)[0, first - 1:first - 1 + length]
        torch.testing.assert_close(logits.boundaries[row, :length], known.minimum(lengths[row] / 16_000))


class _Outputs:
    """What transformers' `_extract_token_timestamps` takes: the outputs of generation, of one item."""

    def __init__(self, cross_attentions, tokens, row, length):
        self.cross_attentions = [[layer[row:row + 1, :, :length] for layer in cross_attentions]]
        self.sequences = tokens[row:row + 1]

    def __contains__(self, name):
        return hasattr(self, name)


def test_attention_that_is_clear_gives_clear_times():
    attention = torch.zeros(2, 1, 3, 30)
    for position, frames in enumerate((slice(0, 5), slice(5, 12), slice(12, 20))):
        attention[:, 0, position, frames] = 1.0
    lengths, frames, durations = torch.tensor([3, 2]), torch.tensor([20, 12]), torch.tensor([0.4, 0.25])
    warped = warped_boundaries(attention, lengths, frames, durations, 0.02, 1)
    torch.testing.assert_close(warped, torch.tensor([[0.0, 0.1, 0.24, 0.4], [0.0, 0.1, 0.25, 0.25]]))
    centred = centred_boundaries(attention, lengths, frames, durations, 0.02)
    torch.testing.assert_close(centred[0], torch.tensor([0.0, 0.11, 0.245, 0.4]))
    torch.testing.assert_close(centred[1], torch.tensor([0.0, 0.11, 0.25, 0.25]))


def test_alignment_goes_by_the_times_of_each_item():
    values = torch.tensor([[[0.0], [10.0], [20.0]], [[0.0], [10.0], [99.0]]])
    times = torch.tensor([[0.1, 0.2, 0.4], [0.0, 0.4, 0.4]])
    aligned = align_frames(values, torch.tensor([3, 2]), times, torch.tensor([0.0, 0.1, 0.3, 0.4, 0.5]))[..., 0]
    torch.testing.assert_close(aligned, torch.tensor([[0.0, 0.0, 15.0, 20.0, 20.0], [0.0, 2.5, 7.5, 10.0, 10.0]]))


# -- strategies -------------------------------------------------------------------------------------------------------


@pytest.fixture
def models():
    """An untrained logits process, which returns C(x_hat), and a signal process that does something to the signal."""
    signal = SpectrogramModel.from_config({**TINY_SIGNAL, "network": {**TINY_SIGNAL["network"], "tokens": 32,
                                                                 "condition": 8}})
    origin = torch.linspace(-1, 1, 32).tolist()
    logits = LogitsModel.from_config({**TINY_LOGITS, "space": {"scale": 2.0, "origin": origin},
                                      "network": {**TINY_LOGITS["network"], "tokens": 32}})
    return signal, logits


def degrading(signal):
    with torch.no_grad():
        signal.network.decoder[-1].expand.weight.normal_(std=0.05)
        for layer in signal.network.trunk.inject:
            layer.weight.normal_(std=0.3)
    return signal


@pytest.mark.parametrize("strategy", COUPLED_STRATEGIES)
def test_where_nothing_is_diffused_the_transcript_is_the_recognisers_own(recogniser, models, strategy):
    pipeline = Pipeline(recogniser, models[0], {}, "cpu", models[1])
    waves, lengths = speech(4)
    rows = [wave[:length] for wave, length in zip(waves, lengths)]
    plain = pipeline.transcribe(rows, "none")
    found = pipeline.transcribe(rows, strategy)
    for one, other in zip(found, plain):
        assert one.text == other.text and [word.word for word in one.words] == other.text.split()
        assert strategy == "card" or one.text_enhanced == other.text


@pytest.mark.parametrize("strategy", COUPLED_STRATEGIES)
def test_strategies_run_in_batches_as_alone_and_evaluate_nothing_twice(recogniser, models, strategy):
    pipeline = Pipeline(recogniser, degrading(models[0]), {}, "cpu", models[1])
    encoded = []
    recogniser.model.get_encoder().register_forward_hook(lambda *_: encoded.append(1))
    waves, lengths = speech(3)
    rows = [wave[:length] for wave, length in zip(waves, lengths)]
    found = pipeline.transcribe(rows, strategy)
    assert len(encoded) == found[0].nfe["classifier"]
    for row, one in zip(rows, found):
        alone = pipeline.transcribe([row], strategy)[0]
        assert (alone.text, alone.text_enhanced) == (one.text, one.text_enhanced)
        assert all(0 <= word.start <= word.end <= one.duration + 1e-6 for word in one.words)


def test_what_is_heard_on_the_enhanced_signal_has_its_own_hypothesis(recogniser, models):
    pipeline = Pipeline(recogniser, degrading(models[0]), {"strategies": {}}, "cpu", models[1])
    waves, lengths = speech()
    rows = [wave[:length] for wave, length in zip(waves, lengths)]
    enhanced = [result.text for result in pipeline.transcribe(rows, "enhanced")]
    cascade = pipeline.transcribe(rows, "cascade")
    none = [result.text for result in pipeline.transcribe(rows, "none")]
    assert [result.text_enhanced for result in cascade] == enhanced != none
    assert [result.text for result in cascade] == enhanced, "an untrained logits process returns C(x_hat; w)"


def test_logits_come_to_the_spectra_where_their_tokens_are_spoken(recogniser, models):
    waves, lengths = speech(3)
    run = CoupledRun(recogniser, *models, waves, lengths)
    heard = run.observe(run.signal.y)
    aligned, boundaries = run.align(heard.logits), heard.context.boundaries
    times = models[0].stft.frame_times(aligned.shape[1])
    for row, count in enumerate(heard.context.lengths.tolist()):
        centres = (boundaries[row, :-1] + boundaries[row, 1:]) / 2
        for position in range(count):
            if boundaries[row, position + 1] - boundaries[row, position] > 0.1:
                frame = int((times - centres[position]).abs().argmin())
                nearest = (aligned[row, frame] - heard.logits[row, :count]).norm(dim=-1).argmin()
                assert int(nearest) == position


# -- training ---------------------------------------------------------------------------------------------------------


def test_the_bank_and_both_trainings_take_it(recogniser, corpus, tmp_path):
    before = fingerprint(recogniser.model)
    signal = degrading(SpectrogramModel.from_config(TINY_SIGNAL))
    bank = cache_of(tmp_path / "bank", corpus[0], add_noise, recogniser, signal, BANK)
    clean = torch.from_numpy(read_audio(corpus[0][0]["wav"], 16_000)[0])
    heard = recogniser(clean[None], torch.tensor([len(clean)]))
    assert all(item["heard"].shape == item["clean"].shape == item["seen"].shape for item in bank)
    assert bank[0]["clean"].shape[-1] == heard.values.shape[-1] and bank[0]["heard_hidden"].shape[-1] == 32
    (tmp_path / "logits").mkdir()
    logits = train_logits(TINY_LOGITS, recogniser, bank, bank, tmp_path / "logits", LOGITS, "cpu", SPEECH)
    losses = [entry["train_loss"] for entry in log(tmp_path / "logits")]
    assert losses[-1] < losses[0]
    assert all(entry["cross_entropy"] == pytest.approx(
                   (entry["cross_entropy_cascade"] + entry["cross_entropy_card"]) / 2, abs=1e-3)
               for entry in log(tmp_path / "logits")), "which decides on the best epoch"
    encoded = torch.cat([logits.space.encode(item["clean"]) for item in bank])
    assert float(encoded.square().mean()) == pytest.approx(1.0, abs=1e-3)
    assert encoded.mean(dim=0).abs().max() < 1e-3, "the origin is the mean of C(x0)"
    (tmp_path / "coupled").mkdir()
    trained = train_coupled(signal, logits, recogniser, *corpus, tmp_path / "coupled", COUPLED, add_noise, "cpu")
    assert fingerprint(recogniser.model) == before
    assert all(layer.weight.detach().abs().max() > 0 for layer in trained[0].network.trunk.inject)
    pipeline = Pipeline(recogniser, trained[0], {}, "cpu", trained[1])
    assert all(pipeline(clean, strategy).nfe["logits"] > 0 for strategy in COUPLED_STRATEGIES)


def test_the_loss_of_some_positions_is_that_of_all_on_average(recogniser):
    torch.manual_seed(0)
    clean = recogniser(*speech(3))
    space = type(clean).fit_space([(values[:length], None) for values, length in zip(clean.values, clean.lengths)])
    known = space.encode(clean.values)
    estimate = known + 0.3 * torch.randn_like(known)

    def loss(positions):
        return float(clean.loss(estimate, known, space, SimpleNamespace(positions=positions, kl_weight=0.5,
                                                                        sequence_weight=2.0)))
    count = int(clean.lengths.sum())
    assert loss(None) == pytest.approx(loss(count), rel=1e-5) == pytest.approx(loss(10 * count), rel=1e-5)
    drawn = [loss(count // 4) for _ in range(200)]
    assert np.mean(drawn) == pytest.approx(loss(None), rel=0.03) and np.std(drawn) > 0
    assert float(clean.loss(known, known, space, SimpleNamespace(positions=None, kl_weight=1.0, sequence_weight=0.0))
                 ) == pytest.approx(0.0, abs=1e-5)
    mask = clean.mask[..., None]
    squared = float(((estimate - known).square() * mask).sum() / mask.expand_as(known).sum())
    read = SimpleNamespace(positions=None, kl_weight=0.0, sequence_weight=1.0)
    assert float(clean.cross_entropy(space.decode(estimate))) == pytest.approx(
        float(clean.loss(estimate, known, space, read)) - squared, rel=1e-4)


# -- loading ----------------------------------------------------------------------------------------------------------


def test_packages_round_trip(whisper_dir, models, tmp_path):
    recogniser = load_recogniser(whisper_dir, language="de")
    assert isinstance(recogniser, WhisperDecoderRecogniser)
    options = {"strategies": {"cascade": {"logits_steps": 3}}}
    pipeline = Pipeline(recogniser, degrading(models[0]), options, "cpu", models[1])
    waves, lengths = speech(2)
    rows = [wave[:length] for wave, length in zip(waves, lengths)]
    for by_reference in (False, True):
        pipeline.save_pretrained(tmp_path / str(by_reference), by_reference=by_reference)
        again = Pipeline.from_pretrained(tmp_path / str(by_reference), device="cpu")
        for one, other in zip(again.transcribe(rows, "cascade"), pipeline.transcribe(rows, "cascade")):
            assert (one.text, one.text_enhanced, one.words) == (other.text, other.text_enhanced, other.words)
    assert (tmp_path / "False" / "recogniser" / "model.safetensors").is_file()
    assert again.logits.space == pipeline.logits.space


def test_mistakes_are_named(recogniser, recogniser_dir, whisper_dir, tmp_path):
    with pytest.raises(ValueError, match="window of 2 s"):
        recogniser(torch.randn(1, 32_001), torch.tensor([32_001]))
    (tmp_path / "nothing").mkdir()
    for folder in (tmp_path / "nothing", recogniser_dir):
        with pytest.raises(ValueError, match="no Whisper model could be loaded"):
            WhisperDecoderRecogniser.from_pretrained(folder)
    with pytest.raises(ValueError, match="no CTC recogniser could be loaded"):
        CTCRecogniser.from_pretrained(whisper_dir)
    with pytest.raises(ValueError, match="3 hidden states, 0 to 2; there is no layer 3"):
        recogniser.with_hidden_layers((1, 3))
    english = recogniser.model.generation_config
    english.lang_to_id = None
    with pytest.raises(ValueError, match="language 'de'.*names no languages"):
        WhisperDecoderRecogniser(recogniser.model, recogniser.processor, language="de")


def test_suppressed_tokens_beyond_the_vocabulary_are_one_line(whisper_dir, tmp_path):
    shutil.copytree(whisper_dir, tmp_path / "odd")
    path = tmp_path / "odd" / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "begin_suppress_tokens": [220, 50256]}))
    with pytest.raises(ValueError, match="odd: no Whisper model.*suppresses token 50256, its vocabulary has 44"):
        load_recogniser(tmp_path / "odd")


# -- several versions of the audio, one prefix ------------------------------------------------------------------------


def two_versions(recogniser, items=6):
    waves, lengths = speech(items)
    heard = recogniser(noisy(waves, lengths), lengths)
    return heard, recogniser(waves, lengths, like=heard), recogniser(waves, lengths)


def test_lockstep_with_one_version_alone_is_that_versions_greedy_decoding(recogniser):
    heard, seen, free = two_versions(recogniser)
    encoded = []
    recogniser.model.get_encoder().register_forward_hook(lambda *_: encoded.append(1))
    for weight, known in ((0.0, heard), (1.0, free)):
        read = heard.fused(seen, weight)
        assert torch.equal(read.tokens, known.tokens) and read.texts() == known.texts()
        torch.testing.assert_close(read.values, known.values, atol=1e-3, rtol=1e-3)
    assert heard.texts() != free.texts() and not encoded


def test_every_version_is_heard_under_the_prefix_that_was_read(recogniser):
    heard, seen, _ = two_versions(recogniser)
    answer, versions = recogniser.lockstep([heard, seen], lambda values, hidden, step: torch.lerp(*values, 0.5))
    assert answer.texts() not in (heard.texts(), seen.redecode().texts())
    for version, source in zip(versions, (heard, seen)):
        forced = recogniser._teacher_forced(source.audio, answer)
        torch.testing.assert_close(version.values, forced.values, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(version.hidden, forced.hidden, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(answer.values, (versions[0].values + versions[1].values) / 2)
    best, _ = recogniser.best(answer.values, answer.lengths)
    assert torch.equal(best, answer.read) and answer.texts() == recogniser.decode(answer.values, answer.lengths)


def test_the_mean_of_coordinates_is_that_of_log_probabilities(recogniser):
    one, other = torch.randn(2, 5, 32)
    mixed = torch.lerp(recogniser.logits(one).log_softmax(-1), recogniser.logits(other).log_softmax(-1), 0.3)
    torch.testing.assert_close(recogniser.logits(torch.lerp(one, other, 0.3)).log_softmax(-1), mixed.log_softmax(-1))


@pytest.fixture
def framewise(models):
    """A logits process that estimates each position by itself."""
    config = models[1].config
    network = {**config["network"], "kernel": 1, "attention_every": 0}
    torch.manual_seed(0)
    model = LogitsModel.from_config({**config, "network": network})
    with torch.no_grad():  # something between C(y) and C(x_hat)
        model.network.mix.bias.copy_(torch.tensor([0.0, 0.5, 0.5]))
    return model


@pytest.mark.parametrize("strategy", COUPLED_STRATEGIES)
def test_answers_are_read_in_lockstep_by_a_framewise_process(recogniser, models, framewise, strategy):
    pipeline = Pipeline(recogniser, degrading(models[0]), {}, "cpu", framewise)
    encoded = []
    recogniser.model.get_encoder().register_forward_hook(lambda *_: encoded.append(1))
    waves, lengths = speech(4)
    rows = [wave[:length] for wave, length in zip(waves, lengths)]
    found = pipeline.transcribe(rows, strategy)
    assert len(encoded) == found[0].nfe["classifier"]
    for row, one in zip(rows, found):
        assert pipeline.transcribe([row], strategy)[0].text == one.text
    if strategy in ("cascade", "card"):
        known = pipeline.transcribe(rows, {"cascade": "fused", "card": "none"}[strategy])
        assert [one.text for one in found] == [one.text for one in known]


def test_a_framewise_process_sees_no_other_position(framewise):
    l_s, y, x = torch.randn(3, 2, 7, 32)
    whole = framewise.network(l_s, torch.tensor([0.5, 0.9]), y, x)
    alone = torch.cat([framewise.network(l_s[:, i:i + 1], torch.tensor([0.5, 0.9]), y[:, i:i + 1], x[:, i:i + 1])
                       for i in range(7)], dim=1)
    torch.testing.assert_close(whole, alone)


# -- answers that came to nothing -------------------------------------------------------------------------------------


def test_an_answer_has_no_more_tokens_than_its_duration_allows(recogniser, monkeypatch):
    monkeypatch.setattr(whisper_decoder, "SPARE_TOKENS", 1)
    monkeypatch.setattr(whisper_decoder, "TOKENS_PER_SECOND", 5.0)
    waves, lengths = speech()
    logits = recogniser(waves, lengths)
    most = (5 * lengths / 16_000).ceil().long() + 1
    assert (logits.lengths <= most).all() and logits.cut_off.any() and not logits.cut_off.all()
    plain = plain_tokens(recogniser, waves, lengths)
    for row, length in enumerate(logits.lengths.tolist()):  # what is left is what was said first
        assert torch.equal(logits.read[row, :length - 1], plain[row, :length - 1])


def test_repetition_compresses_and_speech_does_not():
    assert compression_ratio("a shoulder " * 20) > MOST_COMPRESSION
    assert compression_ratio("it's a book that will entertain as it informs the reader of a world") < 1.5


def test_doubtful_answers_are_decoded_again_and_the_better_one_is_kept(whisper_dir, monkeypatch):
    waves, lengths = speech()
    plain = WhisperDecoderRecogniser.from_pretrained(whisper_dir, fallback=False)(waves, lengths)
    again = WhisperDecoderRecogniser.from_pretrained(whisper_dir)
    sure = plain.log_probs.sum(dim=1) / plain.lengths
    monkeypatch.setattr(fallback, "LEAST_LOG_PROB", float(sure.median()))
    found = again(waves, lengths)
    kept = sure >= sure.median()
    assert 0 < int(kept.sum()) < 8
    assert [text for text, keep in zip(found.texts(), kept) if keep] == [
        text for text, keep in zip(plain.texts(), kept) if keep]
    assert found.texts() != plain.texts()
    likelihood = found.log_probs.sum(dim=1) / found.lengths
    assert (likelihood >= sure - 1e-4).all()
    for row in range(8):  # drawn for each item by itself
        alone = again(waves[row:row + 1, :lengths[row]], lengths[row:row + 1])
        assert alone.texts() == found.texts()[row:row + 1]
        assert [word.word for word in found.words()[row]] == found.texts()[row].split()
