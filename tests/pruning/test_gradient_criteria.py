"""The formulas of the papers, against finite differences and against sums over paths."""

import copy

import pytest
import torch
from torch import nn

from lightning_lottery import SNIP, ConfigurationError, Context, GraSP, SynFlow, Taylor


class Batches:
    """Batches and a loss, like those of a LightningModule."""

    def __init__(self, module, batches):
        self.module, self.made = module, batches

    def batches(self, number):
        return self.made[:number]

    def loss(self, batch):
        images, labels = batch
        with torch.enable_grad():
            return nn.functional.cross_entropy(self.module(images), labels)

    def average(self, tensors):
        return dict(tensors)

    def ones(self):
        return torch.ones_like(self.made[0][0][:1])


@pytest.fixture
def setting():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    batches = [(torch.randn(6, 4).double(), torch.randint(0, 3, (6,))) for _ in range(3)]
    weights = {name: module.get_parameter(name) for name in ("0.weight", "2.weight")}
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    return module, batches, Context(weights, weights, masks, module, Batches(module, batches), 0)


def loss(module, batch):
    with torch.no_grad():
        return float(nn.functional.cross_entropy(module(batch[0]), batch[1]))


def gradient(module, batch, name, step=1e-6):
    """By central differences, one weight after the other."""
    weight, found = module.get_parameter(name).data, []
    for index in range(weight.numel()):
        values = []
        for sign in (1, -1):
            weight.view(-1)[index] += sign * step
            values.append(loss(module, batch))
            weight.view(-1)[index] -= sign * step
        found.append((values[0] - values[1]) / (2 * step))
    return torch.tensor(found, dtype=torch.float64).view(weight.shape)


def scores_of(criterion, context):
    with torch.no_grad():
        return criterion.score(context)


def test_snip_is_the_sensitivity_of_the_mean_loss(setting):
    module, batches, context = setting
    for name, score in scores_of(SNIP(batches=2), context).items():
        mean = (gradient(module, batches[0], name) + gradient(module, batches[1], name)) / 2
        assert torch.allclose(score, (context.weights[name] * mean).abs(), atol=1e-8)


def test_taylor_is_the_mean_of_squares(setting):
    module, batches, context = setting
    for name, score in scores_of(Taylor(batches=3), context).items():
        squares = [(context.weights[name] * gradient(module, batch, name)).square() for batch in batches]
        assert torch.allclose(score, sum(squares) / 3, atol=1e-8)


@pytest.mark.parametrize("density", [1.0, 0.6])
def test_grasp_is_the_change_of_the_gradient_flow(setting, density):
    """θ · Hg, where Hg is the change of the survivors' gradient along itself, by differences of differences."""
    module, batches, context = setting
    used = batches[:2]
    for name, weight in context.weights.items():
        context.masks[name].copy_(torch.rand(weight.shape) < density)
        weight.data *= context.masks[name]

    def mean_gradient(module):
        every = {n: sum(gradient(module, batch, n) for batch in used) / len(used) for n in context.weights}
        return {n: value * context.masks[n] for n, value in every.items()}

    flow, step, moved = mean_gradient(module), 1e-3, []
    for sign in (1, -1):
        other = copy.deepcopy(module)
        for name, direction in flow.items():
            other.get_parameter(name).data += sign * step * direction
        moved.append(mean_gradient(other))
    for name, score in scores_of(GraSP(batches=2), context).items():
        change = (moved[0][name] - moved[1][name]) / (2 * step)
        assert torch.allclose(score, context.weights[name] * change, atol=1e-5)
        assert score.any()


