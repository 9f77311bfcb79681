"""What is pruned in other libraries' networks, compared with lists made by hand."""

import pytest
import torch
import torchvision
from torch import nn

from lightning_lottery.pruning.kinds import Kind, kinds_of, norms_of
from lightning_lottery.pruning.prunable import select
from tests.helpers.fits import needs

# The last part of the names of everything except biases and normalisation.
VISION = {
    "vit_b_16": ({"in_proj_weight", "weight"}, {"class_token", "pos_embedding"}),
    "swin_t": ({"weight"}, {"relative_position_bias_table"}),
    "swin_v2_t": ({"weight"}, {"logit_scale"}),
    "convnext_tiny": ({"weight"}, {"layer_scale"}),
    "mobilenet_v3_small": ({"weight"}, set()),
    "maxvit_t": ({"weight"}, {"relative_position_bias_table"}),
}
TIMM = {
    "vit_tiny_patch16_224": {"cls_token", "pos_embed"},
    "swin_tiny_patch4_window7_224": {"relative_position_bias_table"},
    "nfnet_f0": {"gain"},
    "xcit_nano_12_p16_224": {"cls_token", "temperature"},
    "levit_128s": {"attention_biases"},
}


def matrices(module):
    return {name for name, kind in kinds_of(module).items() if kind is Kind.MATRIX}


def layers_with_weights(module):
    """The weights of linear and convolution layers, found by their classes."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, kinds)}


@pytest.mark.parametrize("name", VISION)
def test_networks_of_torchvision(name):
    with torch.device("meta"):
        module = torchvision.models.get_model(name)
    pruned, left = VISION[name]
    found = matrices(module)
    assert {path.split(".")[-1] for path in found} == pruned
    assert layers_with_weights(module) <= found
    others = {path.split(".")[-1] for path, p in module.named_parameters() if path not in found and p.dim() > 1}
    assert others == left


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name):
    module = needs("timm").create_model(name)
    found = matrices(module)
    assert found == layers_with_weights(module)
    others = {path.split(".")[-1] for path, p in module.named_parameters() if path not in found and p.dim() > 1}
    assert others == TIMM[name]


def small(kind):
    transformers = needs("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "bert":
        config = transformers.BertConfig(vocab_size=90, **sizes)
        return transformers.BertForSequenceClassification(config)
    if kind == "llama":
        config = transformers.LlamaConfig(vocab_size=90, num_key_value_heads=2, bos_token_id=1, **sizes)
        return transformers.LlamaForCausalLM(config)
    if kind == "t5":
        config = transformers.T5Config(vocab_size=90, d_model=32, num_layers=2, num_heads=2, d_ff=64, d_kv=16)
        return transformers.T5ForConditionalGeneration(config)
    ids = {"bos_token_id": 1, "eos_token_id": 1}
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=90, n_positions=32, **ids)
    return transformers.GPT2ForSequenceClassification(config)


@pytest.mark.parametrize("kind", ["bert", "llama", "t5"])
def test_networks_of_transformers(kind):
    module = small(kind)
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    tied = {name for name, p in module.named_parameters() if id(p) in embeddings}
    assert matrices(module) == layers_with_weights(module) - tied - {"lm_head.weight"} | (
        {"lm_head.weight"} if kind == "llama" else set()
    )


def test_gpt2_with_its_own_class_of_matrices():
    module = small("gpt2")
    blocks = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    expected = {f"transformer.h.{number}.{block}.weight" for number in range(2) for block in blocks}
    assert matrices(module) == expected | {"score.weight"}


def test_lora_prunes_only_its_adapters_and_the_new_head():
    peft = needs("peft")
    options = {"task_type": "SEQ_CLS", "target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}
    module = peft.get_peft_model(small("gpt2"), peft.LoraConfig(r=4, **options))
    adapters = {
        f"base_model.model.transformer.h.{number}.attn.c_attn.lora_{which}.default.weight"
        for number in range(2)
        for which in "AB"
    }
    expected = adapters | {"base_model.model.score.modules_to_save.default.weight"}
    assert set(select(module, exclude=["frozen"]).parameters) == expected
    everything = select(module)
    assert expected < set(everything.parameters)
    assert "base_model.model.score.original_module.weight" in everything.parameters, "the unused copy of the head"
    assert "exclude=['frozen'] leaves them alone" in everything.line()


def test_layers_of_pytorch_geometric():
    layers = needs("torch_geometric.nn")
    assert matrices(layers.dense.Linear(8, 1)) == {"weight"}
    assert matrices(layers.GCNConv(8, 4)) == {"lin.weight"}
    assert matrices(layers.RGCNConv(8, 4, 3)) == {"weight", "root"}
    assert matrices(layers.GATConv(8, 4, heads=2)) == {"lin.weight"}


class Own(nn.Module):
    """A network as users write it."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.rand(8, 4))
        self.mixing = nn.ParameterList([torch.rand(4, 4)])
        self.experts = nn.Parameter(torch.rand(3, 4, 4))
        self.A_log, self.layerScale = nn.Parameter(torch.rand(4, 4)), nn.Parameter(torch.rand(4, 1, 1))
        self.features = nn.Parameter(torch.rand(1, 9, 4))
        self.column = nn.Parameter(torch.rand(4, 1))


class PatchEmbedding(nn.Conv2d):
    """A layer, whatever its name says."""


class AxialPositionEmbeddings(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([torch.rand(8, 1, 4), torch.rand(1, 8, 4)])


class Tables(nn.Module):
    """Parameters that users add, look up or scale by, without telling classes."""

    def __init__(self):
        super().__init__()
        for name in (
            "pe",
            "wpe",
            "wte",
            "shift",
            "running_std",
            "rel_height",
            "codebook",
            "queries",
            "soft_prompt",
        ):
            self.register_parameter(name, nn.Parameter(torch.rand(8, 4)))


def test_tables_and_layers_are_recognised_by_their_names():
    assert set(kinds_of(Tables()).values()) == {Kind.TABLE}
    assert matrices(PatchEmbedding(1, 4, 3)) == {"weight"}
    rows = nn.Module()
    rows.position_embeddings = AxialPositionEmbeddings()
    assert not matrices(rows)


def test_matrices_of_any_class():
    kinds = kinds_of(Own())
    assert {name for name, kind in kinds.items() if kind is Kind.MATRIX} == {"W", "mixing.0", "experts"}
    assert {name for name, kind in kinds.items() if kind is Kind.UNCLEAR} == {"features", "column"}
    assert (kinds["A_log"], kinds["layerScale"]) == (Kind.TABLE, Kind.VECTOR)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_dimensions_of_separate_norms():
    cases = [
        (nn.utils.weight_norm(nn.Linear(4, 3)), "weight_v", (0,)),
        (nn.utils.weight_norm(nn.Linear(4, 3), dim=None), "weight_v", ()),
        (nn.utils.spectral_norm(nn.Linear(4, 3)), "weight_orig", ()),
        (nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 3, 2), dim=2), "original1", (2,)),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), "original", ()),
        (nn.Linear(4, 3), "", None),
    ]
    for module, name, dims in cases:
        parameters = {id(p): path.split(".")[-1] for path, p in module.named_parameters()}
        found = {parameters[key]: value for key, value in norms_of(module).items()}
        assert found == ({} if dims is None else {name: dims})
