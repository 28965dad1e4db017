"""General ability: accuracy on images that no task trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, final

from clbench.core.probe import Look, Probe

CLEAN: Final = "-clean"
"""Ending of sets that show ImageNet's own images of the classes of another set."""


@final
class General(Probe):
    """Zero-shot accuracy on ImageNet, V2, R, A and Sketch, as far as they are there.

    On the embedded CLIP: dots, faces and signs, which only pre-training saw, in its style and
    (``-wild``) in that of the tasks. ImageNet-R and -A are scored among their 200 classes; beside
    them stands the accuracy on ImageNet's images of the same classes (``-clean``), which tells the
    shift from the classes. The method is asked as in tests; no class has been learned.

    Sources: https://arxiv.org/abs/2103.00020 (names and 80 templates of the 1000 classes),
    https://arxiv.org/abs/2006.16241 (R) and https://arxiv.org/abs/1907.07174 (A; both masks).
    """

    name: ClassVar[str] = "general"
    needs: ClassVar[frozenset[Any]] = frozenset({"general"})

    def measure(self, look: Look) -> Mapping[str, float | None]:
        """``mean`` over all sets but the clean ones, and the accuracy on each."""
        found: dict[str, float] = {}
        for one in look.data.general:
            if not len(one.images):  # of a smoke run's few images none may be of these classes
                continue
            correct = sum(
                int((scores.argmax(dim=1) == labels).sum())
                for (scores,), labels in look.logits(one.images, [one.classes])
            )
            found[one.name] = correct / len(one.images)
        shifted = [value for name, value in found.items() if not name.endswith(CLEAN)]
        return {"mean": sum(shifted) / len(shifted), **found}
