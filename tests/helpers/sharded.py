"""Selection over shards, on gloo processes; a script that tests/masks/test_sharding.py runs.

python -m tests.helpers.sharded <processes> <processes> …
"""

import copy
import faulthandler
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from lightning_lottery import (
    ERK,
    Context,
    Global,
    Layer,
    Layerwise,
    Magnitude,
    Sizes,
    Ticket,
    TrainingError,
    Unstructured,
)
from lightning_lottery.masks.arithmetic import fingerprint, kept
from lightning_lottery.masks.smallest import prune_smallest
from lightning_lottery.pruning.method import Method
from lightning_lottery.tickets.dense import dense_ticket
from lightning_lottery.tickets.masking import Masking


def scores(kind: str, generator: torch.Generator) -> list[Tensor]:
    shapes = [(7, 5), (3, 3, 3), (1, 4), (16, 16), (5,)]
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    if kind == "ties":
        made = [torch.randint(-3, 4, shape, generator=generator).float() for shape in shapes]
    if kind == "extremes":
        special = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 1e-45, -1e-45, 1e38, 2.0])
        made = [special[torch.randint(0, 8, shape, generator=generator)] for shape in shapes]
    if kind in ("float64", "bfloat16", "float16"):
        made = [score.to(getattr(torch, kind)) for score in made]
    if kind == "mixed":
        made[0], made[1] = made[0].double(), made[1].bfloat16()
    return made


def check_selection(mesh, placements) -> None:
    """Compares with one process, for every kind of scores, with and without earlier masks."""
    generator = torch.Generator().manual_seed(0)
    for kind in ("normal", "ties", "extremes", "float64", "bfloat16", "float16", "mixed"):
        for magnitude in (False, True):
            whole, masks = scores(kind, generator), None
            sharded = [distribute_tensor(score, mesh, placements) for score in whole]
            sharded_masks = None
            for _ in range(3):
                alive = sum(map(Tensor.numel, whole)) if masks is None else sum(int(m.sum()) for m in masks)
                k = int(torch.randint(0, alive + 1, (), generator=generator)) // 2
                masks = prune_smallest(whole, masks, k, magnitude)
                sharded_masks = prune_smallest(sharded, sharded_masks, k, magnitude)
                for mask, part in zip(masks, sharded_masks, strict=True):
                    assert isinstance(part, DTensor)
                    assert torch.equal(part.full_tensor(), mask), (kind, magnitude, k)


def check_nan(mesh) -> None:
    """Every process raises the error, wherever the NaN is."""
    score = torch.arange(8.0)
    score[7] = torch.nan
    try:
        prune_smallest([distribute_tensor(score, mesh, [Shard(0)])], None, 2)
    except TrainingError:
        return
    raise AssertionError("NaN went through")


def check_training(mesh, folder: Path) -> None:
    """Trains with fully_shard between prunings, with sharded masks and tickets that one process reads."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    alone = copy.deepcopy(network)
    for layer in network:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
    names = ["0.weight", "2.weight", "4.weight"]
    parameters = {name: network.get_parameter(name) for name in names}
    ticket = dense_ticket(network, parameters)
    assert all(isinstance(mask, DTensor) for mask in ticket.masks.values())
    images, labels = torch.randn(16, 9), torch.randint(0, 3, (16,))
    survivors = sum(parameter.numel() for parameter in parameters.values())
    for number in range(3):
        ticket.apply(network)
        masking = Masking(parameters, ticket.masks)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            masking.mask_gradients()
            optimizer.step()
        masking.check()
        trained = {name: parameter.full_tensor() for name, parameter in network.named_parameters()}
        for name, mask in ticket.masks.items():
            assert not trained[name][~mask.full_tensor()].any()
        expected = prune_smallest(
            {name: trained[name] for name in names},
            {name: mask.full_tensor() for name, mask in ticket.masks.items()},
            survivors // 4,
            magnitude=True,
        )
        masks = prune_smallest(parameters, ticket.masks, survivors // 4, magnitude=True)
        survivors -= survivors // 4
        assert kept(masks) == survivors
        assert fingerprint(masks) == fingerprint(expected)
        weights = dense_ticket(alone, {name: alone.get_parameter(name) for name in names}).weights
        ticket = Ticket(
            masks, {n: ticket_weight(w, network.get_parameter(n)) for n, w in weights.items()}, number + 1
        )
        whole = ticket.whole(keep=distributed.get_rank() == 0)
        if whole is not None:
            whole.save(folder / "ticket.safetensors")
            assert whole.density == survivors / (9 * 7 + 7 * 5 + 5 * 3)
        distributed.barrier()
        read = Ticket.load(folder / "ticket.safetensors")
        assert fingerprint(read.masks) == fingerprint(expected)
        placed = read.to(dict(network.named_parameters()))
        for name, weight in placed.weights.items():
            assert torch.equal(weight.full_tensor(), read.weights[name])
        read.apply(network)
        assert all(torch.equal(p.full_tensor(), read.weights[name]) for name, p in network.named_parameters())


def check_scopes(mesh) -> None:
    """Pools, minimum sizes and protected layers are those of one process."""
    generator = torch.Generator().manual_seed(1)
    whole = {name: torch.randn(shape, generator=generator) for name, shape in (("a", (9, 7)), ("b", (5, 3)))}
    whole["b"] *= 1e-6
    sharded = {name: distribute_tensor(weight, mesh, [Shard(0)]) for name, weight in whole.items()}
    layers = [Layer(name, tuple(weight.shape)) for name, weight in whole.items()]
    for scope in (Global(), Layerwise(), ERK(), Global(min_density=0.3)):
        pruner = Method(Magnitude(), scope, Unstructured()).plan(layers, Sizes(densities=[0.7, 0.4]))
        found = []
        for weights in (whole, sharded):
            masks = dict(dense_ticket(nn.ParameterDict(weights), weights).masks)
            for number in (1, 2):
                masks, _ = pruner.masks(
                    number, masks, lambda masks, weights=weights: Context(weights, weights, masks, None, None, 0)
                )
            found.append(fingerprint(masks))
        assert found[0] == found[1], scope


def ticket_weight(weight: Tensor, parameter: Tensor) -> Tensor:
    return distribute_tensor(weight, parameter.device_mesh, parameter.placements)


def work(rank: int, processes: int, folder: str) -> None:
    faulthandler.enable()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=processes)
    mesh = init_device_mesh("cpu", (processes,))
    check_selection(mesh, [Shard(0)])
    check_selection(mesh, [Replicate()])
    check_nan(mesh)
    check_scopes(mesh)
    check_training(mesh, Path(folder))
    if processes == 4:
        check_selection(init_device_mesh("cpu", (2, 2)), [Replicate(), Shard(0)])
    distributed.barrier()
    (Path(folder) / f"done_{rank}").touch()
    while len(list(Path(folder).glob("done_*"))) < processes:
        time.sleep(0.01)
    os._exit(0)  # gloo's threads sometimes abort a process that ends while others still listen


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    for processes in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            # Forked, since spawned processes would import everything again, which takes longer than the test.
            torch.multiprocessing.start_processes(work, (processes, folder), processes, start_method="fork")
        print(f"bit-equal with {processes} processes")
