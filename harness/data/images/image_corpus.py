"""Corpus of images. An example is an int32 row, so that code which moves tokens can move it.

A row is [noise key (2 words), time, label, pixels...]. The model draws the noise from the key inside its
program, so all variants see the same noise, on any mesh. Time is in units of 1/65536. Time and noise of a
source's k-th example follow from the data seed, the source's name and k, as its image does.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt64

from harness.config.schema.data import DataConfig
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.core.progress.report import opaque
from harness.data.images.pca_features import PCAFeatures
from harness.data.images.pixels import LabelledImages, check_same_shape, read_images
from harness.data.order.example_order import check_plain_order
from harness.data.order.mixture_schedule import MixSchedule, check_mixes, mix_schedule
from harness.data.order.permutation import make_key, permute
from harness.data.order.sampler import Corpus
from harness.data.text.corpus import HeldOut
from harness.data.text.describe_text import IMAGES, DataFacts, num_heldout
from harness.data.text.source_summary import SourceSummary, file_digests
from harness.data.text_sources.source import IMAGE_SUFFIXES, Source, find_source
from harness.data.text_sources.source_hash import content_hash
from harness.data.text_sources.split import Split

HEADER_WORDS = 4
"""Number of int32 words of a row before the pixels."""
TIME_UNITS = 65_536
"""Integer value of time 1, which is pure noise; time 0 is the image."""
HELDOUT_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Times at which held-out images are evaluated, each a domain of its own."""


@dataclass(frozen=True)
class ImageDomain:
    """A source that is ready to read. `salt` makes its example ids differ from all other sources'."""

    name: str
    train: LabelledImages
    heldout: LabelledImages
    first_class: int
    salt: int


