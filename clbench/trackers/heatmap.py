"""The accuracy matrix as an image, for trackers that show it during a run."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from clbench.core.results.result import RunResult

if TYPE_CHECKING:
    from PIL.Image import Image


def heatmap_image(result: RunResult) -> Image | None:
    """Draw the matrix as in reports; None while it holds no accuracy."""
    from PIL import Image

    from clbench.report.figures.matrices import draw_matrices
    from clbench.report.figures.style import figure_settings, file_bytes

    with figure_settings():
        figure = draw_matrices([result])
    if figure is None:
        return None
    return Image.open(io.BytesIO(file_bytes(figure, "png"))).convert("RGB")
