"""A trained run as a function from images to classes or values."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data.augment import normalize
from jaxvision.data.decode import decode_image
from jaxvision.errors import UserError, closest
from jaxvision.models.features_and_logits import features_and_logits
from jaxvision.models.grad_cam import grad_cam
from jaxvision.training import runtime
from jaxvision.training.evaluation import images_per_batch
from jaxvision.training.run_directory import RunDirectory

_NO_LISTS = (bytes, bytearray, Mapping, Set)  # without an order, or of other things


@dataclasses.dataclass(frozen=True)
class Predictions:
  """The predictions of a model for some images.

  Attributes:
    probabilities: float32 [n, K]: each row sums to 1 in a classifier of one class per
      image; a probability for each label in a multi-label one; the predicted values of
      a regression.
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
    """Its name, for each image."""
    return [self.class_names[i] for i in self.labels]

  def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
    """Returns the k most probable classes of each image, best first, with shares."""
    order = np.argsort(-self.probabilities, axis=-1, kind='stable')[:, :k]
    return [
      [(self.class_names[i], float(row[i])) for i in best]
      for row, best in zip(self.probabilities, order)
    ]


class Predictor:
  """A trained run: its config, what is known of its data, its weights.

  Args:
    task: a `SupervisedTask`.
    state: the restored train state; `state.eval_variables` are the weights.
    step: of the weights.
    origin: the run directory.

  Attributes:
    config: the whole config of the run.
    info: class names, image shape and normalisation.
    task, state, step: see above.
  """

  def __init__(self, task: Any, state: Any, step: int, origin: str):
    self.task, self.state, self.step, self.origin = task, state, step, origin
    self.config, self.info = task.config, task.info
    self._programs: dict[str, Callable] = {}

  @property
  def input_shape(self) -> tuple[int, ...]:
    """The shape (H, W, C) of the images that the network sees."""
    return self.task.input_shape

  def predict(self, images: Any, batch_size: int | None = None) -> Predictions:
    """Returns the class probabilities of images.

    Args:
      images: uint8 [n, H, W, C] of the run's image shape, of NumPy or of JAX; a path of
        an image file or a picture of Pillow, which are decoded, converted and resized as
        in training; one image [H, W, C]; or a list or a generator of any of these.
      batch_size: images per call; one shape is compiled. None: 256, or fewer where they
        are large.

    Raises:
      UserError: a file is no image, an array has another shape or dtype, or it is
        something else.
    """
    names = self.task.output_names
    found = self._batched('predict', self._probabilities, images, batch_size)
    if found is None:
      return Predictions(np.zeros((0, len(names)), np.float32), names)
    return Predictions(found, names)

  def features(self, images: Any, batch_size: int | None = None) -> np.ndarray:
    """Returns what goes into the last layer of the network, float32 [n, D].

    Args:
      images, batch_size: as for `predict`.

    Raises:
      UserError: as for `predict`, or the network has no layer called head.
    """
    found = self._batched('features', self._features, images, batch_size)
    return np.zeros((0, 0), np.float32) if found is None else found

  def decode(self, image: Any) -> np.ndarray:
    """Returns a file, or a picture of Pillow, as the run takes it: uint8 [H, W, C].

    Raises:
      UnreadableImage: it is no image.
    """
    info = self.info
    return decode_image(image, info.image_shape, info.crop_fraction, info.interpolation)

  def logits(self, images: Any, batch_size: int | None = None) -> np.ndarray:
    """Returns the outputs of the network before they become probabilities.

    Args:
      images, batch_size: as for `predict`.

    Returns:
      float32 [n, K].

    Raises:
      UserError: as for `predict`.
    """
    found = self._batched('logits', self._logits, images, batch_size)
    empty = np.zeros((0, len(self.task.output_names)), np.float32)
    return empty if found is None else found

  def grad_cam(
    self,
    images: Any,
    label: str | int | None = None,
    batch_size: int | None = None,
  ) -> np.ndarray:
    """Returns where in each image the network sees a class, see `models.grad_cam`.

    Args:
      images, batch_size: as for `predict`.
      label: name or number of the class; None: the most probable one of each image.

    Returns:
      float32 [n, H, W] of the size that the network takes, from 0 to 1.

    Raises:
      UserError: as for `predict`; there is no such class; or the network has no maps.
    """
    number = None if label is None else self._number(label)

    def maps(variables: Any, images: jax.Array) -> jax.Array:
      images = self._normal(images)
      if number is None:
        labels = self.task.apply(variables, images).argmax(-1)
      else:
        labels = jnp.full(len(images), number)
      return grad_cam(self.task.model, variables, images, labels)

    found = self._batched(f'grad_cam {number}', maps, images, batch_size)
    shape = (0, *self.info.image_shape[:2])
    return np.zeros(shape, np.float32) if found is None else found

  def history(self) -> list[dict[str, Any]]:
    """Returns the log points of the run: 'step', 'split' and the measures of each."""
    return RunDirectory(self.origin).history()

  def __repr__(self) -> str:
    names, info = self.task.output_names, self.info
    count = sum(self.task.count_parameters(self.state.params).values())
    more = ', ...' if len(names) > 10 else ''
    return (
      f'{type(self).__name__} of {self.origin}, step {self.step}\n'
      f'  model: {self.config.model.name}, {count:,} parameters, trained on {info.name}\n'
      f'  images: uint8 [n, {", ".join(map(str, info.image_shape))}], or files\n'
      f'  outputs: {len(names)} ({", ".join(names[:10])}{more})'
    )

  def _number(self, label: str | int) -> int:
    names = self.task.output_names
    if label in names:
      return names.index(str(label))
    if str(label).isdigit() and int(label) < len(names):
      return int(label)
    raise UserError(
      f'there is no class "{label}"{closest(str(label), names)} (names, or 0 to '
      f'{len(names) - 1})'
    )

  def _logits(self, variables: Any, images: jax.Array) -> jax.Array:
    outputs = self.task.apply(variables, self._normal(images))
    return outputs.astype(jnp.float32)

  def _probabilities(self, variables: Any, images: jax.Array) -> jax.Array:
    return self.task.probabilities(self.task.apply(variables, self._normal(images)))

  def _features(self, variables: Any, images: jax.Array) -> jax.Array:
    return features_and_logits(self.task.model, variables, self._normal(images))[0]

  def _normal(self, images: jax.Array) -> jax.Array:
    mean, std = self.task.normalization
    return normalize(images, mean, std, self.task.dtype)

  def _batched(
    self, name: str, function: Callable, images: Any, batch_size: int | None
  ) -> np.ndarray | None:
    """Applies a function to batches of images; None where there are no images."""
    if name not in self._programs:
      options = runtime.compiler_options()
      self._programs[name] = jax.jit(function, compiler_options=options)
    variables, shape = self.state.eval_variables, self.info.image_shape
    most = batch_size or images_per_batch(
      function,
      lambda count: (variables, jax.ShapeDtypeStruct((count, *shape), np.uint8)),
      self.input_shape,
      256,
    )
    size, rows = None, []
    for part in _grouped(self._arrays(name, images), most):
      size = size or len(part)  # the first is the largest
      padded = np.pad(part, [(0, size - len(part)), (0, 0), (0, 0), (0, 0)])
      found = self._programs[name](variables, padded)
      rows.append(np.asarray(found)[: len(part)])
    return np.concatenate(rows) if rows else None

  def _arrays(self, name: str, images: Any) -> Iterator[np.ndarray]:
    """Yields uint8 [k, H, W, C] of whatever may be given, k as it is given."""
    from PIL import Image

    shape = self.info.image_shape
    if isinstance(images, str | os.PathLike | Image.Image):
      yield self.decode(images)[None]
    elif isinstance(images, np.ndarray | jax.Array):
      array = np.asarray(images)
      grey = array.ndim == 2 and shape[-1] == 1
      one = array[..., None] if grey else array
      if array.dtype == np.uint8 and one.shape == shape:
        yield one[None]
      elif array.dtype == np.uint8 and array.shape[1:] == shape:
        yield array
      elif array.shape != (0,):  # an empty list, made an array
        raise UserError(
          f'{name} takes uint8 images of shape [n, {", ".join(map(str, shape))}], not '
          f'{array.dtype} of shape {list(array.shape)}; files of any size are resized'
        )
    elif isinstance(images, Iterable) and not isinstance(images, _NO_LISTS):
      for image in images:
        yield from self._arrays(name, image)
    else:
      raise UserError(
        f'{name} takes paths of image files, pictures of Pillow, uint8 arrays of NumPy or '
        f'JAX, and lists and generators of these, not {type(images).__name__}'
      )


def _grouped(arrays: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
  """Yields arrays of `size` rows out of the rows of others, the last of fewer."""
  held: list[np.ndarray] = []
  count = 0
  for array in arrays:
    first = 0
    while first < len(array):
      part = array[first : first + size - count]
      held.append(part)
      first, count = first + len(part), count + len(part)
      if count == size:
        yield np.concatenate(held) if len(held) > 1 else held[0]
        held, count = [], 0
  if held:
    yield np.concatenate(held)
