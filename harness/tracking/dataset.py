"""The data set of a study as an input of its runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from harness.ledger.reader import Study
from harness.study.spec import SweepSpec

if TYPE_CHECKING:
    from mlflow.entities import Dataset
    from mlflow.types import Schema

_MAX_DIGEST = 36
_BUILT_IN = {"images": ("uint8", (28, 28)), "labels": ("uint8", ())}  # type and shape of one image, and of its label


def dataset_of(study: Study) -> Dataset | None:
    """The data set with its schema and sizes; None if the digest of its contents is unknown."""
    from mlflow.data.schema import TensorDatasetSchema
    from mlflow.entities import Dataset

    digest = study.provenance.get("data_digest")
    if not digest:
        return None
    spec = study.spec
    schema = TensorDatasetSchema(_schema(spec, "images"), _schema(spec, "labels"))
    sizes = {f"{split}_images": size for split, size in spec.sizes.items()}
    used = {"used_train_images": spec.train_images, "used_validation_images": spec.validation_images}
    return Dataset(
        spec.dataset,
        str(digest)[:_MAX_DIGEST],
        source_type="local",
        source=spec.dataset,
        schema=json.dumps(schema.to_dict()),
        profile=json.dumps(sizes | used),
    )


def _schema(spec: SweepSpec, part: str) -> Schema:
    """Of images or labels, any number of them."""
    import numpy as np
    from mlflow.types import Schema, TensorSpec

    kind, shape = _BUILT_IN[part]
    if spec.own_data is not None:
        kept = spec.own_data.kept[f"train_{part}"]
        kind, shape = kept.dtype, kept.shape[1:]
    return Schema([TensorSpec(np.dtype(kind), (-1, *shape))])
