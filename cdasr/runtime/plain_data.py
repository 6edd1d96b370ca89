"""Foreign data, checked before anything is built of it: JSON files, and schemas of what may stand in them.

A model package, a recogniser's folder and a checkpoint come from somebody else. What is read of them is first checked
against a schema (`cdasr.coupled.schema`, `cdasr.classifiers.schema`); whatever is wrong ends in one line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cdasr.runtime.files import check_file, read_text

LARGEST = 64 << 20  # bytes of a JSON file; the largest real ones are tokenizers of a few MB

Size = Annotated[int, Field(ge=1, le=65_536)]  # of one dimension of a weight
Width = Annotated[int, Field(ge=1, le=2_000_000)]  # of a dimension that counts tokens or stacks hidden states
Count = Annotated[int, Field(ge=1, le=1024)]  # of layers
Steps = Annotated[int, Field(ge=1, le=10_000)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=1e6)]

Item = TypeVar("Item")
Many = Annotated[list[Item], BeforeValidator(lambda value: list(value) if isinstance(value, tuple) else value),
                 Field(min_length=1, max_length=64)]


class Loose(BaseModel):
    """Of a format that is not ours: types and limits are checked, keys that are not named here are left out."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True, protected_namespaces=())


class Strict(Loose):
    """Of a format of our own: also a key that is not named here is an error."""

    model_config = ConfigDict(extra="forbid")


Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], data: Any, what: str = "") -> Model:
    """The `data` as a `model`. Raises ValueError in one line, which begins with `what` and names the first bad key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ValueError(one_line(f"{what}{': ' if what else ''}{_reason(model, found[0])}{more}")) from None


def read_json(path: Path, expect: type | None = dict, called: object = None, largest: float = LARGEST,
              keys: Sequence[str] = ()):
    """What a JSON file of at most `largest` bytes holds: `expect`, a dict (a JSON object) or a list; None for any.

    `keys`: what the object must have, `outer.inner` for a key of an object in it.
    Raises ValueError, in one line, where it is missing, damaged or holds something else. The line begins with `called`,
    by default the file's name without its folder, for callers that name the folder themselves.
    """
    called = path.name if called is None else called
    try:
        if check_file(path).stat().st_size > largest:
            raise ValueError(f"larger than {largest / 2**20:.0f} MB")
        found = json.loads(read_text(path), parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"{called}: line {error.lineno} is not JSON ({error.msg}); the file is damaged or another one "
                         "is meant") from None
    except RecursionError:
        raise ValueError(f"{called}: not usable as JSON (nested too deeply)") from None
    except ValueError as error:
        reason = one_line(str(error).removeprefix(f"{path}: "))  # among them a number of thousands of digits
        raise ValueError(f"{called}: {reason}") from None
    if expect is not None and not isinstance(found, expect):
        names = {dict: "an object", list: "a list"}
        raise ValueError(f"{called}: expected {names.get(expect, expect.__name__)} of JSON, found "
                         f"{names.get(type(found), type(found).__name__)}")
    for key in keys:
        inner = found
        for name in key.split("."):
            if not isinstance(inner, dict) or name not in inner:
                raise ValueError(f"{called}: there is no {key} in it; the file is damaged or another one is meant")
            inner = inner[name]
    return found


def one_line(text: object, limit: int = 300) -> str:
    """`text` in one line that any terminal can print, cut to `limit` characters."""
    words = " ".join(str(text).split()).encode("utf-8", "backslashreplace").decode()
    return words if len(words) <= limit else words[:limit - 3] + "..."


def _reason(model: type[BaseModel], error: dict) -> str:
    kind, place = error["type"], ".".join(map(str, error["loc"]))
    at = f"{place}: " if place else ""
    if kind == "extra_forbidden":
        known = _model_at(model, error["loc"][:-1])
        return f"{at}unknown key" + (f"; known here: {', '.join(known.model_fields)}" if known else "")
    if kind == "union_tag_invalid":
        return f"{at}unknown name {error['ctx']['tag']!r}; known: {error['ctx']['expected_tags']}"
    if kind == "missing":
        return f"{at}missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{at}{message[:1].lower()}{message[1:]}" + (f", got {repr(error['input'])[:60]}" if place else "")


def _model_at(model: type[BaseModel], places: tuple) -> type[BaseModel] | None:
    """The model of a nested key, where it is easily found; a union's tag stands in the place of a key."""
    from typing import get_args

    for place in places:
        field = model.model_fields.get(place) if isinstance(place, str) else None
        options = [] if field is None else [field.annotation, *get_args(field.annotation)]
        inner = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        if len(inner) != 1:
            return None
        model = inner[0]
    return model


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number that JSON has")
