"""A process that trains along with another: started by the engine, never by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Read a job from standard input and do its share.

    What goes wrong is written beside the log of the run and told to the process that leads.
    """
    from clbench import api, config
    from clbench.core.errors import ClbenchError
    from clbench.engine.process.environment import Place

    job = json.load(sys.stdin)
    settings, cls = config.revive(job["settings"], trust_code=True)
    try:
        api.follow(settings, cls, Path(job["runs_dir"]), Place(**job["place"]))
    except ClbenchError:
        sys.exit(2)


if __name__ == "__main__":
    main()
