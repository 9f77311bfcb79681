"""Precision and optimization in rounds: one test per row of docs/how-to/works-with.md."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Callback, callbacks
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_lottery import LotteryTicketCallback
from tests.helpers.fits import Model, Net, loaders, make_optimizer, same_bits
from tests.helpers.reference import prune
from tests.helpers.rounds import Rounds, rounds, same_training


class Typed(Net):
    """Records the type in which a hidden layer computes."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()
        self.hidden.register_forward_hook(lambda layer, args, result: self.types.add(result.dtype))


def test_precision_bf16_mixed(digits):
    run = rounds(digits, Model(Typed()), precision="bf16-mixed")
    run.check(steps=14)
    run.check_fresh()
    assert run.model.network.types == {torch.bfloat16}
    assert run.lottery.tickets[2].weights["network.hidden.weight"].dtype == torch.float32


def test_precision_bf16_true(digits):
    run = rounds(digits, Model(Typed()), precision="bf16-true")
    run.check(14, initial={k: v.bfloat16() if v.is_floating_point() else v for k, v in run.initial.items()})
    run.check_fresh()
    assert run.model.network.types == {torch.bfloat16}
    for number in (0, 1):  # bfloat16 has many equal magnitudes
        before, after = run.lottery.tickets[number], run.lottery.tickets[number + 1]
        assert same_bits(prune(run.spy.ends[number], before.masks, before.kept - after.kept), after.masks)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="16-mixed scales gradients on a GPU")
def test_precision_16_mixed_on_cuda(digits):
    class Scale(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(trainer.precision_plugin.scaler.get_scale())

    seen: list[float] = []
    run = rounds(digits, Model(Typed()), others=lambda: [Scale()], precision="16-mixed", accelerator="cuda")
    run.check(steps=14)
    assert run.model.network.types == {torch.float16}
    assert seen == [2.0**16] * 3


def test_precision_64_true(digits):
    run = rounds(digits, Model(Typed()), precision="64-true")
    run.check(14, initial={k: v.double() if v.is_floating_point() else v for k, v in run.initial.items()})
    run.check_fresh()
    assert run.model.network.types == {torch.float64}
    assert run.lottery.tickets[2].weights["network.hidden.weight"].dtype == torch.float64


class ByHand(Callback):
    """Computes every step of plain SGD next to the training, from gradients of a copy."""

    def __init__(self, lottery: LotteryTicketCallback, clip: Callable[..., dict[str, Tensor]]) -> None:
        self.lottery, self.clip = lottery, clip

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        masks, network = self.lottery.tickets[len(self.lottery.records)].masks, copy.deepcopy(pl_module.network)
        nn.functional.cross_entropy(network(batch[0]), batch[1]).backward()
        dense = {f"network.{name}": parameter.grad for name, parameter in network.named_parameters()}
        clipped = self.clip({name: gradient * masks.get(name, True) for name, gradient in dense.items()}, dense)
        self.expected = {name: value - 0.1 * clipped[name] for name, value in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, *_):
        for name, parameter in pl_module.named_parameters():
            torch.testing.assert_close(parameter, self.expected[name], rtol=1e-5, atol=1e-7)


class PlainSGD(Model):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def norm_of(gradients: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients.values()))


def test_gradient_clipping_by_norm(digits):
    def clip(gradients, dense):
        norm = norm_of(gradients)
        norms.append((norm, norm_of(dense)))
        return {name: gradient * min(1, 0.3 / (norm + 1e-6)) for name, gradient in gradients.items()}

    norms: list[tuple[float, float]] = []
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    options = {"gradient_clip_val": 0.3, "gradient_clip_algorithm": "norm"}
    run = rounds(digits, PlainSGD(), others=lambda: [ByHand(lottery, clip)], lottery=lottery, **options)
    run.check(steps=14)
    assert min(norm for norm, _ in norms) > 0.3, "every step is clipped"
    assert all(norm == dense for norm, dense in norms[:14])
    assert all(norm < 0.99 * dense for norm, dense in norms[14:]), "pruned gradients would have mattered"


def test_gradient_clipping_by_value(digits):
    def clip(gradients, dense):
        clamped.append(sum(int((gradient.abs() > 0.01).sum()) for gradient in gradients.values()))
        return {name: gradient.clamp(-0.01, 0.01) for name, gradient in gradients.items()}

    clamped: list[int] = []
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    options = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}
    run = rounds(digits, PlainSGD(), others=lambda: [ByHand(lottery, clip)], lottery=lottery, **options)
    run.check(steps=14)
    assert len(clamped) == 42
    assert min(clamped) > 0, "every step is clipped"


