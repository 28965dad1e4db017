"""A process that trains along with another: started by the engine, never by hand."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    """Read a job from standard input and do its share.

    What goes wrong is written beside the log of the run; the process that leads notices that this
    one is gone.
    """
    from clbench import api, config
    from clbench.engine.rundir.directory import run_path

    job = json.load(sys.stdin)
    settings, cls = config.revive(job["settings"], trust_code=True)
    runs_dir = Path(job["runs_dir"])
    try:
        api.follow(settings, cls, runs_dir)
    except BaseException:
        path = run_path(runs_dir, settings) / f"log-{os.environ['RANK']}.txt"
        path.write_text(traceback.format_exc(), encoding="utf-8")
        sys.exit(1)


if __name__ == "__main__":
    main()
