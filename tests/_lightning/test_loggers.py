"""Loggers: one run per round, and a summary over rounds."""

import csv
import json
import os
import re
import zipfile
from contextlib import nullcontext

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CometLogger, CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from lightning_lottery import LotteryTicketCallback, ShuffleMask, Ticket
from lightning_lottery._lightning.loggers import RoundLoggers
from lightning_lottery.report import Report
from tests.helpers.fits import Model, loaders, needs, quiet_trainer
from tests.helpers.loggers import Strict
from tests.helpers.resuming import Manual, Stop

ROUNDS = ["round_00", "round_01", "round_02", "round_02_shuffle_mask"]


def fit(digits, logger, **options):
    lottery = LotteryTicketCallback(
        rounds=2,
        amount=0.5,
        monitor="val_acc",
        mode="max",
        controls=[ShuffleMask()],
        control_rounds=[2],
        verbose=False,
    )
    options = {"log_every_n_steps": 1, "callbacks": [lottery], **options}
    trainer = quiet_trainer(logger=logger, **options)
    trainer.fit(Model(), *loaders(digits))
    return lottery, trainer


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events, {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_the_price_of_every_ticket_beside_its_accuracy(digits, tmp_path):
    lottery = LotteryTicketCallback(rounds=3, amount=0.5, search="50%", full_rounds=[2, 3], verbose=False)
    logger = TensorBoardLogger(tmp_path, name="experiment")
    quiet_trainer(callbacks=[lottery], logger=logger).fit(Model(), *loaders(digits))
    base = tmp_path / "experiment" / "version_0"
    names = ["round_00", "round_01_search", "round_02", "round_02_search", "round_03"]
    assert sorted(path.name for path in base.glob("round_*")) == names
    _, summary = scalars(base)
    assert summary["lottery/cost"] == [(0, 1), (2, 3), (3, 4)]
    assert summary["lottery_search/cost"] == [(1, 1.5), (2, 2)]
    assert [step for step, _ in summary["lottery_search/density"]] == [1, 2]


def test_a_resumed_run_logs_layer_densities_without_reading_tickets(digits, tmp_path):
    """They come from the records, so that finished rounds need no ticket file."""

    def go(*others):
        lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False, dirpath=tmp_path / "run")
        logger = TensorBoardLogger(tmp_path, name="experiment")
        trainer = quiet_trainer(callbacks=[lottery, *others], logger=logger, max_epochs=1)
        trainer.fit(Model(), *loaders(digits), ckpt_path=lottery.resume(trainer))
        return lottery

    with pytest.raises(ZeroDivisionError):
        go(Stop(2))
    tickets = tmp_path / "run" / "tickets"
    expected = {
        number: Ticket.load(tickets / f"round_0{number}.safetensors").layer_densities() for number in (0, 1)
    }
    for number in (0, 1):
        (tickets / f"round_0{number}.safetensors").unlink()
    assert len(go().records) == 3
    _, summary = scalars(tmp_path / "experiment" / "version_1")
    for number, densities in expected.items():
        for name, density in densities.items():
            assert summary[f"lottery_layers/{name}"][number] == (number, pytest.approx(density))


