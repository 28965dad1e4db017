"""Rules about the shape of the code, as functions of a source tree that return what breaks them.

They take the tree as an argument so that `test_architecture.py` can hold each against a tree that
is wrong on purpose.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

# Files of clbench/ itself and of these folders see everything and are seen by nobody below.
TOP = "top"
TOP_FOLDERS = ("cli", "launch", "studies", "testing", "tuning")
# At import time these see only core: `import clbench` and a look at the registry must stay cheap.
LAZY = {"clbench/registry.py", "clbench/__init__.py"}
LIGHTNING = {"lightning", "lightning_fabric", "pytorch_lightning"}
LIGHTNING_LAYERS = {"engine", "datamodules"}
MAPPED = ("methods", "datamodules", "experiments")
CROWDED = 12
"""Code files that a folder may hold."""


def allowed_imports(root: Path) -> dict[str, set[str]]:
    """What docs/design.md says a layer, or a folder inside one, may import besides itself."""
    text = (root / "docs/design.md").read_text()
    (block,) = re.findall(r"^```imports\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    allowed: dict[str, set[str]] = {}
    for line in block.splitlines():
        name, arrow, others = line.partition("->")
        if arrow:
            allowed.setdefault(name.strip(), set()).update(others.split())
    return allowed


def sources(root: Path) -> Iterator[Path]:
    """All Python files that are installed."""
    for folder in ("clbench", *MAPPED):
        yield from sorted((root / folder).rglob("*.py"))


def module_parts(root: Path, path: Path) -> tuple[str, ...]:
    """A file's place below clbench in the package: ``("clip", "layers", "hooks")``."""
    parts = path.relative_to(root).with_suffix("").parts
    return parts[1:] if parts[0] == "clbench" else parts


def layer_of(parts: tuple[str, ...]) -> str:
    """The layer of a module or folder below clbench."""
    return TOP if len(parts) < 2 or parts[0] in TOP_FOLDERS else parts[0]


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
        if base.split(".")[0] == "clbench":
            return [f"{base}.{alias.name}" for alias in node.names]
        return [base]
    return []


def target_of(root: Path, module: str) -> tuple[str, ...] | None:
    """The file below clbench that an imported name stands for, as `module_parts` has it.

    None outside clbench. A package's own name stands for its ``__init__``.
    """
    parts = tuple(module.split("."))
    if parts[0] != "clbench":
        return None
    for end in range(len(parts), 0, -1):  # the last part may be a name inside the module
        inner = parts[1:end]
        for base in (root / "clbench", root) if inner[:1] not in ((), ("clbench",)) else ():
            if base.joinpath(*inner).with_suffix(".py").is_file():
                return inner
            if base.joinpath(*inner).is_dir():
                return (*inner, "__init__")
    return ("__init__",) if len(parts) == 1 or parts[1].startswith("__") else parts[1:]


def import_problem(
    rules: dict[str, set[str]], source: tuple[str, ...], target: tuple[str, ...], module: str
) -> str | None:
    """What is wrong with one file of clbench importing another, if anything."""
    layer, other = layer_of(source), layer_of(target)
    if layer == TOP:
        return None
    if other != layer:
        return None if other in rules.get(layer, ()) else f"{layer} imports {module}"
    folder, inner = ("/".join(parts[:-1]) for parts in (source, target))
    if folder == inner or inner in rules.get(folder, ()):
        return None
    return f"{folder} imports {module}"


def import_violations(root: Path) -> list[str]:
    """Imports against the rules of docs/design.md, as ``file:line: what``."""
    rules, problems = allowed_imports(root), []
    for path in sources(root):
        name, source = path.relative_to(root).as_posix(), module_parts(root, path)
        for node, in_function in nodes(ast.parse(path.read_text())):
            for module in imported_modules(node):
                first, target = module.split(".")[0], target_of(root, module)
                problem = None
                if module.startswith("."):
                    problem = f"relative import {module}"
                elif first in MAPPED:
                    problem = f"bare import {module}: write clbench.{module}"
                elif first in LIGHTNING and layer_of(source) not in LIGHTNING_LAYERS:
                    problem = f"{layer_of(source)} imports {first}"
                elif target is not None and target != ("__init__",):
                    if name in LAZY and not in_function and layer_of(target) != "core":
                        problem = f"{module} imported at import time: do it inside a function"
                    else:
                        problem = import_problem(rules, source, target, module)
                if problem:
                    problems.append(f"{name}:{node.lineno}: {problem}")
    return problems


