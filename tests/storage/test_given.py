"""Tickets as users pass them: objects, paths, and files in run folders."""

import shutil

import pytest

from lightning_lottery import ConfigurationError, LotteryTicketCallback, Ticket, ToStep
from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.storage.given import GivenTicket
from lightning_lottery.tickets import RoundId
from tests.helpers.fits import Model, copied, loaders, quiet_trainer
from tests.helpers.tickets import ticket_of


def run_folder(digits, **options):
    lottery = LotteryTicketCallback(densities=[0.5, 0.2], verbose=False, **options)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    return lottery.run_folder


def test_a_ticket_in_a_run_folder_knows_where_its_round_has_started(digits, tmp_path):
    folder = run_folder(digits, rewind=ToStep(5, optimizer="fresh"))
    late = GivenTicket.of(folder / "tickets" / "round_01.safetensors", "ticket")
    assert late.folder is not None
    assert late.folder.path == folder
    state = late.later_start()
    assert state is not None
    assert state.fresh_optimizer
    assert state.point_at(RoundId(1)) is state.point
    assert state.point_at(RoundId(0)) is None
    assert GivenTicket.of(folder / "tickets" / "round_00.safetensors", "ticket").later_start() is None
    (folder / "rewind.pt").write_bytes(b"damaged")
    with pytest.raises(
        ConfigurationError, match=r"cannot be read. To start .* TicketCallback\(Ticket.load\(path\)\)"
    ):
        late.later_start()
    shutil.copy(folder / "tickets" / "round_01.safetensors", tmp_path / "copied.safetensors")
    for elsewhere in (tmp_path / "copied.safetensors", Ticket.load(tmp_path / "copied.safetensors")):
        given = GivenTicket.of(elsewhere, "ticket")
        assert given.folder is None
        assert given.later_start() is None


def test_rounds_that_start_at_initialisation_need_no_state(digits):
    path = run_folder(digits) / "tickets" / "round_02.safetensors"
    assert GivenTicket.of(str(path), "ticket").later_start() is None


def test_a_folder_named_tickets_is_not_yet_a_run(tmp_path):
    path = tmp_path / "tickets" / "round_01.safetensors"
    ticket_of(Model()).save(path)
    assert RunFolder.of_ticket(path) is None
    (tmp_path / "lottery.json").write_text("{}")
    found = RunFolder.of_ticket(path)
    assert found is not None
    assert found.path == tmp_path
    assert RunFolder.of_ticket(tmp_path / "tickets" / "mine.safetensors") is None
    assert GivenTicket.of(path, "ticket").later_start() is None, "without a file of the rewind point"


def test_a_ticket_without_masks_is_refused():
    with pytest.raises(ConfigurationError, match="ticket is a ticket without masks"):
        GivenTicket.of(Ticket({}, copied(Model())), "ticket")


@pytest.mark.parametrize("given", [None, 3, b"x", {"masks": {}}])
def test_other_things_are_not_tickets(given):
    with pytest.raises(ConfigurationError, match=r"start=.* is neither a Ticket nor a path"):
        GivenTicket.of(given, "start")
