"""Runs and published numbers."""

from dataclasses import replace
from statistics import mean

import pytest

from lightning_lottery import FineTune, LearningRate, Records, ToEpoch, ToInit
from lightning_lottery.analysis import Question, compare_with_paper
from lightning_lottery.rules.description import described
from tests.helpers.paper_runs import ACCURACIES, DESCRIPTION, paper_runs
from tests.helpers.records import record

QUESTION = Question("val_acc", "max", "best")
# Renda et al. 2020, ResNet-20, to epoch 12.
PUBLISHED = {1.0: (0.9171, 0.0023), 0.512: (0.9194, 0.0009), 0.2097: (0.9174, 0.0022)}


def compare(runs=None, question=QUESTION):
    return compare_with_paper(paper_runs() if runs is None else runs, question)


def test_differences_are_in_the_deviations_of_the_authors():
    (found,) = compare()
    assert found.branch == "ticket"
    assert (found.published.method, found.published.network.name) == ("ToEpoch(12)", "ResNet-20")
    assert found.steps == 640
    for place, (row, (theirs, deviation)) in enumerate(zip(found.rows, PUBLISHED.values(), strict=True)):
        ours = mean(values[place] for values in ACCURACIES.values())
        assert row.ours.mean == pytest.approx(ours)
        assert row.difference == pytest.approx(ours - theirs)
        assert row.in_deviations == pytest.approx((ours - theirs) / deviation)


def test_accuracies_on_the_test_set_are_taken_if_there_are_any():
    tests = {seed: [value - 0.01 for value in values] for seed, values in ACCURACIES.items()}
    (found,) = compare(paper_runs(tests))
    assert (found.question.metric, found.question.is_test) == ("test_acc", True)
    assert found.rows[1].ours.mean == pytest.approx(mean((0.92, 0.93, 0.91)))
    (found,) = compare(paper_runs(tests), Question("val_loss", "min", "end", is_monitored=False))
    assert found.question.metric == "test_acc"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ToInit(), "ToInit()"),
        (ToEpoch(12), "ToEpoch(12)"),
        (LearningRate(), "LearningRate()"),
        (LearningRate("12 epochs"), "LearningRate('12 epochs')"),
        (FineTune(182, 0.001), "FineTune(182)"),
    ],
)
def test_the_rule_of_a_run_is_recognised(rule, expected):
    (found,) = compare(paper_runs(arguments={"rewind": described(rule)}))
    assert found.published.method == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": {"data": "CIFAR100"}},
        {"environment": {}},
        {"input_shape": [3, 28, 28]},
        {"input_shape": None},
        {"prunable": {**DESCRIPTION.prunable, "output.weight": [100, 64]}},
        {"prunable": {"all.weight": [270_896]}},
        {"arguments": {**DESCRIPTION.arguments, "rewind": "ToEpoch(epoch=13, optimizer='restore')"}},
        {"arguments": {**DESCRIPTION.arguments, "rewind": "ToStep(step='12 steps', optimizer='restore')"}},
        {"arguments": {**DESCRIPTION.arguments, "rewind": described(LearningRate(12))}},
        {"arguments": {**DESCRIPTION.arguments, "rewind": described(LearningRate("12%"))}},
        {"arguments": {**DESCRIPTION.arguments, "rewind": described(FineTune(182, 0.1))}},
        {"arguments": {**DESCRIPTION.arguments, "criterion": "Random()"}},
        {"arguments": {**DESCRIPTION.arguments, "scope": "Layerwise(layer_amounts={})"}},
        {"arguments": {**DESCRIPTION.arguments, "pattern": "Channels(norm=2)"}},
        {"arguments": {**DESCRIPTION.arguments, "stop": ["Tolerance(drop=0.01)"]}},
        {"arguments": {**DESCRIPTION.arguments, "scope": "Global(min_density=0.1, keep_alive=True)"}},
        {"arguments": {**DESCRIPTION.arguments, "search": "20%"}},
        {"arguments": {**DESCRIPTION.arguments, "start": "a ticket"}},
        {"arguments": {**DESCRIPTION.arguments, "rewind": "ToEpoch(epoch=12, optimizer='fresh')"}},
        {"arguments": {**DESCRIPTION.arguments, "prune_at_init": True}},
    ],
)
def test_other_experiments_have_no_published_numbers(changes):
    assert compare(paper_runs(**changes)) == []


