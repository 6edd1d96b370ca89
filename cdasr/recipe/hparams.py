"""Hyper-parameters of a recipe: YAML as in SpeechBrain, with references and command-line overrides, but data only.

`base.yaml` of the domain holds every default; a recipe's `default.yaml` says `base: speech` or `base: images` and
states what differs, the files that `--size` names change that, and the command line changes all. `!ref <key>` works as
in HyperPyYAML. Its tags that build objects or call functions (`!new:`, `!name:`, `!apply:`, `!applyref:`, `!module:`,
`!!python/...`) are refused, so that reading somebody's recipe never runs their code.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from cdasr.recipe.check_hparams import conform

PACKAGE = Path(__file__).parents[1]
BASES = {"speech": PACKAGE / "recipe" / "base.yaml", "images": PACKAGE / "images" / "base.yaml"}
OPEN = ("about", "lr_factors", "strategies", "curriculum", "dropout", "conditions", "only", "asr_options",
        "head", "degradations", "unseen")  # their keys are data: a recipe's replace those of the base
NAMES = ("lr_factors", "strategies")  # mappings whose keys are names that a recipe's default need not mention
OWN = ("data", "manifests")  # sections in which a recipe may have keys of its own
RENAMED = {  # settings of earlier versions, which are still read
    "own_states": "scheduled_sampling_prob", "told": "conditions", "told_steps": "condition_steps",
    **{f"{name}_share": f"{name}_prob" for name in ("start", "reverb", "clean", "tight", "file", "synthetic")}}
_noted: set[tuple[str, str]] = set()  # what stderr was told of, once in a process
CODE_TAGS = re.compile(r"!(new|name|apply|applyref|module|include|!python)\b")
MAX_BYTES, MAX_NODES, MAX_DEPTH = 200_000, 20_000, 40


def load_hparams(paths: Sequence[str | os.PathLike], overrides: Sequence[str] = (), base: str | None = None,
                 options: Sequence[str] = ()) -> dict:
    """The hyper-parameters in the first file, changed by those of the further files and by `overrides`.

    The first file changes those of the base that it names, or of `base` where it names none (a file of an earlier
    version, which is complete). Overrides are `--key value` pairs, `--outer.inner value` for a nested key. A mapping is
    merged into the one that was there, but for one with another `name` (of a process, of a network), to which the
    other's options do not belong: it takes its place. `options`: names that a misspelt key may have meant.
    Raises ValueError, naming the file, for a missing file, a key that is not known, a value of another type than the
    default's, or a tag that could run code.
    """
    trees = [_read(Path(path)) for path in paths]
    place = paths[0]
    try:
        known = trees[0]
        base = _take_base(known) or base
        if base is not None:
            default, known = known, _read(BASES[base])
            _check_own(known, default)
            spec = _copy(known)
            _merge(spec, default, only_new=True)
            _merge(known, default, replace=OPEN)
        else:
            spec = _copy(known)
        tree = _copy(known)
        for path, change in [*zip(paths[1:], trees[1:]), (paths[0], _parse_overrides(overrides))]:
            place = path
            _check_known(known, tree, change, options)
            _merge(tree, change)
        return conform(_values(tree), _values(spec))
    except (yaml.YAMLError, ValueError, KeyError, RecursionError) as error:
        raise ValueError(f"{place}: {' '.join(str(error).split())}") from None


def base_of(path: Path) -> str | None:
    """The base that a recipe's default.yaml names; None where it names none, or where there is no such file."""
    try:
        return _take_base(_read(path)) if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}".replace(f"{path}: {path}: ", f"{path}: ")) from None


def _values(tree: yaml.MappingNode) -> dict:
    """The values of a tree, its references resolved."""
    if not _has_references(tree):
        return yaml.SafeLoader("").construct_document(_copy(tree))
    from hyperpyyaml import resolve_references

    return yaml.safe_load(resolve_references(yaml.serialize(tree, width=10_000), {})) or {}


