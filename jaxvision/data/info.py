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
    split_rule: 'path' or 'index', see `splitting`; runs that began before there was
      another rule name none and have the second.
    fingerprint: see `Dataset`; '' where a run of an earlier version stored none.
    named: see `Dataset`.
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
  split_rule: str = 'index'
  fingerprint: str = ''
  named: bool = True
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
      split_rule=dataset.split_rule,
      fingerprint=dataset.fingerprint,
      named=dataset.named,
      class_counts=counts,
    )

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> 'DatasetInfo':
    """Returns the facts that `dataclasses.asdict` wrote to JSON."""
    known: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    # Earlier versions stored a fingerprint of data of the user's own alone.
    return cls(**{'named': not known.get('fingerprint')} | known)