@dataclass(frozen=True)
class ImageCorpus(Corpus):
    """Labelled images of all sources, with the schedule of their mixes."""

    domains: tuple[ImageDomain, ...]
    schedule: MixSchedule
    patches_per_image: int
    """Number of tokens of an image."""
    classes: int
    """Number of labels over all sources. The label `classes` means no label."""
    label_dropout: float
    """Share of training examples without a label."""

    @property
    def row_length(self) -> int:
        """Number of int32 values of a row."""
        return HEADER_WORDS + math.prod(self.domains[0].train.shape)

    def examples(
        self, source: int, data_seed: int, rank_B: np.ndarray, local_rows_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Implement `sampler.Corpus`. Noise and time are drawn anew each epoch."""
        domain = self.domains[source]
        count = len(domain.train.labels_N)
        epoch_B, index_B = np.divmod(rank_B, count)
        image_B = permute(index_B, count, make_key("order", data_seed, domain.name), epoch_B)
        draws_B4 = _random_words(make_key("noise", data_seed, domain.name), int(rank_B[0]), len(rank_B))
        labels_B = domain.train.labels_N[image_B] + domain.first_class
        dropped_B = _to_uniform(draws_B4[:, 3]) < self.label_dropout
        labels_B[dropped_B] = self.classes
        from scipy.special import expit, ndtri  # 0.3 s, which a process that reads no images does without

        times_B = expit(ndtri(_to_uniform(draws_B4[:, 2])))  # logit-normal (arXiv:2403.03206, section 3.1)
        columns = (draws_B4[:, 0], times_B, labels_B, image_B)
        keys_B, times_B, labels_B, local_images_B = (column[local_rows_B] for column in columns)
        rows_BR = pack_rows(keys_B, times_B, labels_B, domain.train.images_NHWC[local_images_B])
        return rows_BR, draws_B4[:, 1] + image_B + np.uint64(domain.salt)

    def heldout(self, tokens: int) -> dict[str, HeldOut]:
        """Return the same rows for every run: `tokens` tokens' worth of images of each source, at each of
        HELDOUT_TIMES. Raises UserError if there are fewer."""
        examples = {}
        for domain in self.domains:
            available = len(domain.heldout.labels_N)
            count = num_heldout(domain.name, tokens, self.patches_per_image, available, IMAGES)
            for time in HELDOUT_TIMES:
                examples[f"{domain.name} t={time}"] = _heldout_at(domain, time, count)
        return examples

    def pca_features(self, tokens: int) -> PCAFeatures:
        """Return features of the training images and of the held-out images that are evaluated."""
        is_trained = [any(counts) for counts in zip(*self.schedule.counts, strict=True)]
        domains = list(itertools.compress(self.domains, is_trained))
        count = tokens // self.patches_per_image
        heldout = [_select(domain.heldout, _heldout_order(domain, count)) for domain in domains]
        labels = [images.labels_N + d.first_class for d, images in zip(domains, heldout, strict=True)]
        with opaque("computes the features of real images"):
            return PCAFeatures.fit(
                np.concatenate([domain.train.images_NHWC for domain in domains]),
                np.concatenate([images.images_NHWC for images in heldout]),
                np.concatenate(labels),
            )


def pack_rows(
    keys_B: UInt64[np.ndarray, " B"], times_B: np.ndarray, labels_B: np.ndarray, images_BHWC: np.ndarray
) -> Int32[np.ndarray, "B R"]:
    """Pack examples into rows. Times 0 and 1 move inside, so that image and noise both show."""
    words_B2 = np.ascontiguousarray(keys_B, "<u8").view("<i4").reshape(-1, 2)
    units_B = np.clip(np.round(np.asarray(times_B) * TIME_UNITS), 1, TIME_UNITS - 1)
    flat_BP = images_BHWC.reshape(len(images_BHWC), math.prod(images_BHWC.shape[1:]))
    return np.column_stack([words_B2, units_B, labels_B, flat_BP]).astype(np.int32)


def open_images(config: DataConfig) -> ImageCorpus:
    """Open the corpus of a config. Raises UserError."""
    sources, image_sets = _read_sources(config)
    offsets = np.cumsum([0, *(images.classes for images in image_sets)]).tolist()
    parts = zip(sources, image_sets, offsets, strict=False)
    domains = tuple(_make_domain(source, images, config, first) for source, images, first in parts)
    schedule, patches = mix_schedule(config), config.sequence_length
    return ImageCorpus(domains, schedule, patches, offsets[-1], config.label_dropout)


def describe_images(config: DataConfig, eval_tokens: int) -> DataFacts:
    """Check a data config of images and return its facts. Raises UserError."""
    if config.mask_documents:
        raise UserError("data.mask_documents=true is for text only. Set data.mask_documents=false.")
    check_plain_order(config, "images")
    corpus = open_images(config)
    base = {
        "images": {domain.name: domain.salt for domain in corpus.domains},
        "sequence_length": config.sequence_length,
        "levels": HELDOUT_TIMES,
    }
    trained = {"mixes": corpus.schedule, "unlabelled": config.label_dropout}
    return DataFacts(
        vocabulary=corpus.classes + 1,
        end_token=None,
        fingerprint=hash_json(base | trained),
        eval_fingerprint=hash_json(base | {"tokens": eval_tokens}),
        domains=tuple(corpus.heldout(eval_tokens)),
        image=corpus.domains[0].train.shape,
        sources={domain.name: _summarize(domain, config) for domain in corpus.domains},
    )


def _summarize(domain: ImageDomain, config: DataConfig) -> SourceSummary:
    source = find_source(domain.name, config.sources[domain.name], IMAGE_SUFFIXES)
    num_train, num_heldout_images = len(domain.train.labels_N), len(domain.heldout.labels_N)
    return SourceSummary(
        content=content_hash(source),
        files=len(source.files),
        documents=num_train + num_heldout_images,
        train_tokens=num_train * config.sequence_length,
        is_estimate=False,
        heldout_share=num_heldout_images / (num_train + num_heldout_images),
        split=Split.documents.value,
        skipped=[*source.skipped],
        is_sampled=False,
        digests=file_digests(source),
    )


def _read_sources(config: DataConfig) -> tuple[list[Source], list[LabelledImages]]:
    if not config.sources:
        raise UserError("data.sources={} names no source. Add a source, for example pack:digits.")
    if not 0 <= config.label_dropout < 1:
        dropout = config.label_dropout
        raise UserError(f"data.label_dropout={dropout} is not in [0, 1). Give a share such as 0.1.")
    check_mixes(config)
    sources = [find_source(name, config.sources[name], IMAGE_SUFFIXES) for name in sorted(config.sources)]
    image_sets = [read_images(source) for source in sources]
    check_same_shape(sources, image_sets)
    return sources, image_sets


def _make_domain(source: Source, images: LabelledImages, config: DataConfig, first_class: int) -> ImageDomain:
    held_N = images.heldout_mask(config.holdout)
    if held_N.all() or not held_N.any():
        raise UserError(
            f"{source.key}.path={source.path}: {held_N.sum()} of {len(held_N)} images are held out "
            f"(data.holdout={config.holdout}): give more images, or another share"
        )
    salt = make_key("image", source.name, content_hash(source), config.holdout, config.label_dropout)
    return ImageDomain(source.name, _select(images, ~held_N), _select(images, held_N), first_class, salt)


def _select(images: LabelledImages, mask_N: np.ndarray) -> LabelledImages:
    return LabelledImages(images.images_NHWC[mask_N], images.labels_N[mask_N])


def _heldout_order(domain: ImageDomain, count: int) -> np.ndarray:
    """Return the indices of the first `count` held-out images in a fixed order."""
    key = make_key("heldout", domain.name)
    return permute(np.arange(count, dtype=np.uint64), len(domain.heldout.labels_N), key)


def _heldout_at(domain: ImageDomain, time: float, count: int) -> HeldOut:
    """Return held-out images with their labels, and with noise of their own at each time."""
    order_N = _heldout_order(domain, count)
    keys_N = _random_words(make_key("heldout noise", domain.name, time), 0, count)[:, 0]
    labels_N = domain.heldout.labels_N[order_N] + domain.first_class
    images_NHWC = domain.heldout.images_NHWC[order_N]
    return HeldOut(pack_rows(keys_N, np.full(count, time), labels_N, images_NHWC), 0)


def _random_words(key: int, first: int, count: int) -> UInt64[np.ndarray, "B 4"]:
    """Return four random words per example, from number `first` on (one Philox block each)."""
    return np.random.Philox(key=key, counter=first).random_raw(4 * count).reshape(count, 4)


def _to_uniform(words_B: np.ndarray) -> np.ndarray:
    """Map uint64 words to floats between 0 and 1, both excluded."""
    return ((words_B >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
