"""Rules about the shape of the code, as functions of a source tree that return what breaks them.

They take the tree as an argument so that `test_architecture.py` can hold each against a tree that
is wrong on purpose.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

# Which layers a layer may import besides itself. Every other file of clbench/ itself (cli, config,
# registry, ...) is the top layer: it may import all, and none of these may import it.
LAYERS: dict[str, set[str]] = {
    "core": set(),
    "clip": {"core"},
    "methods": {"core", "clip"},
    "datamodules": {"core"},
    "engine": {"core", "clip"},
    "report": {"core"},
    "experiments": set(),
}
TOP = "top"
# At import time these see only core: `import clbench` and a look at the registry must stay cheap.
LAZY = {"clbench/registry.py", "clbench/__init__.py"}
LIGHTNING = {"lightning", "lightning_fabric", "pytorch_lightning"}
LIGHTNING_LAYERS = {"engine", "datamodules"}
MAPPED = ("methods", "datamodules", "experiments")


def sources(root: Path) -> Iterator[Path]:
    """All Python files that are installed."""
    for folder in ("clbench", *MAPPED):
        yield from sorted((root / folder).rglob("*.py"))


def layer_of(root: Path, path: Path) -> str:
    """The layer a file belongs to."""
    parts = path.relative_to(root).parts
    if parts[0] != "clbench":
        return parts[0]
    return parts[1] if len(parts) > 2 else TOP


def is_type_checking(test: ast.expr) -> bool:
    """Whether a condition is TYPE_CHECKING or typing.TYPE_CHECKING."""
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def nodes(tree: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes that run, with whether a function holds them; type-checking blocks do not run."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and is_type_checking(child.test):
            for other in child.orelse:
                yield other, in_function
                yield from nodes(other, in_function)
            continue
        inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield child, inside
        yield from nodes(child, inside)


def imported_modules(node: ast.AST) -> list[str]:
    """Absolute names that an import statement may load; relative ones begin with a dot."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        if node.level:
            return ["." * node.level + (node.module or "")]
        base = node.module or ""
        return [f"{base}.{alias.name}" for alias in node.names] if base == "clbench" else [base]
    return []


def target_layer(module: str) -> str | None:
    """The layer of an imported module; None outside clbench."""
    parts = module.split(".")
    if parts[0] != "clbench" or (len(parts) > 1 and parts[1].startswith("__")):
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else TOP


def import_problem(layer: str, lazy: bool, in_function: bool, module: str) -> str | None:
    """What is wrong with importing a module from a layer, if anything."""
    if module.startswith("."):
        return f"relative import {module}"
    first = module.split(".")[0]
    if first in MAPPED:
        return f"bare import {module}: write clbench.{module}"
    if first in LIGHTNING and layer not in LIGHTNING_LAYERS:
        return f"{layer} imports {first}"
    target = target_layer(module)
    if target is None:
        return None
    if lazy and not in_function and target != "core":
        return f"{module} imported at import time: do it inside a function"
    allowed = {layer} | LAYERS.get(layer, set())
    return None if layer == TOP or target in allowed else f"{layer} imports {module}"


def import_violations(root: Path) -> list[str]:
    """Imports against the layers, as ``file:line: what``."""
    problems = []
    for path in sources(root):
        name, layer = path.relative_to(root).as_posix(), layer_of(root, path)
        problems += [
            f"{name}:{node.lineno}: {problem}"
            for node, in_function in nodes(ast.parse(path.read_text()))
            for module in imported_modules(node)
            if (problem := import_problem(layer, name in LAZY, in_function, module))
        ]
    return problems


def bare_import_violations(root: Path, folders: tuple[str, ...] = ("tests", "docs")) -> list[str]:
    """Imports of a mapped folder under its folder name, outside the installed code."""
    return [
        f"{path.relative_to(root).as_posix()}:{node.lineno}: bare import {module}"
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        for module in imported_modules(node)
        if module.split(".")[0] in MAPPED
    ]


def process_state_violations(root: Path) -> list[str]:
    """Code that changes where Python looks for modules or where the process works."""
    return [
        f"{path.relative_to(root).as_posix()}:{node.lineno}: {ast.unparse(node)}"
        for path in sources(root)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.path", "os.chdir"}
    ]


