"""DomainNet: six folders of images of the same classes, with a list of each part."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from clbench.core.errors import ClbenchError
from clbench.datamodules.catalogue.catalogue import DataSet
from clbench.datamodules.pixels.samples import Contents, Samples
from clbench.datamodules.readers.disk import image_samples, read_bytes, read_lines

DOMAINS: Final = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")


def read_domainnet(dataset: DataSet, folder: Path) -> Contents:
    """All domains, one after the other; a path below the folder begins with its domain.

    Lists ``<domain>_train.txt`` and ``<domain>_test.txt`` lie beside the domains or in ``splits/``;
    their lines are ``<domain>/<class>/<file> <label>``. A class may be absent from a list.
    """
    names: dict[int, str] = {}
    lists: dict[str, str] = {}

    def part(kind: str) -> Samples:
        files, labels = [], []
        for domain in DOMAINS:
            listed_in = folder / "splits" / f"{domain}_{kind}.txt"
            if not listed_in.is_file():
                listed_in = folder / listed_in.name
            for line in read_lines(listed_in):
                file, _, number = line.rpartition(" ")
                beginning, _, rest = file.partition("/")
                name = rest.partition("/")[0]
                if beginning != domain or rest.count("/") != 1 or not number.isdecimal():
                    raise ClbenchError(f"{listed_in} has an unexpected line: {line!r}")
                if names.setdefault(int(number), name) != name:
                    raise ClbenchError(
                        f"{listed_in} calls class {number} {name!r}, others {names[int(number)]!r}"
                    )
                files.append(file)
                labels.append(int(number))
            lists[listed_in.name] = hashlib.sha256(read_bytes(listed_in)).hexdigest()
        return image_samples(folder, files, labels, dataset.classes, folder)

    train, test = part("train"), part("test")
    return Contents(train, test, tuple(names[y] for y in sorted(names)), lists=lists)
