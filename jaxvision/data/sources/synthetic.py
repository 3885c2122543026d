"""Made-up images that a network can learn, to measure speed and to test pipelines.

Each class has three soft blobs with places, widths and colours of its own. An image is
the blobs of its class, shifted together by up to an eighth of the side, brightened or
dimmed, with noise: a linear classifier does better than chance, a small CNN nearly
perfectly. Accuracies on it mean nothing for any other data.
"""

import dataclasses

import numpy as np

from jaxvision.data.dataset import SubsetSource
from jaxvision.data.decode import PLAIN, Resizing, fit_image
from jaxvision.data.sources.source import Decoding, OpenedDataset

_BLOBS = 3
_NOISE = 24  # standard deviation, in levels of 255


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticSource:
  """Examples 0..examples-1, each made from (seed, index) alone when it is asked for.

  Example i has label i mod classes, so a set of any size costs no memory.

  Attributes:
    examples: number of examples.
    classes: number of classes.
    image_shape: (H, W, C).
    seed: seed of the blobs of the classes and of every image.
    resizing: the centre of an image may be enlarged, as that of any picture.
  """

  examples: int
  classes: int
  image_shape: tuple[int, int, int]
  seed: int = 0
  resizing: Resizing = PLAIN

  @property
  def labels(self) -> np.ndarray:
    return np.arange(self.examples, dtype=np.int32) % self.classes

  def __len__(self) -> int:
    return self.examples

  def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
    if not 0 <= index < self.examples:
      raise IndexError(f'example {index} of {self.examples}')
    label = int(index) % self.classes
    rng = np.random.default_rng([self.seed, 1, int(index)])
    image = self._clean(label, shift=rng.uniform(-0.125, 0.125, 2))
    image = image * rng.uniform(0.7, 1.3) + rng.normal(0, _NOISE, self.image_shape)
    pixels = image.clip(0, 255).astype(np.uint8)
    return fit_image(pixels, self.image_shape, *self.resizing), label

  def _clean(self, label: int, shift: np.ndarray) -> np.ndarray:
    """Returns the class's blobs [H, W, C], from 0 to about 255."""
    height, width, channels = self.image_shape
    rng = np.random.default_rng([self.seed, 0, label])
    places = rng.uniform(0.2, 0.8, (_BLOBS, 2)) + shift
    widths = rng.uniform(0.08, 0.2, (_BLOBS, 1))
    colours = rng.uniform(0, 255, (_BLOBS, channels))
    rows = (np.arange(height) + 0.5) / height
    columns = (np.arange(width) + 0.5) / width
    along_rows = np.exp(-0.5 * ((rows - places[:, :1]) / widths) ** 2)
    along_columns = np.exp(-0.5 * ((columns - places[:, 1:]) / widths) ** 2)
    return np.einsum('bh,bw,bc->hwc', along_rows, along_columns, colours)


def open_synthetic(
  examples: int,
  classes: int,
  test_fraction: float,
  *,
  decoding: Decoding,
) -> OpenedDataset:
  """Returns `examples` training images, and test images in `test_fraction` of the whole.

  Args:
    examples: training images.
    classes: number of classes.
    test_fraction: the test split is this share of training and test together.
    decoding: their shape, 32x32 pixels and RGB by default, and the part of each image
      that is kept.
  """
  size = decoding.image_size or 32
  shape = (size, size, decoding.channels or 3)
  test = max(classes, round(examples * test_fraction / (1 - test_fraction)))
  source = SyntheticSource(examples + test, classes, shape, resizing=decoding.resizing)
  return OpenedDataset(
    name='synthetic',
    class_names=tuple(f'synthetic {k}' for k in range(classes)),
    image_shape=shape,
    pools={
      'train': SubsetSource(source, np.arange(examples)),
      'test': SubsetSource(source, np.arange(examples, examples + test)),
    },
    origin='synthetic images',
    synthetic=True,
  )
