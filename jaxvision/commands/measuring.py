"""Several classifiers on the same images: their accuracy, and how far they agree."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jaxvision.commands.run_data import read
from jaxvision.data.dataset import Source
from jaxvision.inference.classifier import Classifier


class Measured(NamedTuple):
  """What a classifier says of a split.

  Attributes:
    accuracy: share of the images whose class is right; None where they have no one class.
    differing: number of images with another prediction than that of the first classifier.
  """

  accuracy: float | None
  differing: int


def measure(
  models: Mapping[str, Classifier], source: Source, batch_size: int
) -> dict[str, Measured]:
  """Measures classifiers of one signature on a split, batch by batch.

  Predictions differ where the most probable class does; where a label is at one half or
  more in one and below in the other; where a value of a regression differs by more than a
  thousandth.

  Args:
    models: by name; the first is the one that the others are compared with.
    source: the split.
    batch_size: images that are held at a time.
  """
  kind = next(iter(models.values())).signature.kind
  right, differing = dict.fromkeys(models, 0), dict.fromkeys(models, 0)
  for images, labels in _batches(source, batch_size):
    first = None
    for name, model in models.items():
      found = model.predict(images, batch_size).probabilities
      first = found if first is None else first
      differing[name] += int(_differ(found, first, kind).sum())
      if kind == 'class':
        right[name] += int((found.argmax(-1) == labels).sum())
  return {
    name: Measured(
      right[name] / len(source) if kind == 'class' else None, differing[name]
    )
    for name in models
  }


def _differ(found: np.ndarray, first: np.ndarray, kind: str) -> np.ndarray:
  """Returns bool [n]: whether two predictions of an image are two."""
  if kind == 'class':
    return found.argmax(-1) != first.argmax(-1)
  if kind == 'multilabel':
    return ((found >= 0.5) != (first >= 0.5)).any(-1)
  return ~np.isclose(found, first, rtol=1e-3, atol=1e-3).all(-1)


def _batches(source: Source, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  for first in range(0, len(source), size):
    yield read(source, np.arange(first, min(first + size, len(source))))
