"""Tickets of masks that something else has made."""

import pytest
import torch
from lightning.pytorch import LightningModule
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from lightning_lottery import ConfigurationError, Ticket, TicketError
from tests.helpers.fits import Model, Net, copied, loaders, quiet_trainer, same_bits
from tests.helpers.tickets import ticket_of


def zeroed(module, *names):
    """A network in which every third value of the named weights is zero."""
    with torch.no_grad():
        for name in names:
            module.get_parameter(name).view(-1)[::3] = 0
    return module


def pruned_by_pytorch(*, permanent):
    """A network pruned by PyTorch, and the masks that PyTorch has made."""
    net = Net()
    chosen = [(net.convolution, "weight"), (net.hidden, "weight"), (net.hidden, "bias"), (net.output, "weight")]
    prune.global_unstructured(chosen, pruning_method=prune.L1Unstructured, amount=0.7)
    layers = {id(layer): path for path, layer in net.named_modules()}
    masks = {
        f"{layers[id(layer)]}.{name}": getattr(layer, f"{name}_mask").bool().clone() for layer, name in chosen
    }
    originals = {f"{layers[id(layer)]}.{name}": getattr(layer, f"{name}_orig").detach() for layer, name in chosen}
    originals = {name: weight.clone() for name, weight in originals.items()}
    if permanent:
        for layer, name in chosen:
            prune.remove(layer, name)
    return net, masks, originals


def test_the_exact_zeros_of_a_network_are_its_masks():
    net = zeroed(Net(), "hidden.weight", "output.weight", "hidden.bias")
    before = copied(net)
    ticket = Ticket.from_model(net)
    assert list(ticket.masks) == ["convolution.weight", "hidden.weight", "output.weight"]
    for name, mask in ticket.masks.items():
        assert torch.equal(mask, before[name] != 0)
    assert same_bits(ticket.weights, before)
    net.hidden.weight.data.fill_(7)
    assert same_bits(ticket.weights, before), "no memory is shared"
    assert ticket.provenance["source"] == "from_model"
    assert "seed" not in ticket.provenance


def test_include_and_exclude_choose_the_masks_of_a_network():
    net = zeroed(Net(), "hidden.weight", "hidden.bias")
    ticket = Ticket.from_model(net, include=["hidden.bias"], exclude=["output.*"])
    assert list(ticket.masks) == ["convolution.weight", "hidden.weight", "hidden.bias"]
    assert not ticket.masks["hidden.bias"].all()
    with pytest.raises(ConfigurationError, match="exclude='x' matches no parameter"):
        Ticket.from_model(net, exclude=["x"])


def test_a_layer_of_zeros_is_named_with_the_remedy():
    net = Net()
    nn.init.zeros_(net.output.weight)
    for make in (
        lambda: Ticket.from_model(net),
        lambda: Ticket.from_state_dict(net.state_dict()),
        lambda: Ticket.from_masks({"output.weight": torch.zeros(10, 24, dtype=torch.bool)}, net),
    ):
        with pytest.raises(TicketError, match=r"keep no weight of 'output.weight'.*exclude=\['output.weight'\]"):
            make()
    assert "output.weight" not in Ticket.from_model(net, exclude=["output.weight"]).masks
    assert "output.weight" not in Ticket.from_state_dict(net.state_dict(), exclude=["output.*"]).masks


def test_masks_by_name_make_a_ticket():
    net = Net()
    mask = torch.rand(24, 256) < 0.2
    ticket = Ticket.from_masks({"hidden.weight": mask}, net)
    assert (ticket.kept, ticket.prunable) == (int(mask.sum()), mask.numel())
    assert torch.equal(ticket.weights["hidden.weight"], torch.where(mask, net.hidden.weight.detach(), 0))
    kept = ticket.kept
    mask.fill_(True)
    assert ticket.kept == kept, "no memory is shared"


