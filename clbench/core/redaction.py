"""Keeping secrets out of logs, results and messages."""

from __future__ import annotations

import os
import re

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
SHORTEST = 8
"""Values of fewer characters are words such as ``true``, not secrets."""
HIDDEN = "***"

_IN_URL = re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)")


def redact(text: str) -> str:
    """Hide the values of environment variables that are named like secrets, and logins in URLs.

    >>> redact("cannot reach https://user:hunter2@example.org/data")
    'cannot reach https://***@example.org/data'
    """
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and SECRET_NAME.search(name) and value in text:
            text = text.replace(value, HIDDEN)
    return _IN_URL.sub(HIDDEN, text)
