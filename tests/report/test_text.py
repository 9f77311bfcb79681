import itertools

from lightning_lottery import Records, report
from lightning_lottery.report import figures
from tests.helpers.fits import needs
from tests.helpers.records import record

RECORDS = Records(
    [
        record(0, best=0.95, best_step=640, metrics={"val_acc": 0.94}, steps=800, seconds=1.25),
        record(1, best=0.96, best_step=400, metrics={"val_acc": 0.955}, steps=800, seconds=1.0),
        record(1, "shuffle_mask", best=0.90, best_step=80, metrics={"val_acc": 0.89}, steps=800, seconds=1.0),
    ]
)


def test_one_line_per_round():
    assert report.line(RECORDS[0], 6, "val_acc") == (
        "round 0/6 · density 1.0000 · val_acc 0.9400 · best 0.9500 at step 640 · 800 steps in 1.2 s"
    )
    assert report.line(RECORDS[2], 6, None) == "round 1/6 shuffle_mask · density 0.5000 · 800 steps in 1.0 s"


def test_the_table_is_aligned():
    lines = report.table(RECORDS, "val_acc").splitlines()
    header = ["round", "branch", "density", "kept", "val_acc", "best val_acc", "at step", "steps", "seconds"]
    assert " ".join(lines[0].split()) == " ".join(header)
    assert lines[2].split() == ["0", "ticket", "1.0000", "100", "0.9400", "0.9500", "640", "800", "1.2"]
    assert lines[4].split()[1] == "shuffle_mask"
    assert len({len(line) for line in lines}) == 1
    assert "best" not in report.table(RECORDS, None)


def test_scalars_keep_controls_apart():
    assert report.scalars(RECORDS[1], "val_acc", {"a.weight": 0.25}) == {
        "lottery/density": 0.5,
        "lottery/val_acc": 0.955,
        "lottery/best_val_acc": 0.96,
        "lottery/best_step": 400,
        "lottery_layers/a.weight": 0.25,
    }
    assert report.scalars(RECORDS[2], "val_acc", {"a.weight": 0.25}) == {
        "lottery_shuffle_mask/density": 0.5,
        "lottery_shuffle_mask/val_acc": 0.89,
        "lottery_shuffle_mask/best_val_acc": 0.90,
        "lottery_shuffle_mask/best_step": 80,
    }


def test_scalars_have_the_cost_if_it_is_known():
    assert report.scalars(RECORDS[1], None, {}, cost=2.5)["lottery/cost"] == 2.5
    assert report.scalars(RECORDS[2], None, {}, cost=3.5)["lottery_shuffle_mask/cost"] == 3.5


def test_what_a_run_cost():
    search = record(1, "search", steps=200, seconds=0.25)
    costs = Records([RECORDS[0], search, *list(RECORDS)[1:]]).cost()
    lines = [line.split() for line in report.cost_table(costs).splitlines()]
    assert lines[0] == ["branch", "trainings", "FLOPs", "sparse", "FLOPs", "seconds"]
    assert lines[2:] == [
        ["ticket", "2.00", "-", "-", "1.80"],
        ["search", "0.25", "-", "-", "0.20"],
        ["shuffle_mask", "1.00", "-", "-", "0.80"],
        ["all", "3.25", "-", "-", "2.80"],
    ]
    line = "cost: 3.25 trainings of round 0 (ticket 2.00, search 0.25, shuffle mask 1.00)"
    assert report.cost_line(costs) == line
    alone = Records(list(RECORDS)[:2]).cost()
    assert report.cost_line(alone) == "cost: 2.00 trainings of round 0"
    assert len(report.cost_table(alone).splitlines()) == 3


def test_search_rounds_are_not_in_figures():
    found = Records([RECORDS[0], record(1, "search", metrics={"val_acc": 0.5}), RECORDS[1]])
    assert report.curves(found, "val_acc") == {"ticket": [(1.0, 0.94), (0.5, 0.955)]}


def test_the_figure_shows_every_branch_against_density(tmp_path):
    needs("matplotlib")
    points = report.curves(RECORDS, "val_acc")
    assert points == {"ticket": [(1.0, 0.94), (0.5, 0.955)], "shuffle_mask": [(0.5, 0.89)]}
    drawing = report.figure(points, "val_acc", spread={"ticket": [0.01, 0.02], "shuffle_mask": [0.0]})
    axes, alone = drawing.axes
    assert [line.get_label() for line in alone.lines] == ["ticket", "dense network"]
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert curves["ticket"] == [[1.0, 0.94], [0.5, 0.955]]
    assert curves["shuffle mask"] == [[0.5, 0.89]]
    assert curves["dense network"][0][1] == 0.94
    report.save_figure(drawing, tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_rounds_of_equal_density_are_drawn_by_round():
    needs("matplotlib")
    densities = [1.0, 0.1, 0.1, 0.1]
    found = Records([record(n, density=d, metrics={"acc": 0.9 + 0.01 * n}) for n, d in enumerate(densities)])
    assert report.has_equal_densities(found)
    assert not report.has_equal_densities(Records(list(found)[:2]))
    drawn = report.figure(report.curves(found, "acc", by_round=True), "acc", by_round=True)
    (axes,) = drawn.axes
    line, dense = axes.get_lines()
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(dense.get_ydata()) == [0.9, 0.9]
    assert axes.get_xscale() == "linear"
    assert "round" in axes.get_xlabel()
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_tick_labels_do_not_run_into_each_other():
    densities = [0.8**number for number in range(25)]
    shown = figures._apart(sorted(densities))
    assert shown[0] == 1
    assert len(shown) <= 10
    assert all(a / b > 1.2 for a, b in itertools.pairwise(shown))
