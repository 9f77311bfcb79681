"""Sparse linear layers: the products of dense ones, in every way in which a layer is used."""

import copy
import io
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import linear

from lightning_lottery.export import SemiStructuredLinear, SparseLinear
from lightning_lottery.export import sparse_linear as module
from lightning_lottery.export.measure import flops, stored_parameters
from lightning_lottery.export.sparse_linear import has_two_of_four


def matrix(outputs, inputs, density, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    return (values * (torch.rand(outputs, inputs, generator=generator) < density)).to(dtype)


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    samples=st.sampled_from([(), (0,), (1,), (5,), (70,), (2, 3), (2, 0, 3), (4, 3, 2)]),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    has_bias=st.booleans(),
    select=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    mode=st.sampled_from([torch.no_grad, torch.enable_grad, torch.inference_mode]),
)
def test_products_are_those_of_a_dense_layer(sizes, samples, density, has_bias, select, dtype, mode):
    weight = matrix(*sizes, density, dtype=dtype)
    bias = torch.randn(sizes[0], dtype=dtype) if has_bias else None
    layer = SparseLinear(weight, bias, select)
    inputs = torch.randn(*samples, sizes[1], dtype=dtype)
    with mode():
        assert torch.allclose(layer(inputs), linear(inputs, weight, bias), atol=1e-5)
        assert torch.allclose(layer(inputs), linear(inputs, weight, bias), atol=1e-5), "also the second time"
    assert layer.values.numel() == int(weight.count_nonzero())


@pytest.mark.parametrize("select", [False, True])
def test_large_inputs_are_multiplied_in_parts(monkeypatch, select):
    monkeypatch.setattr(module, "_VALUES_AT_ONCE", 40 * 20)
    weight, bias, inputs = matrix(7, 20, 0.2), torch.randn(7), torch.randn(101, 20)
    layer = SparseLinear(weight, bias, select)
    assert layer._samples_at_once == 40
    assert torch.allclose(layer(inputs), linear(inputs, weight, bias), atol=1e-5)
    assert torch.allclose(layer(inputs[:80].T.contiguous().T), linear(inputs[:80], weight, bias), atol=1e-5)


def test_gradients_reach_the_inputs():
    weight, inputs = matrix(5, 8, 0.3, dtype=torch.float64), torch.randn(6, 8, dtype=torch.float64)
    expected, found = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    linear(expected, weight).square().sum().backward()
    SparseLinear(weight, None, select=True)(found).square().sum().backward()
    assert torch.allclose(found.grad, expected.grad)


@pytest.mark.parametrize("select", [False, True])
def test_a_layer_that_was_called_can_be_copied_converted_saved_and_loaded(select):
    weight, bias, inputs = matrix(5, 8, 0.3), torch.randn(5), torch.randn(3, 8)
    layer = SparseLinear(weight, bias, select)
    expected = linear(inputs, weight, bias)
    layer(inputs)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for made in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.allclose(made(inputs), expected, atol=1e-6)
        made.values.data.neg_()
        assert torch.allclose(made(inputs), linear(inputs, -weight, bias), atol=1e-6), "values were changed"
    replaced = copy.deepcopy(layer)
    replaced(inputs)
    replaced.values = nn.Parameter(-layer.values)
    assert torch.allclose(replaced(inputs), linear(inputs, -weight, bias), atol=1e-6), "another parameter"
    with pytest.raises(RuntimeError):
        layer(torch.randn(3, 7))
    double = copy.deepcopy(layer).double()
    assert torch.allclose(double(inputs.double()), linear(inputs.double(), weight.double(), bias.double()))
    assert torch.equal(double.float()(inputs), layer(inputs))
    other = SparseLinear(weight * 2, bias, select)
    other(inputs)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(inputs), layer(inputs))
    tripled = {
        name: tensor * (3 if tensor.is_floating_point() else 1) for name, tensor in layer.state_dict().items()
    }
    other.load_state_dict(tripled, assign=True)
    assert torch.allclose(other(inputs), 3 * layer(inputs), atol=1e-6), "values were replaced"


def test_mixed_precision_computes_in_the_type_of_the_weights():
    weight, inputs = matrix(5, 8, 0.3), torch.randn(3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = SparseLinear(weight, None)(inputs)
    assert found.dtype == torch.bfloat16, "as with a dense layer"
    assert torch.equal(found, linear(inputs, weight).bfloat16())


def test_sizes_count_what_is_stored():
    weight = matrix(50, 80, 0.1)
    kept = int(weight.count_nonzero())
    network = nn.Sequential(nn.Linear(30, 80), nn.ReLU(), SparseLinear(weight, torch.randn(50)))
    assert stored_parameters(network) == 31 * 80 + kept + 50
    assert flops(network, torch.randn(4, 30)) == 2 * 4 * (30 * 80 + kept)
    assert flops(network[2], torch.randn(4, 80)) == 2 * 4 * kept
    assert network[2].density == kept / 4000
    assert f"density={kept / 4000:.4f}" in repr(network)
    weight[:, 20:] = 0
    kept = int(weight.count_nonzero())
    assert flops(SparseLinear(weight, None, select=True), torch.randn(4, 80)) == 2 * 4 * kept
    assert flops(SparseLinear(torch.zeros(5, 8), None, select=True), torch.randn(4, 8)) == 0
    stored = {name: tensor.dtype for name, tensor in network[2].state_dict().items()}
    assert stored == {"values": torch.float32, "bias": torch.float32, "rows": torch.int32, "columns": torch.int32}


def test_no_warning_of_a_beta_feature():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SparseLinear(matrix(5, 8, 0.3), None)(torch.randn(2, 8))


def test_two_of_four():
    weight = torch.tensor([[1.0, 0, 2, 0, 0, 0, 0, 3], [0, 0, 0, 0, 4, 5, 0, 0]])
    assert has_two_of_four(weight)
    weight[1, 7] = 1
    assert not has_two_of_four(weight)
    assert not has_two_of_four(torch.zeros(2, 6))


def test_semi_structured_layers_pack_once_and_again_when_they_have_changed(monkeypatch):
    """With a stand-in for the packing, which needs a GPU."""
    packed = []
    monkeypatch.setattr(
        torch.sparse, "to_sparse_semi_structured", lambda weight: packed.append(weight) or weight.clone()
    )
    weight, bias, inputs = matrix(4, 8, 0.3), torch.randn(4), torch.randn(3, 8)
    layer = SemiStructuredLinear(weight, bias)
    for _ in range(2):
        assert torch.equal(layer(inputs), linear(inputs, weight, bias))
    assert len(packed) == 1
    layer.double()
    assert torch.equal(layer(inputs.double()), linear(inputs.double(), weight.double(), bias.double()))
    assert torch.equal(copy.deepcopy(layer)(inputs.double()), layer(inputs.double()))
    assert len(packed) == 3
    assert layer.state_dict().keys() == nn.Linear(8, 4).state_dict().keys()
