"""ONNX files: run by onnxruntime, equal to the masked network, at any batch size."""

import copy
import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_lottery import ConfigurationError, ExportError, FolderError, Ticket, TicketError
from lightning_lottery.export import ExportReport, OnnxNetwork, SparseLinear, compact, onnx
from lightning_lottery.vision import LeNet300100
from tests.helpers.channels import Residual, moved
from tests.helpers.fits import Model, Net, needs
from tests.helpers.tickets import ticket_of

MODULE = importlib.import_module("lightning_lottery.export.onnx")


@pytest.fixture(autouse=True)
def _has_onnx():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        needs(name)


def outputs(network, ticket, *arguments, **named):
    """Outputs of a network with masked weights, computed without the package."""
    values = {n: t * ticket.masks[n] if n in ticket.masks else t for n, t in network.state_dict().items()}
    with torch.no_grad():
        return torch.func.functional_call(network.eval(), values, arguments, named)


def run(path, *arrays):
    """Runs a file with onnxruntime alone."""
    session = needs("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return [
        torch.from_numpy(a) for a in session.run(None, dict(zip(names, [a.numpy() for a in arrays], strict=True)))
    ]


def test_the_file_has_the_masks_and_any_batch_size(digits):
    network = moved(Net())
    ticket = ticket_of(network)
    made = onnx(network, ticket, digits[0][:6], "net.onnx")
    for size in (1, 2, 6, 50):
        images = digits[0][100 : 100 + size]
        expected = outputs(network, ticket, images)
        assert torch.allclose(run("net.onnx", images)[0], expected, atol=1e-4)
        assert torch.allclose(made(images), expected, atol=1e-4)
    loaded = needs("onnx").load("net.onnx")
    stored = [needs("onnx").numpy_helper.to_array(entry) for entry in loaded.graph.initializer]
    (hidden,) = [array for array in stored if array.size == 24 * 256]
    assert (hidden != 0).sum() == int(ticket.masks["hidden.weight"].sum())
    assert made.numbers.parameters == sum(p.numel() for p in network.parameters())
    assert Path("net.onnx").stat().st_size < 4 * made.numbers.parameters + 40_000
    assert [path.name for path in Path.cwd().iterdir()] == ["net.onnx"], "everything is in one file"


def test_a_lightning_module_with_an_example_of_one_sample():
    model = Model(LeNet300100())
    ticket = ticket_of(model)
    onnx(model, ticket, torch.rand(1, 784), Path("lenet.onnx"))
    images = torch.rand(9, 784)
    assert torch.allclose(run("lenet.onnx", images)[0], outputs(model, ticket, images), atol=1e-5)


def test_the_compact_network():
    network = moved(Residual())
    images = torch.rand(4, 1, 28, 28)
    ticket = ticket_of(network)
    for mask in (ticket.masks["pointwise.weight"], ticket.masks["output.weight"].T):
        mask[:4] = False
    small = compact(network, ticket, images)
    dense, made = onnx(network, ticket, images, "dense.onnx"), onnx(small, None, images, "small.onnx")
    assert made.numbers.parameters == sum(p.numel() for p in small.parameters()) < dense.numbers.parameters
    assert Path("small.onnx").stat().st_size < Path("dense.onnx").stat().st_size
    assert torch.allclose(made(images), outputs(network, ticket, images), atol=1e-3)


class Several(nn.Module):
    """Several inputs of different types, of which one has no samples; several outputs; a number."""

    def __init__(self):
        super().__init__()
        self.inner, self.embed = nn.Linear(4, 3), nn.Embedding(10, 3)

    def forward(self, features, ids, scales, power=1):
        total = self.inner(features) + self.embed(ids).sum(1)
        return {"total": total * scales, "power": total**power}