def test_masks_that_do_not_fit_are_all_named():
    masks = {
        "nowhere.weight": torch.ones(3, dtype=torch.bool),
        "hidden.weight": torch.ones(24, 3, dtype=torch.bool),
        "output.weight": torch.ones(10, 24),
        "convolution.weight": [True],
        "norm.running_mean": torch.ones(4, dtype=torch.bool),
    }
    with pytest.raises(TicketError) as caught:
        Ticket.from_masks(masks, Net())
    for part in (
        "'nowhere.weight' is not a parameter of the network",
        "'hidden.weight' has shape (24, 256) in the network and (24, 3) among the masks",
        "the mask of 'output.weight' is torch.float32, which is not boolean; write mask.bool()",
        "the mask of 'convolution.weight' is list, which is not a tensor",
        "'norm.running_mean' is not a parameter of the network",
    ):
        assert part in str(caught.value)
    for nothing in ({}, [], None):
        with pytest.raises(TicketError, match="Pass a dictionary of masks"):
            Ticket.from_masks(nothing, Net())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight


def test_tied_weights_have_one_mask_under_their_first_name():
    net = zeroed(Tied(), "first.weight")
    mask = net.first.weight != 0
    for ticket in (
        Ticket.from_model(net),
        Ticket.from_masks({"second.weight": mask}, net),
        Ticket.from_state_dict(net.state_dict()),
    ):
        assert list(ticket.masks) == list(ticket.weights) == ["first.weight"]
        assert torch.equal(ticket.masks["first.weight"], mask)
        ticket.apply(Tied())


def test_a_checkpoint_with_tied_weights_that_are_stored_twice_fits(tmp_path):
    net = zeroed(Tied(), "first.weight")
    copies = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    save_file(copies, tmp_path / "model.safetensors")
    ticket, target = Ticket.from_state_dict(tmp_path / "model.safetensors"), Tied()
    assert list(ticket.masks) == ["first.weight", "second.weight"]
    ticket.transfer(target).ticket.apply(target)
    assert torch.equal(target.second.weight, net.first.weight)


@pytest.mark.parametrize("permanent", [False, True])
def test_masks_of_pytorch_s_pruning_are_read_from_its_state_dict(permanent):
    net, masks, originals = pruned_by_pytorch(permanent=permanent)
    state = net.state_dict()
    assert ("hidden.weight_mask" in state) is not permanent
    ticket = Ticket.from_state_dict(state, include=["hidden.bias"] if permanent else [])
    assert same_bits(ticket.masks, {name: masks[name] for name in ticket.masks})
    assert ticket.masks.keys() == masks.keys()
    for name, mask in masks.items():
        assert torch.equal(ticket.weights[name], originals[name] * mask)
    target = Net()
    ticket.apply(target)
    assert torch.equal(target.norm.running_var, net.norm.running_var)


def test_a_network_with_masks_of_pytorch_says_where_to_read_them():
    net, *_ = pruned_by_pytorch(permanent=False)
    with pytest.raises(ConfigurationError, match=r"Ticket\.from_state_dict\(model\.state_dict\(\)\)"):
        Ticket.from_model(net)


def test_masks_of_pytorch_that_do_not_fit_are_all_named():
    state = pruned_by_pytorch(permanent=False)[0].state_dict()
    state["hidden.weight_mask"] = state["hidden.weight_mask"][:3]
    state["output.weight_mask"] *= 0.5
    del state["hidden.bias_mask"]
    state["extra.weight_mask"] = torch.ones(2)
    with pytest.raises(TicketError) as caught:
        Ticket.from_state_dict(state)
    for part in (
        "'hidden.weight_mask' has shape (3, 256) and 'hidden.weight_orig' (24, 256)",
        "'output.weight_mask' has other values than 0 and 1",
        "'hidden.bias_orig' has no 'hidden.bias_mask'",
        "'extra.weight_mask' has no 'extra.weight_orig'",
    ):
        assert part in str(caught.value)


def test_masks_without_their_weights_and_weights_without_their_masks_are_named():
    net = zeroed(Net(), "hidden.weight")
    mask = torch.ones(24, 256)
    with pytest.raises(TicketError, match=r"'hidden.weight_mask' has no 'hidden.weight_orig'"):
        Ticket.from_state_dict({**net.state_dict(), "hidden.weight_mask": mask})
    state = {name.replace("hidden.weight", "hidden.weight_orig"): t for name, t in net.state_dict().items()}
    with pytest.raises(TicketError, match=r"'hidden.weight_orig' has no 'hidden.weight_mask'"):
        Ticket.from_state_dict(state)


def test_other_masks_are_buffers_like_others():
    state = {**zeroed(Net(), "hidden.weight").state_dict(), "attention_mask": torch.tril(torch.ones(4, 4))}
    ticket = Ticket.from_state_dict(state, exclude=["attention_mask"])
    assert "attention_mask" in ticket.weights
    assert list(ticket.masks) == ["convolution.weight", "hidden.weight", "output.weight"]


def test_include_and_exclude_with_masks_of_pytorch():
    net, masks, _ = pruned_by_pytorch(permanent=False)
    zeroed(net, "convolution.bias")
    ticket = Ticket.from_state_dict(net.state_dict(), include=["*.bias"], exclude=["output.weight", "norm.*"])
    assert set(ticket.masks) == {*masks, "convolution.bias", "output.bias"} - {"output.weight"}
    assert not ticket.masks["convolution.bias"].all()
    with pytest.raises(ConfigurationError, match=r"'output.weight_orig' matches no parameter"):
        Ticket.from_state_dict(net.state_dict(), exclude=["output.weight_orig"])


def test_a_ticket_file_is_not_a_checkpoint(tmp_path):
    ticket_of(Net()).save(tmp_path / "ticket.safetensors")
    with pytest.raises(TicketError, match=r"is a ticket file. Write Ticket.load\(path\)"):
        Ticket.from_state_dict(tmp_path / "ticket.safetensors")


def test_a_buffer_that_refers_to_a_weight_is_not_tied_to_it():
    net = zeroed(Net(), "hidden.weight")
    net.register_buffer("reference", net.hidden.weight.detach())
    ticket = Ticket.from_state_dict(net.state_dict(), exclude=["reference"])
    ticket.check_fits(net)
    assert not ticket.masks["hidden.weight"].all()


def test_masks_of_tied_weights_that_differ_are_refused():
    masks = {"first.weight": torch.eye(8).bool(), "second.weight": torch.ones(8, 8).bool()}
    with pytest.raises(
        TicketError, match=r"'second.weight' is tied to 'first.weight', but its mask is another one"
    ):
        Ticket.from_masks(masks, Tied())


def test_a_norm_without_any_weight_is_named():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 4)))
    name = "0.parametrizations.weight.original1"
    mask = torch.ones(4, 8, dtype=torch.bool)
    mask[0] = False
    with pytest.raises(TicketError, match=f"without any weight of a norm that they are divided by: '{name}'"):
        Ticket.from_masks({name: mask}, net)
    mask[0, 3] = True
    assert Ticket.from_masks({name: mask}, net).kept == 25


def test_lazy_layers_are_named():
    with pytest.raises(ConfigurationError, match=r"lazy layers of '0.weight'.* have no weights yet"):
        Ticket.from_masks({"0.weight": torch.ones(3, dtype=torch.bool)}, nn.Sequential(nn.LazyLinear(3)))


def test_spectral_norm_is_not_taken_for_a_mask():
    net = nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 8)), nn.Linear(8, 2))
    prune.random_unstructured(net[1], "weight", amount=0.5)
    ticket = Ticket.from_state_dict(net.state_dict())
    assert list(ticket.masks) == ["1.weight"]
    assert "0.weight_orig" in ticket.weights


def test_a_state_dict_shares_no_memory_with_its_network():
    net = zeroed(Net(), "hidden.weight")
    ticket = Ticket.from_state_dict(net.state_dict())
    before = net.norm.weight.detach().clone()
    net.norm.weight.data.fill_(7)
    assert torch.equal(ticket.weights["norm.weight"], before)


def test_a_checkpoint_of_lightning_is_read_by_path_without_executing_code(digits, tmp_path):
    model = Model(zeroed(Net(), "hidden.weight"))
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=0)
    trainer.fit(model, *loaders(digits))
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    ticket = Ticket.from_state_dict(tmp_path / "dense.ckpt")
    assert same_bits(ticket.weights, copied(model))
    assert not ticket.masks["network.hidden.weight"].view(-1)[::3].any()
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    assert same_bits(Ticket.from_state_dict(str(tmp_path / "plain.pt")).masks, ticket.masks)


class Hostile:
    def __reduce__(self):
        return print, ("this must not be executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.ckpt is not a checkpoint, or it is damaged: it is empty"),
        (b"nonsense", "x.ckpt cannot be read as a checkpoint"),
        (b"\x80\x02.", r"x.ckpt cannot be read as a checkpoint: it is damaged, or contains more"),
        (b"hello", "x.ckpt cannot be read as a checkpoint"),
        (Hostile(), r"Code in it is never executed \(weights_only=True\)"),
        ({"state_dict": [1, 2]}, "A state dict of tensors by name is needed, but this .* contains no tensors"),
        ([1, 2], "contains list. Save the state_dict"),
        ({"state_dict": {}}, "A state dict of tensors by name is needed, but this .* contains no tensors"),
        ({"a": torch.ones(3)}, "contains nothing prunable.*include"),
    ],
)
def test_files_that_are_not_checkpoints(tmp_path, capsys, content, message):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(TicketError, match=message):
        Ticket.from_state_dict(path)
    assert "executed" not in capsys.readouterr().out


def test_folders_and_missing_files_are_named(tmp_path):
    with pytest.raises(TicketError, match="is a folder, not a checkpoint"):
        Ticket.from_state_dict(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"The checkpoint nowhere.* does not exist"):
        Ticket.from_state_dict("nowhere.ckpt")
    for nothing in (None, 3, nn.Linear(2, 2)):
        with pytest.raises(TicketError, match="Pass a state dict"):
            Ticket.from_state_dict(nothing)
    for make in (
        lambda: Ticket.from_model("resnet18"),
        lambda: Ticket.from_masks({"a": torch.ones(1, dtype=torch.bool)}, "resnet18"),
        lambda: ticket_of(Net()).transfer("resnet18"),
        lambda: ticket_of(Net()).apply("resnet18"),
    ):
        with pytest.raises(TicketError, match=r"A network \(a torch.nn.Module\) is needed, but got 'resnet18'"):
            make()


def test_patterns_that_match_no_key_are_named():
    for make in (
        Ticket.from_model,
        lambda module, **options: Ticket.from_state_dict(module.state_dict(), **options),
    ):
        with pytest.raises(ConfigurationError, match=r"exclude='\*.bias' is not a list. Write for example"):
            make(Net(), exclude="*.bias")
    with pytest.raises(
        ConfigurationError, match=r"exclude='embed' matches no parameter. The parameters are: convolution.weight"
    ):
        Ticket.from_state_dict(Net().state_dict(), exclude=["embed"])


def test_a_mask_of_a_buffer_does_not_fit_a_network():
    class WithPositions(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.register_buffer("positions", torch.eye(4))

    module = WithPositions()
    ticket = Ticket.from_state_dict(module.state_dict())
    with pytest.raises(TicketError, match="masked, but not parameters of the network: 'positions'"):
        ticket.apply(module)
    Ticket.from_state_dict(module.state_dict(), exclude=["positions"]).apply(module)
