from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from harness.config.schema.data import DataConfig, SourceConfig
from harness.core.errors import UserError
from harness.data import describe_data
from harness.data.codecs.codec import Codec
from harness.data.codecs.tokenizer_file import SHIPPED_TOKENIZER, load_tokenizer

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(params=["byte", "bpe512"], scope="module")
def codec(request) -> Codec:
    return load_tokenizer(request.param)


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_text_comes_back_and_its_bytes_are_counted(codec, text):
    (tokens,) = codec.encode([text])
    assert codec.decode(tokens) == text
    assert codec.byte_lengths_V[tokens].sum() == len(text.encode())


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=5))
def test_a_document_is_encoded_the_same_alone_and_among_others(codec, texts):
    together = codec.encode(texts)
    assert all(
        np.array_equal(one, codec.encode([text])[0]) for one, text in zip(together, texts, strict=True)
    )


def test_no_text_spells_the_end_of_a_document(codec):
    (tokens,) = codec.encode(["a<|endoftext|>b"])
    assert codec.end_token not in tokens
    assert codec.decode(np.append(tokens, codec.end_token)) == "a<|endoftext|>b"
    assert codec.byte_lengths_V[codec.end_token] == 0


def test_vocabularies():
    assert (load_tokenizer("byte").vocabulary, load_tokenizer("bpe512").vocabulary) == (257, 512)
    assert load_tokenizer("bpe512").byte_lengths_V.min() == 0
    assert (load_tokenizer("bpe512").byte_lengths_V == 0).sum() == 1


def test_bpe_shortens_english():
    text = "The Congress of the United States of America shall have power to lay and collect taxes. " * 20
    assert len(load_tokenizer("bpe512").encode([text])[0]) < 0.6 * len(text)


def test_a_file_is_taken_without_its_truncation_and_padding(tmp_path):
    tokenizer = Tokenizer.from_file(str(SHIPPED_TOKENIZER))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    codec = load_tokenizer(save(tokenizer, tmp_path))
    text = "a text of more than four tokens"
    assert np.array_equal(codec.encode([text])[0], load_tokenizer("bpe512").encode([text])[0])


def test_an_added_word_counts_its_own_bytes(tmp_path):
    tokenizer = Tokenizer.from_file(str(SHIPPED_TOKENIZER))
    tokenizer.add_tokens(["é漢"])
    codec = load_tokenizer(save(tokenizer, tmp_path))
    (tokens,) = codec.encode(["é漢"])
    assert tokens.tolist() == [512]
    assert codec.byte_lengths_V[512] == 5


def test_a_sentencepiece_file_with_byte_fallback(tmp_path):
    codec = load_tokenizer(save(sentencepiece(), tmp_path))
    (tokens,) = codec.encode(["ab 漢"])
    assert codec.decode(tokens) == "ab 漢"
    assert codec.byte_lengths_V[tokens].sum() == len(" ab 漢".encode())  # the space that it puts first


def test_a_file_that_loses_text_is_refused(tmp_path):
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1, "</s>": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UserError, match="loses part of a text"):
        load_tokenizer(save(words, tmp_path))


def byte_level(alphabet: list[str], *, prefix: bool = False, normalizer=None) -> Tokenizer:
    """A byte-level tokenizer without merges, of these letters."""
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(["</s>", *sorted(alphabet)])}, []))
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    return tokenizer


ALPHABET = pre_tokenizers.ByteLevel.alphabet()


@pytest.mark.parametrize("letter", ["q", "~", "\u0120", "\u010a", "\u0100", "\u00df", "\u00f4"])
def test_a_byte_alphabet_with_a_hole_is_refused(tmp_path, letter):
    holed = byte_level([known for known in ALPHABET if known != letter])
    with pytest.raises(UserError, match=r"loses part of a text.*comes back as .*with all 256 bytes"):
        load_tokenizer(save(holed, tmp_path))


def test_the_letter_that_is_lost_is_named(tmp_path):
    holed = byte_level([letter for letter in ALPHABET if letter not in "qQ"])
    with pytest.raises(UserError, match=r"'Q' comes back as '' \(and 1 more of \d+ characters\)"):
        load_tokenizer(save(holed, tmp_path))


def test_a_space_put_before_a_text_loses_nothing(tmp_path):
    codec = load_tokenizer(save(byte_level(ALPHABET, prefix=True), tmp_path))
    (tokens,) = codec.encode(["some text"])
    assert codec.decode(tokens) == " some text"
    assert codec.byte_lengths_V[tokens].sum() == len(" some text")


def test_normal_forms_of_unicode_are_taken_and_lower_case_is_refused(tmp_path):
    for normal_form in (normalizers.NFC(), normalizers.NFKC(), normalizers.NFD()):
        load_tokenizer(save(byte_level(ALPHABET, normalizer=normal_form), tmp_path))
    with pytest.raises(UserError, match=r"'A' comes back as 'a'"):
        load_tokenizer(save(byte_level(ALPHABET, normalizer=normalizers.Lowercase()), tmp_path))


def test_what_only_the_data_show_is_told_with_their_source(tmp_path):
    """A word that the tokenizer replaces, which no trial of single characters can meet."""
    replaced = byte_level(ALPHABET, normalizer=normalizers.Replace("harness", "horse"))
    name = save(replaced, tmp_path)
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(f"text {i} of the harness" for i in range(200)))
    config = DataConfig("own", {"own": SourceConfig(str(tmp_path / "a.txt"))}, name, 16, 0.2)
    with pytest.raises(UserError, match=r"in data.sources.own.path=.*'arness' comes back as 'orse'"):
        describe_data(config, 160)
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(f"text {i} of the house" for i in range(200)))
    describe_data(config, 160)


def test_a_large_vocabulary_takes_four_bytes():
    big = load_tokenizer("byte")
    big.vocabulary = 2**16
    assert big.dtype == np.uint16
    big.vocabulary += 1
    assert big.dtype == np.uint32


@pytest.mark.slow
def test_training_again_gives_the_committed_file(tmp_path):
    from harness.data.text.train_bpe import train_tokenizer, training_documents

    train_tokenizer(training_documents()).save(str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_bytes() == SHIPPED_TOKENIZER.read_bytes()


def save(tokenizer: Tokenizer, folder: Path) -> str:
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder / "tokenizer.json")


def sentencepiece() -> Tokenizer:
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", "ab"]
    model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, [("a", "b")], unk_token="<unk>", byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer
