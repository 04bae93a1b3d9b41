"""Each defect of files of tokens is told in one sentence, with the key, the file and the way out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from harness.config.schema.data import DataConfig, SourceConfig
from harness.core.errors import UserError
from harness.data.codecs.codec import Codec, UnknownCodec
from harness.data.codecs.tokenizer_file import load_codec, load_tokenizer
from harness.data.formats.open_token_files import (
    check_token_sample,
    content_of,
    find_token_source,
    is_token_source,
    open_token_files,
)
from tests.data.formats.write_formats import (
    END,
    VOCABULARY,
    make_documents,
    with_ends,
    write_arrow,
    write_llm_c,
    write_megatron,
)

CODEC = UnknownCodec(VOCABULARY, END)
DOCUMENTS = make_documents()
TOKENS = with_ends(DOCUMENTS)


def refusal(path: Path, codec: Codec = CODEC, **fields) -> str:
    """The sentence with which a source is refused before training."""
    with pytest.raises(UserError) as error:
        check_token_sample(find_token_source("s", SourceConfig(str(path), **fields)), codec)
    message = str(error.value)
    assert message.startswith("data.sources.s.")
    return message.removeprefix(f"data.sources.s.path={path}").strip(" :")


def headerless(path: Path, dtype: str) -> Path:
    TOKENS.astype(dtype).tofile(path)
    return path


def test_a_file_that_does_not_tell_its_format_is_asked_about(tmp_path):
    path = headerless(tmp_path / "train.bin", "<u2")
    assert is_token_source(SourceConfig(str(path)))
    assert "name it with data.sources.s.format=..., such as nanogpt" in refusal(path)
    assert "data.sources.s.options.dtype is missing" in refusal(path, format="nanogpt")
    assert "did you mean 'nanogpt'" in refusal(path, format="nanogtp")


@pytest.mark.parametrize(("written", "read"), [("<u2", "uint32"), ("<u4", "uint16"), ("<i8", "int32")])
def test_the_wrong_dtype_is_found_in_a_sample(written, read, tmp_path):
    path = tmp_path / "train.bin"
    TOKENS[: len(TOKENS) // 2 * 2].astype(written).tofile(path)
    message = refusal(path, format="nanogpt", options={"dtype": read})
    assert ("read as uint16" in message) if written == "<u2" else ("its tokens are wider" in message)


def test_a_vocabulary_that_is_too_small_is_found_in_a_sample(tmp_path):
    path = write_llm_c(tmp_path / "a.bin", TOKENS)
    assert f"set data.vocabulary to at least {VOCABULARY}" in refusal(path, UnknownCodec(400, None))
    message = refusal(path, load_tokenizer("byte"))
    assert "beyond the vocabulary of 257 tokens (data.tokenizer), so set data.tokenizer to the one" in message


def test_one_token_beyond_the_vocabulary_is_found_when_all_are_read(tmp_path):
    tokens = np.tile(TOKENS, 20)
    tokens[3 * len(tokens) // 10] = VOCABULARY + 7
    source = find_token_source("s", SourceConfig(str(write_llm_c(tmp_path / "a.bin", tokens))))
    check_token_sample(source, CODEC)
    with pytest.raises(UserError, match=f"holds the token {VOCABULARY + 7}, beyond the vocabulary"):
        open_token_files(source, CODEC, 0.1)


def test_a_truncated_shard_is_found_by_its_header(tmp_path):
    path = write_llm_c(tmp_path / "a.bin", TOKENS)
    path.write_bytes(path.read_bytes()[:-6])
    assert "it is cut short. Copy it again." in refusal(path)
    np.save(tmp_path / "a.npy", TOKENS)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
    assert "it is cut short. Copy it again." in refusal(tmp_path / "a.npy")
    path = headerless(tmp_path / "odd.bin", "<u2")
    path.write_bytes(path.read_bytes()[:-1])
    message = refusal(path, format="nanogpt", options={"dtype": "uint16"})
    assert "is no multiple of 2: it is cut short" in message
    assert "Correct data.sources.s.options.dtype" in message
    path = write_arrow(tmp_path / "a.arrow", [pa.array(DOCUMENTS, pa.list_(pa.int32()))] * 2)
    for size in (-8, -100, -3000):
        (tmp_path / "cut.arrow").write_bytes(path.read_bytes()[:size])
        assert "cut short. Copy it again." in refusal(tmp_path / "cut.arrow")


def test_the_index_of_another_bin_is_found(tmp_path):
    for name, documents in (("a", DOCUMENTS), ("b", DOCUMENTS[1:])):
        write_megatron(tmp_path / name, documents)
    (tmp_path / "a.idx").write_bytes((tmp_path / "b.idx").read_bytes())
    sizes = [2 * sum(map(len, documents)) for documents in (DOCUMENTS, DOCUMENTS[1:])]
    expected = f"a.bin has {sizes[0]} bytes, but a.idx tells {sizes[1]}: it is the index of another .bin"
    assert refusal(tmp_path / "a").startswith(expected)


def test_a_damaged_index_is_found(tmp_path):
    write_megatron(tmp_path / "a", DOCUMENTS)
    content = (tmp_path / "a.idx").read_bytes()
    (tmp_path / "a.idx").write_bytes(content[:200])
    assert "is cut short: 200 bytes of" in refusal(tmp_path / "a")
    (tmp_path / "a.idx").write_bytes(b"TNTIDX\0\0" + content[8:])
    assert "is no index of Megatron-LM" in refusal(tmp_path / "a")
    (tmp_path / "a.idx").write_bytes(content[:-16] + np.array([1, 2], "<i8").tobytes())
    source = find_token_source("s", SourceConfig(str(tmp_path / "a")))
    with pytest.raises(UserError, match="documents do not cover its sequences"):
        open_token_files(source, CODEC, 0.1)
    write_megatron(tmp_path / "f", DOCUMENTS, code=7, dtype="<f4")
    assert "holds float32, which are no tokens" in refusal(tmp_path / "f")


def test_shards_of_two_dtypes_or_formats_are_told(tmp_path):
    np.save(tmp_path / "a.npy", TOKENS.astype(np.uint16))
    np.save(tmp_path / "b.npy", TOKENS.astype(np.int32))
    assert "b.npy holds int32, but a.npy holds uint16" in refusal(tmp_path)
    (tmp_path / "b.npy").unlink()
    write_llm_c(tmp_path / "c.bin", TOKENS)
    assert "several formats (llm_c, npy)" in refusal(tmp_path)


def test_an_archive_of_no_rows_is_told(tmp_path):
    np.save(tmp_path / "a.npy", TOKENS[:0])
    assert "holds no tokens (1 files, zero rows)" in refusal(tmp_path / "a.npy")
    empty = write_arrow(tmp_path / "a.arrow", [pa.array([], pa.list_(pa.int32()))])
    assert "holds no tokens" in refusal(empty)
    assert "holds no tokens" in refusal(write_llm_c(tmp_path / "a.bin", TOKENS[:0]))


def test_columns_that_hold_no_tokens_are_told(tmp_path):
    path = write_arrow(tmp_path / "a.arrow", [pa.array(["a text"])])
    assert "holds string in its column input_ids, which are no tokens" in refusal(path)
    assert "has no column labels (valid: input_ids)" in refusal(path, column="labels")
    rows = pa.array([[1, None, 2]], pa.list_(pa.int32()))
    assert "missing tokens" in refusal(write_arrow(tmp_path / "n.arrow", [rows]))
    tokens = pa.array([TOKENS] * 40, pa.list_(pa.int32()))
    path = write_arrow(tmp_path / "z.arrow", [tokens], compression="zstd")
    assert "is compressed inside" in refusal(path)


def test_several_data_sets_in_one_folder_are_told(tmp_path):
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert "name the folder of one, train or test" in refusal(tmp_path)


def test_files_of_another_tokenizer_are_told(tmp_path):
    texts = [f"The {n}th line of prose, as people write it about {n * 37}.\n" * 9 for n in range(60)]
    codec = load_tokenizer("bpe512")
    right = np.concatenate([np.append(tokens, codec.end_token or 0) for tokens in codec.encode(texts)])
    shuffled = np.random.default_rng(0).permutation(codec.vocabulary)
    for name, tokens in (("a", right), ("b", shuffled[right])):
        np.save(tmp_path / f"{name}.npy", np.tile(tokens, 4).astype(np.uint16))
    message = refusal(tmp_path, codec)
    assert message.startswith("b.npy was not made with data.tokenizer: only")
    check_token_sample(find_token_source("s", SourceConfig(str(tmp_path / "a.npy"))), codec)


def test_shards_without_common_tokens_are_told(tmp_path):
    tokens = np.tile(TOKENS % 200, 20)
    for name, shard in (("a", tokens), ("b", tokens + 200)):
        np.save(tmp_path / f"{name}.npy", shard.astype(np.uint16))
    message = refusal(tmp_path, UnknownCodec(VOCABULARY, None))
    assert message.startswith("b.npy has 0% of its tokens in common with a.npy")


def test_prose_and_code_of_one_tokenizer_pass(tmp_path):
    """The rule is for other tokenizers, not for other text."""
    from harness.data.text_sources.source import find_source

    codec = load_tokenizer("bpe512")
    for name in ("prose", "code", "maths_qa", "dictionary"):
        texts = [*find_source(name, SourceConfig(f"pack:{name}")).documents()][:30]
        tokens = np.concatenate([np.append(part, codec.end_token or 0) for part in codec.encode(texts)])
        np.save(tmp_path / f"{name}.npy", tokens.astype(np.uint16))
    source = find_token_source("s", SourceConfig(str(tmp_path)))
    check_token_sample(source, codec)
    check_token_sample(source, UnknownCodec(512, codec.end_token))


def test_a_shard_that_changes_changes_the_content_and_is_read_again(tmp_path):
    path = write_llm_c(tmp_path / "a.bin", TOKENS)
    source = find_token_source("s", SourceConfig(str(path)))
    before = content_of(source, CODEC), open_token_files(source, CODEC, 0.1).key
    write_llm_c(path, TOKENS[::-1])
    source = find_token_source("s", SourceConfig(str(path)))
    after = content_of(source, CODEC), open_token_files(source, CODEC, 0.1).key
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_an_index_of_megatron_that_changes_changes_the_documents(tmp_path):
    write_megatron(tmp_path / "a", DOCUMENTS)
    before = content_of(find_token_source("s", SourceConfig(str(tmp_path / "a"))), CODEC)
    joined = [np.concatenate(DOCUMENTS[:2]), *DOCUMENTS[2:]]
    content = (tmp_path / "a.bin").read_bytes()
    write_megatron(tmp_path / "b", joined)
    assert (tmp_path / "b.bin").read_bytes() == content
    (tmp_path / "a.idx").write_bytes((tmp_path / "b.idx").read_bytes())
    assert content_of(find_token_source("s", SourceConfig(str(tmp_path / "a"))), CODEC) != before


def test_the_facts_that_no_file_tells_are_asked_for():
    def config(**fields) -> DataConfig:
        return DataConfig("test", **fields)

    with pytest.raises(UserError, match=r"so give it with data\.vocabulary=\.\.\."):
        load_codec(config(tokenizer="none"))
    with pytest.raises(UserError, match=r"data\.end_token=9 is beyond data\.vocabulary=9"):
        load_codec(config(tokenizer="none", vocabulary=9, end_token=9))
    with pytest.raises(UserError, match=r"data\.vocabulary=9 is for data\.tokenizer=none"):
        load_codec(config(tokenizer="byte", vocabulary=9))
    codec = load_codec(config(tokenizer="none", vocabulary=9, end_token=8))
    assert codec.byte_lengths_V.tolist() == [0] * 9
    with pytest.raises(UserError, match="can be neither encoded nor decoded"):
        codec.encode(["text"])


def test_a_validation_file_is_checked_as_the_source_is(tmp_path):
    path = write_llm_c(tmp_path / "a.bin", TOKENS)
    config = SourceConfig(str(path), validation=str(tmp_path / "val.bin"))
    with pytest.raises(UserError, match=r"data\.sources\.s\.validation=.*val\.bin does not exist"):
        find_token_source("s", config)
    write_llm_c(tmp_path / "val.bin", TOKENS, count=3)
    with pytest.raises(UserError, match=r"s\.validation=.*val\.bin has .* something was added"):
        find_token_source("s", config)
