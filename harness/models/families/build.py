"""Construction of a run's model by its family; the families of the harness."""

from __future__ import annotations

from harness.config.schema.run import Config
from harness.config.socket_registry import NoOptions
from harness.models.diffusion.diffusion_model import ImageModel, build_image_model
from harness.models.families.model_family import (
    FAMILIES,
    NATS,
    DataShape,
    ModelFamily,
    check_data_kind,
    configured_family,
)
from harness.models.model_api import Model
from harness.models.text.text_model import TextModel, build_text_model
from harness.models.vetting.vet import vet

FAMILIES.add(
    ModelFamily(
        "decoder",
        NoOptions,
        TextModel,
        lambda family, config, data: build_text_model(config, data.vocabulary, data.end_token),
        data=("text",),
        loss_unit=NATS,
        check=vet,
        noun="text model",
        finetunes=True,
        splits_sequences=True,
        exports=True,
    )
)
FAMILIES.add(
    ModelFamily(
        "dit",
        NoOptions,
        ImageModel,
        lambda family, config, data: build_image_model(config, data.vocabulary, data.image),
        data=("images",),
        loss_unit="mean squared error a value",
        check=vet,
        noun="image model",
    )
)


def build(
    config: Config,
    vocabulary: int,
    end_token: int | None = None,
    image: tuple[int, int, int] | None = None,
    row: tuple[int, ...] | None = None,
    dtype: str = "int32",
) -> Model:
    """Build the model of a run. Raises UserError for a config that has no model.

    `end_token` ends a document, for a config that masks documents. `image` is the height, width and channels
    of image data, `row` the shape of an example of data of a user's own, and `dtype` its dtype.
    """
    family = configured_family(config)
    kind = "images" if image is not None else config.data.kind
    check_data_kind(family.entry, kind, config)
    return family.entry.build(family, config, DataShape(vocabulary, end_token, image, row, dtype))