def test_what_is_not_an_accuracy_in_0_to_1_is_not_compared():
    assert compare(question=Question("val_loss", "min", "end", is_monitored=False)) == []
    runs = {0: replace(paper_runs()[0], records=Records([record(0, best=92.0, density=1.0)]))}
    assert compare(runs) == []


@pytest.mark.parametrize("name", ["test_acc_top5", "test_balanced_accuracy", "train_acc", "acc_of_the_day"])
def test_other_metrics_are_not_taken_for_the_accuracy(name):
    tests = dict.fromkeys(ACCURACIES, (0.99, 0.99, 0.99))
    (found,) = compare(paper_runs(tests, test_metric=name))
    assert found.question.metric == "val_acc"
    assert compare(question=Question(name, "max", "end", is_monitored=False)) == []


@pytest.mark.parametrize("name", ["test_acc", "Test/Accuracy", "test_accuracy"])
def test_names_of_accuracies(name):
    (found,) = compare(paper_runs(ACCURACIES, test_metric=name))
    assert found.question.metric == name


def test_test_accuracies_of_some_seeds_alone_are_not_taken():
    (found,) = compare(paper_runs({0: ACCURACIES[0]}))
    assert (found.question.metric, found.rows[0].ours.n) == ("val_acc", 3)


def test_densities_without_published_numbers_are_kept_without_them():
    run = paper_runs()[0]
    runs = {
        0: replace(run, records=Records([record(0, best=0.9, density=1.0), record(1, best=0.8, density=0.05)]))
    }
    (found,) = compare(runs)
    assert found.rows[1].theirs is None
    assert found.rows[1].difference is None
    assert found.rows[1].in_deviations is None


def test_reinitialised_networks_have_published_numbers_after_one_pruning():
    counts = {"counts": [270_896, 56_811], "arguments": {**DESCRIPTION.arguments, "rewind": "ToInit()"}}
    records = Records([
        record(0, best=0.92, density=1.0),
        record(1, best=0.91, density=0.2097),
        record(1, "reinitialize", best=0.88, density=0.2097),
    ])  # fmt: skip
    runs = {0: replace(paper_runs(**counts)[0], records=records)}
    tickets, control = compare(runs)
    assert (tickets.published.pruning, tickets.published.method) == ("one-shot", "ToInit()")
    assert control.branch == "reinitialize"
    assert control.rows[0].theirs.mean == 0.8843
    for rule in (ToEpoch(12), FineTune(10, 0.001), LearningRate("172 epochs")):
        counts["arguments"]["rewind"] = described(rule)
        runs = {0: replace(paper_runs(**counts)[0], records=records)}
        assert "reinitialize" not in [found.branch for found in compare(runs)]
    iterative = {0: replace(paper_runs(arguments={"rewind": "ToInit()"})[0], records=records)}
    assert [found.branch for found in compare(iterative)] == ["ticket"]


def test_pruning_at_initialisation_is_compared_by_criterion():
    from lightning_lottery.vision import CifarVGG

    scope = "Global(min_density=0.0, keep_alive=False)"
    arguments = {"criterion": "SynFlow(steps=100)", "prune_at_init": True, "rewind": "ToInit()", "scope": scope}
    shapes = {name: list(p.shape) for name, p in CifarVGG(16).named_parameters() if p.dim() > 1}
    runs = paper_runs(arguments=arguments, prunable=shapes, counts=[14_715_584, 147_156])
    runs = {0: replace(runs[0], records=Records([record(1, best=0.9, density=0.01)]))}
    (found,) = compare(runs)
    assert found.published.method == "SynFlow()"
    assert found.rows[0].difference == pytest.approx(0.9 - 0.901)
    assert found.rows[0].in_deviations is None
    for name, value in (
        ("criterion", "SynFlow(steps=1)"),
        ("criterion", "SNIP(batches=1)"),
        ("scope", "Global(min_density=0.0, keep_alive=True)"),
    ):
        other = replace(runs[0].description, arguments={**runs[0].description.arguments, name: value})
        assert compare({0: replace(runs[0], description=other)}) == []
    several = {0: replace(runs[0], description=replace(runs[0].description, counts=[1, 2, 3]))}
    assert compare(several) == []
