"""Utterances one after the other, as the cache of a recogniser with a fixed window takes them."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile as sf

from cdasr.speech.manifest import read_manifest, write_manifest
from cdasr.speech.utterances import PairedUtterances, joined_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Forty utterances of 0.5 to 1.5 s by four speakers, each with a level of its own."""
    folder, rng, written = tmp_path_factory.mktemp("joined"), np.random.default_rng(0), []
    for k in range(40):
        wave = np.full(rng.integers(4_000, 12_000), (k + 1) / 100, dtype=np.float32)
        sf.write(folder / f"{k}.wav", wave, 8_000, subtype="FLOAT")
        written.append({"ID": f"u{k}", "duration": f"{len(wave) / 8_000:.6f}", "wav": str(folder / f"{k}.wav"),
                        "text": f"WORD{k}", "spk_id": str(k % 4)})
    write_manifest(folder / "all.csv", written)
    return read_manifest(folder / "all.csv")


def parts(row):
    return row.get("parts", [row])


def test_every_utterance_is_in_one_item_and_items_are_short_and_long(rows):
    joined = joined_rows(rows, longest=6.0, seed=3)
    assert sorted(part["ID"] for row in joined for part in parts(row)) == sorted(row["ID"] for row in rows)
    lengths = [float(row["duration"]) for row in joined]
    assert max(lengths) <= 6.0 and min(lengths) < 2.0 and np.mean(lengths) > 1.8
    assert lengths == pytest.approx([sum(float(part["duration"]) for part in parts(row)) for row in joined])
    assert len({row["ID"] for row in joined}) == len(joined)
    assert sum(len({part["spk_id"] for part in parts(row)}) > 1 for row in joined) <= 3, "one at each change of speaker"


def test_joining_depends_on_the_seed_alone(rows):
    assert joined_rows(rows, 6.0, seed=3) == joined_rows(rows, 6.0, seed=3) != joined_rows(rows, 6.0, seed=4)


def test_an_utterance_longer_than_the_limit_stays_by_itself(rows):
    assert joined_rows(rows, 0.1, seed=0) == sorted(joined_rows(rows, 0.1, seed=0), key=lambda row: row["spk_id"])
    assert len(joined_rows(rows, 0.1, seed=0)) == len(rows)


def test_items_are_the_recordings_one_after_the_other(rows):
    joined = joined_rows(rows, 6.0, seed=3)
    items = PairedUtterances(joined, 8_000, 0, lambda wave, rng: {"noisy": -wave, "clean": wave}, pair_prob=0.0)
    place = next(k for k, row in enumerate(joined) if len(parts(row)) > 2)
    item, row = items[place], joined[place]
    levels = [(int(part["ID"][1:]) + 1) / 100 for part in parts(row)]
    assert list(dict.fromkeys(item["clean"].tolist())) == pytest.approx(levels)
    assert len(item["clean"]) == pytest.approx(8_000 * row["duration"], abs=len(levels))
    assert item["text"] == " ".join(part["text"] for part in parts(row))
    assert (item["noisy"] == -item["clean"]).all()
