import pytest
import torch
from torch import nn

from lightning_lottery.errors import TrainingError
from lightning_lottery.tickets.masking import _ELEMENTWISE, Masking


def masked_layer():
    layer = nn.Linear(6, 4)
    masks = {"weight": torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) > 0.5}
    with torch.no_grad():
        layer.weight[~masks["weight"]] = 0
    return layer, masks, Masking({"weight": layer.weight}, masks)


OPTIONS = {
    torch.optim.SGD: [{"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.9, "nesterov": True}],
    torch.optim.Adam: [{"weight_decay": 0.1}, {"amsgrad": True}, {"fused": True}],
    torch.optim.RMSprop: [{"centered": True, "momentum": 0.9}],
    torch.optim.Adagrad: [{"initial_accumulator_value": 0.1}],
}


@pytest.mark.parametrize("kind", _ELEMENTWISE)
def test_elementwise_optimizers_keep_zero_weights_and_train_the_others_exactly(kind):
    for options in [{}, *OPTIONS.get(kind, [])]:
        layer, masks, masking = masked_layer()
        mask = masks["weight"]
        alone = nn.Parameter(layer.weight.detach()[mask].clone())  # the survivors as a separate vector
        optimizer, reference = kind([layer.weight], lr=0.05, **options), kind([alone], lr=0.05, **options)
        masking.watch([optimizer])
        assert not optimizer._optimizer_step_post_hooks, "an elementwise optimizer needs no hook"
        for step in range(6):
            gradient = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
            layer.weight.grad, alone.grad = gradient.clone(), gradient[mask].clone()
            masking.mask_gradients()
            optimizer.step()
            reference.step()
            assert not layer.weight[~mask].any()
            torch.testing.assert_close(layer.weight[mask], alone, rtol=1e-6, atol=1e-7)
        masking.check()


def test_other_optimizers_have_their_weights_masked_after_every_step():
    layer, masks, masking = masked_layer()
    optimizer = torch.optim.LBFGS([layer.weight], lr=0.1)
    masking.watch([optimizer])
    target = torch.rand(4, 6)

    def closure():
        optimizer.zero_grad()
        loss = (layer.weight - target).square().sum()
        loss.backward()
        return loss  # gradients are not masked here on purpose

    optimizer.step(closure)
    assert not layer.weight[~masks["weight"]].any()
    masking.release()
    optimizer.step(closure)
    assert layer.weight[~masks["weight"]].any(), "after release nothing is masked any more"


def test_a_subclass_of_a_known_optimizer_is_not_trusted():
    class Strange(torch.optim.SGD):
        pass

    layer, _, masking = masked_layer()
    optimizer = Strange([layer.weight], lr=0.1)
    masking.watch([optimizer])
    assert optimizer._optimizer_step_post_hooks


def test_a_nonzero_pruned_weight_stops_the_run_and_is_named():
    layer, masks, masking = masked_layer()
    with torch.no_grad():
        layer.weight[~masks["weight"]] = -1e-30
    count = int((~masks["weight"]).sum())
    with pytest.raises(TrainingError, match=f"{count} pruned weights of 'weight' are no longer zero"):
        masking.check()


def test_diverged_weights_do_not_count_as_unmasked():
    layer, _, masking = masked_layer()
    with torch.no_grad():
        layer.weight.fill_(torch.nan)
    masking.check()


def test_missing_gradients_are_no_error():
    _, _, masking = masked_layer()
    masking.mask_gradients()


def test_dense_masks_cost_nothing():
    layer = nn.Linear(3, 3)
    masking = Masking({"weight": layer.weight}, {"weight": torch.ones(3, 3, dtype=torch.bool)})
    optimizer = torch.optim.LBFGS([layer.weight])
    masking.watch([optimizer])
    assert not optimizer._optimizer_step_post_hooks
    assert not masking._factors