@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs_and_outputs(by_name):
    network = Several()
    ticket = Ticket.from_masks({"inner.weight": torch.rand(3, 4) < 0.5}, network)

    def inputs(samples):
        return {
            "features": torch.randn(samples, 4),
            "ids": torch.randint(10, (samples, 5)),
            "scales": torch.rand(1, 3),
            "power": 2,
        }

    example = inputs(3) if by_name else tuple(inputs(3).values())
    made = onnx(network, ticket, example, "several.onnx")
    named = inputs(7)
    expected = outputs(network, ticket, **named)
    found = made(**named) if by_name else made(*named.values())
    for ours, theirs in zip(found, expected.values(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    again = made(**dict(reversed(named.items())))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, again, strict=True)), "in another order"
    assert torch.equal(made(named["features"], ids=named["ids"], scales=named["scales"], power=2)[0], found[0])
    with pytest.raises(
        ConfigurationError, match=r"takes tensors at \['features'\], \['ids'\], .*, not at \['features'\]"
    ):
        made(torch.randn(3, 4))
    with pytest.raises(ConfigurationError, match=r"\['power'\] is 3, but the file was made with 2"):
        made(**{**named, "power": 3})
    with pytest.raises(ConfigurationError, match=r"cannot be called so: too many positional arguments"):
        made(*named.values(), 5)
    with pytest.raises(ConfigurationError, match=r"onnxruntime refuses these inputs"):
        made(torch.randn(7, 9), named["ids"], named["scales"], 2)