def sibling_method_violations(root: Path) -> list[str]:
    """Method files that import another method file: shared parts belong into clbench/clip."""
    return [
        f"methods/{path.name}:{node.lineno}: imports {module}"
        for path in sorted((root / "methods").glob("*.py"))
        if path.name != "__init__.py"
        for node, _ in nodes(ast.parse(path.read_text()))
        for module in imported_modules(node)
        if target_layer(module) == "methods"
    ]


def folder_violations(root: Path) -> list[str]:
    """Nested packages, code among the recipes, mapped folders inside clbench/."""
    flat = [root / name for name in MAPPED]
    flat += [path for path in sorted((root / "clbench").iterdir()) if path.is_dir()]
    problems = [
        f"{path.relative_to(root).as_posix()}: folders with code hold no folders with code"
        for folder in flat
        for path in sorted(folder.glob("*/**/*.py"))
    ]
    problems += [
        f"experiments/{path.name}: experiments holds recipes, no code"
        for path in sorted((root / "experiments").glob("*.py"))
        if path.name != "__init__.py"
    ]
    problems += [
        f"clbench/{name}: the folder is {name}/, mapped by pyproject.toml"
        for name in MAPPED
        if (root / "clbench" / name).exists()
    ]
    return problems


def package_violations(root: Path) -> list[str]:
    """Differences between the packages in pyproject.toml and the folders on disk."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    inner = [path.parent.name for path in sorted((root / "clbench").glob("*/__init__.py"))]
    on_disk = {"clbench": "clbench"} | {f"clbench.{n}": f"clbench/{n}" for n in inner}
    on_disk |= {f"clbench.{name}": name for name in MAPPED if (root / name).is_dir()}
    listed = {
        package: settings["package-dir"].get(package, package.replace(".", "/"))
        for package in settings["packages"]
    }
    return [
        f"pyproject.toml: {package} is {listed.get(package)}, on disk {on_disk.get(package)}"
        for package in sorted(listed.keys() | on_disk.keys())
        if listed.get(package) != on_disk.get(package)
    ]


def method_names(path: Path) -> list[str | None]:
    """The ``name`` of every class in a file that derives from Method; None where it has none."""
    names: list[str | None] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ClassDef):
            continue
        if not any(ast.unparse(base).split(".")[-1] == "Method" for base in node.bases):
            continue
        values = [
            statement.value
            for statement in node.body
            if isinstance(statement, ast.Assign | ast.AnnAssign)
            and "name" in ast.unparse(statement).split("=")[0].split(":")[0].split()
        ]
        value = values[0] if values else None
        names.append(value.value if isinstance(value, ast.Constant) else None)
    return names


def naming_violations(root: Path) -> list[str]:
    """Broken links of the chain file, class, recipe, docs page and test of a method."""
    problems = []
    stems = [p.stem for p in sorted((root / "methods").glob("*.py")) if p.stem != "__init__"]
    for stem in stems:
        found = method_names(root / "methods" / f"{stem}.py")
        if found != [stem]:
            problems.append(f"methods/{stem}.py: names of its methods are {found}, not ['{stem}']")
        chain = (
            f"experiments/methods/{stem}.yaml",
            f"docs/methods/{stem}.md",
            f"tests/methods/test_{stem}.py",
        )
        problems += [f"{link} is missing" for link in chain if not (root / link).is_file()]
    problems += [
        f"docs/methods/{path.name}: no such method"
        for path in sorted((root / "docs" / "methods").glob("*.md"))
        if path.stem not in stems
    ]
    return problems


def untested_benchmarks(root: Path) -> list[str]:
    """Benchmark recipes that no test uses: not named in one, and test_recipes.py lists none."""
    tests = "\n".join(path.read_text() for path in sorted((root / "tests").rglob("test_*.py")))
    recipes = root / "tests" / "test_recipes.py"
    if recipes.is_file() and "registry.benchmark_names()" in recipes.read_text():
        return []
    return [
        f"experiments/benchmarks/{path.name}: no test uses it"
        for path in sorted((root / "experiments" / "benchmarks").glob("*.yaml"))
        if f'"{path.stem}"' not in tests
    ]
