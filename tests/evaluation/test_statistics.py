"""Intervals cover; paired tests see differences and only those; confidences are judged by what was right."""

import numpy as np
import pytest

from cdasr.evaluation.statistics import (
    bootstrap,
    calibration_error,
    error_rate,
    interval,
    most_confident,
    paired_p_value,
    relative_interval,
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
