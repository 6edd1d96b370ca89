"""Decoded entries on disk, one JSON line each, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from cdasr.runtime.atomic import fingerprint, to_json, write_bytes, write_json


def read_decoded(path: Path, mend: bool = True) -> list[dict]:
    """The decoded entries in `path`, of each ID the last one; a last line torn by a crash is cut off the file.

    Without `mend` it is only left out, and the file stays as it is: another run may be writing it.
    Raises ValueError, with the line, for what is no entry.
    """
    if not path.is_file():
        return []
    data = path.read_bytes()  # not text: the tear may be inside a character
    whole = data[:data.rfind(b"\n") + 1]
    if whole != data and mend:
        write_bytes(path, whole)
    entries = {}
    for number, line in enumerate(whole.split(b"\n"), start=1):  # str.splitlines cuts at U+2028 as well
        if line:
            try:
                entry = json.loads(line)
                entries[entry["ID"]] = entry
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{path}: line {number} is not a decoded entry; delete the line, and what it was of "
                                 "is decoded again") from None
    return list(entries.values())


def keep_decoded(path: Path, keys: Mapping[str, str], unit: str = "items",
                 recount: Callable[[Mapping], Mapping | None] = lambda entry: entry) -> set[str]:
    """The IDs in `path` decoded from the signals that `keys`, fingerprints by ID, says; entries of others are removed.

    IDs that `keys` does not have are left alone. Entries of earlier versions call the fingerprint `audio`. `recount`
    gives an entry with its errors counted as they are now, the same one where they are; None: decode it again.
    """
    entries = read_decoded(path)
    known = {entry["ID"]: entry.get("source", entry.get("audio")) for entry in entries}
    kept = [entry for entry in entries if known[entry["ID"]] == keys.get(entry["ID"], known[entry["ID"]])]
    if len(kept) < len(entries):
        print(f"{path}: {len(entries) - len(kept)} of {len(entries)} {unit} have changed since they were decoded; "
              "decoding them again", file=sys.stderr)
    counted = [found for found in map(recount, kept) if found is not None]
    if again := sum(new is not old for new, old in zip(counted, kept)) if len(counted) == len(kept) else len(kept):
        print(f"{path}: errors of {again} {unit} were counted in another way; counting them again", file=sys.stderr)
    if again or len(kept) < len(entries):
        write_decoded(path, counted)
    return {entry["ID"] for entry in counted}


def write_decoded(path: Path, entries: Iterable[Mapping]) -> None:
    """Write `entries` in place of what `path` holds."""
    write_bytes(path, b"".join(map(_line, entries)))


def append_decoded(path: Path, batches: Iterable[Sequence], decode: Callable[[Sequence], Iterable[dict]], total: int,
                   unit: str) -> None:
    """Append the entries that `decode` makes of each batch; `total` counts those that `path` holds already, too."""
    done = len(read_decoded(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file, tqdm(total=total, initial=done, unit=unit, desc=f"decode {path.stem}") as bar:
        for batch in batches:
            lines = [_line(entry) for entry in decode(batch)]
            try:
                file.write(b"".join(lines))
                file.flush()
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error
            bar.update(len(lines))


def _line(entry: Mapping) -> bytes:
    return (to_json(entry, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def check_same_settings(output_dir: Path, settings: Mapping, overwrite: bool) -> None:
    """Keep results of different settings apart: one set of settings an `output_dir`.

    Raises ValueError for results of other settings, unless `overwrite` says to discard them.
    """
    path = output_dir / "evaluate.json"
    if path.is_file() and (found := _read_settings(path)) != settings:
        if not overwrite:
            changed = ", ".join(key for key in {**settings, **found} if found.get(key) != settings.get(key))
            raise ValueError(f"{output_dir} holds results of other settings ({changed}); choose another --output-dir "
                             "or discard them with --overwrite (in a recipe: --decode.overwrite true)")
        shutil.rmtree(output_dir / "decode", ignore_errors=True)
    write_json(path, settings)


def _read_settings(path: Path) -> dict:
    """What `check_same_settings` wrote; nothing is known of a file that cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": path.name}


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
