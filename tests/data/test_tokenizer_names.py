"""Values of `data.tokenizer` that are no file of the tokenizers library, each answered with a way to one."""

import base64
import re
import shlex
import subprocess
import sys

import pytest
from tokenizers import ByteLevelBPETokenizer

from harness.core.errors import UserError
from harness.data.codecs.tokenizer_file import SHIPPED_TOKENIZER, load_tokenizer

NAMES = {
    "gpt2": "openai-community/gpt2",
    "GPT-2": "openai-community/gpt2",
    "cl100k_base": "Xenova/gpt-4",
    "o200k": "Xenova/gpt-4o",
    "llama3": "meta-llama/Meta-Llama-3-8B",
    "Qwen/Qwen3-8B": "Qwen/Qwen3-8B",
    "hf://allenai/OLMo-2-1124-7B": "allenai/OLMo-2-1124-7B",
}


def refusal(name) -> str:
    with pytest.raises(UserError) as caught:
        load_tokenizer(str(name))
    return str(caught.value)


@pytest.mark.parametrize(("name", "repository"), NAMES.items(), ids=NAMES)
def test_a_name_is_answered_with_the_command_that_gets_its_file(name, repository):
    said = refusal(name)
    folder = repository.rpartition("/")[2]
    assert f"`hf download {repository} tokenizer.json --local-dir {folder}`" in said
    assert said.endswith(f"then data.tokenizer={folder}/tokenizer.json.")
    assert ("hf auth login" in said) == repository.startswith("meta-llama/")


def test_the_command_is_one_of_the_hub():
    (command,) = re.findall(r"`(hf download .*?)`", refusal("gpt2"))
    cli = pytest.importorskip("huggingface_hub.cli.hf")
    main = [sys.executable, "-c", f"import sys; from {cli.__name__} import main; sys.exit(main())"]
    # With its help asked for, the options are read, and nothing is fetched.
    done = subprocess.run([*main, *shlex.split(command)[1:], "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert {"--local-dir", "REPO_ID", "FILENAMES"} <= {*re.findall(r"--[\w-]+|[A-Z_]{6,}", done.stdout)}


@pytest.mark.parametrize(
    ("name", "said"),
    {
        "bpe521": "did you mean 'bpe512'?",
        "quen3": "did you mean 'qwen3'?",
        "no/such/tokenizer.json": "valid: bpe512, byte, none, or the path of a tokenizer.json",
        "folder/tokenizer.json": "is not a file: valid",
    }.items(),
)
def test_other_words_are_answered_with_what_there_is(name, said):
    assert said in refusal(name)


def test_a_folder_with_the_file_is_taken(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(SHIPPED_TOKENIZER.read_bytes())
    assert load_tokenizer(str(tmp_path)).fingerprint == load_tokenizer("bpe512").fingerprint
    (tmp_path / "tokenizer.json").unlink()
    assert "is a folder without a tokenizer.json" in refusal(tmp_path)


def test_two_files_are_joined_by_the_command(tmp_path):
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(["the cat and the hat"] * 9, vocab_size=270, special_tokens=["<|endoftext|>"])
    trained.save_model(str(tmp_path))
    said = refusal(tmp_path)
    assert said.partition(" is a ")[2] == refusal(tmp_path / "vocab.json").partition(" is a ")[2]
    (command,) = re.findall(r"`python (.*?)`", said)
    subprocess.run([sys.executable, *shlex.split(command)], check=True)
    codec = load_tokenizer(str(tmp_path))
    assert codec.encode(["the hat"])[0].tolist() == trained.encode("the hat").ids
    assert codec.byte_lengths_V[codec.end_token] == 0


def test_a_vocabulary_of_tiktoken_and_a_model_of_sentencepiece_are_told_apart(tmp_path):
    file = tmp_path / "tokenizer.model"
    file.write_bytes(b"".join(base64.b64encode(bytes([i])) + b" %d\n" % i for i in range(256)))
    assert "is a vocabulary of tiktoken" in refusal(file)
    assert "has no tokenizer.json: tokenizer.model is a vocabulary of tiktoken" in refusal(tmp_path)
    file.write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x0c\n\x03<s>")
    assert "is a SentencePiece model: convert it" in refusal(file)