class Mixed(nn.Module):
    """Takes any number of inputs, and inputs inside a dictionary."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, *parts, more=None):
        return self.inner(sum(parts)) - (0 if more is None else more["first"] * 2 + more["second"])


def test_any_number_of_inputs_and_inputs_inside_a_dictionary():
    network = Mixed()
    ticket = ticket_of(network)
    made = onnx(network, ticket, (torch.randn(3, 4), torch.randn(3, 4)), "parts.onnx")
    parts = torch.randn(5, 4), torch.randn(5, 4)
    assert torch.allclose(made(*parts), outputs(network, ticket, *parts), atol=1e-5)

    class Inside(Mixed):
        def forward(self, inputs, more):
            return super().forward(inputs, more=more)

    network = Inside()
    ticket = ticket_of(network)
    more = {"first": torch.randn(3, 3), "second": torch.randn(3, 3)}
    made = onnx(network, ticket, (torch.randn(3, 4), more), "inside.onnx")
    more = {"second": torch.randn(5, 3), "first": torch.randn(5, 3)}
    expected = outputs(network, ticket, parts[0], more)
    assert torch.allclose(made(parts[0], more), expected, atol=1e-5)
    assert torch.allclose(made(more=more, inputs=parts[0]), expected, atol=1e-5)


def test_what_onnxruntime_cannot_run_is_said():
    class Complex(nn.Linear):
        def forward(self, inputs):
            return torch.fft.fft(super().forward(inputs))

    network = Complex(4, 3)
    with pytest.raises((ExportError, ConfigurationError), match=r"ONNX"):
        onnx(network, ticket_of(network), torch.randn(3, 4), "complex.onnx")
    half = nn.Linear(4, 3).bfloat16()
    with pytest.raises(ExportError, match=r"The ONNX file does not run, so that it is not written. onnxruntime"):
        onnx(half, ticket_of(half), torch.randn(3, 4).bfloat16(), "half.onnx")
    assert not list(Path.cwd().iterdir())


def test_an_unwritable_path_is_noticed_before_the_network_is_traced(monkeypatch):
    Path("file").touch()
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("it was traced"))
    with pytest.raises(FolderError, match=r"file/net.onnx cannot be written"):
        onnx(Net(), ticket_of(Net()), torch.rand(3, 784), "file/net.onnx")


class FixedSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, features):
        return self.inner(features.view(3, 4))


def test_a_network_of_one_batch_size_needs_to_say_so():
    network = FixedSize()
    ticket, features = ticket_of(network), torch.randn(3, 4)
    with pytest.raises(ConfigurationError, match=r"dynamic_batch=False"):
        onnx(network, ticket, features, "fixed.onnx")
    assert not list(Path.cwd().iterdir())
    onnx(network, ticket, features, "fixed.onnx", dynamic_batch=False)
    assert torch.allclose(run("fixed.onnx", features)[0], outputs(network, ticket, features), atol=1e-5)


def test_a_network_that_cannot_be_traced_is_refused():
    class Branches(FixedSize):
        def forward(self, features):
            return self.inner(features if float(features.sum()) > 0 else -features)

    network = Branches()
    with pytest.raises(
        ConfigurationError, match=r"Branches cannot be traced by torch.export: .* values of tensors"
    ):
        onnx(network, ticket_of(network), torch.randn(3, 4), "branches.onnx")
    assert not list(Path.cwd().iterdir())


def test_a_difference_is_refused_and_leaves_the_old_file(monkeypatch):
    Path("net.onnx").write_text("old")
    network = Net()
    ticket, images = ticket_of(network), torch.rand(3, 784)

    class Differs(OnnxNetwork):
        def forward(self, *args, **kwargs):
            outputs = super().forward(*args, **kwargs)
            return outputs * (1 + 1e-3 * (len(outputs) == 1))

    monkeypatch.setattr(MODULE, "OnnxNetwork", Differs)
    with pytest.raises(ExportError, match=r"differ from those of Net by 0.001 of the largest output"):
        onnx(network, ticket, images, "net.onnx")
    assert Path("net.onnx").read_text() == "old"
    assert [path.name for path in Path.cwd().iterdir()] == ["net.onnx"]


def test_a_missing_package_is_named_first(monkeypatch):
    original = importlib.import_module

    def without(name, *arguments):
        if name == "onnxscript":
            raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")
        return original(name, *arguments)

    monkeypatch.setattr("lightning_lottery.export.onnx_network.import_module", without)
    with pytest.raises(ConfigurationError, match=r'the package onnxscript. .* "lightning-lottery\[onnx\]"'):
        onnx("no network", None, None, "net.onnx")


OTHER = '<ir_version: 8, opset_import: ["" : 17]> other (float[2] x) => (float[2] y) { y = Neg (x) }'


def test_bad_input_is_refused():
    network = Net()
    ticket, images = ticket_of(network), torch.rand(4, 784)
    for arguments, error, message in [
        ((LeNet300100(), ticket, images, "net.onnx"), TicketError, "does not fit the network"),
        (
            (network, ticket, torch.rand(2, 3), "net.onnx"),
            ConfigurationError,
            r"Calling Net on .* \(2, 3\) failed",
        ),
        ((network, ticket, None, "net.onnx"), ConfigurationError, "contains no tensor"),
        ((network, ticket, images, "."), ConfigurationError, "is a folder"),
        ((network, ticket, images, "s3://bucket/net.onnx"), ConfigurationError, "is a URL"),
        (
            (nn.Sequential(SparseLinear(torch.eye(784), None)), None, images, "net.onnx"),
            ConfigurationError,
            "are sparse layers",
        ),
    ]:
        with pytest.raises(error, match=message):
            onnx(*arguments)
    Path("text.onnx").write_text("no network")
    with pytest.raises(ConfigurationError, match=r"onnxruntime cannot run the file"):
        OnnxNetwork("text.onnx")
    needs("onnx").save(needs("onnx").parser.parse_model(OTHER), "other.onnx")
    with pytest.raises(ConfigurationError, match=r"other.onnx was not written by lightning_lottery.export.onnx"):
        OnnxNetwork("other.onnx")
    with pytest.raises(FileNotFoundError, match=r"nowhere.onnx does not exist"):
        OnnxNetwork("nowhere.onnx")


def test_the_report_measures_onnxruntime():
    network = LeNet300100()
    ticket, images = ticket_of(network), torch.rand(4, 784)
    made = onnx(network, ticket, images, "net.onnx")
    report = ExportReport.measure(network, ticket, made, images, [2], turns=2, seconds=0.001, form="ONNX")
    assert report.exported.bytes == Path("net.onnx").stat().st_size
    assert report.exported.flops == report.dense.flops == 2 * (784 * 300 + 300 * 100 + 1000)
    assert report.exported.parameters == report.dense.parameters
    assert report.difference < 1e-5
    assert torch.equal(copy.deepcopy(made)(images), made(images))
