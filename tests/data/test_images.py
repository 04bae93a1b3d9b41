"""What is read of images: rows that follow from config, data seed and step; whole images are held out."""

import dataclasses

import numpy as np
import pytest

from harness.config.schema.data import DataConfig, SourceConfig
from harness.core.errors import UserError
from harness.data import describe_data, open_data
from harness.data.images.image_corpus import HEADER_WORDS, HELDOUT_TIMES, TIME_UNITS, ImageCorpus
from harness.data.images.pca_features import PCAFeatures

SHAPE = (4, 4, 1)
PATCHES = 4


def drawn(count=300, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


@pytest.fixture
def configure(tmp_path):
    """A config over .npz files: their arrays by source name."""

    def make(_weights=None, _options=None, **arrays):
        sources = {}
        for name, content in arrays.items():
            path = tmp_path / f"{name}.npz"
            np.savez(path, **content)
            sources[name] = SourceConfig(str(path), (_weights or {}).get(name, 1.0))
        base = {"kind": "images", "sequence_length": PATCHES, "holdout": 0.2}
        return DataConfig("test", sources=sources, **base | (_options or {}))

    return make


def image_corpus(config: DataConfig) -> ImageCorpus:
    corpus = open_data(config)
    assert isinstance(corpus, ImageCorpus)
    return corpus


def labelled(images, classes=3):
    return {"images": images, "labels": np.arange(len(images)) % classes}


def pixels(rows_BR):
    return {row.tobytes() for row in rows_BR[:, HEADER_WORDS:].astype(np.uint8)}


def test_a_batch_follows_from_config_seed_and_step(configure):
    config = configure(one=labelled(drawn()))
    first, again = (open_data(config).sampler(8, 3) for _ in range(2))
    for t in (5, 0):
        np.testing.assert_array_equal(first.batch(t).tokens_BT, again.batch(t).tokens_BT)
        np.testing.assert_array_equal(first.batch(t).ids_B, again.batch(t).ids_B)
    other = open_data(config).sampler(8, 4).batch(0)
    assert not (other.ids_B == first.batch(0).ids_B).any()


def test_processes_make_their_own_rows_of_the_same_batch(configure):
    corpus = open_data(configure(one=labelled(drawn()), two=labelled(drawn(seed=1))))
    whole = corpus.sampler(16, 3).batch(5)
    for mine_B in (np.arange(16) < 5, np.arange(16) % 2 == 1, np.zeros(16, bool)):
        part = corpus.sampler(16, 3, mine_B).batch(5)
        assert np.array_equal(part.tokens_BT[mine_B], whole.tokens_BT[mine_B])
        assert not part.tokens_BT[~mine_B].any()
        assert np.array_equal(part.ids_B, whole.ids_B)


def test_the_examples_do_not_hang_on_the_batch_size(configure):
    corpus = open_data(configure(one=labelled(drawn()), two=labelled(drawn(seed=1))))
    small, large = corpus.sampler(4, 0), corpus.sampler(12, 0)
    rows = np.concatenate([small.batch(t).tokens_BT for t in range(3)])
    np.testing.assert_array_equal(rows, large.batch(0).tokens_BT)


def test_every_image_once_an_epoch_with_other_noise_and_times(configure):
    images = drawn(100)
    corpus = image_corpus(configure(one=labelled(images)))
    count = len(corpus.domains[0].train.labels_N)
    sampler = corpus.sampler(count, 0)
    one, two = sampler.batch(0), sampler.batch(1)
    assert len(pixels(one.tokens_BT)) == count
    assert pixels(one.tokens_BT) == pixels(two.tokens_BT)
    both = np.concatenate([one.tokens_BT, two.tokens_BT])
    assert len({row[:2].tobytes() for row in both}) == 2 * count
    assert len(np.unique(np.concatenate([one.ids_B, two.ids_B]))) == 2 * count


def test_times_are_logit_normal_and_a_tenth_is_unlabelled(configure):
    corpus = open_data(configure(one=labelled(drawn())))
    rows = np.concatenate([corpus.sampler(1_000, 0).batch(t).tokens_BT for t in range(10)])
    times = rows[:, 2] / TIME_UNITS
    assert 0 < times.min() < times.max() < 1
    logits = np.log(times / (1 - times))
    assert logits.mean() == pytest.approx(0, abs=0.05)
    assert logits.std() == pytest.approx(1, abs=0.05)
    assert (rows[:, 3] == 3).mean() == pytest.approx(0.1, abs=0.01)
    always = open_data(configure(_options={"label_dropout": 0.0}, one=labelled(drawn())))
    assert always.sampler(1_000, 0).batch(0).tokens_BT[:, 3].max() == 2


def test_labels_stay_with_their_images_and_sources_have_classes_of_their_own(configure):
    one, two = drawn(), drawn(seed=1)
    sources = {"one": labelled(one, 3), "two": labelled(two, 2)}
    corpus = image_corpus(configure(_options={"label_dropout": 0.0}, **sources))
    known = {image.tobytes(): i % 3 for i, image in enumerate(one)}
    known |= {image.tobytes(): 3 + i % 2 for i, image in enumerate(two)}
    rows = corpus.sampler(200, 0).batch(0).tokens_BT
    assert all(known[row[HEADER_WORDS:].astype(np.uint8).tobytes()] == row[3] for row in rows)
    assert corpus.classes == 5


def test_copies_of_an_image_are_held_out_together(configure):
    images = drawn(200)
    doubled = np.concatenate([images, images])
    (domain,) = image_corpus(configure(one={"images": doubled})).domains
    train, held = ({each.tobytes() for each in part.images_NHWC} for part in (domain.train, domain.heldout))
    assert not train & held
    assert train | held == {image.tobytes() for image in images}
    assert 20 < len(held) < 60
    assert len(domain.heldout.labels_N) == 2 * len(held)


def test_held_out_rows_are_the_same_images_at_each_level(configure):
    corpus = open_data(configure(one=labelled(drawn())))
    held = corpus.heldout(20 * PATCHES)
    assert [*held] == [f"one t={level}" for level in HELDOUT_TIMES]
    first, *rest = held.values()
    assert first.tokens_NT.shape == (20, HEADER_WORDS + 16)
    for level, each in zip(HELDOUT_TIMES, held.values(), strict=True):
        assert set(each.tokens_NT[:, 2]) == {round(level * TIME_UNITS)}
        assert pixels(each.tokens_NT) == pixels(first.tokens_NT)
    assert not any((each.tokens_NT[:, :2] == first.tokens_NT[:, :2]).all(axis=1).any() for each in rest)
    trained = np.concatenate([corpus.sampler(64, 0).batch(t).tokens_BT for t in range(8)])
    assert not pixels(trained) & pixels(first.tokens_NT)


def test_more_held_out_images_hold_those_of_fewer(configure):
    corpus = open_data(configure(one=labelled(drawn())))
    few, many = (corpus.heldout(count * PATCHES)["one t=0.5"].tokens_NT for count in (7, 30))
    np.testing.assert_array_equal(few, many[:7])


def test_facts_tell_what_decides_the_batches(configure):
    config = configure(one=labelled(drawn()))
    facts = describe_data(config, 40)
    assert (facts.vocabulary, facts.image) == (4, SHAPE)
    more = dataclasses.replace(config, label_dropout=0.2)
    assert describe_data(more, 40).fingerprint != facts.fingerprint
    assert describe_data(config, 80).fingerprint == facts.fingerprint
    assert describe_data(config, 80).eval_fingerprint != facts.eval_fingerprint
    other = configure(one=labelled(drawn(seed=9)))
    assert describe_data(other, 40).fingerprint != facts.fingerprint


def test_the_packs_are_there():
    for name, shape, patches in (("digits", (28, 28, 1), 49), ("emoji", (32, 32, 3), 64)):
        sources = {name: SourceConfig(f"pack:{name}")}
        config = DataConfig(name, sources, sequence_length=patches, kind="images")
        facts = describe_data(config, 6_400)
        assert (facts.vocabulary, facts.image) == (11, shape)


def test_features_are_the_directions_of_largest_variance():
    """Images of two strokes, strong and weak, and faint noise: two components, in that order."""
    draw = np.random.default_rng(0)
    strokes = draw.normal(size=(500, 2)) * [30, 10]
    images = np.full((500, 4, 4, 1), 127.0)
    images[:, 0, :, 0] += strokes[:, :1]
    images[:, 2, :, 0] += strokes[:, 1:]
    whole = np.clip(images + draw.normal(size=images.shape), 0, 255).astype(np.uint8)
    gallery = PCAFeatures.fit(whole[:400], whole[400:], np.zeros(100, np.int64))
    expected = np.linalg.svd(whole[:400].reshape(400, -1) / 127.5 - 1 - gallery.mean_P)[2][:2]
    np.testing.assert_allclose(np.abs(expected @ gallery.components_PK[:, :2]), np.eye(2), atol=1e-6)
    np.testing.assert_allclose(gallery.project(whole[400:]), gallery.heldout_MK)
    assert gallery.train_NK.mean(axis=0) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("arrays", "options", "said"),
    [
        ({"one": {"pictures": drawn()}}, {}, "has no array `images`"),
        ({"one": {"images": drawn().astype(float)}}, {}, "`images` is float64"),
        ({"one": {"images": drawn()[0, 0]}}, {}, "give uint8"),
        ({"one": {"images": drawn(), "labels": np.zeros(3, int)}}, {}, "for each of the 300 images"),
        (
            {"one": labelled(drawn()), "two": labelled(drawn(shape=(4, 6, 1)))},
            {},
            "holds images of 4 x 6 x 1",
        ),
        ({"one": labelled(drawn(2))}, {}, "of 2 images are held out"),
        ({"one": labelled(drawn())}, {"label_dropout": 1.0}, "data.label_dropout=1.0"),
        ({}, {}, "names no source"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(configure, arrays, options, said):
    with pytest.raises(UserError, match=said) as error:
        describe_data(configure(_options=options, **arrays), 40)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tokens", "said"), [(3, "less than one image"), (4_000, "data.sources.one holds out")]
)
def test_evaluation_must_fit(configure, tokens, said):
    with pytest.raises(UserError, match=said):
        describe_data(configure(one=labelled(drawn())), tokens)


def test_images_of_unequal_shape_in_one_file_are_said(configure, tmp_path):
    config = configure(one=labelled(drawn()))
    ragged = np.empty(2, object)
    ragged[:] = [drawn(1)[0], drawn(1, (5, 5, 1))[0]]
    np.savez(tmp_path / "one.npz", images=ragged)
    with pytest.raises(UserError, match="images of different shapes"):
        describe_data(config, 40)


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_a_damaged_file_is_said(configure, tmp_path, content):
    config = configure(one=labelled(drawn()))
    (tmp_path / "one.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"data\.sources\.one\.path"):
        describe_data(config, 40)
