"""Functions from images to classes or values: what a run and an exported file share."""

import abc
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, ClassVar

import numpy as np

from jaxvision.data.decode import MAX_PIXELS, decode_image
from jaxvision.errors import UserError
from jaxvision.inference.signature import Signature

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


class Classifier(abc.ABC):
  """A trained network as a function from images to probabilities or values.

  A subclass computes them for arrays; the base reads files, resizes as in training, and
  makes batches of what it is given.

  Attributes:
    pads: whether all batches of a call have the size of the first, for a network that is
      compiled for each size.
  """

  pads: ClassVar[bool] = False

  @property
  @abc.abstractmethod
  def signature(self) -> Signature:
    """The images that it takes and the names of its outputs."""

  @abc.abstractmethod
  def probabilities(self, images: np.ndarray) -> np.ndarray:
    """Returns the outputs for one batch.

    Args:
      images: uint8 [n, H, W, C] of `signature.image_shape`, n at least 1.

    Returns:
      float32 [n, K], as `Predictions.probabilities`.
    """

  def largest_batch(self) -> int:
    """Returns how many images `predict` gives to `probabilities` at once.

    That is 256, or fewer where they are large.
    """
    height, width, _ = self.signature.image_shape
    return max(1, min(256, 256 * 64 * 64 // (height * width)))

  def predict(self, images: Any, batch_size: int | None = None) -> Predictions:
    """Returns the class probabilities of images.

    Args:
      images: uint8 [n, H, W, C] of `signature.image_shape`, of NumPy or of JAX; a path of
        an image file or a picture of Pillow, which are decoded, converted and resized as
        in training; one image [H, W, C]; or a list or a generator of any of these.
      batch_size: images per call, of which at most these are held at a time; None: 256, or
        fewer where they are large.

    Raises:
      UserError: a file is no image, an array has another shape or dtype, or it is
        something else.
    """
    names = self.signature.class_names
    size = batch_size or self.largest_batch()
    found = self.apply(self.probabilities, images, size, 'predict')
    empty = np.zeros((0, len(names)), np.float32)
    return Predictions(empty if found is None else found, names)

  def decode(self, image: Any, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Returns a file, its bytes, or a picture of Pillow as the network takes it.

    Args:
      image: of any size.
      max_pixels: of the image, by its header; a larger one is not decoded.

    Returns:
      uint8 [H, W, C].

    Raises:
      UnreadableImage: it is no image, or has more pixels.
    """
    known = self.signature
    return decode_image(
      image,
      known.image_shape,
      known.crop_fraction,
      known.interpolation,
      max_pixels=max_pixels,
    )

  def apply(
    self, function: Callable[[np.ndarray], Any], images: Any, size: int, name: str
  ) -> np.ndarray | None:
    """Applies a function to batches of whatever `predict` takes.

    Args:
      function: uint8 [n, H, W, C] -> [n, ...].
      images: see `predict`.
      size: images in a batch.
      name: what is asked for, for messages.

    Returns:
      The results of all images; None where there are no images.
    """
    first, rows = None, []
    for part in self.batches(images, size, name):
      first = first or len(part)  # the largest
      missing = first - len(part) if self.pads else 0
      padded = np.pad(part, [(0, missing), (0, 0), (0, 0), (0, 0)])
      rows.append(np.asarray(function(padded))[: len(part)])
    return np.concatenate(rows) if rows else None

  def batches(
    self, images: Any, size: int, name: str = 'predict'
  ) -> Iterator[np.ndarray]:
    """Yields uint8 [size, H, W, C], the last of fewer, of whatever `predict` takes.

    Args:
      images: see `predict`.
      size: images in each.
      name: what is asked for, for messages.
    """
    return _grouped(self._arrays(name, images), size)

  def _arrays(self, name: str, images: Any) -> Iterator[np.ndarray]:
    """Yields uint8 [k, H, W, C] of whatever may be given, k as it is given."""
    from PIL import Image

    shape = self.signature.image_shape
    if isinstance(images, str | os.PathLike | Image.Image):
      yield self.decode(images)[None]
    elif isinstance(images, np.ndarray) or _is_jax(images):
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


def _is_jax(images: Any) -> bool:
  """Whether it is an array of JAX; a server of exported files never imports it."""
  return type(images).__module__.split('.')[0] in ('jax', 'jaxlib')


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
