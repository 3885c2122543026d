"""A trained run as a function from images to classes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.augment import normalize
from jaxvision.data.decode import decode_image
from jaxvision.errors import UserError
from jaxvision.tasks.tta import mean_logits
from jaxvision.training import runtime
from jaxvision.training.build import DataFacts, make_model


@dataclasses.dataclass(frozen=True)
class Predictions:
  """What a model says of some images.

  Attributes:
    probabilities: float32 [n, K], each row sums to 1.
    class_names: the K names.
  """

  probabilities: np.ndarray
  class_names: tuple[str, ...]

  @property
  def labels(self) -> np.ndarray:
    """The most probable class of each image, int [n]."""
    return self.probabilities.argmax(-1)

  @property
  def names(self) -> list[str]:
    """Its name."""
    return [self.class_names[i] for i in self.labels]

  def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
    """Returns the k most probable classes of each image, best first, with shares."""
    order = np.argsort(-self.probabilities, axis=-1, kind='stable')[:, :k]
    return [
      [(self.class_names[i], float(row[i])) for i in best]
      for row, best in zip(self.probabilities, order)
    ]


@dataclasses.dataclass
class Run:
  """A run that has a checkpoint: its config, its data's facts, its weights.

  Attributes:
    config: the whole config of the run.
    facts: class names, image shape and normalisation.
    step: of the weights.
    state: the restored train state; `state.eval_variables` are the weights.
  """

  config: ConfigDict
  facts: DataFacts
  step: int
  state: Any

  def __post_init__(self):
    model = make_model(self.config, len(self.facts.class_names))
    dtype = jnp.dtype(self.config.dtype)

    def probabilities(variables, images):
      normal = normalize(images, self.facts.mean, self.facts.std, dtype)
      return jax.nn.softmax(
        mean_logits(
          lambda shown: model.apply(variables, shown, train=False),
          normal,
          self.config.evaluation.tta,
        )
      )

    self._probabilities = jax.jit(
      probabilities, compiler_options=runtime.compiler_options()
    )

  def predict(
    self, images: np.ndarray | Sequence[str | Path], batch_size: int = 256
  ) -> Predictions:
    """Returns the class probabilities of images.

    Args:
      images: uint8 [n, H, W, C] of the run's image shape, or paths of image files,
        which are decoded, converted and resized as in training.
      batch_size: images per call; one shape is compiled.

    Raises:
      UserError: a file is no image, or an array has another shape or dtype.
    """
    names = self.facts.class_names
    if len(images) == 0:
      return Predictions(np.zeros((0, len(names)), np.float32), names)
    given = isinstance(images, np.ndarray)
    if given and (
      images.dtype != np.uint8 or tuple(images.shape[1:]) != self.facts.image_shape
    ):
      raise UserError(
        f'predict takes uint8 images of shape [n, '
        f'{", ".join(map(str, self.facts.image_shape))}], not {images.dtype} of shape '
        f'{list(images.shape)}; files of any size are resized'
      )
    size = min(batch_size, len(images))
    rows = []
    for start in range(0, len(images), size):
      part = images[start : start + size]
      if not given:
        part = np.stack([self._decoded(path) for path in part])
      padding = [(0, size - len(part)), (0, 0), (0, 0), (0, 0)]
      padded = np.pad(part, padding)
      rows.append(
        np.asarray(self._probabilities(self.state.eval_variables, padded))[: len(part)]
      )
    return Predictions(np.concatenate(rows), names)

  def _decoded(self, path: str | Path) -> np.ndarray:
    facts = self.facts
    return decode_image(
      path, facts.image_shape, facts.crop_fraction, facts.interpolation
    )
