"""Where a pretrained model is: a local folder, the hub's cache, or the hub; and one line where it is nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdasr.runtime.plain_data import one_line

WAYS_OUT = "give a local folder that save_pretrained wrote, a name that is in the hub's cache, or another name"
PLACE = ("revision", "cache_dir", "token")  # options of from_pretrained that say which files


def locate(name_or_dir: str | os.PathLike, options: dict | None = None) -> str:
    """The folder of a model: as given, or of its snapshot in the hub's cache, fetched first where the hub answers.

    `options`: those of `load_recogniser`. The hub is asked once, without retries, and not at all where
    `HF_HUB_OFFLINE` is set, or the option `local_files_only`. Only files of data that a recogniser has are fetched.
    Raises ValueError in one line for a name that cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name = os.fspath(name_or_dir)
    if Path(name).is_dir():
        return name
    if Path(name).is_file():
        raise ValueError(f"{name}: is a file; give the folder of a model, as save_pretrained writes it, or a name on "
                         "the hub")
    options = options or {}
    place = place_of(options)
    try:
        reason = "local_files_only is set" if options.get("local_files_only") else _unreachable(name, place)
        if reason is None:
            return _fetch(name, options, place)
        return snapshot_download(name, local_files_only=True, **place)
    except HFValidationError:
        raise ValueError(f"{name}: no such folder, and not a name that the hub could have; {WAYS_OUT}") from None
    except LocalEntryNotFoundError:
        raise ValueError(f"{name}: no such folder, nothing in the hub's cache, and {reason}; {WAYS_OUT}") from None


def _fetch(name: str, options: dict, place: dict) -> str:
    """The snapshot with a model's files; pickled weights only where there are no safetensors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    from cdasr.runtime.weights import weight_files

    dot = f".{options['variant']}" if "variant" in options else ""
    adapters = [f"adapter.{options['target_lang']}.{end}" for end in ("safetensors", "bin") if "target_lang" in options]
    safe = [f"model{dot}.safetensors", f"model{dot}-*-of-*.safetensors", "head.safetensors",
            "encoder/model.safetensors"]
    pickled = [f"pytorch_model{dot}.bin", f"pytorch_model{dot}-*-of-*.bin"]
    try:
        folder = snapshot_download(name, allow_patterns=["*.json", "merges.txt", *safe, *adapters], **place)
        try:
            weight_files(Path(folder), options.get("variant"))
        except ValueError:
            folder = snapshot_download(name, allow_patterns=["*.json", *pickled], **place)
    except (OSError, HfHubHTTPError) as error:
        raise ValueError(f"{name}: the hub does not give it ({one_line(error)}); {WAYS_OUT}") from None
    return folder


def place_of(options: dict) -> dict:
    """Those of the options of `from_pretrained` that say which files."""
    return {key: options[key] for key in PLACE if key in options}


def _unreachable(name: str, place: dict) -> str | None:
    """Why the hub does not give the model away; None where it does."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(name)
    url = hf_hub_url(name, "config.json", revision=place.get("revision"))
    try:
        get_hf_file_metadata(url, timeout=5.0, token=place.get("token"))
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except GatedRepoError:
        return "the hub asks to accept its terms and to log in (hf auth login)"
    except HfHubHTTPError as error:
        status = error.response.status_code
        return "the hub has no such public model" if status in (401, 404) else f"the hub answers with error {status}"
    except Exception as error:  # whatever the HTTP library raises without a network
        return f"the hub cannot be reached ({type(error).__name__})"
    return None


def source_of(name_or_dir: str | os.PathLike, options: dict) -> dict:
    """`{name, options}` to load a model with again: folders as absolute paths, nothing that is this user's only."""
    name = os.fspath(name_or_dir)
    return {"name": os.path.abspath(name) if os.path.isdir(name) else name,
            "options": {key: value for key, value in options.items() if key not in ("token", "cache_dir")}}


@contextmanager
def loading(name_or_dir: str | os.PathLike, kind: str) -> Iterator[None]:
    """Within it, whatever is raised about a model that cannot be loaded becomes a ValueError in one line."""
    try:
        yield
    except Exception as error:  # foreign data can be wrong in any way
        reason = one_line(error) or type(error).__name__
        raise ValueError(f"{name_or_dir}: no {kind} could be loaded ({reason}); {WAYS_OUT}") from None
