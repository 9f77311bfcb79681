from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery.tickets.round_id import RoundId

ids = st.builds(
    RoundId,
    st.integers(0, 2000),
    st.sampled_from(["ticket", "shuffle_mask", "reinitialize", "noise_scale_0_1", "r2"]),
)


def test_names():
    assert RoundId(3).name == "round_03"
    assert RoundId(12, "shuffle_mask").name == "round_12_shuffle_mask"
    assert RoundId(1000).name == "round_1000"
    assert [RoundId.parse(name) for name in ("round_", "round_x", "best", "round_01 copy")] == [None] * 4


@given(ids)
def test_a_name_tells_the_round(entry):
    assert RoundId.parse(entry.name) == entry
    assert entry.ticket == RoundId(entry.number)
    assert entry.is_ticket == (entry.branch == "ticket")


@given(st.lists(ids))
def test_tickets_come_before_controls_each_by_number(entries):
    found = sorted(entries)
    tickets = [entry for entry in found if entry.is_ticket]
    assert found[: len(tickets)] == tickets
    for part in (tickets, found[len(tickets) :]):
        assert [entry.number for entry in part] == sorted(entry.number for entry in part)
