"""Feature extractors for generative metrics: Inception-v3 or one of our classifiers."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxvision.data.augment import normalize
from jaxvision.data.resizing import resize
from jaxvision.models.features_and_logits import features_and_logits
from jaxvision.models.inception import InceptionV3
from jaxvision.placement import shared_map
from jaxvision.training import runtime
from jaxvision.weights.inception import SHA256

# Images at a time. On a CPU, Inception takes 17 MB of memory per image, and larger batches
# are not faster.
_BATCH, _INCEPTION_BATCH_ON_CPU = 100, 16


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureExtractor:
  """A network that maps images to features and class probabilities.

  Attributes:
    name: name of the Fréchet distance of its features: 'FID' for Inception-v3 only,
      otherwise 'FD-<run>'.
    weights: describes the weights to a reader.
    resizer: how images are resized for the network; '' if they are not.
    identity: identifies the features in cache files.
    class_names: names of the classes; None for Inception-v3.
    extract: maps images uint8 [n, H, W, C], n at most `batch_size`, to features float32
      [n, D] and probabilities float32 [n, K].
    batch_size: images at a time.
    image_shape: (H, W, C) of the images that it takes; None for any.
  """

  name: str
  weights: str
  resizer: str
  identity: str
  class_names: tuple[str, ...] | None
  extract: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
  batch_size: int
  image_shape: tuple[int, int, int] | None = None

  def batches(
    self, batches: Iterable[np.ndarray]
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields features and probabilities of images that come in batches of any size.

    Of several processes that call it with the same images, each extracts a share.
    """
    parts = (
      batch[start : start + self.batch_size]
      for batch in batches
      for start in range(0, len(batch), self.batch_size)
    )
    yield from shared_map(self.extract, parts, self.batch_size)


def _padded(program: Callable, variables: object, size: int) -> Callable:
  """Returns a function that pads batches to `size`, so that `program` compiles once."""
  compiled = jax.jit(program, compiler_options=runtime.compiler_options())

  def extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missing = size - len(images)
    padded = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
    features, probabilities = compiled(variables, padded)
    keep = slice(0, len(images))
    return np.asarray(features)[keep], np.asarray(probabilities)[keep]

  return extract


def classifier_extractor(
  model: nn.Module,
  variables: object,
  *,
  name: str,
  weights: str,
  identity: str,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  class_names: tuple[str, ...],
  image_shape: tuple[int, int, int],
) -> FeatureExtractor:
  """Extracts the features before the last layer of a classifier.

  Args:
    model, variables: the classifier.
    name: name of its run.
    weights, identity: see `FeatureExtractor`.
    mean, std: its normalisation, in units of [0, 1].
    class_names: its classes.
    image_shape: (H, W, C) of its images.
  """

  def program(variables, images):
    normal = normalize(images, mean, std)
    features, logits = features_and_logits(model, variables, normal)
    return features, jax.nn.softmax(logits)

  return FeatureExtractor(
    name=f'FD-{name}',
    weights=weights,
    resizer='',
    identity=identity,
    class_names=class_names,
    extract=_padded(program, variables, _BATCH),
    batch_size=_BATCH,
    image_shape=image_shape,
  )


def inception_extractor(
  variables: object, sha256: str, resizer: str
) -> FeatureExtractor:
  """Extracts the features that FID, KID and the Inception Score are defined by.

  Args:
    variables: variables of `models.inception.InceptionV3`.
    sha256: hash of the file of the weights.
    resizer: 'clean' or 'tensorflow', see `data.resizing`.
  """
  model = InceptionV3()

  def program(variables, images):
    outputs = model.apply(variables, resize(images, resizer))
    # Without the bias, as in the first implementations of the score.
    probabilities = jax.nn.softmax(outputs.logits_unbiased)
    return outputs.features.astype(jnp.float32), probabilities

  size = _INCEPTION_BATCH_ON_CPU if jax.default_backend() == 'cpu' else _BATCH
  known = '' if sha256 == SHA256 else ' (not the published file)'
  return FeatureExtractor(
    name='FID',
    weights=f'Inception-v3 2015-12-05, sha256 {sha256[:8]}{known}',
    resizer=resizer,
    identity=f'inception {sha256} {resizer}',
    class_names=None,
    extract=_padded(program, variables, size),
    batch_size=size,
  )
