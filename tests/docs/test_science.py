"""The numbers on the page about the science are those that the authors published, or those of our experiments."""

import re

from lightning_lottery.literature import published
from tests.helpers.pages import page

SCIENCE = page("science").text
LATE, LONGEST = {"ResNet-50": 9}, {"ResNet-50": 90}


def test_rewinding_and_fine_tuning():
    rows = re.findall(r"^\| (ResNet-\d+)[^|]*\| ([\d.]+) \| ([\d.]+) % \| (.*) \|$", SCIENCE, re.M)
    assert len(rows) == 8
    for network, dense, size, values in rows:
        methods = ["ToInit()", f"ToEpoch({LATE.get(network, 12)})", "LearningRate()"]
        methods.append(f"FineTune({LONGEST.get(network, 182)})")
        for method, value in zip(methods, values.split(" | "), strict=True):
            curve = published("renda2020", network.lower().replace("-", ""), method)
            assert f"{100 * curve.at(float(size) / 100).mean:.2f}" == value, (network, method)
            assert f"{100 * curve.at(1).mean:.2f}" == dense


def test_pruning_at_initialisation():
    (sizes,) = re.findall(r"^\| Criterion \| (.*) \|$", SCIENCE, re.M)
    densities = [float(size) / 100 for size in re.findall(r"([\d.]+) %", sizes)]
    rows = re.findall(r"^\| `(\w+\(\))` \| (.*) \|$", SCIENCE, re.M)
    assert [name for name, _ in rows] == ["Random()", "Magnitude()", "SNIP()", "GraSP()", "SynFlow()"]
    for method, values in rows:
        curve = published("tanaka2020", "vgg16", method)
        assert [f"{100 * curve.at(density).mean:.1f}" for density in densities] == values.split(" | ")


def test_published_numbers_among_the_claims():
    methods = ["ToInit()", "ToEpoch(12)", "LearningRate()", "FineTune(182)"]
    curves = [published("renda2020", "resnet20", method, "iterative") for method in methods]
    curves.append(published("renda2020", "resnet20", "Reinitialize()", "one-shot"))
    for curve in curves:
        assert f"{100 * curve.at(0.107).mean:.2f} %" in SCIENCE
    collapsed, alive = (
        published("tanaka2020", "vgg16", f"{name}()").at(0.0032) for name in ("Magnitude", "SynFlow")
    )
    assert f"{100 * collapsed.mean:.1f} % against {100 * alive.mean:.1f} %" in SCIENCE


def test_our_numbers_are_those_of_the_experiments():
    experiments = page("experiments").text
    ours = [line.split("|")[3] for line in SCIENCE.splitlines() if "**agrees**" in line]
    numbers = {number for text in ours for number in re.findall(r"[+-]\d+\.\d+", text)}
    assert numbers == {"+1.67", "+1.17", "+1.35"}
    assert "+1.67 [" in experiments
    assert "+1.17 [" in experiments
    assert "1.35 points better" in experiments
    dense, *_, smallest = re.findall(
        r"^\| ([\d.]+) % \| ([\d.]+) ± .*\| ([\d.]*)[^|]*\| [^|]*\|$", experiments, re.M
    )
    assert (dense[0], smallest[0]) == ("100", "3.52")
    worse = float(dense[1]) - float(smallest[2])
    assert f"with 3.5 % of the weights, fresh values are {worse:.1f} points *worse*" in SCIENCE