def test_accumulate_grad_batches(digits):
    run = rounds(digits, accumulate_grad_batches=3)
    run.check(steps=2 * 3)
    run.check_fresh()
    network = nn.Sequential(nn.Linear(784, 24), nn.ReLU(), nn.Linear(24, 10))
    pruned = ["network.0.weight", "network.2.weight"]
    ends = []
    for size, count in ((10, 4), (40, 1)):

        def data(size=size):
            return loaders(digits, batch_size=size, shuffle=False)

        run = rounds(digits, Model(copy.deepcopy(network)), data, accumulate_grad_batches=count)
        run.check(steps=2 * 5, pruned=pruned)
        ends.append(run.spy.ends[0])
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_several_optimizers(digits):
    class Two(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            first, second = self.optimizers()
            first.zero_grad()
            second.zero_grad()
            self.manual_backward(loss)
            first.step()
            if batch_idx % 2:
                second.step()

        def configure_optimizers(self):
            network = self.network
            parts = (
                nn.ModuleList([network.convolution, network.norm]),
                nn.ModuleList([network.hidden, network.output]),
            )
            return make_optimizer("sgd", parts[0].parameters()), make_optimizer("adam", parts[1].parameters())

    run = rounds(digits, Two())
    run.check(steps=2 * (7 + 3))
    run.check_fresh()


def test_manual_optimization(digits):
    class Manual(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()

    network = Net()
    manual = rounds(digits, Manual(copy.deepcopy(network)))
    manual.check(steps=14)
    assert same_training(manual, rounds(digits, Model(network)))


def test_lbfgs(digits):
    class Newton(Model):
        calls = 0

        def training_step(self, batch, batch_idx):
            self.calls += 1
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            # Without tolerances, so that no step ends early.
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=4, tolerance_grad=0, tolerance_change=0)

    run = rounds(digits, Newton())
    run.check(steps=14)
    run.check_fresh()
    assert run.model.calls == 3 * 14 * 4


def test_torch_compile(digits):
    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    graphs: list[object] = []
    options = {"max_epochs": 1, "limit_val_batches": 0}
    run = Rounds(Model(), lambda: loaders(digits), options=options)
    run.fit(torch.compile(run.model, backend=backend))
    torch._dynamo.reset()
    assert graphs, "nothing was compiled"
    run.check(steps=7)
    assert same_training(run, rounds(digits, copy.deepcopy(run.untouched), **options))


def test_gradient_checkpointing(digits):
    class Checkpointed(Net):
        calls = 0

        def head(self, features):
            self.calls += self.training
            return self.output(self.hidden(features).relu())

        def forward(self, images):
            features = self.norm(self.convolution(images.view(-1, 1, 28, 28))).relu().flatten(1)
            return checkpoint(self.head, features, use_reentrant=False)

    network = Checkpointed()
    plain = Net()
    plain.load_state_dict(network.state_dict())
    run = rounds(digits, Model(network))
    run.check(steps=14)
    assert network.calls == 2 * 3 * 14, "forward, and once more in backward"
    assert same_training(run, rounds(digits, Model(plain)))


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def test_stochastic_weight_averaging(digits):
    class EpochStarts(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append(parameters_of(pl_module))

    def others():
        return [EpochStarts(), callbacks.StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)]

    seen: list[dict[str, Tensor]] = []
    run = rounds(digits, others=others, max_epochs=3)
    run.check(steps=21 + 1)  # the last epoch is one step without changes, for batch normalisation
    assert len(seen) == 3 * 4
    for number, end in enumerate(run.spy.ends):
        averaged = seen[4 * number + 1 : 4 * number + 3]
        for name, value in averaged[0].items():
            torch.testing.assert_close(end[name], (value + averaged[1][name]) / 2)


def test_ema_weight_averaging(digits):
    if not hasattr(callbacks, "EMAWeightAveraging"):
        pytest.skip("this Lightning has no EMAWeightAveraging")

    class Average(Callback):
        def on_train_start(self, trainer, pl_module):
            averages.append({})

        def on_train_batch_end(self, trainer, pl_module, *_):
            now = parameters_of(pl_module)
            averages[-1] = {name: 0.9 * averages[-1].get(name, now[name]) + 0.1 * now[name] for name in now}

    averages: list[dict[str, Tensor]] = []
    run = rounds(digits, others=lambda: [Average(), callbacks.EMAWeightAveraging(decay=0.9)])
    run.check(steps=14)
    for average, end in zip(averages, run.spy.ends, strict=True):
        for name, value in average.items():
            torch.testing.assert_close(end[name], value)


def test_lr_schedulers(digits):
    class Rates(Callback):
        def on_train_batch_start(self, trainer, *_):
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    optimizer = make_optimizer("sgd", Net().parameters())
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=14)
    cycled = []
    for step in range(14):
        cycled.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < 13:
            cycle.step()
    expected = {
        "step": [0.1 * 0.7 ** (step // 5) for step in range(14)],
        "cycle": cycled,
        "plateau": [0.1] * 7 + [0.01] * 7,
    }
    for kind, rates in expected.items():
        seen: list[float] = []
        run = rounds(digits, Model(scheduler=kind), others=lambda: [Rates()])
        run.check(steps=14)
        assert seen == pytest.approx(rates * 3)
