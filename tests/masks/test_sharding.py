"""Selection over shards: bit-equal to one process, on two, three and four gloo processes."""

import pytest
import torch

from lightning_lottery.masks.sharding import count, like, local, place, positions, whole
from tests.helpers.scripts import run_script


@pytest.mark.slow
def test_selection_over_shards_equals_one_process():
    pytest.importorskip("torch.distributed.tensor", reason="PyTorch 2.5 or newer has DTensor there")
    for _ in range(3):
        done = run_script("sharded", 2, 3, 4)
        # Once in a hundred runs or so PyTorch's gloo crashes a process; a wrong result is an AssertionError.
        if "terminated with signal SIGSEGV" not in done.stderr:
            break
    expected = [f"bit-equal with {processes} processes" for processes in (2, 3, 4)]
    assert done.stdout.splitlines() == expected, done.stderr[-3000:]


def test_plain_tensors_need_no_process_group():
    tensor = torch.tensor([True, False])
    assert count([tensor, ~tensor]) == [1, 1]
    assert local(tensor) is whole(tensor) is like(tensor, tensor) is tensor
    assert torch.equal(place(tensor, tensor), tensor)
    assert positions(tensor, torch.tensor([1])).tolist() == [1]
