"""Reading YAML that somebody else may have written."""

from __future__ import annotations

from typing import Any

import yaml


class PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases: a few lines of them stand for gigabytes of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose the next node, unless it is an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", mark)
        return super().compose_node(parent, index)


def load_yaml(text: str) -> Any:
    """The value that a YAML text stands for; nothing in it is executed.

    Raises:
        yaml.YAMLError: it is not YAML, nested too deeply, or uses aliases.

    >>> load_yaml("train: {steps: 3}")
    {'train': {'steps': 3}}
    """
    try:
        return yaml.load(text, PlainLoader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # numbers and dates that do not exist
        raise yaml.YAMLError(str(error)) from error
