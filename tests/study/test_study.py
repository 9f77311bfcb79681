"""A study of short runs: what is started, what a failure does, how it goes on."""

import os
import signal
import sys
from pathlib import Path

import pytest

from lightning_lottery import ConfigurationError, FolderError, Study, TrainingError
from lightning_lottery.storage import RunFolder
from lightning_lottery.study import Processes, running
from tests.helpers.short_run import begin
from tests.helpers.studies import COMMAND, is_alive, run_as_process, starts, study, wait_for


def test_every_seed_has_a_process_and_a_folder(capfd):
    found = study().run()
    assert list(found) == [0, 1, 2]
    for seed, run in found.items():
        assert run.path == Path("exp") / f"seed_{seed}"
        assert run.is_finished
        assert [record.round for record in run.records] == [0, 1, 2]
        assert run.records[-1].metrics == {"val_acc": 0.9 - 0.01 * seed}
        (start,) = starts(seed)
        assert start["OMP_NUM_THREADS"] == "1"
        assert start["CUDA_VISIBLE_DEVICES"] == ""
    printed = capfd.readouterr().out
    assert "seed 1 · round 0/2 · density 1.0000 · val_acc 0.8900" in printed
    assert "seed 2 · finished · 3 of 3 rounds" in printed
    assert "3 of 3 seeds are finished: exp" in printed


def test_as_many_seeds_as_jobs_run_at_the_same_time():
    study("--seconds", 0.4, seeds=range(4)).run(Processes(jobs=2))
    began = [starts(seed)[0]["began"] for seed in range(4)]
    ended = [(Path("exp") / f"seed_{seed}" / "rounds.jsonl").stat().st_mtime for seed in range(4)]
    assert max(began[:2]) < min(ended[:2]), "two at the same time"
    assert min(began[2:]) > min(ended[:2]), "and not three"


def test_the_number_of_threads_can_be_set(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    study(seeds=[7]).run()
    assert starts(7)[0]["OMP_NUM_THREADS"] == "3"


def test_a_seed_that_fails_does_not_stop_the_others(capfd):
    options = ("--fail-at", 1, "--of-seeds", 0)
    with pytest.raises(TrainingError, match="1 of 3 seeds are not finished") as error:
        study(*options).run(Processes(jobs=1))
    assert "seed 0: RuntimeError: round 1 has failed (log: exp/seed_0/fit.log)" in str(error.value)
    assert "start the study again" in str(error.value)
    assert "2 of 3 seeds are finished: exp" in capfd.readouterr().out
    found = Study.read("exp")
    assert [len(run.records) for run in found.values()] == [1, 3, 3]
    assert study(*options).run()[0].is_finished
    assert [len(starts(seed)) for seed in (0, 1, 2)] == [2, 2, 2]
    log = Path("exp/seed_0/fit.log").read_text()
    assert log.count("short_run.py 0 exp/seed_0") == 2, "the log of the failure is kept"


def test_what_fails_before_any_training_is_not_tried_for_every_seed():
    with pytest.raises(TrainingError, match="seed 0: ConfigurationError: amount=3 is wrong") as error:
        study("--fail-at", -1).run(Processes(jobs=1))
    assert "None has begun to train, so the others were not started: 1, 2" in str(error.value)
    assert not Path("exp/seed_1/starts").exists()
    with pytest.raises(TrainingError, match="1 of 3 seeds are not finished"):
        study("--fail-at", -1, "--of-seeds", 2).run(Processes(jobs=1))


def test_a_killed_seed_restarts_and_goes_on(capfd):
    found = study("--die-at", 1, 2, "--of-seeds", 1).run()
    assert all(run.is_finished for run in found.values())
    assert [len(starts(seed)) for seed in (0, 1, 2)] == [1, 3, 1]
    assert capfd.readouterr().out.count("seed 1 was killed by SIGKILL. It restarts and goes on where it was.") == 2


@pytest.mark.parametrize("code", [137, 143])  # as shells and this package's command tell SIGKILL and SIGTERM
def test_a_seed_that_says_that_it_was_killed_restarts(code, capfd):
    found = study("--die-at", 1, "--exit-code", code, seeds=[0]).run()
    assert found[0].is_finished
    assert f"seed 0 was killed by {signal.Signals(code - 128).name}. It restarts" in capfd.readouterr().out


def test_a_seed_that_is_killed_again_and_again_fails():
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)", "{seed}", "{dirpath}"]
    with pytest.raises(TrainingError, match="seed 1: killed by SIGKILL"):
        Study("exp", command, [1]).run()
    assert Path("exp/seed_1/fit.log").read_text().count(" $ ") == 4
    found = study("--rounds", 6, "--die-at", 1, 2, 3, 4, 5, dirpath="other", seeds=[1]).run()
    assert found[1].is_finished, "each time it has finished a round in between"


