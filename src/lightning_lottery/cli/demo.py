"""The demo: winning tickets on real handwritten digits, in minutes on a laptop."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything

from lightning_lottery import report
from lightning_lottery.analysis import Verdict, VerdictRow, has_scipy
from lightning_lottery.callback import LotteryTicketCallback
from lightning_lottery.cli.quiet import quiet
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer
from lightning_lottery.rules import Plan, Reinitialize, ShuffleMask
from lightning_lottery.storage import REPORT, RunFolder
from lightning_lottery.study import Study
from lightning_lottery.vision import MLP, MNIST5000, Classifier

ROUNDS, AMOUNT, CONTROL_ROUNDS, EPOCHS = 6, 0.4, (3, 6), 10
_METRIC = "val_acc"
_TOLERANCE = 0.005
_NOTE = """\
Accuracies: at the end of each training, on 1,000 held-out images. Nothing was selected by them.
Differences: in percentage points, paired by seed, with 95 % intervals.
winning: the interval is above 0. matching: else, no part of it is below -0.5. worse: else, it is below 0."""


def demo(dirpath: Path = Path("lottery_demo"), seeds: int = 5) -> Path:
    """Finds winning tickets of a small network on real digits in minutes, and compares them with two controls.

    Trains an MLP 784-100-50-10 with SGD (learning rate 0.1, batch size 50, 10 epochs per round) on 4,000 images,
    in 6 rounds that each remove 40 % of the weights. Rounds 3 and 6 are also trained with fresh initial values and
    with shuffled masks. Accuracies are measured at the end of training, on 1,000 held-out images by which nothing
    is selected. A seed whose run is complete is not trained again.

    Args:
        dirpath: Folder for the report and for one run folder per seed.
        seeds: Number of repetitions, with seeds 0, 1, …

    Returns:
        The path of the report.

    Raises:
        ConfigurationError: ``seeds`` is below 1, or matplotlib, Jinja2, mlxtend or SciPy is missing.
    """
    check_integer("seeds", seeds, 1, "seeds=5")
    if not (report.can_write_report() and has_scipy()):
        raise ConfigurationError(
            "The demo needs matplotlib, Jinja2 and SciPy, and at least one of them is not installed. Write "
            "pip install 'lightning-lottery[demo]'."
        )
    folders = [dirpath / f"seed_{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        _run(seed, folder)
    experiment = report.Experiment.of(
        "MLP 784-100-50-10 on 4,000 MNIST images",
        Study.read(*folders),
        _METRIC,
        {"at": "end", "tolerance": _TOLERANCE},
    )
    path = dirpath / REPORT
    report.Report.of([experiment]).save(path)
    many = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    assert experiment.verdict is not None, "the metric is monitored"
    print(f"\n{_table(experiment.verdict)}\n\n{experiment.name}: {many}\n{_NOTE}\nReport: {path}")
    return path


def _run(seed: int, dirpath: Path) -> None:
    """Trains one seed, unless its run is complete."""
    lottery = LotteryTicketCallback(
        rounds=ROUNDS,
        amount=AMOUNT,
        monitor=_METRIC,
        mode="max",
        controls=[Reinitialize(), ShuffleMask()],
        control_rounds=CONTROL_ROUNDS,
        dirpath=dirpath,
        overwrite=True,
        verbose=False,
    )
    trainings = len(Plan.of(lottery.settings).rounds)
    folder = RunFolder(dirpath)
    description = folder.description()
    is_same = description is not None and description.arguments == lottery.settings.described()
    if is_same and len(folder.read_records()) == trainings:
        print(f"seed {seed}: read from {dirpath}", flush=True)
        return
    print(f"seed {seed}: {trainings} trainings into {dirpath}", flush=True)
    seed_everything(seed, verbose=False)
    with quiet(), _one_thread():
        trainer = Trainer(
            max_epochs=EPOCHS,
            callbacks=[lottery],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            devices=1,
        )
        try:
            trainer.fit(Classifier(MLP()), datamodule=MNIST5000())
        except SystemExit:  # Lightning's reaction to Ctrl-C
            print(f"\nStopped. The same command restarts at seed {seed}; earlier seeds are done.")
            raise


@contextmanager
def _one_thread() -> Iterator[None]:
    """Uses one thread: networks this small do not gain from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _table(verdict: Verdict) -> str:
    """One row per ticket: its accuracy, its difference to the dense network, and its controls."""
    rows = [["density", "ticket", "- dense [95 %]", "", "reinitialised", "shuffled"]]
    controls = [verdict[branch] for branch in ("reinitialize", "shuffle_mask")]
    for number in verdict:
        ticket = verdict[number]
        difference = report.interval_text(ticket.metric.to_dense, lambda value: f"{value:.2f}", scale=100)
        cells = [_percent(control[number]) if number in control else "" for control in controls]
        word = report.word_text(ticket, verdict.question, scale=100)
        rows.append([f"{100 * ticket.density:.1f} %", _percent(ticket), difference, word, *cells])
    return report.aligned(rows, left={3})


def _percent(row: VerdictRow) -> str:
    deviation = "" if row.metric.deviation is None else f" ± {100 * row.metric.deviation:.2f}"
    return f"{100 * (row.metric.mean or 0.0):.2f}{deviation} %"