def test_synflow_counts_the_flow_through_a_weight(setting):
    """The score of a weight is the sum over all paths through it of the products of magnitudes."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
    weights = dict(module.named_parameters())
    masks = {name: torch.rand(weight.shape) < 0.7 for name, weight in weights.items()}
    context = Context(weights, weights, masks, module, Batches(module, [(torch.randn(2, 4), None)]), 0)
    scores = scores_of(SynFlow(), context)
    first, second = ((weights[name] * masks[name]).abs().double().detach() for name in ("0.weight", "2.weight"))
    for i in range(5):
        for j in range(4):
            paths = sum(float(second[o, i] * first[i, j]) for o in range(3))
            assert float(scores["0.weight"][i, j]) == pytest.approx(paths)
    for o in range(3):
        for i in range(5):
            paths = sum(float(second[o, i] * first[i, j]) for j in range(4))
            assert float(scores["2.weight"][o, i]) == pytest.approx(paths)


def test_synflow_is_conserved_from_layer_to_layer():
    """Tanaka et al. 2020, theorem 1, also through convolutions and normalisation in evaluation mode."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3, bias=False),
    )
    weights = {name: module.get_parameter(name) for name in ("0.weight", "4.weight")}
    nn.init.normal_(module[1].running_mean)
    module[1].running_mean.zero_()
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.train()
    context = Context(weights, weights, masks, module, Batches(module, [(torch.randn(2, 2, 6, 6), None)]), 0)
    scores = scores_of(SynFlow(), context)
    assert float(scores["0.weight"].sum()) == pytest.approx(float(scores["4.weight"].sum()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module.training
    assert SynFlow().iterations == 100
    assert SynFlow(steps=7).iterations == 7


def test_weights_that_the_loss_does_not_depend_on_score_zero(setting):
    module, _, context = setting
    module.extra = nn.Linear(2, 2).double()
    weights = {**context.weights, "extra.weight": module.extra.weight}
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    wider = Context(weights, weights, masks, module, context.data, 0)
    module.forward = lambda x: module[1](module[0](x)) @ module[2].weight.T + module[2].bias
    for criterion in (SNIP(), Taylor(), GraSP()):
        assert not scores_of(criterion, wider)["extra.weight"].any()


@pytest.mark.parametrize("make", [lambda: SNIP(batches=0), lambda: GraSP(batches=1.5), lambda: SynFlow(steps=0)])
def test_counts_must_be_positive(make):
    with pytest.raises(ConfigurationError, match="must be an integer of at least 1"):
        make()


def test_products_of_small_numbers_in_half_precision_are_not_zero(setting):
    _, _, context = setting
    small = {name: (weight.detach() * 1e-3).half() for name, weight in context.weights.items()}
    module = nn.ParameterDict({name.replace(".", "_"): nn.Parameter(weight) for name, weight in small.items()})
    weights = {name: module[name.replace(".", "_")] for name in small}

    class Tiny(Batches):
        def loss(self, batch):
            with torch.enable_grad():
                return sum((weight * 1e-3).sum() for weight in weights.values())

    tiny = Context(weights, weights, context.masks, module, Tiny(module, [0]), 0)
    for criterion in (SNIP(), Taylor()):
        for score in scores_of(criterion, tiny).values():
            assert (score > 0).float().mean() > 0.99
            assert score.dtype == torch.float32


class Causal(nn.Module):
    """A mask of -inf, and one of booleans, as buffers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("causal", torch.full((4, 4), -torch.inf).triu(1))
        self.register_buffer("padding", torch.ones(4, dtype=torch.bool))

    def forward(self, x):
        return (self.layer(x).unsqueeze(-1) + self.causal).softmax(-1).sum(-1) * self.padding


def test_synflow_leaves_masks_among_the_buffers_as_they_are():
    module = Causal()
    weights, masks = {"layer.weight": module.layer.weight}, {"layer.weight": torch.ones(4, 4, dtype=torch.bool)}
    context = Context(weights, weights, masks, module, Batches(module, [(torch.randn(2, 4), None)]), 0)
    assert scores_of(SynFlow(), context)["layer.weight"].isfinite().all()


def test_synflow_reports_its_input_when_forward_fails(setting):
    module, _, context = setting
    wrong = Context(
        context.weights, context.weights, context.masks, module, Batches(module, [(torch.ones(2, 9), 0)]), 0
    )
    with pytest.raises(
        ConfigurationError, match=r"with one input of ones, of shape \(1, 9\) .*example_input_array"
    ):
        scores_of(SynFlow(), wrong)


def test_synflow_is_a_magnitude_for_negative_flow():
    """Through layer normalisation a larger weight may mean less; the paper's scores are |w dR/dw|."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    weights = {name: module.get_parameter(name) for name in ("0.weight", "3.weight")}
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    inputs = torch.rand(1, 6)
    module.example_input_array = inputs
    context = Context(weights, weights, masks, module, Batches(module, [(inputs, None)]), 0)
    scores = scores_of(SynFlow(), context)
    positive = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)).double()
    positive.load_state_dict({name: value.abs() for name, value in module.state_dict().items()})
    positive(torch.ones(1, 6).double()).sum().backward()
    signed = {name: positive.get_parameter(name).grad * positive.get_parameter(name) for name in weights}
    assert any(bool((flow < 0).any()) for flow in signed.values())
    for name, flow in signed.items():
        torch.testing.assert_close(scores[name], flow.abs(), check_dtype=False)