def test_all_seeds_are_the_same_experiment():
    Path("exp.yaml").write_text("data: {batch_size: 50}\n")
    options = ("--config", "exp.yaml")
    study(*options, seeds=[0]).run()
    Path("exp.yaml").write_text("# The same.\ndata:\n  batch_size: 50\n")
    study(*options, seeds=[0, 1]).run()
    Path("exp.yaml").write_text("data: {batch_size: 25}\n")
    with pytest.raises(ConfigurationError, match=r"exp.yaml.data.batch_size was 50 and is now 25"):
        study(*options, seeds=[0, 1, 2]).run()
    with pytest.raises(ConfigurationError, match=r"command was .*--config exp.yaml.* and is now .*--rounds 4"):
        study("--rounds", 4, seeds=[5]).run()
    assert {path.name for path in Path("exp").glob("seed_*")} == {"seed_0", "seed_1"}
    assert len(starts(0)) == 2
    with pytest.raises(TrainingError):
        study("--fail-at", -1, dirpath="other").run()
    assert study("--rounds", 2, dirpath="other").run()[0].is_finished, "nothing had been trained"


def test_a_command_without_a_run_is_an_error():
    with pytest.raises(TrainingError, match=r"ended without a run in exp/seed_0. Does it use \{dirpath\}\?"):
        study("--nothing").run()


def test_a_run_that_ends_early_is_said():
    begin(Path("exp/seed_0"), 0, rounds=5)
    command = [sys.executable, "-c", "import sys; sys.argv", "{seed}", "{dirpath}"]
    with pytest.raises(TrainingError, match="seed 0: ended after 0 of 5 rounds, for example because of max_time"):
        Study("exp", command, [0]).run()


def test_a_fit_gets_its_options():
    made = Study("runs/a b", ["lightning-lottery", "fit", "--config", "exp.yaml"], [0, 42])
    assert made.commands()[1] == (
        "OMP_NUM_THREADS=1 lightning-lottery fit --config exp.yaml --seed_everything=42 "
        "'--dirpath=runs/a b/seed_42' --resume"
    )
    named = Study("exp", ["train", "--name=run_{seed}", "{dirpath}"], [3])
    assert named.commands() == ["OMP_NUM_THREADS=1 train --name=run_3 exp/seed_3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"command": "fit --config exp.yaml"}, "is not a list of words"),
        ({"command": []}, "is not a list of words"),
        ({"command": ["fit", 3]}, "is not a list of words"),
        ({"command": ["fit", "{seed}"]}, r"contains \{seed\} but not \{dirpath\}"),
        ({"command": ["fit", "{dirpath}"]}, r"contains \{dirpath\} but not \{seed\}"),
        ({"seeds": 5}, r"seeds=5 is not a list. Write for example seeds=range\(5\)"),
        ({"seeds": []}, "must be different numbers"),
        ({"seeds": [1, 1]}, "must be different numbers"),
        ({"seeds": [-1]}, "must be an integer of at least 0"),
        ({"seeds": [0.5]}, "must be an integer of at least 0"),
        ({"seeds": [2**32]}, "must be different numbers up to 4294967295"),
        ({"dirpath": "s3://bucket/exp"}, "only local folders"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        Study(**{"dirpath": "exp", "command": COMMAND, "seeds": [0], **arguments})


def test_what_cannot_start_is_an_error_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigurationError, match="'no-such-command' was not found"):
        Study("exp", ["no-such-command", "{seed}", "{dirpath}"], [0]).run()
    with pytest.raises(ConfigurationError, match="is not an engine"):
        study().run("ray")
    with pytest.raises(ConfigurationError, match="jobs=0 must be an integer of at least 1"):
        Processes(jobs=0)
    assert not Path("exp").exists()
    begin(Path("exp"), 0, rounds=2)
    with pytest.raises(ConfigurationError, match="'exp' contains a run itself"):
        study().run()


def test_a_folder_that_cannot_be_written():
    Path("file").touch()
    with pytest.raises(ConfigurationError, match="cannot be a folder, because 'file' is a file"):
        study(dirpath="file/exp").run()
    with pytest.raises(FolderError, match=r"/proc/exp cannot be created"):
        study(dirpath="/proc/exp").run()


def test_a_read_only_folder(monkeypatch):
    monkeypatch.setattr(running.os, "access", lambda path, mode: Path(path) != Path("exp"))
    # Simulated, since the superuser may write anywhere.
    with pytest.raises(FolderError, match=r"exp is read-only. Choose another dirpath"):
        study().run()
    assert not list(Path("exp").iterdir())


def test_only_one_study_runs_in_a_folder():
    folder = RunFolder(Path("exp"))
    assert folder.lock(wait=0)
    with pytest.raises(ConfigurationError, match="Another study runs in 'exp'"):
        study().run()
    folder.unlock()
    assert len(study().run()) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_a_study_stops_its_seeds_and_it_goes_on(number):
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("Only on Linux do seeds end with a study that is killed.")
    process = run_as_process("--rounds", 20)
    os.killpg(process.pid, number)  # as Ctrl-C does
    printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert "Stopping. To go on, start the study again." in printed
        assert "0 of 2 seeds are finished: exp" in printed
    processes = [start["process"] for seed in (0, 1) for start in starts(seed)]
    wait_for(lambda: not any(map(is_alive, processes)))
    before = [len(run.records) for run in Study.read("exp").values()]
    assert all(1 <= number < 20 for number in before)
    found = study("--seconds", 0.3, "--rounds", 20, seeds=[0, 1]).run()
    assert [[record.round for record in run.records] for run in found.values()] == [list(range(20))] * 2
    assert [len(starts(seed)) for seed in (0, 1)] == [2, 2]
