"""Kills runs of every method again and again, and compares them with runs that nobody disturbs.

``python -m tests.chaos``: for each method one undisturbed run of the embedded benchmark, small, and
one that is killed with SIGKILL at chosen places and at random moments and started again by the same
command. Both must end with the same bits, and a result that is on disk must never be lost. Methods
may be tried in several calls, with ``--keep``: the report names the commit that each was tried at.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clbench import registry
from clbench.core.files import write_atomic
from clbench.core.results.result import RunResult
from clbench.verify import verify

PLACES = (
    "half a checkpoint",
    "checkpoint without its JSON",
    "checkpoint before old ones go",
    "half an image cache",
    "zero-shot cache",
    "evaluation batch",
    "training step",
    "result before its rename",
)
TURNS = {"evaluation batch": (1, 60), "half an image cache": (1, 11), "zero-shot cache": (1, 1)}
CACHES = ("half an image cache", "zero-shot cache")
"""Places that are passed at the beginning only."""
PLACES_PER_METHOD = 4
RANDOM_PER_METHOD = 3
LIMIT = 900.0


@dataclass
class Chain:
    """The starts of one command until it is through.

    Attributes:
        method: name of the method.
        seed: training seed.
        kills: where each kill hit.
        starts: how often the command was started.
        lost: results that were on disk before a kill and not after.
        differences: what is not as in the undisturbed run.
        commit: which code was run.
    """

    method: str
    seed: int
    commit: str
    kills: list[str] = field(default_factory=list)
    starts: int = 0
    lost: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def ending(self) -> str:
        """How it compares to the undisturbed run."""
        return ", ".join(self.differences) or "bit-identical"


def command(method: str, seed: int, folder: Path) -> list[str]:
    """The same for every start of a chain."""
    return [
        *("run", "--method", method, "--benchmark", "mini", "--seed", str(seed), "--quick", "-q"),
        *("--set", "checkpoint_every.steps=1"),
        *("--root", str(folder / "data"), "--runs-dir", str(folder / "runs")),
    ]


def start(arguments: list[str], note: Path, point: str = "") -> subprocess.Popen[bytes]:
    """Start the command in a process that can be watched."""
    environment = {**os.environ, "CHAOS_NOTE": str(note), "OMP_NUM_THREADS": "1"}
    if point:
        environment["CHAOS_POINT"] = point
    child = [sys.executable, "-m", "tests.chaos_child", *arguments]
    return subprocess.Popen(
        child, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def run_directory(folder: Path) -> Path | None:
    """The only run below a folder, if it has a result."""
    found = sorted((folder / "runs").glob("mini/*/*/result.json"))
    return found[0].parent if found else None


def outcome(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on how often it was killed."""
    run = run_directory(folder)
    assert run is not None
    result = json.loads((run / "result.json").read_text())
    (weights,) = (run / "checkpoints").glob("*.safetensors")
    state = json.loads(weights.with_suffix(".json").read_text())["content"]["state"]
    losses = run / "metrics.jsonl"
    return {
        "final weights": weights.read_bytes(),
        "state": state,
        "losses": losses.read_text() if losses.exists() else "",
        "answers": {path.name: path.read_bytes() for path in (run / "correct").iterdir()},
        "steps": result["cost"]["steps"],
        **{key: result.get(key) for key in ("accuracy", "summary", "footprint", "effective_rank")},
        "status": result["status"],
    }


def learned(folder: Path) -> int:
    """Rows of the matrix that are on disk; -1 without a result."""
    run = run_directory(folder)
    return -1 if run is None else RunResult.load(run).matrix.learned


def disturb(chain: Chain, folder: Path, expected: dict[str, Any], seconds: float) -> None:
    """Kill and start again until every place was hit and the run is through."""
    arguments = command(chain.method, chain.seed, folder)
    note = folder / "note"
    draw = random.Random(f"{chain.method} {chain.seed}")
    turn = registry.method_names().index(chain.method) * PLACES_PER_METHOD + chain.seed
    plan: list[str | None] = [PLACES[(turn + i) % len(PLACES)] for i in range(PLACES_PER_METHOD)]
    plan += [None] * RANDOM_PER_METHOD
    draw.shuffle(plan)
    plan.sort(key=lambda place: place not in CACHES)
    if CACHES[0] in plan:  # then the images are rendered anew
        shutil.rmtree(folder / "data", ignore_errors=True)
    while True:
        before = learned(folder)
        place = plan.pop(0) if plan else "no more"
        point = ""
        if place not in (None, "no more"):
            low, high = TURNS.get(place, (1, 4))
            point = f"{place}:{draw.randint(low, high)}"
        process = start(arguments, note, point)
        chain.starts += 1
        if place is None:
            try:
                process.wait(draw.uniform(0.2, 0.7 * seconds))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=LIMIT)
        if process.returncode == -signal.SIGKILL:
            chain.kills.append(note.read_text() if place is None else str(place))
        elif process.returncode != 0:
            chain.differences.append(f"exit code {process.returncode}: {errors.decode()[-300:]}")
            return
        if before > learned(folder):
            chain.lost += 1
        if process.returncode == 0:
            break
    found = outcome(folder)
    chain.differences += [key for key in expected if found[key] != expected[key]]
    run = run_directory(folder)
    assert run is not None
    chain.differences += [f"{f.what}: {f.text}" for f in verify(run) if not f.sound]


