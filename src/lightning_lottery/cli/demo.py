"""The demo: winning tickets on real handwritten digits, in minutes on a laptop."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev

import torch
from lightning.pytorch import Trainer, seed_everything

from lightning_lottery import report
from lightning_lottery.callback import LotteryTicketCallback
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer
from lightning_lottery.rules import Plan, Reinitialize, ShuffleMask
from lightning_lottery.storage import Records, RunFolder
from lightning_lottery.tickets import TICKET_BRANCH
from lightning_lottery.vision import MLP, MNIST5000, Classifier

ROUNDS, AMOUNT, CONTROL_ROUNDS, EPOCHS = 6, 0.4, (3, 6), 10
_METRIC = "val_acc"


def demo(dirpath: Path = Path("lottery_demo"), seeds: int = 3) -> Path:
    """Finds winning tickets of a small network on real digits in minutes, and compares them with two controls.

    Trains an MLP 784-100-50-10 with SGD (learning rate 0.1, batch size 50, 10 epochs per round) on 4,000 images,
    in 6 rounds that each remove 40 % of the weights. Rounds 3 and 6 are also trained with fresh initial values and
    with shuffled masks. Accuracies are measured at the end of training, on 1,000 held-out images. A seed whose run
    is complete is not trained again.

    Args:
        dirpath: Folder for the figure and for one run folder per seed.
        seeds: Number of repetitions, with seeds 0, 1, …

    Returns:
        The path of the figure.

    Raises:
        ConfigurationError: ``seeds`` is below 1, or matplotlib or mlxtend is missing.
    """
    check_integer("seeds", seeds, 1, "seeds=3")
    if not report.can_draw():
        raise ConfigurationError(
            "The figure needs matplotlib, which is not installed. Write pip install 'lightning-lottery[demo]'."
        )
    runs = [_run(seed, dirpath / f"seed_{seed}") for seed in range(seeds)]
    points, spread = _average(runs)
    many = f": mean ± standard deviation of {seeds} seeds" if seeds > 1 else ", one seed"
    title = f"MLP 784-100-50-10 on 4,000 MNIST images{many}"
    path = dirpath / "accuracy_against_density.png"
    figure = report.figure(points, "accuracy on held-out images", spread, title)
    report.save_figure(figure, path)
    print(f"\n{_table(points, spread)}\n\n{title}\nFigure: {path}")
    return path


def _run(seed: int, dirpath: Path) -> Records:
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
    if is_same and len(done := folder.read_records()) == trainings:
        print(f"seed {seed}: read from {dirpath}", flush=True)
        return done
    print(f"seed {seed}: {trainings} trainings into {dirpath}", flush=True)
    seed_everything(seed, verbose=False)
    with _quiet(), _one_thread():
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
    return lottery.records


@contextmanager
def _quiet() -> Iterator[None]:
    """Mutes Lightning's messages, which would appear in every round."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Uses one thread: networks this small do not gain from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


Points = dict[str, list[tuple[float, float]]]


def _average(runs: list[Records]) -> tuple[Points, dict[str, list[float]]]:
    """Mean accuracy by branch and density, and for several seeds its standard deviation."""
    points: Points = {}
    spread: dict[str, list[float]] = {}
    for branch in runs[0].branches():
        values = {n: [run[branch][n].metrics[_METRIC] for run in runs] for n in runs[0][branch]}
        points[branch] = [(runs[0][branch][n].density, mean(accuracies)) for n, accuracies in values.items()]
        if len(runs) > 1:
            spread[branch] = [stdev(accuracies) for accuracies in values.values()]
    return points, spread


def _table(points: Points, spread: dict[str, list[float]]) -> str:
    """One row per density: the dense network, the ticket and its controls."""
    cells = {}
    for branch, pairs in points.items():
        for number, (density, value) in enumerate(pairs):
            deviation = f" ± {100 * spread[branch][number]:.2f}" if spread else ""
            cells[branch, density] = f"{100 * value:.2f}{deviation} %"
    columns = {"ticket": TICKET_BRANCH, "reinitialised": "reinitialize", "shuffled": "shuffle_mask"}
    rows = [["density", "dense", *columns]]
    for density, _ in points[TICKET_BRANCH]:
        row = [cells.get((branch, density), "") for branch in columns.values()]
        dense = cells[TICKET_BRANCH, 1.0]
        rows.append([f"{100 * density:.1f} %", dense, *(row if density < 1 else [""] * len(row))])
    return report.aligned(rows)
