"""Folders for model hubs. No test reaches the hub itself."""

import inspect
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_lottery import ConfigurationError, FolderError, LotteryError, ModelCard, Ticket, TicketError
from tests.helpers.fits import Net, needs, same_bits
from tests.helpers.tickets import ticket_of

CARD = ModelCard(
    metrics={"val_acc": torch.tensor(0.5), "val_loss": 1.25},
    dense_metrics={"val_acc": 0.75},
    description="Digits.",
    header={"license": "mit", "tags": ["mnist", "pruning"], "datasets": ["mnist"], "pipeline_tag": "other"},
)
FOUND = {"criterion": "Magnitude()", "rewind": "ToStep(step=5)", "seed": "3"}


def parts(content):
    """Header and text of a model card."""
    start, header, text = content.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(header), text


def test_a_folder_comes_back_as_the_ticket():
    ticket = ticket_of(Net(), 0.3, round=3, provenance=FOUND)
    ticket.save_pretrained("new/digits", CARD)
    assert sorted(path.name for path in Path("new/digits").iterdir()) == [
        "README.md",
        "config.json",
        "ticket.safetensors",
    ]
    for source in ("new/digits", Path("new/digits")):
        loaded = Ticket.from_pretrained(source)
        assert same_bits(loaded.weights, ticket.weights)
        assert same_bits(loaded.masks, ticket.masks)
        assert (loaded.round, loaded.provenance) == (3, FOUND)


def test_the_configuration_has_all_numbers():
    ticket = ticket_of(Net(), 0.3, round=3, provenance=FOUND)
    ticket.save_pretrained("digits", CARD)
    config = json.loads(Path("digits/config.json").read_text())
    assert (config["library_name"], config["version"], config["file"]) == (
        "lightning-lottery",
        2,
        "ticket.safetensors",
    )
    assert config["density"] == ticket.density
    assert config["fingerprint"] == ticket.fingerprint
    assert config["metrics"] == {"val_acc": 0.5, "val_loss": 1.25}
    assert config["provenance"] == FOUND
    mask = ticket.masks["hidden.weight"]
    assert config["layers"]["hidden.weight"] == {
        "shape": [24, 256],
        "kept": int(mask.sum()),
        "prunable": mask.numel(),
        "density": int(mask.sum()) / mask.numel(),
        "is_counted": True,
    }
    assert config["numbers"] == sum(weight.numel() for weight in ticket.weights.values())
    assert config["is_trained"] is False
    assert config["unmasked"]["norm.bias"] == [4]
    pruned = sum(int((~mask).sum()) for mask in ticket.masks.values())
    assert config["numbers_kept"] == config["numbers"] - pruned


def test_a_ticket_replaces_another_one_and_nothing_else():
    first, second = ticket_of(Net(), 0.3), ticket_of(Net(), 0.1)
    first.save_pretrained("digits")
    Path("digits/notes.txt").write_text("mine")
    second.save_pretrained("digits", ModelCard(description="Second."))
    assert Ticket.from_pretrained("digits").fingerprint == second.fingerprint
    assert "Second." in Path("digits/README.md").read_text()
    assert Path("digits/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "# My project\n\nIt uses lightning-lottery.\n"),
        ("README.md", "---\nlibrary_name: timm\n---\nlightning-lottery\n"),
        ("README.md", "---\n[\n---\n"),
        ("README.md", ""),
        ("config.json", '{"library_name": "timm"}'),
        ("config.json", "[]"),
        ("config.json", "\x00"),
        ("ticket.safetensors", "mine"),
    ],
)
def test_files_of_others_are_not_replaced(name, content):
    Path("mine").mkdir()
    Path("mine", name).write_text(content)
    with pytest.raises(TicketError, match=rf"mine/{name} exists already, but save_pretrained has not written it"):
        ticket_of(Net()).save_pretrained("mine")
    assert Path("mine", name).read_text() == content
    assert len(list(Path("mine").iterdir())) == 1


