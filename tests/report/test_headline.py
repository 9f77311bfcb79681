"""What a study is said to have shown, against verdicts whose words are known."""

import pytest

from lightning_lottery.analysis import Question, Verdict
from lightning_lottery.analysis.verdict import Training
from lightning_lottery.report.headline import Headline
from lightning_lottery.tickets import RoundId

DENSE = [0.90, 0.91, 0.89, 0.92]


def density(found):
    return None if found.row is None else found.row.density


def verdict(*tickets, dense=DENSE, start=1.0, **question):
    """The tickets of rounds 1, 2, … with densities 0.5, 0.25, …, each with a value for every seed."""
    asked = Question(**{"metric": "acc", "mode": "max", "at": "best", **question})
    rows = [] if dense is None else [Training(RoundId(0), start, dict(enumerate(dense)))]
    rows += [Training(RoundId(n), 0.5**n, dict(enumerate(values))) for n, values in enumerate(tickets, 1)]
    return Verdict.of(rows, range(len(rows[0].values)), asked)


def shifted(by, noise=0.001):
    return [value + by + noise * (-1) ** place for place, value in enumerate(DENSE)]


def test_with_several_seeds_the_smallest_winning_or_matching_ticket_counts():
    found = Headline.of(verdict(shifted(0.02), shifted(-0.001), shifted(-0.1), tolerance=0.01))
    assert (found.number, density(found)) == ("25 %", 0.25)
    assert found.sentence.startswith("The ticket with 25 % of the prunable weights reaches acc 0.90")
    assert found.sentence.endswith("4 seeds), matching within 0.01.")
    assert found.meaning == "of the weights are enough"
    found = Headline.of(verdict(shifted(0.02), shifted(-0.001)))
    assert (found.number, density(found)) == ("50 %", 0.5), "without a tolerance, the smaller one does not match"
    assert found.sentence.endswith("winning."), "p is small enough for both tickets"


def test_a_better_mean_is_not_enough_with_several_seeds():
    found = Headline.of(verdict([0.99, 0.80, 0.99, 0.92]))
    assert (found.number, density(found)) == ("0 of 1", None)
    assert found.meaning == "ticket is shown to be as good as the dense network"
    assert found.sentence.startswith("The closest: The ticket with 50 %")


def test_one_seed_is_compared_by_its_value_and_said_to_show_little():
    found = Headline.of(verdict([0.91], [0.90], [0.89], dense=[0.90]))
    assert density(found) == 0.25
    assert found.meaning == "of the weights did as well as the dense network, in one seed"
    assert "One seed shows little" in found.sentence
    assert density(Headline.of(verdict([0.91], [0.90], [0.89], dense=[0.90], tolerance=0.02))) == 0.125
    nothing = Headline.of(verdict([0.85], [0.86], dense=[0.90]))
    assert nothing.row is None
    assert nothing.sentence.startswith("The closest: The ticket with 25 %")
    same = Headline.of(verdict([0.86], [0.86], dense=[0.90]))
    assert same.sentence.startswith("The closest: The ticket with 25 %"), "of equal ones, the smaller"


def test_small_losses_are_good():
    found = Headline.of(verdict([0.5], [0.3], [0.6], dense=[0.4], mode="min"))
    assert density(found) == 0.25


def test_without_a_dense_round_or_a_ticket_nothing_is_claimed():
    found = Headline.of(verdict([0.9], [0.8], dense=None))
    assert (found.number, density(found)) == ("25 %", None)
    assert "Round 0 was not trained" in found.sentence
    assert Headline.of(verdict(dense=[0.9])).number == "…"
    assert Headline.without_metric(None, "run").sentence == "No round has finished yet."
    found = Headline.without_metric(0.1, "run", ["val_loss", "acc"])
    assert found.sentence.endswith("lightning-lottery report run --metric val_loss --mode min")


def test_a_search_that_starts_from_a_ticket_has_no_dense_network():
    found = Headline.of(verdict([0.91], dense=[0.90], start=0.6))
    assert "the starting ticket" in found.sentence
    assert "dense" not in found.sentence


@pytest.mark.parametrize(("seeds", "word"), [(1, "One seed shows"), (2, "Two seeds show")])
def test_fewer_than_three_seeds_show_little(seeds, word):
    found = Headline.of(verdict(shifted(0.02)[:seeds], dense=DENSE[:seeds]))
    assert word in found.sentence


def test_a_winner_among_many_tickets_is_said_to_be_one_of_many():
    luck = [DENSE[0] + 0.02, DENSE[1] + 0.03, DENSE[2] + 0.05, DENSE[3] + 0.01]
    others = [[0.90, 0.92, 0.88, 0.92]] * 5
    found = Headline.of(verdict(luck, *others))
    assert density(found) == 0.5
    assert found.sentence.endswith("winning, but not when p is adjusted for all 6 tickets.")


def test_larger_tickets_that_are_worse_are_named():
    found = Headline.of(verdict(shifted(-0.05), shifted(0.02)))
    assert density(found) == 0.25
    assert found.sentence.endswith("Larger tickets are worse: 50 %.")


def test_values_are_compared_over_the_same_seeds():
    rows = [Training(RoundId(0), 1.0, dict(enumerate([0.90, 0.91, 0.89, 0.92, 0.5])))]
    rows.append(Training(RoundId(1), 0.5, {0: 0.95, 1: 0.96, 2: 0.941, 3: 0.97}))
    found = Headline.of(Verdict.of(rows, range(5), Question("acc", "max", "best")))
    assert "4 seeds" in found.sentence
    assert "the dense network 0.905 ±" in found.sentence, "without the seed that has no ticket"


def test_a_dense_network_without_a_finite_value_is_compared_with_nothing():
    rows = [Training(RoundId(0), 1.0, {}, missing=[0]), Training(RoundId(1), 0.5, {0: 0.5})]
    found = Headline.of(Verdict.of(rows, [0], Question("acc", "max", "best")))
    assert (found.number, found.row) == ("…", None)
    assert "is not a finite number" in found.sentence