def commit() -> str:
    """The commit that is checked out, with a plus sign if files were edited since."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def earlier(out: Path, methods: list[str]) -> list[Chain]:
    """The chains in a report, without those of some methods."""
    path = out / "outcome.json"
    found = json.loads(path.read_text())["chains"] if path.exists() else []
    return [Chain(**chain) for chain in found if chain["method"] not in methods]


def kill_runs(
    methods: list[str], folder: Path, wanted: int, out: Path, chains: list[Chain]
) -> list[Chain]:
    """All chains of all methods, after those that there are; reported after every one.

    Each method is killed `wanted` times at least.
    """
    chains, now = [*chains], commit()
    (folder / "data").mkdir()
    for method in methods:
        kills, seed = 0, 0
        while kills < wanted:
            twin = folder / method / f"{seed}-undisturbed"
            began = time.monotonic()
            twin.mkdir(parents=True)
            (twin / "data").symlink_to(folder / "data")
            _, errors = start(command(method, seed, twin), twin / "note").communicate()
            if run_directory(twin) is None:
                raise SystemExit(f"the undisturbed run of {method} failed: {errors.decode()}")
            seconds = time.monotonic() - began
            place = folder / method / f"{seed}-killed"
            shutil.copytree(folder / "data", place / "data")
            chain = Chain(method, seed, now)
            disturb(chain, place, outcome(twin), seconds)
            chains.append(chain)
            kills, seed = kills + len(chain.kills), seed + 1
            print(
                f"{method} seed {chain.seed}: {len(chain.kills)} kills, {chain.starts} starts, "
                f"{chain.lost} results lost, {chain.ending} ({time.monotonic() - began:.0f} s)",
                flush=True,
            )
            write_report(chains, out)
            shutil.rmtree(folder / method)
            (folder / method).mkdir()
    return chains


def failures(chains: list[Chain]) -> list[Chain]:
    """The chains that lost a result or did not end like their undisturbed twins."""
    return [chain for chain in chains if chain.differences or chain.lost]


def verdict(chains: list[Chain]) -> str:
    """The outcome in a sentence."""
    methods, sound = len({c.method for c in chains}), len(chains) - len(failures(chains))
    return (
        f"{sum(len(c.kills) for c in chains)} SIGKILLs over {len(chains)} runs of {methods} "
        f"methods on `mini --quick`; {sound} of {len(chains)} runs, started "
        "again by the same command, ended bit-identical to their undisturbed twins; "
        f"{sum(chain.lost for chain in chains)} results lost."
    )


def write_report(chains: list[Chain], out: Path) -> None:
    """Write ``outcome.json`` and ``README.md``."""
    places = Counter(kill for chain in chains for kill in chain.kills)
    content = {
        "kills": sum(places.values()),
        "runs": len(chains),
        "failed": len(failures(chains)),
        "places": dict(places.most_common()),
        "chains": [vars(chain) for chain in chains],
    }
    write_atomic(out / "outcome.json", json.dumps(content, indent=2) + "\n")
    lines = [
        "# Kill test",
        "",
        verdict(chains),
        "",
        "Compared are final weights, method state, logged losses, accuracy matrix, metrics, the "
        "answer to every test image, steps and footprint. Each run has 11 tasks of 4 steps, saves "
        "after every step and tests 12 times. `make chaos` repeats it.",
        "",
        "| method | seed | commit | kills | starts | outcome |",
        "|---|--:|---|--:|--:|---|",
        *(
            f"| {c.method} | {c.seed} | {c.commit} | {len(c.kills)} | {c.starts} | {c.ending} |"
            for c in sorted(chains, key=lambda c: (c.method, c.seed))
        ),
        "",
        "| where the kill hit | kills |",
        "|---|--:|",
        *(f"| {place} | {count} |" for place, count in places.most_common()),
        "",
    ]
    write_atomic(out / "README.md", "\n".join(lines))


def main() -> None:
    """Command line of the kill test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="all", help="names with commas between, or all")
    parser.add_argument("--kills", type=int, default=5, help="at least so many per method")
    parser.add_argument("--out", type=Path, default=Path("reports/chaos"))
    parser.add_argument("--keep", action="store_true", help="keep what --out holds of others")
    options = parser.parse_args()
    names = registry.method_names() if options.methods == "all" else options.methods.split(",")
    with tempfile.TemporaryDirectory(prefix="clbench-chaos-") as folder:
        before = earlier(options.out, names) if options.keep else []
        chains = kill_runs(names, Path(folder), options.kills, options.out, before)
    print(verdict(chains))
    sys.exit(1 if failures(chains) else 0)


if __name__ == "__main__":
    main()