def test_a_card_that_was_edited_is_not_replaced():
    ticket = ticket_of(Net())
    ticket.save_pretrained("digits")
    path = Path("digits/README.md")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # by Git on Windows
    ticket.save_pretrained("digits")
    path.write_text(edited := path.read_text() + "My notes.\n")
    before = Path("digits/ticket.safetensors").read_bytes()
    with pytest.raises(TicketError, match=r"digits/README.md was edited since .* ModelCard\(description="):
        ticket_of(Net()).save_pretrained("digits")
    assert (path.read_text(), Path("digits/ticket.safetensors").read_bytes()) == (edited, before)


def test_a_full_disk_leaves_all_three_old_files(monkeypatch):
    ticket_of(Net(), 0.1).save_pretrained("digits")
    before = {path: path.read_bytes() for path in Path("digits").iterdir()}

    def full(*_, **__):
        raise OSError("No space left on device")

    for broken in ("lightning_lottery.tickets.file.save_file", "pathlib.Path.write_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, full)
            with pytest.raises(FolderError, match="No space left"):
                ticket_of(Net(), 0.9).save_pretrained("digits", ModelCard(description="new"))
        assert {path: path.read_bytes() for path in Path("digits").iterdir()} == before


def test_numbers_that_json_lacks_are_null():
    ticket_of(Net()).save_pretrained(
        "digits", ModelCard(metrics={"loss": float("nan"), "top": float("inf"), "acc": 0.5})
    )
    text = Path("digits/config.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"] == {"loss": None, "top": "inf", "acc": 0.5}


def test_arguments_of_another_kind_are_refused():
    for arguments in (("digits", {"val_acc": 0.5}), (ModelCard(), "digits")):
        with pytest.raises(TicketError, match=r"Pass a folder and a ModelCard\(...\), but got"):
            ticket_of(Net()).save_pretrained(*arguments)


def test_what_is_not_the_folder_of_a_ticket_is_named():
    Path("model").mkdir()
    Path("model/pytorch_model.bin").touch()
    ticket_of(Net()).save("ticket.safetensors")
    for source, message in [
        ("model", "model has no ticket.safetensors: it contains pytorch_model.bin"),
        ("ticket.safetensors", r"ticket.safetensors is a file, not a folder. Write Ticket.load\(path\)"),
    ]:
        with pytest.raises(TicketError, match=message):
            Ticket.from_pretrained(source)
    for missing in ("nowhere", "./nowhere"):
        with pytest.raises(
            FileNotFoundError, match=r"The folder nowhere does not exist. \(Names on a model hub have"
        ):
            Ticket.from_pretrained(missing)
    with pytest.raises(TicketError, match=r"ticket.safetensors is a file. Write the path of a folder"):
        ticket_of(Net()).save_pretrained("ticket.safetensors")
    with pytest.raises(ConfigurationError, match="is a URL"):
        ticket_of(Net()).save_pretrained("s3://bucket/ticket")


class FakeHub:
    """Records what would be uploaded, and checks arguments against the real signatures."""

    def __init__(self, monkeypatch, fail=None):
        self.hub, self.uploaded, self.fail, self.there = needs("huggingface_hub"), {}, fail, [".gitattributes"]
        for name in ("create_repo", "upload_folder", "list_repo_files"):
            monkeypatch.setattr(self.hub.HfApi, name, self.fake(name, getattr(self.hub.HfApi, name)))

    def fake(self, name, real):
        signature = inspect.signature(real)

        def call(api, *args, **options):
            given = signature.bind(api, *args, **options).arguments
            if self.fail is not None:
                raise self.fail
            if name == "create_repo":
                self.private, self.token = given.get("private"), api.token
                user, _, repository = given["repo_id"].rpartition("/")
                return self.hub.RepoUrl(f"https://huggingface.co/{user or 'me'}/{repository}")
            if name == "list_repo_files":
                return self.there
            self.message = given["commit_message"]
            for path in Path(given["folder_path"]).iterdir():
                self.uploaded[given["repo_id"], path.name] = path.read_bytes()
            return self.hub.CommitInfo(
                commit_url=f"https://huggingface.co/{given['repo_id']}/commit/0",
                commit_message=self.message,
                commit_description="",
                oid="0",
            )

        return call


def test_pushing_uploads_the_folder_with_the_name_of_the_repository(monkeypatch, tmp_path):
    hub = FakeHub(monkeypatch)
    ticket = ticket_of(Net(), round=3)
    url = ticket.push_to_hub("me/digits", CARD, private=True, token="secret")
    assert url == "https://huggingface.co/me/digits/commit/0"
    assert (hub.private, hub.token, hub.message) == (True, "secret", "Add the ticket")
    assert {name for _, name in hub.uploaded} == {"ticket.safetensors", "config.json", "README.md"}
    assert 'Ticket.from_pretrained("me/digits")' in hub.uploaded["me/digits", "README.md"].decode()
    (tmp_path / "t").write_bytes(hub.uploaded["me/digits", "ticket.safetensors"])
    assert Ticket.load(tmp_path / "t").fingerprint == ticket.fingerprint


def test_a_repository_without_a_user_gets_the_name_that_the_hub_gives(monkeypatch):
    hub = FakeHub(monkeypatch)
    ticket_of(Net()).push_to_hub("digits")
    assert 'Ticket.from_pretrained("me/digits")' in hub.uploaded["me/digits", "README.md"].decode()
    assert hub.private is None


def test_a_repository_with_something_else_is_not_overwritten(monkeypatch):
    hub = FakeHub(monkeypatch)
    hub.there = [".gitattributes", "README.md", "model.safetensors"]
    with pytest.raises(LotteryError, match=r"'me/digits' cannot be uploaded: it has a README.md or config.json"):
        ticket_of(Net()).push_to_hub("me/digits")
    assert hub.uploaded == {}
    hub.there += ["ticket.safetensors"]
    ticket_of(Net()).push_to_hub("me/digits")
    assert len(hub.uploaded) == 3


def test_a_repository_is_downloaded_if_there_is_no_such_folder(monkeypatch):
    hub = needs("huggingface_hub")
    ticket = ticket_of(Net())
    ticket.save("downloaded.safetensors")
    real = inspect.signature(hub.hf_hub_download)

    def download(*args, **options):
        given = real.bind(*args, **options).arguments
        assert (given["repo_id"], given["filename"], given["revision"], given["token"]) == (
            *("me/digits", "ticket.safetensors", "v2", "secret"),
        )
        return "downloaded.safetensors"

    monkeypatch.setattr(hub, "hf_hub_download", download)
    loaded = Ticket.from_pretrained("me/digits", revision="v2", token="secret")
    assert loaded.fingerprint == ticket.fingerprint


def test_the_hub_that_refuses_or_is_offline_is_named(monkeypatch):
    hub = needs("huggingface_hub")
    FakeHub(monkeypatch, fail=ConnectionError("no route\nto the host"))
    with pytest.raises(LotteryError, match=r"'me/digits' cannot be uploaded: no route$"):
        ticket_of(Net()).push_to_hub("me/digits")

    def offline(*_, **__):
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(
        TicketError, match=r"folder 'me/digits' does not exist, and ticket.safetensors of a repository"
    ):
        Ticket.from_pretrained("me/digits")


def test_the_extra_is_named_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("lightning_lottery.tickets.hub.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"To upload a ticket, write pip install .*\[hub\]"):
        ticket_of(Net()).push_to_hub("me/digits")
    with pytest.raises(ConfigurationError, match=r"folder 'me/digits' does not exist. To look for it .*\[hub\]"):
        Ticket.from_pretrained("me/digits")
    ticket_of(Net()).save_pretrained("digits")
    assert Ticket.from_pretrained("digits").density > 0
