"""Published numbers, against those that can be read in the papers' figures and tables."""

import pytest
from torchvision import models

from lightning_lottery import ConfigurationError
from lightning_lottery.literature import papers, published
from lightning_lottery.vision import CifarResNet, CifarVGG


# ResNet-20, iterative pruning: rewinding to the start, to epoch 12, of the learning rate alone, and fine-tuning
# for 182 epochs; then one-shot pruning with fresh initial values.
@pytest.mark.parametrize(
    ("density", "init", "late", "learning_rate", "finetune", "reinit"),
    [
        (0.512, 0.9058, 0.9194, 0.9230, 0.9143, 0.9053),
        (0.3277, 0.8997, 0.9194, 0.9212, 0.9103, 0.8975),
        (0.2097, 0.8905, 0.9174, 0.9190, 0.9036, 0.8843),
        (0.1074, 0.8674, 0.9096, 0.9104, 0.8907, 0.8690),
    ],
)
def test_numbers_of_renda_2020(density, init, late, learning_rate, finetune, reinit):
    methods = ("ToInit()", "ToEpoch(12)", "LearningRate()", "FineTune(182)", "Reinitialize()")
    found = [published("renda2020", network="resnet20", method=method) for method in methods]
    assert [one.values[density].mean for one in found] == [init, late, learning_rate, finetune, reinit]
    assert [one.pruning for one in found] == ["iterative"] * 4 + ["one-shot"]
    assert all(0 < one.values[density].deviation < 0.01 for one in found)
    assert {(one.values[1.0].mean, one.values[1.0].deviation) for one in found} == {(0.9171, 0.0023)}


def test_numbers_of_tanaka_2020():
    by_method = {
        method: published("tanaka2020", "vgg16", f"{method}()").values
        for method in ("Random", "Magnitude", "SNIP", "GraSP", "SynFlow")
    }
    assert [values[0.01].mean for values in by_method.values()] == [0.791, 0.898, 0.891, 0.875, 0.901]
    assert by_method["Magnitude"][0.0032].mean == by_method["Magnitude"][0.001].mean == 0.1, "layer collapse"
    assert all(list(values) == [1, 0.316, 0.1, 0.032, 0.01, 0.0032, 0.001] for values in by_method.values())
    assert by_method["SNIP"][0.1].deviation is None


def test_methods_may_be_written_as_their_rules_are_shown():
    written = published("renda2020", "resnet20", "ToEpoch(epoch=12, optimizer='restore')")
    assert written == published("renda2020", "resnet20", "ToEpoch(12)")
    assert written.method == "ToEpoch(12)"
    assert published("renda2020", "resnet20", "FineTune(epochs=182, lr=0.001)").method == "FineTune(182)"
    to_epoch = published("renda2020", "resnet20", "LearningRate(to='12 epochs', optimizer='restore')")
    assert to_epoch.method == "LearningRate('12 epochs')"
    assert to_epoch.about == "learning-rate rewinding to epoch 12"
    assert published("tanaka2020", "vgg16", "SNIP(batches=1)").about == "SNIP at initialisation"
    assert published("renda2020", "resnet20", "ToInit()").about == "rewinding to initialisation"
    assert (
        published("renda2020", "resnet56", "LearningRate(to='init', optimizer='restore')").method
        == "LearningRate()"
    )
    one_shot = published("renda2020", "resnet20", "ToEpoch(12)", pruning="one-shot")
    assert one_shot.pruning == "one-shot"
    assert one_shot.values != written.values


def test_a_density_is_found_within_one_percent():
    found = published("renda2020", "resnet20", "ToInit()")
    assert found.at(0.8**10) == found.values[0.1074]
    assert found.at(0.11) is None
    assert found.at(1.0) == found.values[1.0]


def test_the_networks_are_recognised_by_what_is_pruned_of_ours():
    makers = {
        "resnet20": lambda: CifarResNet(20),
        "resnet56": lambda: CifarResNet(56),
        "resnet110": lambda: CifarResNet(110),
        "resnet50": models.resnet50,
        "vgg16": lambda: CifarVGG(16),
    }
    known = {key: network for paper in papers().values() for key, network in paper.networks.items()}
    assert known.keys() == makers.keys()
    for key, make in makers.items():
        kernels = [parameter.numel() for parameter in make().parameters() if parameter.dim() > 1]
        assert (known[key].layers, known[key].weights) == (len(kernels), sum(kernels))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("renda", "resnet20", "ToInit()"), r"'renda' is not a known paper. These are: frankle2019.*renda2020"),
        (
            ("frankle2019", "lenet", "ToInit()"),
            r"no numbers of frankle2019. It has those of \['renda2020', 'tanaka",
        ),
        (("renda2020", "vgg16", "ToInit()"), r"network='vgg16' must be one of 'resnet20', 'resnet56'"),
        (("renda2020", "resnet20", "ToEpoch(13)"), r"method='ToEpoch\(13\)'. It has ToEpoch\(132?\)"),
        (("renda2020", "resnet20", "LearningRate(12)"), r"method='LearningRate\(12\)'. It has LearningRate"),
        (("renda2020", "resnet20", "LearningRate('12 steps')"), r"It has LearningRate\('12 epochs'\)"),
        (
            ("renda2020", "resnet20", "LearningRate('12%')"),
            r"It has LearningRate\(\), LearningRate\('12 epochs'\)",
        ),
        (("renda2020", "resnet20", "ToEpoch(12.7)"), r"It has ToEpoch\(12\)"),
        (("renda2020", "resnet20", "ToEpoch(12, optimizer='fresh')"), r"It has ToEpoch\(12\)"),
        (
            ("renda2020", "resnet20", "Reinitialize()", "iterative"),
            r"and pruning='iterative'. It has LearningRate",
        ),
        (("tanaka2020", "vgg16", "SNIP()", "iterative"), r"It has none."),
        (("renda2020", "resnet20", "ToInit()", "twice"), r"pruning='twice' must be one of None, 'iterative'"),
    ],
)
def test_what_was_not_published_is_refused_with_what_was(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        published(*arguments)
