import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery import RoundRecord, Ticket
from lightning_lottery.analysis import overlap
from lightning_lottery.report import ascii_bars, overlap_text, ticket_text
from lightning_lottery.report.tickets import bar
from lightning_lottery.tickets import TicketSummary


@given(st.floats(0, 1), st.sampled_from([10, 20]))
def test_bars_have_one_length_and_show_the_share(share, width):
    drawn = bar(share, width)
    assert len(drawn) == width
    assert abs(drawn.count("█") - share * width) < 1
    assert (drawn == "·" * width) == (share == 0)
    assert ascii_bars(drawn).isascii()


def example(**fields):
    masks = {
        "a.weight": torch.tensor([[True, False, False, False]] * 50),
        "b.weight": torch.tensor([[True, True]]),
        "b.bias": torch.tensor([True, False]),
    }
    weights = {name: torch.ones(mask.shape) for name, mask in masks.items()}
    return Ticket(masks, {**weights, "norm": torch.ones(3)}, following=["b.bias"], **fields)


def test_a_ticket_as_text(tmp_path):
    ticket = example(round=3, provenance={"criterion": "Magnitude()", "seed": "5"})
    path = tmp_path / "ticket.safetensors"
    ticket.save(path)
    records = [
        RoundRecord(3, "ticket", 0.25, 1, 2, 3, {"val_acc": 0.5}, best_value=0.75, best_step=8),
        RoundRecord(0, "ticket", 1.0, 1, 2, 3),
    ]
    size = path.stat().st_size
    assert ticket_text(TicketSummary.of(ticket), path, records).splitlines() == [
        f"{path}: ticket of round 3, density 0.2574",
        "52 of 202 prunable weights survive; with biases, normalisation and buffers, 56 of 207 numbers.",
        f"{size / 1000:.4g} kB on disk; the dense network has 828 bytes, {828 / size:.1f} times as much.",
        "The values are those of the network or file that the ticket was made from.",
        "",
        "layer              shape  kept   of  density",
        "--------------------------------------------",
        "a.weight          50 x 4    50  200   0.2500  █████···············",
        "b.weight           1 x 2     2    2   1.0000  ████████████████████",
        "b.bias (follows)       2     1    2   0.5000  ██████████··········",
        "",
        "Results of its run:",
        "  round_03: val_acc 0.5000; best 0.7500 at step 8",
        "  round_00: no metrics",
        "",
        "Where it comes from:",
        "  criterion                 Magnitude()",
        "  seed                      5",
        f"  fingerprint               {ticket.fingerprint}",
        f"  fingerprint of the masks  {TicketSummary.of(ticket).masks_hash}",
    ]


def test_texts_from_files_cannot_control_the_terminal(tmp_path):
    ticket = example(branch="x\x1b[2J", provenance={"a\r": "b\n\x07"})
    record = RoundRecord(3, "ticket", 0.25, 1, 2, 3, {"weird\x1bname": 0.5})
    path = tmp_path / "ticket.safetensors"
    ticket.save(path)
    text = ticket_text(TicketSummary.of(ticket), path, [record])
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_an_overlap_as_text():
    first, second = example(), example()
    other = Ticket({"a.weight": first.masks["a.weight"].flip(1)}, {"a.weight": -torch.ones(50, 4)})
    assert overlap_text(overlap(first, second), "x", "y").splitlines()[:7] == [
        "first: x",
        "second: y",
        "",
        "layer       prunable  first  second  both     IoU  by chance              same sign  by chance",
        "----------------------------------------------------------------------------------------------",
        "a.weight         200     50      50    50  1.0000     0.1439  ██████████    100.0 %    100.0 %",
        "b.weight           2      2       2     2  1.0000     1.0000  ██████████    100.0 %    100.0 %",
    ]
    lines = overlap_text(overlap(first, other), "x", "y").splitlines()
    assert "a.weight       200     50      50     0  0.0000     0.1439  ··········          -          -" in lines
    assert "  b.weight  only the first ticket has it" in lines
