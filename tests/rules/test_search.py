"""The arguments about search rounds, and what a run with them trains."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery import (
    ConfigurationError,
    FineTune,
    LotteryTicketCallback,
    Point,
    Records,
    Reinitialize,
    Stop,
    Ticket,
)
from lightning_lottery.rules.plan import Plan
from lightning_lottery.rules.search import fully_trained, length_of
from lightning_lottery.storage import LAST_TICKET, RunFolder
from lightning_lottery.tickets.round_id import RoundId
from tests.helpers.records import record


def search(number):
    return RoundId(number, "search")


def lottery(rounds=4, **options):
    return LotteryTicketCallback(rounds=rounds, amount=0.2, **{"search": "20%", **options})


@pytest.mark.parametrize(
    ("value", "length"),
    [
        ("1000 steps", Point(1000, "steps")),
        (7, Point(7, "steps")),
        ("2 epochs", Point(2, "epochs")),
        ("20%", Point(20, "%")),
        (" 0.5 % ", Point(0.5, "%")),
        (torch.tensor(3), Point(3, "steps")),
        (None, None),
    ],
)
def test_lengths(value, length):
    assert length_of(value) == length


@pytest.mark.parametrize("value", ["100%", "150%", "half", "init", 0.2, -1, True, "", "20 %%", ["20%"]])
def test_other_values_are_no_lengths(value):
    with pytest.raises(ConfigurationError, match=r"is not the length of a search round, .*Write for"):
        lottery(search=value)


@pytest.mark.parametrize("value", [0, "0 steps", "0%", "0 epochs"])
def test_lengths_of_nothing_are_refused(value):
    with pytest.raises(ConfigurationError, match=r"is below one step\. Write for example '1000 steps'"):
        lottery(search=value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": None, "full_rounds": [4]}, r"full_rounds=\[4\] also needs search.*search='20%'"),
        ({"prune_at_init": True}, "search='20%' cannot be combined with prune_at_init=True"),
        ({"rounds": 1}, "search='20%' would have no effect, since the only pruning follows round 0"),
        (
            {"rewind": FineTune(2, 0.1)},
            r"cannot be combined with rewind=FineTune\(epochs=2, lr=0.1\)",
        ),
        ({"full_rounds": [5]}, r"full_rounds=\[5\] must contain different rounds from 1 to 4.*full_rounds=\[4\]"),
        ({"full_rounds": [0, 4]}, "Round 0 always trains fully"),
        ({"full_rounds": [4, 4]}, "must contain different rounds"),
        ({"full_rounds": []}, "must contain different rounds"),
        ({"full_rounds": [True, 4]}, "must contain different rounds"),
        ({"full_rounds": ["4"]}, "must contain different rounds"),
        ({"full_rounds": "last"}, "full_rounds='last' is neither a list of rounds nor 'all'"),
        ({"full_rounds": 3}, r"full_rounds=\[3\] does not contain the last round, 4"),
        (
            {"full_rounds": [1, 2]},
            r"not contain the last round, 4.*after round 2. Write full_rounds=\[1, 2, 4\]",
        ),
        (
            {"full_rounds": [2, 4], "controls": [Reinitialize()], "control_rounds": [3]},
            r"control_rounds=\[3\] must contain different rounds that train fully: \[2, 4\].*control_rounds=\[4\]",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        lottery(**options)


def test_without_search_all_rounds_train_fully():
    assert fully_trained(None, None, 3) == [1, 2, 3]


@given(last=st.integers(2, 12), data=st.data())
def test_the_plan_trains_every_search_round_once_and_then_every_full_ticket(last, data):
    chosen = data.draw(st.sets(st.integers(1, last)).map(lambda numbers: numbers | {last}))
    full = data.draw(st.sampled_from(["all", None, chosen])) if last > 1 else None
    wanted = list(range(1, last + 1)) if full == "all" else [last] if full is None else sorted(full)
    given_rounds = sorted(full, reverse=True) if isinstance(full, set) else full
    settings = lottery(last, full_rounds=given_rounds, controls=[Reinitialize()]).settings
    plan = Plan.of(settings)
    controls = [RoundId(number, "reinitialize") for number in wanted]
    tickets = [RoundId(number) for number in wanted]
    assert list(plan.rounds) == [RoundId(0), *map(search, range(1, last)), *tickets, *controls]
    assert list(plan.rounds) == sorted(plan.rounds), "as tickets and records are sorted"
    # Round after round, the masks come from the weights of the round before; nothing else gives masks.
    chain = [RoundId(0), *map(search, range(1, last)), RoundId(last)]
    found = {entry: plan.finds(entry) for entry in plan.rounds}
    assert found == {**dict.fromkeys(plan.rounds), **dict(pairwise(chain))}


def test_without_search_every_ticket_gives_the_masks_of_the_next():
    plan = Plan.of(lottery(2, search=None).settings)
    assert [plan.finds(RoundId(number)) for number in range(3)] == [RoundId(1), RoundId(2), None]


def test_names_and_kinds():
    assert search(3).name == "round_03_search"
    assert RoundId.parse("round_03_search") == search(3)
    kinds = [(entry.is_ticket, entry.is_search, entry.is_control) for entry in (RoundId(3), search(3))]
    assert kinds == [(True, False, False), (False, True, False)]
    assert RoundId(3, "reinitialize").is_control


@dataclass(frozen=True)
class After(Stop):
    number: int

    def after_round(self, records, mode):
        return records[-1].round >= self.number


@pytest.mark.parametrize(
    ("stop", "rounds"),
    [
        (0, [RoundId(0)]),
        (2, [RoundId(0), search(1), search(2), search(3), RoundId(1), RoundId(2)]),
        (9, [RoundId(0), search(1), search(2), search(3), *map(RoundId, range(1, 5))]),
    ],
)
def test_stop_rules_see_only_tickets_and_keep_the_search(stop, rounds):
    settings = lottery(full_rounds="all", stop=[After(stop)]).settings
    trained = [record(0), *(record(n, "search") for n in (1, 2, 3)), *(record(n) for n in range(1, 5))]
    plan = Plan.of(settings)
    assert list(plan.shortened(settings, Records(trained)).rounds) == rounds
    assert plan.shortened(settings, Records(trained[1:4])) == plan


def test_where_a_killed_run_continues(tmp_path):
    """A kill may come between any two of these files."""
    plan, folder = Plan.of(lottery(3, full_rounds=[2, 3]).settings), RunFolder(tmp_path)
    ticket, records, found = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)}), [], []

    def note():
        found.append(plan.first_unfinished(folder))

    def save(entry):
        ticket.save(folder.ticket_path(entry))
        note()

    def finish(number, branch="ticket"):
        records.append(record(number, branch))
        folder.write_records(Records(records))
        note()

    save(RoundId(0))
    finish(0)
    save(search(1))
    finish(1, "search")
    save(search(2))
    finish(2, "search")
    save(RoundId(3))  # found before the ticket of round 2 trains
    save(RoundId(2))
    finish(2)
    finish(3)
    (tmp_path / LAST_TICKET).touch()
    note()
    zero, one, two = RoundId(0), search(1), search(2)
    assert found == [zero, zero, one, one, two, two, RoundId(2), RoundId(2), RoundId(3), RoundId(3), None]
