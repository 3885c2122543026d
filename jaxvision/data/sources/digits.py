"""The handwritten digits that come with scikit-learn: real, and never downloaded.

1,797 images of 8x8 pixels by 43 people: the test part of "Optical Recognition of
Handwritten Digits", E. Alpaydin and C. Kaynak, UCI, 1998.
"""

import numpy as np

from jaxvision.data.dataset import ArraySource
from jaxvision.data.decode import PLAIN, Resizing, fit_image
from jaxvision.data.sources.source import RawSet


def open_digits(
  image_size: int = 0, channels: int = 0, resizing: Resizing = PLAIN
) -> RawSet:
  """Returns all 1,797 digits in one pool, of which a test split is carved later.

  The stored levels 0..16 are spread over 0..255.

  Args:
    image_size: side in pixels to resize to; 0: 8, as stored.
    channels: 1 or 3; 0: 1, as stored.
    resizing: how images are resized.
  """
  from sklearn.datasets import load_digits

  levels, labels = load_digits(return_X_y=True)
  images = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
  shape = (image_size or 8, image_size or 8, channels or 1)
  images = np.stack([fit_image(image, shape, *resizing) for image in images])
  return RawSet(
    name='digits',
    class_names=tuple('0123456789'),
    image_shape=shape,
    pools={'train': ArraySource(images, labels.astype(np.int32))},
    origin='scikit-learn load_digits',
  )
