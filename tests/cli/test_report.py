"""The command `report`."""

from pathlib import Path

import pytest

from lightning_lottery.cli import main
from tests.helpers.written_runs import write_runs

pytestmark = pytest.mark.usefixtures("reports")


def test_a_study_gets_its_page_and_figures_into_its_folder(capsys):
    write_runs()
    main(["report", "exp", "--tolerance", "0.03"])
    printed = capsys.readouterr().out.split()
    assert printed[:2] == ["exp/report.html", "exp/report.png"]
    assert all(Path(path).exists() for path in printed)
    assert "matching within 0.03" in Path("exp/report.html").read_text()


def test_one_run_of_several_and_another_metric(capsys):
    write_runs()
    main(["report", "exp/seed_0"])
    assert "One seed shows little" in Path("exp/seed_0/report.html").read_text()
    main(
        ["report", "exp", "--metric", "val_loss", "--mode", "min", "--output", "loss.html", "--title", "A <loss>"]
    )
    assert "<h1>A &lt;loss&gt;</h1>" in Path("loss.html").read_text()
    assert "val_loss against density" in Path("loss.html").read_text()
    main(["report", "exp/seed_0", "exp/seed_1"])
    assert "2 seeds" in Path("report.html").read_text()
    assert capsys.readouterr().out


def test_a_run_that_is_still_going_is_shown(capsys):
    def killed(seed, records):
        return records[: 2 - seed % 2]

    write_runs(killed)
    main(["report", "exp"])
    page = Path("exp/report.html").read_text()
    assert "still running, or interrupted" in page
    write_runs(lambda seed, records: [])
    main(["report", "exp"])
    assert "No round has finished yet." in Path("exp/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "'nowhere' is not a folder"),
        (["exp", "--metric", "acc", "--mode", "max"], "metric='acc' is not known"),
        (["exp", "--output", "report.pdf"], "ends in .html"),
        (["exp", "--tolerance", "-1"], "tolerance=-1.0 must be a number of at least 0"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(words, message):
    write_runs()
    with pytest.raises(SystemExit) as error:
        main(["report", *words])
    assert message in str(error.value)
    assert not list(Path("exp").glob("report*"))
