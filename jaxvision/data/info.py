"""What a run must know of its data, small enough for the run directory."""

import dataclasses
from typing import Any

import numpy as np

from jaxvision.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
  """The facts of a data set: dataset.json of a run directory.

  Attributes:
    name: of the data set.
    class_names: in the order of the labels; of a regression the names of the outputs.
    image_shape: (H, W, C).
    mean, std: per channel, in units of [0, 1].
    examples: split name -> number of examples.
    synthetic: whether the images are made up.
    skipped: unreadable files that were passed over.
    crop_fraction, interpolation: how images of other sizes are brought to the shape.
    label_kind: 'class', 'multilabel' or 'regression'.
    fingerprint: see `Dataset`; in dataset.json of data of the user's own, else ''.
    class_counts: training images of each class; empty where labels are no classes.
  """

  name: str
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  examples: dict[str, int]
  synthetic: bool = False
  skipped: int = 0
  crop_fraction: float = 1.0
  interpolation: str = 'bilinear'
  label_kind: str = 'class'
  fingerprint: str = ''
  class_counts: tuple[int, ...] = ()

  @classmethod
  def of(cls, dataset: Dataset) -> 'DatasetInfo':
    """Returns the facts of a loaded data set."""
    height, width, channels = map(int, dataset.image_shape)
    counts: tuple[int, ...] = ()
    if dataset.label_kind == 'class':
      labels = np.asarray(dataset.splits['train'].labels)
      counts = tuple(np.bincount(labels, minlength=dataset.num_classes).tolist())
    return cls(
      name=dataset.name,
      class_names=tuple(dataset.class_names),
      image_shape=(height, width, channels),
      mean=tuple(float(m) for m in dataset.mean),
      std=tuple(float(s) for s in dataset.std),
      examples={split: len(source) for split, source in dataset.splits.items()},
      synthetic=dataset.synthetic,
      skipped=dataset.skipped,
      crop_fraction=float(dataset.crop_fraction),
      interpolation=dataset.interpolation,
      label_kind=dataset.label_kind,
      fingerprint=dataset.fingerprint,
      class_counts=counts,
    )

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> 'DatasetInfo':
    """Returns the facts that `dataclasses.asdict` wrote to JSON."""
    known: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return cls(**known)
