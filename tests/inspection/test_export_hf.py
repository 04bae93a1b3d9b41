"""What is exported says what we say: read back by plain numpy, and by transformers where it is installed."""

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, processors

from harness.cli import main
from harness.core.errors import UserError
from harness.data.codecs.tokenizer_file import SHIPPED_TOKENIZER, load_tokenizer
from harness.inspection.export_hf import export
from harness.inspection.load_run import load_run
from harness.records.run.checkpoint_manifest import Manifest
from harness.records.run.find_checkpoint import find_checkpoint
from harness.records.run.provenance import read_provenance
from harness.training.step import TrainState
from tests.inspection.saved import save
from tests.training.runs import lane, prepare

SHAPE = ("model.width=24", "model.layers=2", "model.heads=2", "model.head_width=16", "model.ffn=40")
WINDOWS = "model.attention.options.cycle=[{name: window, options: {window: 8}}, {name: mha}]"
MODELS = {
    "llama": ("model.qk_norm=false", "model.rope_base=500"),
    "qwen3": ("model.tie_embeddings=false", "data.tokenizer=bpe512", "model.norm_epsilon=1e-5"),
    "gqa": ("variant=gqa",),
    "windows": ("variant=hybrid", WINDOWS, "compute.scan_layers=true"),
    "short": ("variant=short", "+model.attention.options.kv_heads=1"),
    "wide": ("model.base_width=6",),
}


def saved(folder, *overrides):
    """A run whose one checkpoint holds weights and gains of a trained model's kind: none at its start."""
    run = prepare(folder, *SHAPE, *overrides)
    state, rng = lane(run).init_state(), np.random.default_rng(0)
    params: Any = {
        path: np.float32(np.asarray(value) + rng.normal(size=value.shape) * 0.1)
        for path, value in state.params.items()
    }
    provenance = read_provenance(run)
    save(run, Manifest(0, provenance.identity, "", "", 0.0, {}), TrainState(params, state.optimizer))
    return run


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    """(folder, tokens [N, T+1], our logits [N, T, V])"""
    folder = tmp_path_factory.mktemp(request.param)
    run = saved(folder, *MODELS[request.param])
    subject = load_run(find_checkpoint(run.path))
    shape = (3, subject.config.data.sequence_length + 1)
    tokens = np.random.default_rng(1).integers(0, subject.model.shape.vocabulary, shape, np.int32)
    return export(run.path, "hf", folder / "out"), tokens, subject.predict_fn(0, 3)(tokens).logits_NTV


def norm(x, gain, epsilon):
    return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + epsilon) * gain


