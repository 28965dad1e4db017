"""Preparing a data set: download, unpack, move into place, check, source by source."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import DataSet
from clbench.datamodules.catalogue.remote import RemoteFile, Source
from clbench.datamodules.fetching.download import Opener, Progress, fetch, set_aside
from clbench.datamodules.fetching.inventory import (
    check_images,
    files_here,
    in_place,
    readable_size,
    surplus,
)
from clbench.datamodules.fetching.unpack import DamagedArchiveError, unpack
from clbench.datamodules.pixels.file_hashes import Advance
from clbench.datamodules.readers.disk import SurplusError
from clbench.datamodules.readers.read import check_counts, read


def download_folder(dataset: DataSet, root: Path) -> Path:
    """Folder of archives while they are needed, and of those downloaded manually."""
    return root / "downloads" / dataset.name


def prepare(
    dataset: DataSet,
    root: Path,
    *,
    opener: Opener | None = None,
    progress: Progress | None = None,
    advance: Advance | None = None,
) -> Source | None:
    """Download the missing parts of a data set and check all of it.

    Folders get their final names only when complete. Files of the user are never deleted;
    archives are removed once the data set is complete, unless the user put them there.

    Args:
        dataset: entry of the catalogue.
        root: data root.
        opener: opens addresses.
        progress: called with the progress of a download.
        advance: called with the number of images opened.

    Returns:
        The source it came from; None if it was complete already.

    Raises:
        ClbenchError: no source worked; one line for each.
    """
    problem = _problem(dataset, root)
    if problem is None:
        return None
    if isinstance(problem, SurplusError):
        raise ClbenchError(f"{problem}: {surplus(root / dataset.folder)}")
    problems = []
    downloads = download_folder(dataset, root)
    try:
        downloads.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClbenchError(f"cannot write {downloads}: {error.strerror or error}") from error
    with FileLock(downloads / ".lock"):
        for source in dataset.sources:
            if not source.files:
                problems.append(f"{source.title}: see {source.page} ({source.note})")
                continue
            try:
                _from_source(dataset, source, root, opener, progress, advance)
            except ClbenchError as error:
                problems.append(f"{source.title}: {error}")
            else:
                break
    _remove_if_empty(downloads)
    if len(problems) == len(dataset.sources):
        listing = "\n".join(f"  {line}" for line in problems)
        raise ClbenchError(f"{dataset.name} could not be downloaded from any source:\n{listing}")
    return source


def _remove_if_empty(downloads: Path) -> None:
    """Remove the folder of a data set's archives, and the one above, if nothing is in them."""
    if all(path.name == ".lock" for path in downloads.iterdir()):
        shutil.rmtree(downloads)
        if not any(downloads.parent.iterdir()):
            downloads.parent.rmdir()


def _problem(dataset: DataSet, root: Path) -> ClbenchError | None:
    """What keeps a data set from being complete."""
    try:
        check_counts(dataset, read(dataset, root))
    except ClbenchError as error:
        return error
    return None


def _from_source(
    dataset: DataSet,
    source: Source,
    root: Path,
    opener: Opener | None,
    progress: Progress | None,
    advance: Advance | None,
) -> None:
    """Get the files whose targets are missing first; if that is not enough, all the others."""
    downloads = download_folder(dataset, root)
    _ask_for_hand_files(source, downloads)
    files = files_here(dataset, source, root)
    absent = [file for file in files if not in_place(file, root)]
    others = [file for file in files if file not in absent]
    _require_space(dataset, absent, downloads)
    fetched: list[Path] = []
    problem = None
    for wanted in (absent, others):
        for file in wanted:
            by_user = (downloads / file.name).exists()
            archive = fetch(file, downloads, opener=opener, progress=progress)
            _install(file, archive, root)
            if not by_user:
                fetched.append(archive)
        problem = _problem(dataset, root)
        if problem is None:
            break
    if problem is not None:
        raise problem
    if not source.verified:
        check_images(dataset, root, read(dataset, root), advance)
    for archive in fetched:
        archive.unlink(missing_ok=True)


def _require_space(dataset: DataSet, files: Sequence[RemoteFile], downloads: Path) -> None:
    """Refuse before anything is fetched if it cannot all be written: archives, and their content.

    Images hardly shrink in archives, so that their content takes about as much again.
    """
    wanted = 0
    for file in files:
        found = (downloads / name for name in (file.name, f"{file.name}.part"))
        there = sum(path.stat().st_size for path in found if path.exists())
        wanted += (file.size or 0) + max(0, (file.size or 0) - there)
    free = shutil.disk_usage(downloads).free
    if wanted > free:
        raise ClbenchError(
            f"{dataset.name} needs about {readable_size(wanted)} for archives and their content, "
            f"and {readable_size(free)} are free on the disk of {downloads}: make room there, or "
            "choose another folder with --root"
        )


def _ask_for_hand_files(source: Source, downloads: Path) -> None:
    """Refuse before downloading if missing files have no address."""
    names = [f.name for f in source.files if not f.url and not (downloads / f.name).exists()]
    if names:
        raise ClbenchError(
            f"put {', '.join(names)} into {downloads} and run the same command again; "
            f"{source.note}: {source.page}"
        )


def _install(file: RemoteFile, archive: Path, root: Path) -> None:
    """Put the content of an archive, or a plain file, where it belongs."""
    base = root / file.target
    try:
        base.mkdir(parents=True, exist_ok=True)
        # Beside the target, because renaming is atomic only within one file system.
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=root) as name:
            folder = Path(name)
            if not file.unpack:
                shutil.copyfile(archive, folder / file.name)
                (folder / file.name).replace(base / file.name)
                return
            unpack(archive, folder)
            for inner in file.inner:
                unpack(_member(archive, folder, inner), folder)
            for inside, outside in file.unpack:
                _move(_member(archive, folder, inside), base / outside)
    except DamagedArchiveError as error:
        raise ClbenchError(f"{error}; {set_aside(archive)}") from error
    except OSError as error:
        raise ClbenchError(f"cannot write below {base}: {error.strerror or error}") from error


def _member(archive: Path, folder: Path, name: str) -> Path:
    if not (folder / name).exists():
        raise DamagedArchiveError(f"{archive} holds no {name!r}: another archive was expected")
    return folder / name


def _move(new: Path, target: Path) -> None:
    """Move a folder; into one that is there already, move file by file."""
    if not target.exists():
        new.replace(target)
        return
    for path in sorted(new.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(new)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
