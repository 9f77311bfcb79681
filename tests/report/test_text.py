from lightning_lottery import Records, report
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
    alone = Records(list(RECORDS)[:2]).cost()
    assert len(report.cost_table(alone).splitlines()) == 3
