"""What reports call methods: the titles and families that their classes declare, or the user's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress

from clbench import registry
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.results.result import RunResult


def titled(results: Iterable[RunResult]) -> list[RunResult]:
    """The results with the titles and families of methods that are installed here.

    Others go by their name. Where two methods have one title, their names tell them apart.
    """
    results = list(results)
    declared = _declared({result.method.name for result in results})
    titles = {name: title for name, (title, _) in declared.items()}
    unclear = {title for title, count in Counter(titles.values()).items() if count > 1}
    titles = {n: f"{t} ({n})" if t in unclear and t != n else t for n, t in titles.items()}
    return [
        _called(result, titles[result.method.name], declared[result.method.name][1])
        for result in results
    ]


def titles() -> dict[str, str]:
    """What methods that are installed here are called, by name."""
    return {name: title for name, (title, _) in _declared(registry.method_names()).items()}


def labelled(results: Iterable[RunResult], labels: Mapping[str, str]) -> list[RunResult]:
    """The results with other titles for some methods.

    Args:
        results: of any methods.
        labels: name of a method to its title.

    Raises:
        ClbenchError: no result is of such a method, a title is empty, or two methods share one.
    """
    results = list(results)
    names = {result.method.name for result in results}
    for name, title in labels.items():
        if name not in names:
            raise unknown_name("method among these runs", name, names)
        if not title.strip():
            raise ClbenchError(f"--label {name}=: expected a title, e.g. nusa=NuSA-CL")
    given = {r.method.name: labels.get(r.method.name, r.method.title) for r in results}
    for title, count in Counter(given.values()).items():
        if count > 1:
            same = ", ".join(sorted(name for name, other in given.items() if other == title))
            raise ClbenchError(f"--label: {same} would all be called {title!r}: name each once")
    return [_called(r, given[r.method.name], r.method.family) for r in results]


def names_among(text: str | None, results: Iterable[RunResult]) -> frozenset[str] | None:
    """The methods that a text names with commas between; None for none and for ``all``.

    Raises:
        ClbenchError: no result is of such a method.
    """
    if text is None or text.strip() == "all":
        return None
    known = {result.method.name for result in results}
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ClbenchError(f"--methods {text!r}: expected names, e.g. nusa,lora")
    for name in names:
        if name not in known:
            raise unknown_name("method among these runs", name, known)
    return frozenset(names)


def _declared(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Titles and families of methods; name and nothing where no class of that name is found."""
    known, declared = set(registry.method_names()), {}
    for name in names:
        declared[name] = name, ""
        if name in known:
            with suppress(ClbenchError):  # a plug-in that cannot be loaded
                title, family = registry.method_facts(name, "title", "family")
                declared[name] = title or name, family
    return declared


def _called(result: RunResult, title: str, family: str) -> RunResult:
    return result.model_copy(update={"method": result.method.called(title, family)})
