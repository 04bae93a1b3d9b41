"""From a config of images to batches: an example is a row of int32, so that all that moves tokens moves it.

A row is [noise key (2 words), time, label, pixels...]. The model draws the noise from the key inside its
program, so that all variants, on any mesh, see the same; time is in units of 1/65536. Times and noise of a
source's k-th example follow from the data seed, its name and k, as its image does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt64
from scipy.special import expit, ndtri

from harness.config.schema.run import DataConfig
from harness.core.errors import UserError
from harness.core.hashing import digest
from harness.data.images.pca_features import Gallery
from harness.data.images.pixels import Pixels, check_shapes, read_pixels
from harness.data.order.mixture_schedule import Plan, check_mixes, plan_of
from harness.data.order.permutation import key_of, permute
from harness.data.order.sampler import Sampler
from harness.data.text.corpus import HeldOut
from harness.data.text.describe_text import DataFacts
from harness.data.text.source_survey import content_hash
from harness.data.text.sources import IMAGES, Source, locate

HEAD = 4
"""Words of a row before the pixels."""
UNIT = 65_536
"""Time 1, all noise; 0 is the image."""
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Times at which held-out images are evaluated, each a domain of its own."""


@dataclass(frozen=True)
class ImageDomain:
    """A source, ready to read. `salt` tells its images from those of any other source."""

    name: str
    train: Pixels
    heldout: Pixels
    first_class: int
    salt: int


