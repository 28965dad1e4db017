"""Compare a built wheel with the source folders, and import every module of an installed one.

The mapping of three top-level folders into the package makes it easy to ship a wheel that lacks a
module, a recipe or the weights while every test in the checkout passes.

    python tests/check_wheel.py dist/clbench-0.1.0-py3-none-any.whl
    python tests/check_wheel.py --imports SITE      # with SITE first on the path
"""

import importlib
import pkgutil
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Source folder -> where its files lie in the wheel. Written here a second time on purpose:
# taking it from pyproject.toml would repeat its mistakes.
FOLDERS = {
    "clbench": "clbench",
    "methods": "clbench/methods",
    "datamodules": "clbench/datamodules",
    "experiments": "clbench/experiments",
}


def expected_files(root: Path) -> set[str]:
    """The files a wheel of the checkout must hold: all that lie in the source folders."""
    return {
        f"{target}/{path.relative_to(root / folder).as_posix()}"
        for folder, target in FOLDERS.items()
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def wheel_files(wheel: Path) -> set[str]:
    """The files of a wheel without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    return {name for name in names if not name.split("/")[0].endswith(".dist-info")}


def differences(root: Path, wheel: Path) -> list[str]:
    """One line for each file that only one side has."""
    expected, found = expected_files(root), wheel_files(wheel)
    return [
        *(f"not in the wheel: {name}" for name in sorted(expected - found)),
        *(f"not in the sources: {name}" for name in sorted(found - expected)),
    ]


def import_everything(site: Path) -> int:
    """Import every module below SITE/clbench, none from elsewhere, and return their number."""
    package = importlib.import_module("clbench")
    names = [found.name for found in pkgutil.walk_packages(package.__path__, "clbench.")]
    modules = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    for module in [package, *modules]:
        if not Path(str(module.__file__)).is_relative_to(site.resolve()):
            sys.exit(f"{module.__name__} came from {module.__file__}, not from {site}")
    return 1 + len(modules)


def main(arguments: list[str]) -> None:
    """Run one of the two checks; a failed one exits with 1."""
    if len(arguments) == 2 and arguments[0] == "--imports":
        sys.stdout.write(f"imported {import_everything(Path(arguments[1]))} modules\n")
    elif len(arguments) == 1:
        wheel = Path(arguments[0])
        if problems := differences(ROOT, wheel):
            sys.exit("\n".join(problems))
        sys.stdout.write(f"{wheel.name} holds all {len(wheel_files(wheel))} source files\n")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
