"""The command ``ticket``, as a user types it."""

import io
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.utils import prune

from lightning_lottery import LotteryTicketCallback, ModelCard, Ticket
from lightning_lottery.analysis import overlap
from lightning_lottery.cli.main import main
from lightning_lottery.tickets import TicketSummary
from tests.helpers.fits import Model, Net, copied, loaders, quiet_trainer, same_bits
from tests.helpers.tickets import ticket_of

V1 = Path(__file__).parents[1] / "tickets" / "data" / "version_1.safetensors"


@pytest.fixture
def run(digits):
    """A search of two rounds with its checkpoint in ``run`` and ``trained.ckpt``."""
    lottery = LotteryTicketCallback(
        rounds=2, amount=0.6, dirpath="run", monitor="val_acc", mode="max", verbose=False
    )
    trainer = quiet_trainer(callbacks=[lottery], max_epochs=1)
    trainer.fit(Model(), *loaders(digits))
    trainer.save_checkpoint("trained.ckpt")
    return lottery


PATH = "run/tickets/round_02.safetensors"


def printed(capsys, *words):
    capsys.readouterr()
    main(["ticket", *words])
    return capsys.readouterr().out


def test_show_prints_layers_origin_and_the_results_of_the_run(run, capsys):
    out = printed(capsys, "show", PATH)
    assert out.startswith(f"{PATH}: ticket of round 2, density {run.tickets[2].density:.4f}\n")
    for name, density in run.tickets[2].layer_densities().items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        assert f"{density:.4f}" in line
    assert f"val_acc {run.records[2].metrics['val_acc']:.4f}" in out
    assert "criterion" in out
    assert run.tickets[2].fingerprint in out
    given = json.loads(printed(capsys, "show", PATH, "--json"))
    assert given["density"] == run.records[2].density
    assert given["masks_hash"] == run.records[2].masks_hash
    assert given["bytes"] == Path(PATH).stat().st_size
    assert given["results"]["round_00"] == run.records[0].metrics


def test_compare_prints_overlap_and_signs(run, capsys):
    first, second = "run/tickets/round_01.safetensors", PATH
    out = printed(capsys, "compare", first, second)
    assert out.startswith(f"first: {first} (round_01, density {run.tickets[1].density:.4f})\nsecond: {second} (")
    assert "100.0 %" in out, "survivors start from the same values"
    given = json.loads(printed(capsys, "compare", first, second, "--json"))
    assert given["total"]["iou"] == pytest.approx(0.4, abs=1e-3)
    assert given["total"]["sign_agreement"] == 1
    expected = overlap(run.tickets[1], run.tickets[2])
    assert {name: layer["both"] for name, layer in given["layers"].items()} == {
        name: layer.both for name, layer in expected.layers.items()
    }


def test_convert_makes_a_ticket_of_version_1_current_in_place(capsys):
    Path("old.safetensors").write_bytes(V1.read_bytes())
    out = printed(capsys, "convert", "old.safetensors", "old.safetensors")
    assert out.startswith("old.safetensors: control shuffle_mask of round 3")
    assert Ticket.load("old.safetensors").fingerprint == Ticket.load(V1).fingerprint
    assert b'"version":"2"' in Path("old.safetensors").read_bytes()


def test_convert_puts_trained_weights_under_the_masks_of_a_ticket(run, capsys):
    printed(capsys, "convert", "trained.ckpt", "shipped.safetensors", "--masks", PATH)
    shipped, trained = Ticket.load("shipped.safetensors"), torch.load("trained.ckpt", weights_only=True)
    assert same_bits(shipped.weights, trained["state_dict"])
    assert same_bits(shipped.masks, run.tickets[2].masks)
    assert shipped.provenance["criterion"] == "Magnitude()"


def test_convert_reads_the_masks_of_others(capsys):
    net = Net()
    prune.random_unstructured(net.hidden, "weight", 0.7)
    torch.save(net.state_dict(), "pruned.pt")
    printed(capsys, "convert", "pruned.pt", "first.safetensors")
    assert torch.equal(Ticket.load("first.safetensors").masks["hidden.weight"], net.hidden.weight_mask.bool())
    plain = Net()
    torch.save(plain.state_dict(), "dense.pt")
    torch.save({"hidden.weight": net.hidden.weight_mask, "output.weight": torch.ones(10, 24)}, "masks.pt")
    given = json.loads(
        printed(
            capsys, "convert", "dense.pt", "second.safetensors", "--masks=masks.pt", "--exclude=output.*", "--json"
        )
    )
    assert list(given["layers"]) == ["hidden.weight"]
    second = Ticket.load("second.safetensors")
    kept = torch.where(net.hidden.weight_mask.bool(), plain.hidden.weight, 0)
    assert torch.equal(second.weights["hidden.weight"], kept)
    assert same_bits({"output.weight": second.weights["output.weight"]}, {"output.weight": plain.output.weight})


