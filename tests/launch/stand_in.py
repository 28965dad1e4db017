"""What launchers start in tests instead of clbench: a process that behaves in a known way.

Usage: stand_in.py run BEHAVIOUR KEY --runs-dir FOLDER. How often it was started is the number of
lines in FOLDER/KEY/starts, which also hold the threads and the devices that it was given.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

behaviour, folder = sys.argv[2], Path(sys.argv[5]) / sys.argv[3]
folder.mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as file:
    file.write(f"{os.environ['OMP_NUM_THREADS']} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
starts = len((folder / "starts").read_text().splitlines())


def save(status):
    (folder / "result.json").write_text(json.dumps({"status": status}))


def stopped(number, _):
    save("partial")
    sys.stdout.write("saved\n")
    sys.exit(128 + number)


sys.stdout.write(f"start {starts} of {behaviour}\n")
sys.stdout.flush()
if behaviour == "raising":
    raise ArithmeticError("the sums do not add up")
if behaviour == "mistake":
    sys.stderr.write("clbench: unknown method 'nusaa'\n")
    sys.exit(2)
if behaviour == "diverging":
    sys.stderr.write("clbench: the loss became nan at step 3\n")
    sys.exit(3)
if behaviour == "killed" and starts == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "preempted" and starts < 3:
    save("partial")
    sys.exit(143)
if behaviour == "waiting" and starts == 1:
    signal.signal(signal.SIGTERM, stopped)
if behaviour in ("waiting", "patient") and starts == 1:
    (folder / "ready").touch()
    while not (folder / "go").exists():
        time.sleep(0.05)
if behaviour == "empty":
    sys.exit(0)
save("complete")
