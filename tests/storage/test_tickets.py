import pytest
import torch

from lightning_lottery import Ticket
from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.storage.tickets import Tickets
from lightning_lottery.tickets.round_id import RoundId


def test_tickets_by_round_and_by_branch(tmp_path):
    folder = RunFolder(tmp_path)
    dense = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)})
    for number, branch in [(0, "ticket"), (1, "ticket"), (1, "shuffle_mask"), (100, "ticket")]:
        dense.save(folder.ticket_path(RoundId(number, branch)))
    tickets = Tickets(folder)
    assert list(tickets) == [0, 1, 100]
    assert list(tickets["shuffle_mask"]) == [1]
    assert torch.equal(tickets[1].weights["w"], torch.ones(1))
    assert len(Tickets(None)) == 0
    with pytest.raises(KeyError, match=r"no ticket 2 of branch 'ticket'; the rounds are \[0, 1, 100\]"):
        tickets[2]
    assert repr(tickets) == "Tickets(branch='ticket', rounds=[0, 1, 100])"
    with pytest.raises(KeyError):
        tickets["shuffle_mask"][0]
    assert "shuffle_mask" in tickets
    assert "typo" not in tickets
    assert (1 in tickets, 2 in tickets) == (True, False)
    with pytest.raises(KeyError, match=r"no tickets of branch 'typo'; .*'ticket', 'shuffle_mask'"):
        tickets["typo"]


def test_tickets_come_in_the_order_of_rounds(tmp_path):
    dense = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)})
    numbers = [0, 9, 10, 99, 100, 101, 999, 1000]
    for number in reversed(numbers):
        dense.save(RunFolder(tmp_path).ticket_path(RoundId(number)))
    assert list(Tickets(RunFolder(tmp_path))) == numbers
