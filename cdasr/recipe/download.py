"""Large archives from the net: resumed, checked, and unpacked so that nothing half-done is taken for done."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

BLOCK = 1 << 20  # bytes
ATTEMPTS = 3  # of each address


def fetch(urls: Sequence[str], target: Path, md5: str | None = None, pause: float = 5.0) -> Path:
    """Download the first of `urls` that answers to `target`, going on where an earlier attempt stopped.

    A broken connection is tried again after `pause` seconds; what has arrived stays in `target.partial`. A file with
    another `md5` (hexadecimal) is deleted. Raises ValueError, in one line, when the file cannot be had.
    """
    if target.is_file():
        _check(target, md5)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, reason = target.with_name(target.name + ".partial"), ""
    for url in urls:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(pause)
            try:
                if _append(url, partial):
                    _check(partial, md5)
                    os.replace(partial, target)
                    return target
                reason = "the connection broke off"
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}"
                break  # it will not be different the next time
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error))
    raise ValueError(f"{target.name} cannot be fetched from {', '.join(urls)} ({reason}); the same command goes on "
                     f"where it stopped, or put the file at {target}")


def _append(url: str, partial: Path) -> bool:
    """Fetch what `partial` does not have yet; whether it is complete then."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to ask for
            total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if total == str(have):
                return True
            partial.unlink()
            return False
        raise
    with response:
        resumed = response.status == 206 and (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
        if not resumed:
            have = 0  # a server without ranges sends all of it again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with partial.open("ab" if resumed else "wb") as file, tqdm(
                total=total, initial=have, unit="B", unit_scale=True, desc=f"download {partial.stem}") as bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    return total is None or partial.stat().st_size == total


def _check(path: Path, md5: str | None) -> None:
    """Raise ValueError for a file with another checksum, which is deleted."""
    if md5 is None:
        return
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, tqdm(total=path.stat().st_size, unit="B", unit_scale=True,
                                       desc=f"check {path.name.removesuffix('.partial')}") as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() != md5:
        path.unlink()
        raise ValueError(f"{path.name.removesuffix('.partial')} has the MD5 {digest.hexdigest()} and not {md5}: it was "
                         "damaged on its way and is deleted; run the same command again")


def unpack(archive: Path, folder: Path, part: str) -> Path:
    """The folder `part` of a tar or zip archive as `folder/part`, whole or not at all.

    Files beside it in the archive come along. Members that would land outside, links and devices are refused
    (tarfile's `data` filter). Raises ValueError for a damaged archive and for one without `part`.
    """
    target, partial = folder / part, folder / f".{archive.name}.partial"
    if target.is_dir():
        return target
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _extract(archive, partial)
        if not (partial / part).is_dir():
            raise ValueError(f"{archive}: there is no folder {part} in it")
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in (partial / part).parent.iterdir():
            if path.is_file() and not (target.parent / path.name).exists():
                os.replace(path, target.parent / path.name)
        os.replace(partial / part, target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{archive}: cannot be unpacked ({error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as files:
            for member in tqdm(files.infolist(), desc=f"unpack {archive.name}", unit="file"):
                files.extract(member, folder)  # drops .. and roots from names
        return
    with tarfile.open(archive) as files:
        for member in tqdm(files, desc=f"unpack {archive.name}", unit="file"):
            files.extract(member, folder, filter="data")


def check_space(folder: Path, needed: float) -> None:
    """Raise ValueError where the disc of `folder` has less than `needed` GB free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e9
    if free < needed:
        raise ValueError(f"{folder}: {needed:.0f} GB are needed and {free:.0f} GB are free; free some, or choose fewer "
                         "parts")
