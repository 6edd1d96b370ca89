"""The resolved settings of every recipe and size that comes with cdasr, as `resolved/*.json` keep them.

`python -m tests.recipe.settings` writes those files anew. The test compares with them: a value may be added, none may
change.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from cdasr.recipe.hparams import load_hparams

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).parent / "resolved"
SIZES = {"digits": ("default", "tiny", "gpu"),
         "librispeech": ("default", "8gpu", "tiny", "whisper", "8gpu,whisper", "wham"),
         "speechocean762": ("default", "ctc-head", "tiny"),
         "voicebank": ("default", "56spk", "8gpu", "tiny"),
         "chime4": ("default", "8gpu", "tiny"), "ears": ("default", "8gpu", "tiny"),
         "images": ("default", "cifar10", "cifar100", "imagenet32", "tiny", "cifar10,tiny"),
         "template": ("default", "tiny")}
VALUES = {"NAME": "mine", "FOLDER": "recipes/mine", "ASR": '"some/model"', "TRAIN": '"train.csv"', "VALID": '""',
          "TEST": '"test.csv"'}


def template(folder: Path) -> Path:
    """The files of `cdasr new-recipe`, filled in, as a folder of hparams."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("default", "tiny"):
        text = (ROOT / "cdasr" / "recipe" / "templates" / f"{name}.yaml").read_text(encoding="utf-8")
        for key, value in VALUES.items():
            text = text.replace(f"@{key}@", value)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def resolved(recipe: str, size: str, scratch: Path) -> dict:
    """The settings of a recipe and size, as JSON has them."""
    folder = template(scratch) if recipe == "template" else ROOT / "recipes" / recipe / "hparams"
    names = ["default", *(name for name in size.split(",") if name != "default")]
    return json.loads(json.dumps(load_hparams([folder / f"{name}.yaml" for name in names])))


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for recipe, sizes in SIZES.items():
            for size in sizes:
                text = json.dumps(resolved(recipe, size, Path(scratch)), indent=1, ensure_ascii=False, sort_keys=True)
                (KEPT / f"{recipe}-{size.replace(',', '+')}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
