"""What is read from an ablation: whether few steps are as good as many."""

from cdasr.evaluation.ablation import extra_errors


def test_extra_errors_of_few_steps_are_those_of_the_ablated_strategy():
    found = {"strategy": "parallel", "variants": [{"variant": "parallel, as the package runs it", "wer": 8.0},
                                                  {"variant": "parallel, 4 + 4 steps", "wer": 7.5},
                                                  {"variant": "parallel, 50 + 50 steps", "wer": 7.0}]}
    assert extra_errors(found, 4, 50, "wer") == 0.5
    assert extra_errors(found, 4, 16, "wer") is None