def turned(x_HTK, base):
    T, K = x_HTK.shape[1:]
    angle_TK = np.tile(np.arange(T)[:, None] / base ** (np.arange(0, K, 2) / K), 2)
    rotated_HTK = np.concatenate([-x_HTK[..., K // 2 :], x_HTK[..., : K // 2]], axis=-1)
    return x_HTK * np.cos(angle_TK) + rotated_HTK * np.sin(angle_TK)


def plain_llama(folder, tokens_T):
    """Logits [T, V] of a folder in float64, as the papers of Llama and Qwen3 have it."""
    config = json.loads((folder / "config.json").read_text())
    w = {name: tensor.astype(np.float64) for name, tensor in load_file(folder / "model.safetensors").items()}
    K, epsilon, T = config["head_dim"], config["rms_norm_eps"], len(tokens_T)
    distance_TS = np.arange(T)[:, None] - np.arange(T)
    x_TD = w["model.embed_tokens.weight"][tokens_T]
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        h_TD = norm(x_TD, w[p + "input_layernorm.weight"], epsilon)
        q, k, v = (
            (h_TD @ w[f"{p}self_attn.{n}_proj.weight"].T).reshape(T, -1, K).swapaxes(0, 1) for n in "qkv"
        )
        if config["model_type"] == "qwen3":
            q = norm(q, w[p + "self_attn.q_norm.weight"], epsilon)
            k = norm(k, w[p + "self_attn.k_norm.weight"], epsilon)
        q, k = (turned(each, config["rope_theta"]) for each in (q, k))
        k, v = (np.repeat(each, len(q) // len(k), axis=0) for each in (k, v))
        slides = config.get("layer_types", ["full"] * 9)[i] == "sliding_attention"
        seen_TS = (distance_TS >= 0) & (distance_TS < (config["sliding_window"] if slides else T))
        weight = np.where(seen_TS, np.exp(q @ k.swapaxes(1, 2) / np.sqrt(K)), 0.0)
        mixed = (weight / weight.sum(axis=-1, keepdims=True)) @ v
        x_TD = x_TD + mixed.swapaxes(0, 1).reshape(T, -1) @ w[p + "self_attn.o_proj.weight"].T
        h_TD = norm(x_TD, w[p + "post_attention_layernorm.weight"], epsilon)
        gate, up = (h_TD @ w[f"{p}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x_TD = x_TD + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    assert config["tie_word_embeddings"] == ("lm_head.weight" not in w)
    head_VD = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x_TD, w["model.norm.weight"], epsilon) @ head_VD.T


def test_read_back_by_numpy_it_says_the_same(exported):
    folder, tokens_NT1, logits_NTV = exported
    found = [plain_llama(folder, tokens_T1[:-1]) for tokens_T1 in tokens_NT1]
    np.testing.assert_allclose(np.stack(found), logits_NTV, atol=1e-4)


def test_in_transformers_it_says_the_same(exported):
    transformers = pytest.importorskip("transformers", reason="needs the extra `hf`")
    torch = pytest.importorskip("torch", reason="needs the extra `hf`")
    folder, tokens_NT1, logits_NTV = exported
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.float32
    with torch.no_grad():
        found_NTV = model(torch.tensor(tokens_NT1[:, :-1], dtype=torch.long)).logits
    np.testing.assert_allclose(found_NTV.numpy(), logits_NTV, atol=1e-4)


def test_the_tokenizer_goes_along(exported):
    folder, _, _ = exported
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    if vocabulary == 257:
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
        return
    assert encoded(folder, PROBE) == load_tokenizer("bpe512").encode([PROBE])[0].tolist()


PROBE = "A probe: 12 times, of more than four tokens.\n caf\u00e9"


def encoded(folder, text: str) -> list[int]:
    """As somebody else encodes it: with whatever special tokens the file adds."""
    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


@pytest.fixture(scope="module")
def with_special_tokens(tmp_path_factory):
    """An exported run whose tokenizer file adds tokens around a text, cuts it and pads it; and that file."""
    folder = tmp_path_factory.mktemp("special")
    tokenizer = Tokenizer.from_file(str(SHIPPED_TOKENIZER))
    end = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(folder / "mine.json"))
    run = saved(folder, *MODELS["llama"], f"data.tokenizer={folder / 'mine.json'}")
    return export(run.path, "hf", folder / "out"), folder / "mine.json", run


def test_a_tokenizer_that_adds_tokens_is_exported_as_it_was_used(with_special_tokens):
    folder, file, _ = with_special_tokens
    ours = load_tokenizer(str(file)).encode([PROBE])[0].tolist()
    assert len(Tokenizer.from_file(str(file)).encode(PROBE).ids) == 64, "the file itself does otherwise"
    assert encoded(folder, PROBE) == ours
    description = json.loads((folder / "tokenizer_config.json").read_text())
    assert (description["add_bos_token"], description["split_special_tokens"]) == (False, True)


@pytest.mark.parametrize("text", [PROBE, "a<|endoftext|>b", ""])
def test_in_transformers_a_text_has_the_tokens_of_training(with_special_tokens, text):
    transformers = pytest.importorskip("transformers", reason="needs the extra `hf`")
    folder, file, _ = with_special_tokens
    tokenizer, codec = transformers.AutoTokenizer.from_pretrained(folder), load_tokenizer(str(file))
    assert tokenizer.encode(text) == codec.encode([text])[0].tolist()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token_id == codec.end_token


def test_a_tokenizer_that_has_changed_since_is_refused(with_special_tokens, tmp_path):
    _, file, run = with_special_tokens
    content = file.read_text()
    file.write_text(content + "\n")
    try:
        with pytest.raises(UserError, match=r"mine.json has changed since .* was trained. Restore the file"):
            export(run.path, "hf", tmp_path / "other")
    finally:
        file.write_text(content)


def test_the_verb_writes_a_new_folder_and_no_other(tmp_path, capsys):
    run, out = saved(tmp_path), tmp_path / "made" / "here"
    assert main(["export", f"{run.path}@0", "--to", "hf", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert main(["export", str(run.path), "--to", "hf", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("variant=hybrid", WINDOWS, "model.qk_norm=false"),
            r"Llama has no windows\. Train with model\.qk_",
        ),
        (("data.mask_documents=true",), r"data\.mask_documents=true does not exist"),
        (("variant=softcap",), r"model\.attention\.options\.softcap does not exist"),
        (
            ("variant=gated",),
            r"model\.attention\.name=gated does not exist .* attention mha, gqa, window",
        ),
        (
            ("variant=delta_hybrid",),
            r"model\.attention\.options\.cycle\[0\]\.name=gated_delta does not exist",
        ),
        (
            (
                "variant=hybrid",
                "model.attention.options.cycle=[{name: mha}, {name: gqa, options: {kv_heads: 1}}]",
            ),
            r"several kv_heads \(\[1, 2\]\) does not exist",
        ),
        (
            ("variant=hybrid", WINDOWS.replace("name: mha", "name: window, options: {window: 4}")),
            r"several windows \(\[4, 8\]\) does not exist",
        ),
        (("variant=parallel",), r"model\.block\.name=parallel does not exist .* plain decoders"),
        (("model.logit_softcap=30",), r"model\.logit_softcap=30\.0 does not exist"),
        (("model.qk_norm=false", "model.heads=5"), r"model\.width=24 is not a multiple of model\.heads=5"),
    ],
)
def test_what_has_no_layout_is_refused(tmp_path, overrides, said):
    run = saved(tmp_path, *overrides)
    with pytest.raises(UserError, match=said):
        export(run.path, "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_feed_forward_is_refused(tmp_path, monkeypatch):
    run = saved(tmp_path)
    subject = load_run(find_checkpoint(run.path))
    subject.config.model.feedforward.name = "other"
    monkeypatch.setattr("harness.inspection.export_hf.load_run", lambda checkpoint: subject)
    with pytest.raises(UserError, match=r"model\.feedforward\.name=other does not exist"):
        export(run.path, "hf", tmp_path / "out")


@pytest.mark.parametrize(
    "arguments", [["a"], ["a", "--to", "hf"], ["a", "--to", "hff", "out"], ["nowhere/a", "--to", "hf", "out"]]
)
def test_mistakes_are_one_sentence(arguments, capsys):
    assert main(["export", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
