"""Hyper-parameters of a recipe: YAML as in SpeechBrain, with references and command-line overrides, but data only.

`!ref <key>` works as in HyperPyYAML. Its tags that build objects or call functions (`!new:`, `!name:`, `!apply:`,
`!applyref:`, `!module:`, `!!python/...`) are refused, so that reading somebody's recipe never runs their code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

OPEN = ("lr_factors", "strategies")  # mappings whose keys are names that a recipe's default need not mention
CODE_TAGS = re.compile(r"!(new|name|apply|applyref|module|include|!python)\b")


def load_hparams(paths: Sequence[str | os.PathLike], overrides: Sequence[str] = ()) -> dict:
    """The hyper-parameters in the first file, changed by those of the further files and by `overrides`.

    Overrides are `--key value` pairs, `--outer.inner value` for a nested key. A mapping is merged into that of the
    first file, but for one with another `name` (of a process, of a network), to which the other's options do not
    belong: it takes its place. Raises ValueError, naming the file, for a missing file, a key that the first file does
    not have, or a tag that could run code.
    """
    from hyperpyyaml import resolve_references

    base, *changes = [_read(Path(path)) for path in paths]
    try:
        known = yaml.compose(base)
        merged: dict = {}
        for text in changes:
            _merge(merged, yaml.safe_load(text))
        _merge(merged, _parse_overrides(overrides))
        _check_known(known, merged)
        found = yaml.safe_load(resolve_references(base, merged))
        _replace_renamed(found, known, merged)
        return found
    except (yaml.YAMLError, ValueError, KeyError) as error:
        raise ValueError(f"{paths[0]}: {' '.join(str(error).split())}") from None


def _read(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: no such hparams file")
    text = path.read_text(encoding="utf-8")
    try:
        _refuse_code(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    return text


def _refuse_code(text: str) -> None:
    for event in yaml.parse(text):
        tag = getattr(event, "tag", None) or ""
        if CODE_TAGS.match(tag) or tag.startswith("tag:yaml.org,2002:python"):
            raise ValueError(f"line {event.start_mark.line + 1} uses the tag {tag!r}, which could run code; hparams "
                             "are plain data here")


def _parse_overrides(overrides: Sequence[str]) -> dict:
    """`--key value` and `--key=value` pairs, nested at dots, values read as YAML; dashes in a key mean underscores."""
    changed: dict = {}
    words = list(overrides)
    while words:
        key = words.pop(0)
        if not key.startswith("--"):
            raise ValueError(f"expected --key value, got {key!r}")
        key, equals, value = key[2:].partition("=")
        if not equals:
            if not words:
                raise ValueError(f"--{key} needs a value")
            value = words.pop(0)
        *outer, inner = key.replace("-", "_").split(".")
        place = changed
        for name in outer:
            place = place.setdefault(name, {})
        place[inner] = yaml.safe_load(value) if value else ""
    return changed


def _merge(target: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _renamed(node: yaml.Node, value: object) -> bool:
    """Whether a changed mapping is of another `name` than the first file's."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    names = [each.value for key, each in pairs if key.value == "name"]
    return isinstance(value, dict) and bool(names) and value.get("name", names[0]) != names[0]


def _replace_renamed(found: dict, node: yaml.Node, changes: dict) -> None:
    """Put changed mappings of another `name` in place of what they were merged into."""
    known = {key.value: value for key, value in node.value}
    for key, value in changes.items():
        inner = known.get(str(key))
        if _renamed(inner, value):
            found[key] = value
        elif isinstance(inner, yaml.MappingNode) and isinstance(value, dict):
            _replace_renamed(found[key], inner, value)


def _check_known(node: yaml.Node, changes: dict, outer: str = "") -> None:
    """Raise ValueError for a changed key that the first file does not have."""
    known = {key.value: value for key, value in node.value}
    for key, value in changes.items():
        if str(key) not in known:
            raise ValueError(f"there is no key {outer + str(key)!r} to override; known here: {', '.join(known)}")
        inner = known[str(key)]
        if key in OPEN or _renamed(inner, value):
            continue
        options = isinstance(value, dict) and all(isinstance(name, str) for name in value)  # not a map such as {3: 1.5}
        if options and isinstance(inner, yaml.MappingNode) and inner.value:  # an empty one may hold anything
            _check_known(inner, value, f"{outer}{key}.")