def _has_references(node: yaml.Node) -> bool:
    if node.tag.startswith("!"):
        return True
    parts = node.value if isinstance(node, yaml.SequenceNode) else [
        part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else []
    return any(map(_has_references, parts))


# -- reading ------------------------------------------------------------------------------------------------------


def _read(path: Path) -> yaml.MappingNode:
    """A file as a tree of nodes, checked: no tags that run code, no key twice, no more than a recipe needs."""
    if not path.is_file():
        raise ValueError(f"{path}: no such hparams file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are no hparams file; at most {MAX_BYTES} are read")
    try:
        return _with_new_names(_tree(path.read_text(encoding="utf-8")), str(path))
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


def _with_new_names(node: yaml.Node, place: str) -> yaml.Node:
    """The tree, in which settings that earlier versions called otherwise have their present names."""
    parts = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.value = _new_name(key.value, place)
        parts = [value for _, value in node.value]
    for part in parts:
        _with_new_names(part, place)
    return node


def _new_name(name: str, place: str) -> str:
    if name in RENAMED and (place, name) not in _noted:
        _noted.add((place, name))
        print(f"{place}: {name} is called {RENAMED[name]} now", file=sys.stderr)
    return RENAMED.get(name, name)


def _tree(text: str) -> yaml.MappingNode:
    depth = 0
    for count, event in enumerate(yaml.parse(text)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > 2 * MAX_NODES:  # before any of it is built
            raise ValueError(f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}")
        tag = getattr(event, "tag", None) or ""
        if CODE_TAGS.match(tag) or tag.startswith("tag:yaml.org,2002:python"):
            raise ValueError(f"line {event.start_mark.line + 1} uses the tag {tag!r}, which could run code; hparams "
                             "are plain data here")
    node = yaml.compose(text)
    if node is None:
        return _mapping()
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("expected `key: value` lines")
    return _copy(node)


def _mapping() -> yaml.MappingNode:
    return yaml.MappingNode("tag:yaml.org,2002:map", [])


def _copy(node: yaml.Node) -> yaml.Node:
    """A tree without shared nodes. Raises ValueError for a key that comes twice and for too large a tree."""
    left = MAX_NODES

    def copied(node: yaml.Node, depth: int) -> yaml.Node:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}, with its aliases")
        if isinstance(node, yaml.ScalarNode):
            return yaml.ScalarNode(node.tag, node.value, node.start_mark, node.end_mark, node.style)
        if isinstance(node, yaml.SequenceNode):
            return yaml.SequenceNode(node.tag, [copied(item, depth + 1) for item in node.value], node.start_mark,
                                     node.end_mark, node.flow_style)
        seen: set = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"line {key.start_mark.line + 1}: a key must be a word or a number")
            if (key.tag, key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} comes twice")
            seen.add((key.tag, key.value))
        return yaml.MappingNode(node.tag, [(copied(key, depth + 1), copied(value, depth + 1))
                                           for key, value in node.value], node.start_mark, node.end_mark,
                                node.flow_style)
    return copied(node, 0)


def _parse_overrides(overrides: Sequence[str]) -> yaml.MappingNode:
    """`--key value` and `--key=value` pairs, nested at dots, values read as YAML; dashes in a key mean underscores."""
    changed, words = _mapping(), list(overrides)
    while words:
        key = words.pop(0)
        if not key.startswith("--"):
            raise ValueError(f"expected --key value, got {key!r}")
        key, equals, value = key[2:].partition("=")
        if not equals:
            if not words:
                raise ValueError(f"--{key} needs a value")
            value = words.pop(0)
        try:
            node = _tree(f"value: {value}" if value.strip() else 'value: ""').value[0][1]
        except (yaml.YAMLError, ValueError, IndexError):
            try:
                node = _tree(f"value:\n {value}").value[0][1]
            except (yaml.YAMLError, ValueError, IndexError) as error:
                raise ValueError(f"--{key} {value}: {' '.join(str(error).split())}") from None
        _with_new_names(node, f"--{key}")
        for name in reversed([_new_name(name, f"--{key}") for name in key.replace("-", "_").split(".")]):
            outer = _mapping()
            outer.value.append((yaml.ScalarNode(_tag(name), name), node))
            node = outer
        _merge(changed, node, plain=True)
    return changed


def _tag(name: str) -> str:
    """The type of a key as YAML reads it: 8 in `--dropout.8 0.1` is a number."""
    return yaml.SafeLoader("").resolve(yaml.ScalarNode, name, (True, False))


# -- layers ---------------------------------------------------------------------------------------------------------


def _take_base(tree: yaml.MappingNode) -> str | None:
    """The base that a recipe's default.yaml names, which is no hyper-parameter itself."""
    found = _get(tree, "base")
    if found is None:
        return None
    tree.value = [(key, value) for key, value in tree.value if key.value != "base"]
    if found.value not in BASES:
        raise ValueError(f"there is no base {found.value!r}; known: {', '.join(BASES)}")
    return found.value


