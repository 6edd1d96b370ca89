"""Degradations do what they say, and a degraded set follows from its seed."""

import numpy as np
import pytest
import torch

from cdasr.images.data import ImageSet
from cdasr.images.degrade import DEGRADATIONS, TrainingDegrader, degrade_set, make_degradation


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def image():
    return torch.from_numpy(np.random.default_rng(5).random((3, 16, 16), dtype=np.float32))


def test_pixel_noise_replaces_whole_pixels_at_its_level():
    image = torch.full((3, 200, 200), 0.25)
    noisy = make_degradation({"name": "pixel_noise", "level": 0.3})(image, rng())
    changed = noisy != image
    assert torch.equal(changed.any(dim=0), changed.all(dim=0)), "a pixel is replaced in all channels"
    assert float(changed.float().mean()) == pytest.approx(0.3, abs=0.01)
    values = noisy[changed]
    assert float(values.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(values.var()) == pytest.approx(1 / 12, abs=3e-3)


def test_gaussian_blur_is_the_truncated_gaussian():
    impulse = torch.zeros(1, 11, 11)
    impulse[0, 5, 5] = 1.0
    blurred = make_degradation({"name": "gaussian_blur", "kernel": 5, "sigma": 2.0})(impulse, rng())[0]
    taps = torch.exp(-torch.arange(-2.0, 3.0).square() / 8.0)
    taps = taps / taps.sum()
    torch.testing.assert_close(blurred[3:8, 3:8], torch.outer(taps, taps), atol=1e-6, rtol=0)
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("colours", [1, 3])
def test_every_degradation_keeps_shape_and_range_and_follows_its_seed(name, colours, image):
    function = make_degradation({"name": name})
    made = [function(image[:colours], rng(seed)) for seed in (1, 1, 2)]
    assert made[0].shape == image[:colours].shape and made[0].dtype == torch.float32
    assert float(made[0].min()) >= 0.0 and float(made[0].max()) <= 1.0
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], image[:colours])
    assert torch.equal(made[0], made[2]) == (name not in ("pixel_noise", "gaussian_noise"))


def test_a_degraded_set_is_drawn_once_image_by_image():
    data = ImageSet(torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8), torch.arange(6), tuple("abcdef"))
    config = {"name": "pixel_noise", "level": 0.3}
    first = degrade_set(data, config, seed=4)
    assert torch.equal(first.images, degrade_set(data, config, seed=4).images)
    assert torch.equal(first.images[:3], degrade_set(data.select(torch.arange(3)), config, seed=4).images)
    assert not torch.equal(first.images, degrade_set(data, config, seed=5).images)
    assert torch.equal(first.labels, data.labels)


def test_training_draws_among_the_degradations(image):
    degrade = TrainingDegrader([{"name": "gaussian_blur"}, {"name": "contrast", "factor": 0.0}], clean_prob=0.3)
    blurred = make_degradation({"name": "gaussian_blur"})(image, rng())
    kinds = {"clean": 0, "blur": 0, "contrast": 0}
    for seed in range(200):
        noisy, clean = degrade(image, rng(seed))
        assert torch.equal(clean, image)
        kinds["clean" if torch.equal(noisy, image) else "blur" if torch.equal(noisy, blurred) else "contrast"] += 1
    assert 35 < kinds["clean"] < 85 and min(kinds["blur"], kinds["contrast"]) > 40


def test_training_varies_the_clean_image_before_it_is_degraded(image):
    degrade = TrainingDegrader([{"name": "contrast", "factor": 1.0}], clean_prob=0.0, shift=1, flip=True)
    pairs = [degrade(image, rng(seed)) for seed in range(200)]
    assert all(torch.allclose(noisy, clean, atol=1e-6) for noisy, clean in pairs)
    assert len({clean.numpy().tobytes() for _, clean in pairs}) == 18, "nine places, mirrored or not"


def test_wrong_configurations_are_named():
    for config, reason in (({"name": "fog"}, "unknown degradation 'fog'"), ({"level": 1}, "unknown degradation None"),
                           ({"name": "jpeg", "level": 1}, "no option level; it has quality")):
        with pytest.raises(ValueError, match=reason):
            make_degradation(config)