def test_hub_writes_the_folder_with_the_results_of_the_run(run, capsys):
    out = printed(capsys, "hub", PATH, "shipped", "--description=Digits.", '--header={"license": "mit"}')
    assert out.startswith("shipped: ticket.safetensors, config.json and the model card README.md\nNot trained: ")
    assert Ticket.from_pretrained("shipped").fingerprint == run.tickets[2].fingerprint
    results = run.records[2].metrics, run.records[0].metrics
    expected = ModelCard(*results, "Digits.", header={"license": "mit"})
    assert Path("shipped/README.md").read_text() == expected.to_markdown(
        TicketSummary.of(run.tickets[2]), "shipped"
    )
    printed(capsys, "hub", PATH, "shipped", '--metrics={"test_acc": 0.5}', "--dense_metrics={test_acc: 0.25}")
    config = json.loads(Path("shipped/config.json").read_text())
    assert (config["metrics"], config["dense_metrics"]) == ({"test_acc": 0.5}, {"test_acc": 0.25})
    printed(capsys, "hub", "run/tickets/round_00.safetensors", "dense")
    assert json.loads(Path("dense/config.json").read_text())["dense_metrics"] == {}


def test_hub_ships_the_trained_network_with_the_results_of_its_run(run, capsys):
    out = printed(capsys, "hub", PATH, "shipped", "--weights=trained.ckpt", "--repo=me/digits")
    assert out.endswith("\nThe values are trained ones.\n")
    trained = torch.load("trained.ckpt", weights_only=True)["state_dict"]
    assert same_bits(Ticket.from_pretrained("shipped").weights, trained)
    assert json.loads(Path("shipped/config.json").read_text())["metrics"] == run.records[2].metrics
    assert 'from_pretrained("me/digits")' in Path("shipped/README.md").read_text()
    given = json.loads(printed(capsys, "hub", PATH, "shipped", "--weights=trained.ckpt", "--json"))
    assert (given["folder"], given["url"], given["is_trained"]) == ("shipped", None, True)


def test_hub_pushes(run, capsys, monkeypatch):
    pushed = []

    def push(ticket, repo_id, card, **options):
        pushed.append((ticket.round, repo_id, dict(card.metrics), options))
        return "https://huggingface.co/me/digits/commit/0"

    monkeypatch.setattr(Ticket, "push_to_hub", push)
    out = printed(capsys, "hub", PATH, "shipped", "--repo=me/digits", "--push", "--private")
    assert out.endswith("\nhttps://huggingface.co/me/digits/commit/0\n")
    assert pushed == [(2, "me/digits", run.records[2].metrics, {"private": True})]


def test_results_are_those_of_the_same_masks(run, capsys):
    """A file that took the place of a ticket of the run has nothing to do with its results."""
    ticket_of(Net(), round=2).save(PATH)
    assert "Results of its run" not in printed(capsys, "show", PATH)
    printed(capsys, "hub", PATH, "shipped")
    assert json.loads(Path("shipped/config.json").read_text())["metrics"] == {}


def test_a_damaged_record_does_not_hide_a_ticket(run, capsys):
    Path("run/rounds.jsonl").write_text("damaged\n")
    assert "density" in printed(capsys, "show", PATH)


def test_metrics_that_are_not_numbers_are_null_in_json(run, capsys):
    lines = Path("run/rounds.jsonl").read_text()
    value = run.records[2].metrics["val_acc"]
    Path("run/rounds.jsonl").write_text(lines.replace(f'"val_acc": {value!r}', '"val_acc": NaN'))
    given = json.loads(printed(capsys, "show", PATH, "--json"), parse_constant=pytest.fail)
    assert given["results"]["round_02"]["val_acc"] is None


def test_convert_replaces_only_what_it_should(run, capsys):
    shutil.copy(V1, "old.safetensors")
    printed(capsys, "convert", "old.safetensors", "new.safetensors")
    printed(capsys, "convert", "old.safetensors", "new.safetensors")  # the same ticket again
    for target, message in [
        ("new.safetensors", "new.safetensors is another ticket. Write another path, or add --overwrite"),
        (PATH, f"{PATH} belongs to a run, which needs it"),
        ("trained.ckpt", "trained.ckpt is the source"),
    ]:
        with pytest.raises(SystemExit, match=f"TicketError: {message}"):
            main(["ticket", "convert", "trained.ckpt", target])
    printed(capsys, "convert", "trained.ckpt", "new.safetensors", "--overwrite")
    assert Ticket.load("new.safetensors").masks.keys() == run.tickets[2].masks.keys()


