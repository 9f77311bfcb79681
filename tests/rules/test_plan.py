"""What a run trains, and where it continues."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from lightning_lottery import LotteryTicketCallback, Records, Reinitialize, ShuffleMask, Stop, Ticket
from lightning_lottery.rules.plan import Plan, ending_rule
from lightning_lottery.storage import LAST_TICKET, RunFolder
from lightning_lottery.tickets.round_id import RoundId
from tests.helpers.records import record

TICKETS = [RoundId(0), RoundId(1), RoundId(2)]
CONTROLS = [RoundId(n, branch) for n in (1, 2) for branch in ("reinitialize", "shuffle_mask")]


@dataclass(frozen=True)
class After(Stop):
    number: int

    def after_round(self, records: Sequence[object], mode: str) -> bool:
        return records[-1].round >= self.number


def settings(**options):
    options = {"controls": [Reinitialize(), ShuffleMask()], **options}
    return LotteryTicketCallback(densities=[0.5, 0.2], **options).settings


def test_tickets_come_first_then_controls_by_round():
    assert list(Plan.of(settings()).rounds) == [*TICKETS, *CONTROLS]
    assert list(Plan.of(settings(control_rounds=[2])).rounds) == [*TICKETS, *CONTROLS[2:]]
    assert list(Plan.of(settings(prune_at_init=True, controls=[])).rounds) == TICKETS[1:]


def test_what_is_next():
    plan = Plan.of(settings())
    assert (plan.first, plan.last_ticket, plan.has_controls) == (TICKETS[0], TICKETS[2], True)
    order = [plan.first]
    while (following := plan.after(order[-1])) is not None:
        order.append(following)
    assert order == list(plan.rounds)
    assert list(plan.before(CONTROLS[0])) == TICKETS
    assert not Plan.of(settings(controls=[])).has_controls


@pytest.mark.parametrize(
    ("stop", "rounds"),
    [
        (0, [TICKETS[0]]),
        (1, [*TICKETS[:2], *CONTROLS[:2]]),
        (2, [*TICKETS, *CONTROLS]),
        (9, [*TICKETS, *CONTROLS]),
    ],
)
def test_stop_rules_leave_out_what_comes_after_the_last_ticket(stop, rounds):
    wanted = settings(stop=[After(stop)])
    records = Records([record(number) for number in range(3)])
    assert list(Plan.of(wanted).shortened(wanted, records).rounds) == rounds
    assert Plan.of(wanted).shortened(wanted, Records()) == Plan.of(wanted)
    assert ending_rule(wanted, Records()) is None
    assert ending_rule(wanted, records) == (After(stop) if stop <= 2 else None)


def test_a_round_is_finished_with_its_record_and_its_result(tmp_path):
    """A kill may come between any two of these files."""
    plan, folder = Plan.of(settings(control_rounds=[2])), RunFolder(tmp_path)
    ticket = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)})
    found, records = [plan.first_unfinished(folder)], []
    for entry in TICKETS:
        ticket.save(folder.ticket_path(entry))
        found.append(plan.first_unfinished(folder))
        records.append(record(entry.number))
        folder.write_records(Records(records))
        found.append(plan.first_unfinished(folder))
    (tmp_path / LAST_TICKET).touch()
    found.append(plan.first_unfinished(folder))
    for entry in CONTROLS[2:]:
        records.append(record(entry.number, entry.branch))
        folder.write_records(Records(records))
        found.append(plan.first_unfinished(folder))
    zero, one, two = TICKETS
    assert found == [zero, zero, zero, one, one, two, two, CONTROLS[2], CONTROLS[3], None]
