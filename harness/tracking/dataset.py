"""The data set of a study as an input of its runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from harness.ledger.ledger import Study
from harness.study.spec import SPLIT_SIZES

if TYPE_CHECKING:
    from mlflow.entities import Dataset

_MAX_DIGEST = 36
_IMAGE = (-1, 28, 28)  # of bytes; of each data set


def dataset_of(study: Study) -> Dataset | None:
    """The data set with its schema and sizes; None if the digest of its contents is unknown."""
    import numpy as np
    from mlflow.data.schema import TensorDatasetSchema
    from mlflow.entities import Dataset
    from mlflow.types import Schema, TensorSpec

    digest = study.provenance.get("data_digest")
    if not digest:
        return None
    spec, bytes_ = study.spec, np.dtype(np.uint8)
    schema = TensorDatasetSchema(Schema([TensorSpec(bytes_, _IMAGE)]), Schema([TensorSpec(bytes_, (-1,))]))
    sizes = {f"{split}_images": size for split, size in SPLIT_SIZES[spec.dataset].items()}
    used = {"used_train_images": spec.train_images, "used_validation_images": spec.validation_images}
    return Dataset(
        spec.dataset,
        str(digest)[:_MAX_DIGEST],
        source_type="local",
        source=spec.dataset,
        schema=json.dumps(schema.to_dict()),
        profile=json.dumps(sizes | used),
    )
