"""What a study is said to have shown, against verdicts whose words are known."""

import pytest

from lightning_lottery.analysis import Question, Verdict
from lightning_lottery.analysis.verdict import Training
from lightning_lottery.report.headline import Headline
from lightning_lottery.tickets import RoundId

DENSE = [0.90, 0.91, 0.89, 0.92]


def verdict(*tickets, dense=DENSE, density=1.0, **question):
    """The tickets of rounds 1, 2, … with densities 0.5, 0.25, …, each with a value for every seed."""
    asked = Question(**{"metric": "acc", "mode": "max", "at": "best", **question})
    rows = [] if dense is None else [Training(RoundId(0), density, dict(enumerate(dense)))]
    rows += [Training(RoundId(n), 0.5**n, dict(enumerate(values))) for n, values in enumerate(tickets, 1)]
    return Verdict.of(rows, range(len(rows[0].values)), asked)


def shifted(by, noise=0.001):
    return [value + by + noise * (-1) ** place for place, value in enumerate(DENSE)]


def test_with_several_seeds_the_smallest_winning_or_matching_ticket_counts():
    found = Headline.of(verdict(shifted(0.02), shifted(-0.001), shifted(-0.1), tolerance=0.01))
    assert (found.number, found.density) == ("25 %", 0.25)
    assert found.sentence.startswith("The ticket with 25 % of the prunable weights reaches acc 0.90")
    assert found.sentence.endswith("4 seeds), matching within 0.01.")
    assert found.meaning == "of the weights are enough"
    found = Headline.of(verdict(shifted(0.02), shifted(-0.001)))
    assert (found.number, found.density) == ("50 %", 0.5), "without a tolerance, the smaller one does not match"
    assert found.sentence.endswith("winning.")


def test_a_better_mean_is_not_enough_with_several_seeds():
    found = Headline.of(verdict([0.99, 0.80, 0.99, 0.92]))
    assert (found.number, found.density) == ("0 of 1", None)
    assert found.meaning == "tickets are shown to be as good as the dense network"
    assert found.sentence.startswith("The closest: The ticket with 50 %")


def test_one_seed_is_compared_by_its_value_and_said_to_show_little():
    found = Headline.of(verdict([0.91], [0.90], [0.89], dense=[0.90]))
    assert found.density == 0.25
    assert found.meaning == "of the weights did as well as the dense network, in one seed"
    assert "One seed shows little" in found.sentence
    assert Headline.of(verdict([0.91], [0.90], [0.89], dense=[0.90], tolerance=0.02)).density == 0.125
    nothing = Headline.of(verdict([0.85], [0.86], dense=[0.90]))
    assert nothing.density is None
    assert nothing.sentence.startswith("The closest: The ticket with 25 %")
    same = Headline.of(verdict([0.86], [0.86], dense=[0.90]))
    assert same.sentence.startswith("The closest: The ticket with 25 %"), "of equal ones, the smaller"


def test_small_losses_are_good():
    found = Headline.of(verdict([0.5], [0.3], [0.6], dense=[0.4], mode="min"))
    assert found.density == 0.25


def test_without_a_dense_round_or_a_ticket_nothing_is_claimed():
    found = Headline.of(verdict([0.9], [0.8], dense=None))
    assert (found.number, found.density) == ("25 %", None)
    assert "Round 0 was not trained" in found.sentence
    assert Headline.of(verdict(dense=[0.9])).number == "…"
    assert Headline.without_metric(None, "run").sentence == "No round has finished yet."
    found = Headline.without_metric(0.1, "run", ["val_loss", "acc"])
    assert found.sentence.endswith("lightning-lottery report run --metric val_loss --mode min")


def test_a_search_that_starts_from_a_ticket_has_no_dense_network():
    found = Headline.of(verdict([0.91], dense=[0.90], density=0.6))
    assert "the starting ticket" in found.sentence
    assert "dense" not in found.sentence


@pytest.mark.parametrize(("seeds", "word"), [(1, "One seed shows"), (2, "Two seeds show")])
def test_fewer_than_three_seeds_show_little(seeds, word):
    found = Headline.of(verdict(shifted(0.02)[:seeds], dense=DENSE[:seeds]))
    assert word in found.sentence
