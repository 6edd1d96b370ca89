"""What may stand in the hyper-parameters of a public SGMSE checkpoint: the one place for their types and limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import Field

from cdasr.coupled.schema import Factor
from cdasr.runtime.plain_data import Loose, Many, Positive, Size, Steps, checked

Plain = bool | int | float | str | None
Level = Annotated[int, Field(ge=0, le=65_536)]  # a number of frequencies; with 0 no level attends


class SGMSE(Loose):
    """Hyper-parameters of the public code that are read; all others (of the data, of the training) are left alone."""

    backbone: str
    sde: str
    theta: Positive = 1.5
    sigma_min: Positive = 0.05
    sigma_max: Positive = 0.5
    t_eps: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.03
    k: Annotated[float, Field(gt=1.0, le=1000.0)] = 2.6
    c: Positive = 0.4
    sr: int = Field(16_000, ge=1000, le=384_000)
    n_fft: int = Field(510, ge=2, le=65_536)
    hop_length: int = Field(128, ge=1, le=65_536)
    window: str = "hann"
    transform_type: str = "exponent"
    spec_factor: Positive = 0.15
    spec_abs_exponent: Annotated[float, Field(ge=0.05, le=10.0)] = 0.5
    image_size: Size = 256
    scale_by_sigma: bool = True
    sampler_type: str = "pc"
    N: Steps = 30
    loss_type: str = "score_matching"
    network_scaling: str | None = None
    c_in: str = "1"
    c_out: str = "1"
    c_skip: str = "0"
    sigma_data: Positive = 0.1
    nf: Size = 128
    ch_mult: Annotated[Many[Factor], Field(max_length=12)] = [1]
    num_res_blocks: Factor = 2
    attn_resolutions: list[Level] | tuple[Level, ...] = ()
    fourier_scale: Positive = 16.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


def check_sgmse(settings: dict[Any, Any], fixed: dict[str, Any]) -> dict[str, Any]:
    """The hyper-parameters with names as the code has them, those of SGMSE and of `fixed` checked to be plain data.

    Raises ValueError for the first that is not of its kind or out of any range.
    """
    named = {key.replace("-", "_"): value for key, value in settings.items() if isinstance(key, str)}
    for name in fixed:
        values = named.get(name)
        for value in values if isinstance(values, (list, tuple)) else [values]:
            if not isinstance(value, Plain):
                raise ValueError(f"{name} is no plain value, but {type(value).__name__}")
    checked(SGMSE, {key: value for key, value in named.items() if key in SGMSE.model_fields})
    return named


def check_given(settings: Mapping[str, Any], fixed: Iterable[str]) -> dict[str, Any]:
    """Hyper-parameters from the command line. Raises ValueError for a name that is not read."""
    known = (*SGMSE.model_fields, *fixed)
    if unknown := [name for name in settings if name not in known]:
        near = get_close_matches(unknown[0], known, 1)
        raise ValueError(f"--setting {unknown[0]}: there is no such setting; "
                         + (f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"))
    return {name: str(value) if name in ("c_in", "c_out", "c_skip") else value for name, value in settings.items()}
