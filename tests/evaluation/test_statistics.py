"""Intervals cover; paired tests see differences and only those; confidences are judged by what was right."""

import numpy as np
import pytest

from cdasr.evaluation.statistics import (
    bootstrap,
    bootstrap_clusters,
    calibration_error,
    error_rate,
    holm,
    interval,
    most_confident,
    paired_p_value,
    rate_interval,
    relative_interval,
    wilson,
)


def test_wer_is_over_all_words():
    assert error_rate([1, 0], [1, 9]) == 10.0
    with pytest.raises(ValueError, match="texts without words"):
        error_rate([0], [0])


def simulated(rng, rate, words):
    return rng.binomial(words, rate)


def test_intervals_cover_the_true_rate():
    rng, words, covered = np.random.default_rng(0), np.full(150, 4), 0
    for seed in range(200):
        low, high = interval(bootstrap([(simulated(rng, 0.2, words), words)], 600, seed)[:, 0])
        covered += low <= 20.0 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_paired_test_finds_what_is_there_and_nothing_else():
    rng, words = np.random.default_rng(1), np.full(700, 4)
    hard = rng.beta(1, 3, 700)  # utterances differ in difficulty: unpaired, the small gain would drown
    first = rng.binomial(words, hard)
    better = rng.binomial(first, 0.9)
    rates = bootstrap([(np.stack([first, better]), words)], draws=2000)
    assert paired_p_value(rates, 1, 0) < 0.001
    assert paired_p_value(rates, 0, 1) == paired_p_value(rates, 1, 0)
    low, high = relative_interval(rates, 1, 0)
    assert low < -10.0 < high < 0.0 and high - low < 6.0
    false_alarms = 0
    for seed in range(100):
        pair = np.stack([simulated(rng, 0.2, words), simulated(rng, 0.2, words)])
        false_alarms += paired_p_value(bootstrap([(pair, words)], draws=400, seed=seed), 0, 1) < 0.05
    assert false_alarms <= 12


def test_a_system_does_not_differ_from_itself():
    errors = np.array([[1, 0, 2], [1, 0, 2]])
    assert paired_p_value(bootstrap([(errors, np.array([4, 4, 4]))], draws=100), 0, 1) == 1.0
    assert relative_interval(np.zeros((10, 2)), 1, 0) is None


def test_average_over_conditions_counts_them_alike():
    easy, hard = (np.zeros((1, 5)), np.full(5, 10)), (np.full((1, 500), 10), np.full(500, 10))
    low, high = interval(bootstrap([easy, hard], draws=200)[:, 0])
    assert low == high == 50.0


def test_a_seed_gives_the_same_draws():
    groups = [(np.arange(20)[None] % 3, np.full(20, 3))]
    assert np.array_equal(bootstrap(groups, 50, seed=1), bootstrap(groups, 50, seed=1))
    assert not np.array_equal(bootstrap(groups, 50, seed=1), bootstrap(groups, 50, seed=2))


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0, 1, 50_000)
    assert calibration_error(confidences, rng.uniform(0, 1, 50_000) < confidences) < 0.01
    assert calibration_error([0.9] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.4)
    assert calibration_error([1.0, 0.0], [True, False]) == 0.0 and calibration_error([], []) is None


def test_the_most_confident_are_those_whose_least_confident_word_is():
    assert most_confident([[0.9, 0.2], [0.8], [], [0.5, 0.6], [0.99]], 0.6).tolist() == [4, 1, 3]


def test_intervals_by_speaker_are_wider_where_speakers_differ():
    rng, speakers = np.random.default_rng(3), np.repeat(np.arange(12), 20)
    words = np.full(240, 5)
    errors = rng.binomial(words, np.linspace(0.02, 0.6, 12)[speakers])
    groups, names = [(errors, words)], [[f"s{number}" for number in speakers]]
    by_item, by_speaker = (interval(draws[:, 0]) for draws in (bootstrap(groups, 2000),
                                                               bootstrap_clusters(groups, names, 2000)))
    rate = 100 * errors.sum() / words.sum()
    assert by_speaker[0] < by_item[0] < rate < by_item[1] < by_speaker[1]
    assert by_speaker[1] - by_speaker[0] > 2 * (by_item[1] - by_item[0])
    assert bootstrap_clusters(groups, [["one"] * 240]) is None


def test_a_speaker_is_drawn_in_all_conditions_together():
    first, second = (np.array([[4, 0]]), np.array([4, 4])), (np.array([[0, 4]]), np.array([4, 4]))
    rates = bootstrap_clusters([first, second], [["a", "b"], ["a", "b"]], 200)
    assert np.allclose(rates, 50.0), "what one speaker adds in one condition, the other lacks there"
    alone = bootstrap_clusters([first, second], [["a", "b"], ["c", "d"]], 200)
    assert np.isfinite(alone).all() and np.ptp(alone) > 0


def test_wilson_has_room_where_nothing_was_wrong():
    assert wilson(0, 25) == pytest.approx((0.0, 13.319), abs=0.001)
    assert wilson(5, 25) == pytest.approx((8.861, 39.131), abs=0.001)  # Newcombe (1998) has such tables
    assert wilson(25, 25)[1] == 100.0 and wilson(30, 25) == wilson(25, 25)
    with pytest.raises(ValueError, match="texts without words"):
        wilson(0, 0)


def test_holm_corrects_for_the_number_of_tests():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.02]) == [0.02]


def test_no_errors_are_no_certainty_in_any_interval():
    from cdasr.evaluation.report import table
    from cdasr.evaluation.scoring import score
    from cdasr.speech.domain import SPEECH

    assert rate_interval(np.zeros(100), 0.0, 25)[1] == pytest.approx(13.3, abs=0.05)
    entries = [{"ID": f"u{number}_clean", "condition": "clean", "errors": 0, "words": 5, "substitutions": 0,
                "deletions": 0, "insertions": 0, "character_errors": 0, "characters": 20, "confidence": [0.9] * 5,
                "correct": [True] * 5, "speaker": f"s{number % 2}", "nfe": {"signal": 0}, "seconds": 0.1, "duration": 1}
               for number in range(5)]
    scores = score({"none": entries, "enhanced": entries}, SPEECH)
    for system in scores["conditions"]["clean"].values():
        assert system["interval"][1] == pytest.approx(13.3, abs=0.05) == system["by_speaker"]["interval"][1]
        assert system["cer"]["interval"] == (0.0, pytest.approx(3.7, abs=0.05))
    low, high = scores["conditions"]["clean"]["enhanced"]["by_speaker"]["difference"]["none"]
    assert low == -high and high > 13
    shown = table(scores, SPEECH)
    assert "0.0 [0.0, 13.3]" in shown and "0.0 [0.0, 3.7]" in shown and "[0.0, 0.0]" not in shown