@dataclass(frozen=True)
class ImageCorpus:
    domains: tuple[ImageDomain, ...]
    plan: Plan
    patches: int
    """Tokens an image."""
    classes: int
    """Over all sources; the label after the last one stands for none."""
    unlabelled: float

    @property
    def row_length(self) -> int:
        return HEAD + math.prod(self.domains[0].train.shape)

    def sampler(self, batch: int, data_seed: int, mine_B: np.ndarray | None = None) -> Sampler:
        """`mine_B`: which rows to fill in; None: all. Raises UserError where a stage would last no step of
        this size."""
        return Sampler(self, batch, data_seed, self.plan.stages(batch), mine_B)

    def examples(
        self, source: int, data_seed: int, rank_B: np.ndarray, mine_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `sampler.Examples` says; noise and time are drawn anew each epoch."""
        domain = self.domains[source]
        count = len(domain.train.labels_N)
        epoch_B, index_B = np.divmod(rank_B, count)
        image_B = permute(index_B, count, key_of("order", data_seed, domain.name), epoch_B)
        draws_B4 = _draws(key_of("noise", data_seed, domain.name), int(rank_B[0]), len(rank_B))
        labels_B = domain.train.labels_N[image_B] + domain.first_class
        dropped_B = _uniform(draws_B4[:, 3]) < self.unlabelled
        labels_B[dropped_B] = self.classes
        times_B = expit(ndtri(_uniform(draws_B4[:, 2])))  # logit-normal (arXiv:2403.03206, section 3.1)
        chosen = (draws_B4[:, 0], times_B, labels_B, image_B)
        keys_B, times_B, labels_B, shown_B = (each[mine_B] for each in chosen)
        rows_BR = rows(keys_B, times_B, labels_B, domain.train.images_NHWC[shown_B])
        return rows_BR, draws_B4[:, 1] + image_B + np.uint64(domain.salt)

    def heldout(self, tokens: int) -> dict[str, HeldOut]:
        """The same rows for every run: of each source so many tokens' worth of images, at each of LEVELS.
        Raises UserError where they do not suffice."""
        found = {}
        for domain in self.domains:
            count = held_images(domain.name, tokens, self.patches, len(domain.heldout.labels_N))
            for level in LEVELS:
                found[f"{domain.name} t={level}"] = _at(domain, level, count)
        return found

    def gallery(self, tokens: int) -> Gallery:
        """The training images, and the held-out ones that are evaluated, as features."""
        trained = [domain for domain, count in zip(self.domains, self._mixed, strict=True) if count]
        held = [_where(domain.heldout, _order(domain, tokens // self.patches)) for domain in trained]
        labels = [each.labels_N + domain.first_class for domain, each in zip(trained, held, strict=True)]
        return Gallery.of(
            np.concatenate([domain.train.images_NHWC for domain in trained]),
            np.concatenate([each.images_NHWC for each in held]),
            np.concatenate(labels),
        )

    @property
    def _mixed(self) -> list[int]:
        """Examples of each source in all mixes together: 0 where it is evaluated alone."""
        return [sum(counts) for counts in zip(*self.plan.counts, strict=True)]


def rows(
    keys_B: UInt64[np.ndarray, " B"], times_B: np.ndarray, labels_B: np.ndarray, images_BHWC: np.ndarray
) -> Int32[np.ndarray, "B R"]:
    """Examples as rows; a time of 0 or 1 is moved inside, where image and noise both show."""
    words_B2 = np.ascontiguousarray(keys_B, "<u8").view("<i4").reshape(-1, 2)
    units_B = np.clip(np.round(np.asarray(times_B) * UNIT), 1, UNIT - 1)
    flat_BP = images_BHWC.reshape(len(images_BHWC), math.prod(images_BHWC.shape[1:]))
    return np.column_stack([words_B2, units_B, labels_B, flat_BP]).astype(np.int32)


def open_images(config: DataConfig) -> ImageCorpus:
    """The corpus of a config. Raises UserError."""
    sources, pixels = _checked_sources(config)
    offsets = np.cumsum([0, *(each.classes for each in pixels)]).tolist()
    domains = [
        _domain(source, each, config, first)
        for source, each, first in zip(sources, pixels, offsets, strict=False)
    ]
    return ImageCorpus(
        tuple(domains), plan_of(config), config.sequence_length, offsets[-1], config.unlabelled
    )


def describe_images(config: DataConfig, eval_tokens: int) -> DataFacts:
    """Check a data config of images. Raises UserError."""
    if config.mask_documents:
        raise UserError("data.mask_documents=true is for text: images are examples of their own; give false")
    corpus = open_images(config)
    base = {
        "images": {domain.name: domain.salt for domain in corpus.domains},
        "sequence_length": config.sequence_length,
        "levels": LEVELS,
    }
    trained = {"mixes": corpus.plan, "unlabelled": config.unlabelled}
    return DataFacts(
        vocabulary=corpus.classes + 1,
        end=None,
        fingerprint=digest(base | trained),
        eval_fingerprint=digest(base | {"tokens": eval_tokens}),
        domains=tuple(corpus.heldout(eval_tokens)),
        image=corpus.domains[0].train.shape,
    )


def held_images(name: str, tokens: int, patches: int, there: int) -> int:
    """How many held-out images so many tokens are. Raises UserError where there are not as many."""
    wanted = tokens // patches
    if not wanted:
        raise UserError(
            f"evaluation.tokens={tokens} is less than one image: give at least data.sequence_length={patches}"
        )
    if wanted > there:
        raise UserError(
            f"evaluation.tokens={tokens} is more than data.sources.{name} holds out ({there * patches}): "
            "lower it, raise data.holdout, or give more images"
        )
    return wanted


def _checked_sources(config: DataConfig) -> tuple[list[Source], list[Pixels]]:
    if not config.sources:
        raise UserError("data.sources={} names nothing to read: add a source, for example pack:digits")
    if not 0 < config.holdout < 1:
        raise UserError(f"data.holdout={config.holdout} is not between 0 and 1: give a share such as 0.05")
    if not 0 <= config.unlabelled < 1:
        raise UserError(f"data.unlabelled={config.unlabelled} is no share: give one from 0 on, such as 0.1")
    check_mixes(config)
    sources = [locate(name, config.sources[name], IMAGES) for name in sorted(config.sources)]
    pixels = [read_pixels(source) for source in sources]
    check_shapes(sources, pixels)
    return sources, pixels


def _domain(source: Source, pixels: Pixels, config: DataConfig, first_class: int) -> ImageDomain:
    held_N = pixels.held_out(config.holdout)
    if held_N.all() or not held_N.any():
        raise UserError(
            f"{source.key}.path={source.path}: {held_N.sum()} of {len(held_N)} images are held out "
            f"(data.holdout={config.holdout}): give more images, or another share"
        )
    salt = key_of("image", source.name, content_hash(source), config.holdout, config.unlabelled)
    return ImageDomain(source.name, _where(pixels, ~held_N), _where(pixels, held_N), first_class, salt)


def _where(pixels: Pixels, chosen_N: np.ndarray) -> Pixels:
    return Pixels(pixels.images_NHWC[chosen_N], pixels.labels_N[chosen_N])


def _order(domain: ImageDomain, count: int) -> np.ndarray:
    """The first so many held-out images in a fixed order."""
    return permute(
        np.arange(count, dtype=np.uint64), len(domain.heldout.labels_N), key_of("heldout", domain.name)
    )


def _at(domain: ImageDomain, level: float, count: int) -> HeldOut:
    """With their labels, and with noise of their own at each level."""
    order_N = _order(domain, count)
    keys_N = _draws(key_of("heldout noise", domain.name, level), 0, count)[:, 0]
    labels_N = domain.heldout.labels_N[order_N] + domain.first_class
    images_NHWC = domain.heldout.images_NHWC[order_N]
    return HeldOut(rows(keys_N, np.full(count, level), labels_N, images_NHWC), 0)


def _draws(key: int, first: int, count: int) -> UInt64[np.ndarray, "B 4"]:
    """Four random words for each of the examples from `first` on (Philox: a block of its counter each)."""
    return np.random.Philox(key=key, counter=first).random_raw(4 * count).reshape(count, 4)


def _uniform(words_B: np.ndarray) -> np.ndarray:
    """Between 0 and 1, neither included."""
    return ((words_B >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
