"""Decoded entries on disk, one JSON line each, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from cdasr.runtime.provenance import write_json


def read_decoded(path: Path) -> list[dict]:
    """The decoded entries in `path`; a last line torn by a crash is cut off the file."""
    if not path.is_file():
        return []
    data = path.read_bytes()  # not text: the tear may be inside a character
    whole = data[:data.rfind(b"\n") + 1]
    if whole != data:
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.split(b"\n") if line]  # str.splitlines cuts at U+2028 as well


def append_decoded(path: Path, batches: Iterable[Sequence], decode: Callable[[Sequence], Iterable[dict]], total: int,
                   unit: str) -> None:
    """Append the entries that `decode` makes of each batch; `total` counts those that `path` holds already, too."""
    done = len(read_decoded(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, tqdm(total=total, initial=done, unit=unit,
                                                        desc=f"decode {path.stem}") as bar:
        for batch in batches:
            lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in decode(batch)]
            file.write("".join(lines))
            file.flush()
            bar.update(len(lines))


def claim(output_dir: Path, settings: Mapping, overwrite: bool) -> None:
    """Keep results of different settings apart: one set of settings an `output_dir`."""
    path = output_dir / "evaluate.json"
    if path.is_file() and (found := json.loads(path.read_text(encoding="utf-8"))) != settings:
        if not overwrite:
            changed = ", ".join(key for key in {**settings, **found} if found.get(key) != settings.get(key))
            raise ValueError(f"{output_dir} holds results of other settings ({changed}); choose another --output-dir "
                             "or discard them with --overwrite (in a recipe: --decode.overwrite true)")
        shutil.rmtree(output_dir / "decode", ignore_errors=True)
    write_json(path, settings)


def model_id(pipeline) -> str:
    """A fingerprint of the weights and settings that results depend on."""
    models = [model for model in (pipeline.classifier, pipeline.signal, pipeline.logits) if model is not None]
    tensors = [tensor for model in models for tensor in model.state_dict().values()]
    return fingerprint([json.dumps(pipeline.config, sort_keys=True),
                        *map(_bytes, tensors)])


def _bytes(tensor) -> bytes:
    """The numbers of a tensor of any type, also of those that NumPy does not have."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """16 hexadecimal digits that stand for `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:16]
