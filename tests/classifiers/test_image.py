"""The frozen image classifier: any architecture, hidden states, checkpoints that cannot run code, frozen weights."""

import copy
import importlib.util

import pytest
import torch
from safetensors.torch import save_file

from cdasr.classifiers.image import ImageClassifier, make_model
from tests.images.conftest import CLASSES, CLASSIFIER


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16)


def test_hidden_states_are_what_the_last_layer_is_given(classifier, images):
    logits = classifier(images)
    assert logits.values.shape == (4, 7) and logits.lengths is None and logits.hidden.shape == (4, 8)
    torch.testing.assert_close(classifier.model.fc(logits.hidden), logits.values)
    singles = torch.cat([classifier(image[None]).values for image in images])
    torch.testing.assert_close(singles, logits.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["resnet18", {"name": "resnet18", "small_images": True}, "mobilenet_v3_small",
                                          {"name": "small_resnet", "widths": [4, 8, 8], "blocks": 2}])
def test_torchvision_architectures(architecture, images):
    model = ImageClassifier(make_model(architecture, 7), {**CLASSIFIER, "architecture": architecture})
    logits = model(images)
    assert logits.values.shape == (4, 7) and logits.hidden.shape[0] == 4 and logits.hidden.dim() == 2
    if isinstance(architecture, dict) and architecture.get("small_images"):
        assert model.model.conv1.stride == (1, 1) and isinstance(model.model.maxpool, torch.nn.Identity)


def test_training_cannot_change_it(classifier, images):
    before = copy.deepcopy(classifier.state_dict())
    holder = torch.nn.ModuleList([classifier]).train()
    images.requires_grad_(True)
    holder[0](images).values.square().sum().backward()
    assert images.grad.abs().max() > 0, "gradients pass to the images"
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_packages_and_checkpoints_give_the_same_logits(classifier, images, tmp_path):
    known = classifier(images).values
    classifier.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(ImageClassifier.from_pretrained(tmp_path / "saved")(images).values, known)
    weights = {name: tensor.contiguous() for name, tensor in classifier.model.state_dict().items()}
    save_file(weights, tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}, "epoch": 3},
               tmp_path / "b.pt")
    for name in ("a.safetensors", "b.pt"):
        read = ImageClassifier.from_checkpoint(tmp_path / name, CLASSIFIER)
        torch.testing.assert_close(read(images).values, known)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def test_what_cannot_be_loaded_is_one_line(classifier, tmp_path):
    torch.save({"weights": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    torch.save(classifier.model.state_dict(), tmp_path / "good.pt")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name, config, reason in (
            ("evil.pt", CLASSIFIER, "no weights could be read"), ("none.pt", CLASSIFIER, "no weights could be read"),
            ("text.safetensors", CLASSIFIER, "no weights could be read"),
            ("good.pt", {**CLASSIFIER, "classes": CLASSES[:3]}, "does not fit the architecture"),
            ("good.pt", {**CLASSIFIER, "architecture": "resnet9000"}, "architecture 'resnet9000'"),
            ("good.pt", {**CLASSIFIER, "architecture": {"name": "vgg11", "small_images": True}}, "ResNets")):
        with pytest.raises(ValueError, match=reason) as error:
            ImageClassifier.from_checkpoint(tmp_path / name, config)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(ValueError, match="needs timm: pip install timm"):
            make_model("timm/resnet18", 7)
    with pytest.raises(ValueError, match="no image classifier"):
        ImageClassifier.from_pretrained(tmp_path)


def test_images_are_resized_and_standardised():
    model = ImageClassifier(make_model(CLASSIFIER["architecture"], 7), {**CLASSIFIER, "size": 8})
    seen = []
    model.model.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.full((1, 3, 16, 16), 0.5))
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([0.0, 0.4, 2 / 3]))
    assert seen[0].shape == (1, 3, 8, 8)