def circle_violations(root: Path) -> list[str]:
    """Files that import each other in a circle, also inside functions."""
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for path in sources(root):
        source = module_parts(root, path)
        targets = (
            target_of(root, module)
            for node, _ in nodes(ast.parse(path.read_text()))
            for module in imported_modules(node)
        )
        graph[source] = {t for t in targets if t not in (None, source) and t[-1] != "__init__"}
    problems: list[str] = []
    done: set[tuple[str, ...]] = set()

    def visit(file: tuple[str, ...], trail: tuple[tuple[str, ...], ...]) -> None:
        if file in trail:
            circle = [*trail[trail.index(file) :], file]
            problems.append(" -> ".join("/".join(parts) for parts in circle))
        elif file not in done:
            for target in sorted(graph.get(file, ())):
                visit(target, (*trail, file))
            done.add(file)

    for file in sorted(graph):
        visit(file, ())
    return problems


def layout_violations(root: Path) -> list[str]:
    """Crowded folders, and file names that say again what their folder says."""
    problems = []
    folders = sorted({path.parent for path in sources(root)})
    for folder in folders:
        name = folder.relative_to(root).as_posix()
        files = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
        if len(files) > CROWDED and name != "methods":
            problems.append(f"{name}: {len(files)} code files, more than {CROWDED}")
        rooms = {folder.name, *(path.name for path in folders if path.parent == folder)}
        problems += [
            f"{name}/{stem}.py: its name begins with that of a folder"
            for stem in sorted(files)
            if any(stem.startswith(f"{room}_") for room in rooms)
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
        if changes_process_state(node)
    ]


def changes_process_state(node: ast.AST) -> bool:
    """Whether a node is `os.chdir`, or does more with `sys.path` than read it."""
    if isinstance(node, ast.Attribute):
        text = ast.unparse(node)
        changed = not isinstance(node.ctx, ast.Load) and text == "sys.path"
        return changed or text == "os.chdir" or ast.unparse(node.value) == "sys.path"
    return isinstance(node, ast.Subscript) and ast.unparse(node.value) == "sys.path"


def sibling_method_violations(root: Path) -> list[str]:
    """Method files that import another method file: shared parts belong into clbench/clip."""
    return [
        f"methods/{path.name}:{node.lineno}: imports methods/{target[1]}.py"
        for path in sorted((root / "methods").glob("*.py"))
        if path.name != "__init__.py"
        for node, _ in nodes(ast.parse(path.read_text()))
        for module in imported_modules(node)
        if (target := target_of(root, module)) and target[0] == "methods"
    ]


def folder_violations(root: Path) -> list[str]:
    """Folders inside methods/, code among the recipes, mapped folders inside clbench/."""
    problems = [
        f"{path.relative_to(root).as_posix()}: methods/ is flat"
        for path in sorted((root / "methods").glob("*/**/*.py"))
    ]
    problems += [
        f"{path.relative_to(root).as_posix()}: experiments holds recipes, no code"
        for path in sorted((root / "experiments").rglob("*.py"))
        if path != root / "experiments" / "__init__.py"
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
    on_disk = {
        ".".join(("clbench", *module_parts(root, path)[:-1])): path.parent.relative_to(root)
        for path in sources(root)
        if path.with_name("__init__.py").is_file()
    }
    on_disk |= {f"clbench.{name}": Path(name) for name in MAPPED if (root / name).is_dir()}
    listed = {}
    for package in settings["packages"]:
        first = max(filter(f"{package}.".startswith, (f"{p}." for p in settings["package-dir"])))
        rest = f"{package}.".removeprefix(first).replace(".", "/")
        listed[package] = Path(settings["package-dir"][first[:-1]]) / rest
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
        if path.stem not in (*stems, "index")
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
