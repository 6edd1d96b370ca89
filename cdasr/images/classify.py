"""`cdasr enhance-classify`: images classified one by one, as text or JSON, with the enhanced pictures beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cdasr.images.pipeline import Classification, ImagePipeline, unusable_images, write_image
from cdasr.runtime.atomic import to_json
from cdasr.runtime.terminal import note, process_files


def classify_files(files: Sequence[Path], load: Callable[[], ImagePipeline], output_dir: Path | None = None,
                   as_json: bool = False, **options) -> int:
    """Print the likely classes of each image and return the exit code; a file that cannot be used is named on stderr.

    `options` are those of `ImagePipeline.__call__`. Enhanced images go to `output_dir`, where one is given.
    """
    def classify(pipeline: ImagePipeline, path: Path, target: Path | None) -> Classification:
        result = pipeline(path, **options)
        if as_json:
            print(classification_json(path, result), flush=True)
        else:
            likely = ", ".join(f"{name} {round(value, 4):.2f}" for name, value in result.probabilities)
            print(f"{path}: {likely}", flush=True)
        if target and result.image is not None:
            write_image(target, result.image)
            note(f"wrote {target}")
        return result
    return process_files(files, unusable_images(files), output_dir, ".enhanced.png", load, classify)


def classification_json(path: Path, result: Classification) -> str:
    """What was made of an image as a JSON object in one line."""
    top = [{"label": name, "probability": round(value, 4)} for name, value in result.probabilities]
    return to_json({
        "file": str(path), "label": result.label, "confidence": round(result.confidence, 4), "top": top,
        "label_enhanced": result.label_enhanced, "strategy": result.strategy,
        **({"chosen": result.chosen} if result.chosen else {}), "out_of_domain": result.out_of_domain,
        "nfe": result.nfe})