def test_tensorboard_has_one_run_per_round_and_a_summary(digits, tmp_path):
    lottery, trainer = fit(digits, TensorBoardLogger(tmp_path, name="experiment"))
    base = tmp_path / "experiment" / "version_0"
    assert lottery.run_folder == base / "lottery"
    assert sorted(path.name for path in base.glob("round_*")) == ROUNDS
    for name in ROUNDS:
        _, curves = scalars(base / name)
        assert [step for step, _ in curves["train_loss"]] == list(range(14)), "every round begins at step 0"
        assert [step for step, _ in curves["val_acc"]] == [6, 13]
    events, summary = scalars(base)
    records = lottery.records
    expected = [(r.round, pytest.approx(r.density)) for r in records["ticket"].values()]
    assert summary["lottery/density"] == expected
    expected = [(r.round, pytest.approx(r.metrics["val_acc"])) for r in records["ticket"].values()]
    assert summary["lottery/val_acc"] == expected
    assert [value for _, value in summary["lottery/best_step"]] == [
        r.best_step for r in records["ticket"].values()
    ]
    assert [step for step, _ in summary["lottery_shuffle_mask/val_acc"]] == [2]
    assert summary["lottery/cost"] == [(0, 1), (1, 2), (2, 3)], "in dense trainings, all so far"
    assert summary["lottery_shuffle_mask/cost"] == [(2, 4)]
    layers = {tag for tag in summary if tag.startswith("lottery_layers/")}
    assert layers == {f"lottery_layers/{name}" for name in lottery.tickets[0].masks}
    for name, density in lottery.tickets[2].layer_densities().items():
        assert summary[f"lottery_layers/{name}"][2] == (2, pytest.approx(density))
    assert "train_loss" not in summary
    pictures = events.Images("lottery/accuracy_against_density")
    assert [picture.step for picture in pictures] == [0, 1, 2, 3], "TensorBoard drops earlier steps"
    assert all(picture.width < 1.5 * picture.height for picture in pictures), "a card is square"
    assert trainer.logger.log_dir == str(base), "the logger of the fit is back"
    assert trainer.logger.name == "experiment"


@pytest.mark.usefixtures("reports")
def test_tensorboard_has_figures_charts_and_the_verdict(digits, tmp_path):
    lottery, trainer = fit(digits, TensorBoardLogger(tmp_path, name="experiment"))
    base = tmp_path / "experiment" / "version_0"
    events = EventAccumulator(str(base)).Reload()
    drawn = {f"lottery/{name}" for name in ("learning_curves", "control_curves", "steps", "layers")}
    assert drawn <= set(events.Tags()["images"])
    content = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    charts = {
        category.title: {chart.title: [*chart.multiline.tag] for chart in category.chart}
        for category in layout_pb2.Layout.FromString(content).category
    }
    assert {"val_acc", "val_loss", "train_loss"} <= set(charts["rounds"])
    assert set(charts["over the rounds"]) == {"density", "cost", "val_acc", "best_val_acc", "best_step"}
    (pattern,) = charts["rounds"]["val_acc"]
    tags = set(EventAccumulator(str(base / "round_01")).Reload().Tags()["scalars"])
    assert [tag for tag in tags if re.match(pattern, tag)] == ["val_acc"]
    (pattern,) = charts["over the rounds"]["best_val_acc"]
    found = [tag for tag in events.Tags()["scalars"] if re.match(pattern, tag)]
    assert sorted(found) == ["lottery/best_val_acc", "lottery_shuffle_mask/best_val_acc"]

    _, verdict = scalars(base / "verdict")
    assert verdict["verdict/dense"] == [(0, pytest.approx(lottery.records[0].best_value))]
    assert verdict["verdict/cost"] == [(0, lottery.records.cost().trainings)]
    good = [
        r for r in lottery.records["ticket"].values() if r.round and r.best_value >= lottery.records[0].best_value
    ]
    smallest = min((record.density for record in good), default=None)
    assert verdict.get("verdict/smallest_density") == (smallest and [(0, pytest.approx(smallest))])
    plugin = EventAccumulator(str(base / "verdict")).Reload().SummaryMetadata("_hparams_/session_start_info")
    data = plugin_data_pb2.HParamsPluginData.FromString(plugin.plugin_data.content)
    assert data.session_start_info.hparams["amount"].number_value == 0.5
    assert "amount" not in trainer.logger.hparams, "the logger of the fit is unchanged"


