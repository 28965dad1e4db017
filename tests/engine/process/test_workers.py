"""What goes wrong in data-loading processes is one line, as if it had gone wrong in this one."""

from __future__ import annotations

import errno

import pytest
import torch

from clbench.core.errors import ClbenchError
from clbench.datamodules.readers.disk import MissingDataError
from clbench.engine.process.failures import explained
from clbench.methods.zeroshot import ZeroShot


class Unreadable(torch.utils.data.Dataset[int]):
    """Images of which none can be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ClbenchError("cannot read the image a.jpg: truncated"), "cannot read the image a.jpg: "),
        (MissingDataError("a.jpg is missing"), "a.jpg is missing"),
        (OSError(errno.EIO, "Input/output error", "a.jpg"), "training on x failed: "),
    ],
)
def test_an_error_of_a_data_loading_process_is_one_line(error: Exception, said: str) -> None:
    log: list[str] = []
    loader = torch.utils.data.DataLoader(Unreadable(error), num_workers=1)
    with (
        pytest.raises(ClbenchError) as raised,
        explained("training on x", "train.batch_size", ZeroShot(), log.append),
    ):
        list(loader)
    assert str(raised.value).startswith(said)
    assert "a.jpg" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "DataLoader worker process 0" in log[0]
