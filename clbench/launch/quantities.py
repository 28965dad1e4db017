"""Resources as people write them: 2G, 90m, half a device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clbench.core.errors import ClbenchError, unknown_name
from clbench.launch.cells import NAMES, Resources

_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_memory(text: str | int) -> int:
    """Bytes.

    >>> parse_memory("1.5G"), parse_memory("800MB"), parse_memory(1024)
    (1610612736, 838860800, 1024)

    Raises:
        ClbenchError: something else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", str(text).strip(), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ClbenchError(f"memory {text!r}: expected a size, e.g. 800M or 16G")
    return round(float(match[1]) * _BYTES[match[2].upper()])


def parse_time(text: str | int) -> int:
    """Seconds.

    >>> parse_time("90m"), parse_time("1h30m"), parse_time("2-12:00:00"), parse_time("1:30")
    (5400, 5400, 216000, 90)

    Raises:
        ClbenchError: something else.
    """
    written = str(text).strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", written)
    if parts and "".join(number + unit for number, unit in parts) == written:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    elif match := re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", written):
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = days * 86400 + hours * 3600 + minutes * 60 + rest
    elif re.fullmatch(r"\d+", written):
        seconds = int(written)
    else:
        seconds = 0
    if seconds <= 0:
        raise ClbenchError(f"time {text!r}: expected a duration, e.g. 90m, 12h or 1-00:00:00")
    return round(seconds)


def parse_resources(given: Mapping[str, Any]) -> Resources:
    """Resources from a recipe or a file.

    >>> parse_resources({"cpus": 4, "memory": "16G", "time": "2h"})
    Resources(jobs=None, cpus=4, gpus=None, memory=17179869184, time=7200)

    Raises:
        ClbenchError: an unknown key, or a value that is none.
    """
    for key in given:
        if key not in NAMES:
            raise unknown_name("resource", key, NAMES)
    found: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for key, parse in (("memory", parse_memory), ("time", parse_time)):
        if key in found:
            found[key] = parse(found[key])
    for key in ("jobs", "cpus"):
        if key in found and (type(found[key]) is not int or found[key] < 1):
            raise ClbenchError(f"{key} must be a whole number from 1, got {found[key]!r}")
    if "gpus" in found:
        gpus = found["gpus"]
        if type(gpus) not in (int, float) or gpus < 0 or (gpus > 1 and gpus != round(gpus)):
            raise ClbenchError(f"gpus must be a part of one device or a whole number, got {gpus!r}")
        found["gpus"] = float(gpus)
    return Resources(**found)


def shown_memory(size: int) -> str:
    """Bytes as Slurm and people read them.

    >>> shown_memory(16 * 2**30), shown_memory(800 * 2**20)
    ('16G', '800M')
    """
    return f"{size // 2**30}G" if size % 2**30 == 0 else f"{max(1, size // 2**20)}M"
