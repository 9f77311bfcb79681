"""Folders for model hubs. No test reaches the hub itself."""

import inspect
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lightning_lottery import ConfigurationError, LotteryError, ModelCard, Ticket, TicketError
from tests.helpers.fits import Net, copied, needs, same_bits
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


def test_the_model_card_has_what_hubs_and_people_need():
    ticket = ticket_of(Net(), 0.3, round=3, provenance=FOUND)
    ticket.save_pretrained("digits", CARD)
    header, text = parts(Path("digits/README.md").read_text())
    assert header["library_name"] == "lightning-lottery"
    assert header["tags"] == ["lottery-ticket", "pruning", "sparsity", "pytorch", "lightning", "mnist"]
    assert header["density"] == round(ticket.density, 6)
    assert header["metrics"] == ["val_acc", "val_loss"]
    assert header["license"] == "mit"
    kept = [int(mask.sum()) for mask in ticket.masks.values()]
    for part in (
        f"# Lottery ticket with {100 * ticket.density:.3g} % of the weights",
        "\nDigits.\n",
        f"{sum(kept):,} of {sum(mask.numel() for mask in ticket.masks.values()):,} prunable weights survive",
        "those that its training starts from (round 3, rewound by `ToStep(step=5)`), not trained ones",
        "| val_acc | 0.5 | 0.75 |\n| val_loss | 1.25 |  |",
        "| `criterion` | `Magnitude()` |",
        f"| `hidden.weight` | 24 x 256 | {kept[list(ticket.masks).index('hidden.weight')]:,} |",
    ):
        assert part in text


def test_the_header_is_valid_for_the_hub():
    """As the library of the hub reads it, which refuses an incomplete model-index."""
    hub = needs("huggingface_hub")
    ticket_of(Net()).save_pretrained("digits", CARD)
    (result, other) = hub.ModelCard.load("digits/README.md").data.eval_results
    assert (result.metric_name, result.metric_value, result.task_type) == ("val_acc", 0.5, "other")
    assert (result.dataset_type, other.metric_name) == ("mnist", "val_loss")
    ticket_of(Net()).save_pretrained("plain", ModelCard(metrics={"val_acc": 0.5}))
    assert "model-index" not in parts(Path("plain/README.md").read_text())[0]


def test_the_code_of_the_model_card_runs():
    module = Net()
    ticket = ticket_of(module)
    ticket.save_pretrained("digits")
    code = Path("digits/README.md").read_text().split("```python\n")[1].split("```")[0]
    other = Net()
    exec(code, {"model": other})
    assert same_bits(copied(other), ticket.weights)


def test_the_card_says_what_the_values_are():
    trained = ticket_of(Net(), provenance={**FOUND, "weights": "with_weights"})
    trained.save_pretrained("trained")
    assert "those of a network that was given to `Ticket.with_weights`" in Path("trained/README.md").read_text()
    Ticket.from_model(pruned()).save_pretrained("foreign")
    text = Path("foreign/README.md").read_text()
    assert "those of the network that it was made from" in text
    assert "found by iterative pruning" not in text


def pruned():
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight[0, :2] = 0
    return nn.Sequential(layer)


def test_texts_from_files_are_shown_as_they_are():
    ticket = ticket_of(Net(), provenance={"a|b": "`<b>`\n# title \x1b[31m"}, branch="x`y")
    ticket.save_pretrained("odd")
    text = parts(Path("odd/README.md").read_text())[1]
    assert "| `a\\|b` | `'<b>'\N{REPLACEMENT CHARACTER}# title \N{REPLACEMENT CHARACTER}[31m` |" in text
    assert "# Control `x'y` of a lottery ticket" in text


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
        "counts": True,
    }
    assert config["values"] == sum(weight.numel() for weight in ticket.weights.values())
    pruned = sum(int((~mask).sum()) for mask in ticket.masks.values())
    assert config["values_kept"] == config["values"] - pruned


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
    ],
)
def test_files_of_others_are_not_replaced(name, content):
    Path("mine").mkdir()
    Path("mine", name).write_text(content)
    with pytest.raises(TicketError, match=rf"mine/{name} is there already, and does not belong to a ticket"):
        ticket_of(Net()).save_pretrained("mine")
    assert Path("mine", name).read_text() == content
    assert len(list(Path("mine").iterdir())) == 1


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
    with pytest.raises(FileNotFoundError, match="There is no folder nowhere"):
        Ticket.from_pretrained("nowhere")
    with pytest.raises(TicketError, match=r"ticket.safetensors is a file. Write the path of a folder"):
        ticket_of(Net()).save_pretrained("ticket.safetensors")
    with pytest.raises(ConfigurationError, match="is a URL"):
        ticket_of(Net()).save_pretrained("s3://bucket/ticket")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": {"val_acc": "high"}}, "metrics has 'val_acc': 'high', but must have numbers"),
        ({"dense_metrics": {"val_acc": True}}, "dense_metrics has 'val_acc': True"),
        ({"metrics": 0.5}, r"metrics=0.5 must be a dictionary of numbers, such as \{'val_acc'"),
        ({"header": ["mit"]}, r"header=\['mit'\] must be a dictionary"),
        ({"header": {"license": object}}, "must have plain values only"),
    ],
)
def test_a_card_that_cannot_be_written_is_refused(options, message):
    with pytest.raises(TicketError, match=message):
        ModelCard(**options)


class FakeHub:
    """Records what would be uploaded, and checks arguments against the real signatures."""

    def __init__(self, monkeypatch, fail=None):
        self.hub, self.uploaded, self.fail = needs("huggingface_hub"), {}, fail
        for name in ("create_repo", "upload_folder"):
            monkeypatch.setattr(self.hub.HfApi, name, self.fake(name, getattr(self.hub.HfApi, name)))

    def fake(self, name, real):
        signature = inspect.signature(real)

        def call(api, *args, **options):
            given = signature.bind(api, *args, **options).arguments
            if self.fail is not None:
                raise self.fail
            if name == "create_repo":
                self.private, self.token = given["private"], api.token
                return self.hub.RepoUrl(f"https://huggingface.co/{given['repo_id']}")
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
    card = hub.uploaded["me/digits", "README.md"].decode()
    assert 'Ticket.from_pretrained("me/digits")' in card
    assert parts(card)[0]["model-index"][0]["name"] == "me/digits"
    (tmp_path / "t").write_bytes(hub.uploaded["me/digits", "ticket.safetensors"])
    assert Ticket.load(tmp_path / "t").fingerprint == ticket.fingerprint


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
    with pytest.raises(LotteryError, match=r"'me/digits' cannot be uploaded: ConnectionError: no route$"):
        ticket_of(Net()).push_to_hub("me/digits")

    def offline(*_, **__):
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(TicketError, match=r"no folder 'me/digits', and the model hub gave no ticket.safetensors"):
        Ticket.from_pretrained("me/digits")


def test_the_extra_is_named_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("lightning_lottery.tickets.hub.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"To upload a ticket, write pip install .*\[hub\]"):
        ticket_of(Net()).push_to_hub("me/digits")
    with pytest.raises(ConfigurationError, match=r"no folder 'me/digits'. To look for it .*\[hub\]"):
        Ticket.from_pretrained("me/digits")
    ticket_of(Net()).save_pretrained("digits")
    assert Ticket.from_pretrained("digits").density > 0
