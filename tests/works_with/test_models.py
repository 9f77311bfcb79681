"""Networks in rounds: one test per row of docs/how-to/works-with.md."""

import copy

import torch
from torch import nn
from torchvision.models import resnet18

from tests.helpers.fits import Model, Net, loaders, make_optimizer, same_bits
from tests.helpers.reference import iterative_magnitude_pruning
from tests.helpers.rounds import PRUNED, rounds


def test_mlp(digits):
    """The same masks and weights as a loop in plain PyTorch."""
    network = nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    train, val = loaders(digits)
    expected = iterative_magnitude_pruning(
        copy.deepcopy(network),
        ["0.weight", "2.weight"],
        train,
        val,
        lambda module: make_optimizer("adam", module.parameters()),
        make_scheduler=None,
        amount=0.5,
        rounds=2,
        epochs=2,
        seed=3,
    )
    run = rounds(digits, Model(network, "adam"))
    run.check(steps=14, pruned=["network.0.weight", "network.2.weight"])
    for number, alone in enumerate(expected):
        assert same_bits(run.spy.ends[number], {f"network.{name}": value for name, value in alone.end.items()})
        masks = {f"network.{name}": mask for name, mask in alone.masks.items()}
        assert same_bits(run.lottery.tickets[number].masks, masks)


def test_cnn_with_batchnorm(digits):
    run = rounds(digits)
    run.check(steps=14, pruned=PRUNED)
    run.check_fresh()
    for start, end in zip(run.spy.starts, run.spy.ends, strict=True):
        assert not start["network.norm.running_mean"].any()
        assert end["network.norm.running_mean"].all()
        assert (int(start["network.norm.num_batches_tracked"]), int(end["network.norm.num_batches_tracked"])) == (
            0,
            14,
        )


class ViT(nn.Module):
    """One block of a vision transformer over 16 patches."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 7, stride=7)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 16, 16))
        self.first_norm, self.second_norm = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, images):
        tokens = self.patches(images.view(-1, 1, 28, 28)).flatten(2).transpose(1, 2) + self.positions
        normal = self.first_norm(tokens)
        tokens = tokens + self.attention(normal, normal, normal, need_weights=False)[0]
        tokens = tokens + self.mlp(self.second_norm(tokens))
        return self.head(tokens.mean(1))


def test_vit_block(digits):
    run = rounds(digits, Model(ViT(), "adamw"))
    layers = ["patches", "attention.in_proj", "attention.out_proj", "mlp.0", "mlp.2", "head"]
    pruned = [f"network.{layer}_weight" if "in_proj" in layer else f"network.{layer}.weight" for layer in layers]
    run.check(steps=14, pruned=pruned)
    run.check_fresh()
    total = 16 * 49 + 48 * 16 + 16 * 16 + 2 * 16 * 32 + 10 * 16
    assert [record.kept for record in run.lottery.records] == [total, total // 2, total // 4]


class Rows(nn.Module):
    """Reads an image row by row."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(28, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, 10)

    def forward(self, images):
        return self.head(self.lstm(images.view(-1, 28, 28))[0][:, -1])


def test_lstm(digits):
    run = rounds(digits, Model(Rows(), "adam"))
    weights = [f"network.lstm.weight_{kind}_l{layer}" for layer in (0, 1) for kind in ("ih", "hh")]
    run.check(steps=14, pruned=[*weights, "network.head.weight"])
    run.check_fresh()
    total = 48 * 28 + 3 * 48 * 12 + 10 * 12
    assert [record.kept for record in run.lottery.records] == [total, total // 2, total // 4]
    for end in run.spy.ends:
        assert all(value.all() for name, value in end.items() if "bias" in name)


class Tied(nn.Module):
    """A layer that is used twice, and an embedding of grey values that is also the output layer."""

    def __init__(self):
        super().__init__()
        self.input = nn.Linear(16 * 8, 16)
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.embedding, self.output = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
        self.output.weight = self.embedding.weight
        self.last = nn.Linear(16, 8)

    def forward(self, images):
        coarse = nn.functional.avg_pool2d(images.view(-1, 1, 28, 28), 7).flatten(1)
        hidden = self.input(self.embedding((9 * coarse).long()).flatten(1)).relu()
        return self.output(self.last(self.second(self.first(hidden).relu()).relu()))


def test_tied_weights(digits):
    network = Tied()
    run = rounds(digits, Model(network, "adam"))
    assert network.second.weight is network.first.weight
    assert network.output.weight is network.embedding.weight
    total = 16 * 128 + 16 * 16 + 8 * 16
    assert [record.kept for record in run.lottery.records] == [total, total // 2, total // 4]
    for number, (start, end) in enumerate(zip(run.spy.starts, run.spy.ends, strict=True)):
        masks = run.lottery.tickets[number].masks
        assert list(masks) == ["network.input.weight", "network.first.weight", "network.last.weight"]
        mask, initial = masks["network.first.weight"], run.initial["network.first.weight"]
        for name in ("network.first.weight", "network.second.weight"):
            assert torch.equal(start[name], torch.where(mask, initial, 0))
            assert not end[name][~mask].any()
            assert end[name][mask].all()
        assert torch.equal(start["network.output.weight"], run.initial["network.embedding.weight"])
        assert end["network.output.weight"].all()


def test_frozen_parameters(digits):
    network = Net()
    network.hidden.requires_grad_(False)
    network.norm.weight.requires_grad_(False)
    run = rounds(digits, Model(network))
    run.check(steps=14)
    run.check_fresh()
    assert not network.hidden.weight.requires_grad
    for number, end in enumerate(run.spy.ends):
        mask, initial = run.lottery.tickets[number].masks["network.hidden.weight"], run.initial
        assert torch.equal(end["network.hidden.weight"], initial["network.hidden.weight"] * mask)
        assert torch.equal(end["network.norm.weight"], initial["network.norm.weight"])
    assert run.lottery.tickets[2].layer_densities()["network.hidden.weight"] < 0.5


def test_configure_model(digits):
    class Late(Model):
        def __init__(self):
            super().__init__(nn.Identity())

        def configure_model(self):
            if isinstance(self.network, nn.Identity):
                torch.manual_seed(5)
                self.network = Net()

    run = rounds(digits, Late())
    torch.manual_seed(5)
    plain = rounds(digits, Model(Net()))
    run.check(steps=14, initial=plain.initial)


def test_resnet18(digits):
    network = resnet18(num_classes=10)
    names = [name for name, value in network.named_parameters() if value.dim() > 1]
    images = digits[0].view(-1, 1, 28, 28).expand(-1, 3, -1, -1)
    options = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    run = rounds(digits, Model(network), lambda: loaders((images, digits[1]), batch_size=8), **options)
    assert len(names) == 20 + 1
    run.check(steps=2, pruned=[f"network.{name}" for name in names])
    total = 11_181_642 - 2 * 4800 - 10
    assert [record.kept for record in run.lottery.records] == [total, total // 2, total // 4]