def _get(node: yaml.Node | None, key: str | yaml.ScalarNode) -> yaml.Node | None:
    """The value of a key of a mapping; None where there is none."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    if isinstance(key, str):
        return next((value for name, value in pairs if name.value == key), None)
    return next((value for name, value in pairs if (name.tag, name.value) == (key.tag, key.value)), None)


def _name(node: yaml.Node | None) -> str | None:
    found = _get(node, "name")
    return found.value if isinstance(found, yaml.ScalarNode) else None


def _renamed(node: yaml.Node | None, change: yaml.Node) -> bool:
    """Whether a changed mapping is of another `name` than the one that was there."""
    return isinstance(change, yaml.MappingNode) and None not in (_name(node), _name(change)) \
        and _name(change) != _name(node)


def _merge(target: yaml.MappingNode, change: yaml.MappingNode, replace: Sequence[str] = (), only_new: bool = False,
           plain: bool = False) -> None:
    """Put the values of `change` into `target`, mapping by mapping; those of the keys `replace` as a whole.

    An empty mapping of an open key empties it. `only_new`: values that are in `target` stay. `plain`: another `name`
    makes no difference.
    """
    for key, value in change.value:
        inner = _get(target, key)
        if inner is None:
            target.value.append((key, value))
        elif (isinstance(inner, yaml.MappingNode) and isinstance(value, yaml.MappingNode) and key.value not in replace
              and (value.value or key.value not in OPEN) and (plain or not _renamed(inner, value))):
            _merge(inner, value, replace, only_new, plain)
        elif not only_new:
            target.value = [(name, value if old is inner else old) for name, old in target.value]


def _check_own(base: yaml.MappingNode, default: yaml.MappingNode, outer: str = "") -> None:
    """Raise ValueError for a key of a recipe's default.yaml that the base does not have and that cannot be its own."""
    for key, value in default.value:
        inner = _get(base, key)
        if inner is None:
            names = [name.value for name, _ in base.value]
            near = difflib.get_close_matches(key.value, names, 1, 0.85)
            if near or (outer and not outer.startswith(OWN)):
                raise ValueError(_unknown(outer + key.value, names, near, _paths(base)))
        elif (isinstance(inner, yaml.MappingNode) and inner.value and isinstance(value, yaml.MappingNode)
              and key.value not in OPEN and not _renamed(inner, value)):
            _check_own(inner, value, f"{outer}{key.value}.")


def _check_known(known: yaml.MappingNode, tree: yaml.MappingNode, change: yaml.MappingNode,
                 options: Sequence[str] = (), outer: str = "") -> None:
    """Raise ValueError for a changed key that the recipe does not have.

    `tree` is what earlier changes have made of `known`: a mapping of another `name` may have any keys.
    """
    for key, value in change.value:
        inner, now = _get(known, key), _get(tree, key)
        if inner is None:
            names = [name.value for name, _ in known.value]
            near = difflib.get_close_matches(key.value, [*names, *options], 1)
            raise ValueError(_unknown(outer + key.value, names, near, _paths(known)))
        if key.value in NAMES or _renamed(inner, value) or _renamed(inner, now):
            continue
        options_of = isinstance(value, yaml.MappingNode) and all(
            name.tag == "tag:yaml.org,2002:str" for name, _ in value.value)  # not a map such as {3: 1.5}
        if options_of and isinstance(inner, yaml.MappingNode) and inner.value:  # an empty one may hold anything
            _check_known(inner, now, value, (), f"{outer}{key.value}.")


def _unknown(key: str, names: Sequence[str], near: Sequence[str], paths: Iterable[str]) -> str:
    """What is said of an unknown key: the one that was meant, if that can be guessed, else those that there are."""
    outer, _, inner = key.rpartition(".")
    meant = [f"{outer}.{name}" if outer else name for name in near] or [path for path in paths
                                                                       if path.split(".")[-1] == inner]
    hint = f"did you mean {' or '.join(meant[:4])}?" if meant else f"known here: {', '.join(names)}"
    return f"there is no key {key!r} to override; {hint}"


def _paths(node: yaml.MappingNode, outer: str = "") -> list[str]:
    found = []
    for key, value in node.value:
        found.append(outer + key.value)
        if isinstance(value, yaml.MappingNode):
            found += _paths(value, f"{outer}{key.value}.")
    return found
