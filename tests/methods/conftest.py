"""What tests of single methods share."""

import pytest

from clbench.methods import moe_adapters


@pytest.fixture(autouse=True)
def _few_reference_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """MoE-Adapters' autoencoders see some reference images instead of thousands."""
    monkeypatch.setattr(moe_adapters, "REFERENCE_IMAGES", 256)