@pytest.mark.usefixtures("reports")
def test_a_report_that_fails_does_not_fail_the_fit(digits, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("no fonts")

    warned = r"All trainings are complete, but.*no fonts.*lightning-lottery report"
    for what, logger in ((Report, False), (RoundLoggers, TensorBoardLogger(tmp_path))):
        monkeypatch.setattr(what, "of" if what is Report else "log_verdict", fail)
        with pytest.warns(UserWarning, match=warned):
            lottery, _ = fit(digits, logger)
        assert len(lottery.records) == 4
        monkeypatch.undo()


def test_csv_has_one_file_per_round_and_a_summary(digits, tmp_path):
    lottery, _ = fit(digits, CSVLogger(tmp_path, name="experiment"))
    base = tmp_path / "experiment" / "version_0"
    assert sorted(path.name for path in base.glob("round_*")) == ROUNDS
    for name in ROUNDS:
        with (base / name / "metrics.csv").open() as file:
            steps = [int(row["step"]) for row in csv.DictReader(file) if row["train_loss"]]
        assert steps == list(range(14))
    with (base / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lottery/density"]]
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    assert [float(row["lottery/density"]) for row in rows] == [
        r.density for r in lottery.records["ticket"].values()
    ]


def test_several_loggers_and_none(digits, tmp_path):
    fit(digits, [TensorBoardLogger(tmp_path, name="a"), CSVLogger(tmp_path, name="b")])
    for name in ("a", "b"):
        assert sorted(path.name for path in (tmp_path / name / "version_0").glob("round_*")) == ROUNDS
    lottery, trainer = fit(digits, False)
    assert lottery.run_folder == tmp_path / "lottery"
    assert trainer.loggers == []


@pytest.mark.parametrize("model", [Model, Manual])
def test_steps_do_not_fall_in_a_resumed_run(digits, tmp_path, model):
    logger = Strict()
    for stop in ([Stop(2)], []):
        lottery = LotteryTicketCallback(rounds=2, amount=0.5, dirpath=tmp_path / "run", verbose=False)
        trainer = quiet_trainer(callbacks=[lottery, *stop], logger=logger, log_every_n_steps=1)
        with pytest.raises(ZeroDivisionError) if stop else nullcontext():
            trainer.fit(model(), *loaders(digits), ckpt_path=lottery.resume(trainer))
    assert len(lottery.records) == 3
    assert logger.steps[-1] == 3 * 14


def test_a_logger_without_folders_gets_steps_that_never_fall(digits):
    logger = Strict()
    fit(digits, logger)
    assert logger.steps[-1] == 4 * 14
    assert {"lottery/val_acc", "lottery_shuffle_mask/val_acc", "train_loss", "lottery/round"} <= logger.tags
    assert {"shuffle_mask/val_acc", "shuffle_mask/train_loss"} <= logger.tags, "controls have keys of their own"
    assert "log_metrics" not in vars(logger)


@pytest.mark.usefixtures("reports")
def test_wandb_has_rounds_figures_and_the_summary_of_the_last_ticket(digits, tmp_path, monkeypatch):
    needs("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, project="tickets", offline=True)
    lottery, _ = fit(digits, logger)
    summary = dict(logger.experiment.summary)
    logger.experiment.finish()
    records = lottery.records
    assert summary["val_acc"] == pytest.approx(records[2].metrics["val_acc"])
    assert summary["shuffle_mask/val_acc"] == pytest.approx(records["shuffle_mask"][2].metrics["val_acc"])
    assert summary["lottery/round"] == 2
    assert summary["lottery/accuracy_against_density"]["_type"] == "images/separated"
    assert lottery.run_folder == tmp_path / "tickets" / logger.version / "lottery"


@pytest.mark.usefixtures("reports")
def test_mlflow_has_rounds_figures_and_one_artifact_per_checkpoint(digits, tmp_path, monkeypatch):
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path / 'mlruns'}", log_model="all")
    saving = ModelCheckpoint(filename="m-{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    lottery = LotteryTicketCallback(
        rounds=2, amount=0.5, monitor="val_acc", mode="max", controls=[ShuffleMask()], verbose=False
    )
    trainer = quiet_trainer(logger=logger, callbacks=[lottery, saving], enable_checkpointing=True)
    trainer.fit(Model(), *loaders(digits))
    client, run = logger.experiment, logger.run_id
    artifacts = {artifact.path for artifact in client.list_artifacts(run)}
    names = ["round_00", "round_01", "round_02", "round_01_shuffle_mask", "round_02_shuffle_mask"]
    assert {f"{name}-m-epoch={epoch}" for name in names for epoch in (0, 1)} <= artifacts
    drawn = {f"lottery/{name}.png" for name in ("accuracy_against_density", "learning_curves", "layers")}
    assert drawn <= {a.path for a in client.list_artifacts(run, "lottery")}
    history = {m.step: m.value for m in client.get_metric_history(run, "lottery/val_acc")}
    assert history == {r.round: pytest.approx(r.metrics["val_acc"]) for r in lottery.records["ticket"].values()}
    data = client.get_run(run).data.metrics
    assert data["val_acc"] == pytest.approx(lottery.records[2].metrics["val_acc"])
    assert data["shuffle_mask/val_acc"] == pytest.approx(lottery.records["shuffle_mask"][2].metrics["val_acc"])
    assert lottery.run_folder == tmp_path / "mlruns" / logger.name / logger.version / "lottery"


@pytest.mark.usefixtures("reports")
def test_comet_has_rounds_figures_and_keys_for_controls(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("COMET_DISABLE_AUTO_LOGGING", "1")
    comet = needs("comet_ml")
    folder = {"offline_directory": str(tmp_path / "comet")}
    try:
        logger = CometLogger(online=False, project="tickets", **folder)
    except MisconfigurationException:  # before Lightning 2.5.1
        logger = CometLogger(save_dir=tmp_path / "comet", project_name="tickets")
    # Lightning disables an offline experiment; this one writes what would be sent.
    logger._experiment = experiment = comet.OfflineExperiment(disabled=False, auto_output_logging=False, **folder)
    lottery, _ = fit(digits, logger)
    experiment.end()
    (path,) = (tmp_path / "comet").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        messages = [json.loads(line) for line in archive.read("messages.json").splitlines()]
    metrics = [m["payload"]["metric"] for m in messages if m["type"] == "metric_msg"]
    latest = {metric["metricName"]: metric["metricValue"] for metric in metrics}
    records = lottery.records
    assert latest["val_acc"] == pytest.approx(records[2].metrics["val_acc"])
    assert latest["shuffle_mask/val_acc"] == pytest.approx(records["shuffle_mask"][2].metrics["val_acc"])
    over_rounds = {m["step"]: m["metricValue"] for m in metrics if m["metricName"] == "lottery/val_acc"}
    assert over_rounds == {r.round: pytest.approx(r.metrics["val_acc"]) for r in records["ticket"].values()}
    assert {m["metricValue"] for m in metrics if m["metricName"] == "lottery/round"} == {0, 1, 2}
    figures = [m["payload"] for m in messages if m["payload"].get("upload_type") == "visualization"]
    drawn = {f"lottery/{name}" for name in ("accuracy_against_density", "learning_curves", "layers")}
    assert drawn <= {figure["additional_params"]["figName"] for figure in figures}
    accuracy = [f["additional_params"] for f in figures if "accuracy" in f["additional_params"]["figName"]]
    assert [figure["step"] for figure in accuracy] == [0, 1, 2, 3]
    assert lottery.run_folder.parent.parent == tmp_path / "comet" / "tickets", "beside the checkpoints of the run"


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_progress_bars_show_round_and_density_per_round(digits, bar, capsys):
    class Peek(bar):
        def on_train_end(self, trainer, pl_module):
            seen.append(self.get_metrics(trainer, pl_module)["round"])
            super().on_train_end(trainer, pl_module)

    seen: list[str] = []
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, controls=[ShuffleMask()], control_rounds=[2])
    progress = Peek(refresh_rate=1)
    trainer = quiet_trainer(callbacks=[lottery, progress], enable_progress_bar=True, max_epochs=1)
    trainer.fit(Model(), *loaders(digits))
    assert seen == [
        "0/2 · density 1.000",
        "1/2 · density 0.500",
        "2/2 · density 0.250",
        "2/2 shuffle_mask · density 0.250",
    ]
    assert "get_metrics" not in vars(progress)
    printed = capsys.readouterr().out
    assert printed.count(" steps in ") == 4, "one line a round"
    assert "round  branch" in printed, "a table at the end"


def test_the_lines_can_be_turned_off(digits, capsys):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    assert capsys.readouterr().out.replace(os.linesep, "") == ""
