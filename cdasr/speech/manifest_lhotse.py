"""Cuts of lhotse as `read_manifest` reads them: JSON lines, one cut each (lhotse.readthedocs.io/en/latest/cuts.html).

A cut is `{id, start, duration, channel, supervisions, recording, type}`: a stretch of a recording with at most one
supervision, whose text and speaker are the cut's. Nothing is executed: a source that is a command is refused, and so is
what is not audio as it lies on the disk (mixtures, perturbed speed, cuts of features only).
"""

from __future__ import annotations

from collections.abc import Mapping


def is_cut(row: Mapping) -> bool:
    """Whether a JSON object is a cut of lhotse."""
    return str(row.get("type", "")).endswith("Cut") or ("supervisions" in row and "recording" in row)


def read_cut(row: Mapping) -> dict[str, str]:
    """Our columns of a cut: ID, wav, text, offset, duration, and channel and spk_id where it has them.

    Raises ValueError with what cannot be used.
    """
    kind = row.get("type", "MonoCut")
    if kind not in ("MonoCut", "MultiCut"):
        raise ValueError(f"the cut is a {kind}; save it as audio first, with lhotse's save_audios")
    said, recording = row.get("supervisions"), row.get("recording")
    if not isinstance(said, list) or len(said) != 1:
        raise ValueError(f"the cut has {len(said) if isinstance(said, list) else 'no list of'} supervisions; one is "
                         "expected: cut it with lhotse's trim_to_supervisions")
    if not isinstance(recording, dict) or not isinstance(recording.get("sources"), list) or not recording["sources"]:
        raise ValueError("the cut has no recording with sources; cuts of features only cannot be used")
    if recording.get("transforms"):
        raise ValueError("the recording is transformed (speed, volume or the like); save it as audio first, with "
                         "lhotse's save_audios")
    text = said[0].get("text")
    if not isinstance(text, str):
        raise ValueError("the supervision has no text; write what is said, or leave the cut out")
    path, channel = _source(row.get("channel"), recording["sources"])
    fields = {"ID": str(row.get("id", "")), "duration": str(row.get("duration", "")), "wav": path, "text": text,
              "spk_id": str(said[0].get("speaker") or ""), "offset": str(row.get("start") or 0)}
    return fields | ({} if channel is None else {"channel": str(channel)})


def _source(channel, sources: list) -> tuple[str, int | None]:
    """The file that holds the channel of a cut, and which of the file's channels that is; None: all."""
    wanted = channel if isinstance(channel, list) else [] if channel is None else [channel]
    source = next((source for source in sources if set(wanted) <= set(source.get("channels", ()))), None)
    if source is None:
        raise ValueError(f"no single source holds the channels {wanted}; save the cut as audio first, with lhotse's "
                         "save_audios")
    if source.get("type") != "file":
        raise ValueError(f"the source is a {source.get('type')} ({source.get('source')}); commands are not run and "
                         "nothing is fetched here, save the recordings as files")
    within = list(source["channels"])
    whole = len(within) < 2 or len(wanted) != 1
    return str(source["source"]), None if whole else within.index(wanted[0])