def test_faults_are_said_in_one_line():
    ticket_of(Net()).save("ticket.safetensors")
    ticket_of(Model()).save("other.safetensors")
    torch.save(Net().state_dict(), "dense.pt")
    Path("empty.safetensors").touch()
    Path("text.safetensors").write_text("not a ticket " * 50)
    Path("folder").mkdir()
    Path("cut.safetensors").write_bytes(Path("ticket.safetensors").read_bytes()[:-1])
    for words, message in [
        (["show", "nowhere"], "TicketError: The ticket file nowhere does not exist"),
        (["show", "folder"], "TicketError: folder is a folder, not a ticket file"),
        (["show", "empty.safetensors"], "TicketError: empty.safetensors is not a ticket file, .* it is empty"),
        (["show", "text.safetensors"], "TicketError: text.safetensors is not a ticket file, .*ticket convert"),
        (["show", "cut.safetensors"], "TicketError: cut.safetensors is not a ticket file, or it is damaged"),
        (["show", "dense.pt"], "TicketError: dense.pt is not a ticket file"),
        (["show", "s3://bucket/t"], "ConfigurationError: 's3://bucket/t' is a URL"),
        (
            ["compare", "ticket.safetensors", "other.safetensors"],
            "TicketError: The tickets have no layer in common",
        ),
        (["convert", "nowhere.pt", "new.safetensors"], "TicketError: The checkpoint nowhere.pt does not exist"),
        (["convert", "dense.pt", "new"], "TicketError: dense.pt has no masks, and none of its weights is zero"),
        (["convert", "ticket.safetensors", "dense.pt"], "TicketError: dense.pt exists already, and is not"),
        (
            ["convert", "ticket.safetensors", "folder"],
            "TicketError: folder is a folder. Write the path",
        ),
        (
            ["convert", "ticket.safetensors", "new", "--masks=dense.pt"],
            "ConfigurationError: .*write: ticket convert dense.pt new --masks ticket.safetensors",
        ),
        (["convert", "ticket.safetensors", "new", "--include=a"], "ConfigurationError: --include and --exclude"),
        (["hub", "ticket.safetensors", "ticket.safetensors"], "TicketError: ticket.safetensors is a file"),
        (["hub", "ticket.safetensors", "new", "--private"], "ConfigurationError: --private needs --push"),
        (["hub", "ticket.safetensors", "new", "--push"], "ConfigurationError: .*--push needs --repo"),
        (
            ["hub", "ticket.safetensors", "new", "--metrics=0.5"],
            "ConfigurationError: --metrics '0.5' is not .*val_acc",
        ),
        (["hub", "ticket.safetensors", "new", "--header=["], "ConfigurationError: --header .*license"),
    ]:
        with pytest.raises(SystemExit, match=f"^{message}"):
            main(["ticket", *words])
    assert not Path("new.safetensors").exists()


def test_output_that_nobody_reads_to_the_end_is_no_error():
    masks = {f"layer{number}.weight": torch.ones(2, 2, dtype=torch.bool) for number in range(3000)}
    Ticket(masks, {name: torch.ones(2, 2) for name in masks}).save("large.safetensors")
    command = f"{shlex.quote(sys.executable)} -m lightning_lottery ticket show large.safetensors | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("large.safetensors: ticket of round 0")
    assert done.stderr == ""


def test_an_interrupt_ends_without_a_traceback(monkeypatch):
    ticket_of(Net()).save("ticket.safetensors")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Ticket, "load", interrupt)
    with pytest.raises(SystemExit) as ended:
        main(["ticket", "show", "ticket.safetensors"])
    assert ended.value.code == 130


def test_terminals_without_the_characters_of_bars_get_others(monkeypatch):
    ticket_of(Net()).save("ticket.safetensors")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    main(["ticket", "show", "ticket.safetensors"])
    sys.stdout.flush()
    assert b"####" in written.getvalue()
    assert b"?" not in written.getvalue()


def test_help_can_be_followed(capsys):
    for words, parts in [
        ([], ["show", "compare", "convert", "hub"]),
        (["convert"], ["Where the weights come from", "Where the masks come from"]),
    ]:
        with pytest.raises(SystemExit):
            main(["ticket", *words, "--help"])
        out = " ".join(capsys.readouterr().out.split())
        assert all(part in out for part in parts)


def test_show_says_that_values_are_trained_ones(capsys):
    model = Model()
    ticket = ticket_of(model, provenance={"rewind": "ToInit()"})
    for name, mask in ticket.masks.items():
        model.get_parameter(name).data.add_(1).mul_(mask)
    ticket.with_weights(model).save("trained.safetensors")
    assert same_bits(Ticket.load("trained.safetensors").weights, copied(model))
    assert "The values are trained ones." in printed(capsys, "show", "trained.safetensors")
