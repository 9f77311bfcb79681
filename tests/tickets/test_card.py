"""Model cards."""

from pathlib import Path

import pytest
import torch
import yaml

from lightning_lottery import ModelCard, Ticket, TicketError
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
        "**Not trained: the values are those that the training of round 3 starts from.**",
        "| metric | after training it | dense network |",
        "| `val_acc` | 0.5 | 0.75 |\n| `val_loss` | 1.25 |  |",
        "| `rewind` | `ToStep(step=5)` |",
        "| `norm.num_batches_tracked` | scalar | all | no mask |",
        "| `criterion` | `Magnitude()` |",
        f"| `hidden.weight` | 24 x 256 | {kept[list(ticket.masks).index('hidden.weight')]:,} |",
    ):
        assert part in text


def test_the_header_is_valid_for_the_hub():
    """As the library of the hub reads it, which refuses an incomplete model-index."""
    hub = needs("huggingface_hub")
    odd = ModelCard(**{**vars(CARD), "metrics": {**CARD.metrics, "nan": float("nan"), "größe": float("inf")}})
    ticket_of(Net(), provenance={**FOUND, "weights": "trained"}).save_pretrained("digits", odd)
    (result, other) = hub.ModelCard.load("digits/README.md").data.eval_results
    assert (result.metric_name, result.metric_value, result.task_type) == ("val_acc", 0.5, "other")
    assert (result.dataset_type, other.metric_name) == ("mnist", "val_loss")
    ticket_of(Net()).save_pretrained("plain", ModelCard(metrics={"val_acc": 0.5}))
    assert "model-index" not in parts(Path("plain/README.md").read_text())[0]
    several = ModelCard(metrics={"val_acc": 0.5}, header={"datasets": ["a", "b"], "pipeline_tag": "other"})
    ticket_of(Net()).save_pretrained("several", several)
    assert "model-index" not in parts(Path("several/README.md").read_text())[0]
    ticket_of(Net(), provenance=FOUND).save_pretrained("untrained", CARD)
    assert "model-index" not in parts(Path("untrained/README.md").read_text())[0], "these values do not reach them"
    assert "größe" in Path("digits/README.md").read_text()


def test_the_code_of_the_model_card_runs():
    module = Net()
    ticket = ticket_of(module)
    ticket.save_pretrained("digits")
    code = Path("digits/README.md").read_text().split("```python\n")[1].split("```")[0]
    other = Net()
    exec(code, {"model": other})
    assert same_bits(copied(other), ticket.weights)


@pytest.mark.parametrize(
    ("fields", "said", "title"),
    [
        (
            {"round": 2, "provenance": FOUND},
            "found with lightning-lottery by iterative pruning",
            "Lottery ticket with",
        ),
        ({"provenance": FOUND}, "The network before any pruning", "Lottery ticket"),
        (
            {"provenance": FOUND, "branch": "shuffle_mask"},
            "one thing deliberately wrong",
            "Control `shuffle_mask` of",
        ),
        ({"provenance": {**FOUND, "weights": "trained"}}, "**The values are trained ones.**", ""),
        ({"provenance": {**FOUND, "transfer": "model"}}, "carried over from another network", ""),
        (
            {"provenance": {"source": "from_model"}},
            "those of the network or file that the ticket was made from",
            "",
        ),
    ],
)
def test_the_card_says_what_the_ticket_is(fields, said, title):
    ticket_of(Net(), **fields).save_pretrained("digits")
    text = Path("digits/README.md").read_text()
    assert said in text
    assert f"\n# {title}" in text


def test_layers_that_only_follow_are_marked():
    masks = {"w": torch.ones(2, 2, dtype=torch.bool), "b": torch.ones(2, dtype=torch.bool)}
    Ticket(masks, {"w": torch.ones(2, 2), "b": torch.ones(2)}, following=["b"]).save_pretrained("follows")
    assert "| `b` (follows, not counted in the density) | 2 | 2 | 100 % |" in Path("follows/README.md").read_text()


def test_texts_from_files_are_shown_as_they_are():
    ticket = ticket_of(Net(), provenance={"a|b": "`<b>`\n# title \x1b[31m"}, branch="x`y")
    ticket.save_pretrained("odd 😀", ModelCard(metrics={"a|b\n": 0.5}))
    assert 'from_pretrained("odd 😀")' in Path("odd 😀/README.md").read_text()
    assert "| `a\\|b\N{REPLACEMENT CHARACTER}` | 0.5 |  |" in Path("odd 😀/README.md").read_text()
    Path("odd 😀").rename("odd")
    text = parts(Path("odd/README.md").read_text())[1]
    assert "| `a\\|b` | `'<b>'\N{REPLACEMENT CHARACTER}# title \N{REPLACEMENT CHARACTER}[31m` |" in text
    assert "# Control `x'y` of a lottery ticket" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": {"val_acc": "high"}}, "metrics has 'val_acc': 'high', but must have numbers"),
        ({"dense_metrics": {"val_acc": True}}, "dense_metrics has 'val_acc': True"),
        ({"metrics": 0.5}, r"metrics=0.5 must be a dictionary of numbers, such as \{'val_acc'"),
        ({"header": ["mit"]}, r"header=\['mit'\] must be a dictionary"),
        ({"header": {"license": object}}, "must have plain values only"),
        ({"header": {"library_name": "timm"}}, "library_name='timm', but only lightning-lottery loads"),
        ({"header": {"tags": [3]}}, r"tags=\[3\], which must be a list of strings"),
        ({"metrics": {"val_acc": 10**400}}, "must have numbers"),
        ({"description": 5}, "description=5 must be a string"),
    ],
)
def test_a_card_that_cannot_be_written_is_refused(options, message):
    with pytest.raises(TicketError, match=message):
        ModelCard(**options)
