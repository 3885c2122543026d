"""Who says what generated images look like: a network that is none of the GAN's."""

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
from jaxvision.training import runtime
from jaxvision.weights.inception import SHA256

# Images at a time. On a CPU, Inception takes 17 MB of memory an image and gains nothing
# by more.
_BATCH, _INCEPTION_BATCH_ON_CPU = 100, 16


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureExtractor:
  """A network whose features are compared.

  Attributes:
    name: of the distance: 'FID', only ever with Inception, or 'FD-<run>'.
    weights: which weights these are, for the reader.
    resizer: how images become what the network takes; '' where they are that already.
    identity: tells these features from all others; for files that keep them.
    class_names: of its probabilities; None where nobody asks for them (Inception).
    look: images uint8 [n, H, W, C] -> (features float32 [n, D], probabilities float32
      [n, K]), n up to `batch_size`.
    batch_size: images at a time, which bounds memory.
    image_shape: (H, W, C) that it takes; None: any.
  """

  name: str
  weights: str
  resizer: str
  identity: str
  class_names: tuple[str, ...] | None
  look: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
  batch_size: int
  image_shape: tuple[int, int, int] | None = None

  def batches(
    self, batches: Iterable[np.ndarray]
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields features and probabilities of images that come in batches of any size."""
    for batch in batches:
      for start in range(0, len(batch), self.batch_size):
        yield self.look(batch[start : start + self.batch_size])


def _padded(program: Callable, variables: object, size: int) -> Callable:
  """Returns `look`: calls a program that is compiled once per image shape."""
  compiled = jax.jit(program, compiler_options=runtime.compiler_options())

  def look(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missing = size - len(images)
    padded = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
    features, probabilities = compiled(variables, padded)
    keep = slice(0, len(images))
    return np.asarray(features)[keep], np.asarray(probabilities)[keep]

  return look


def classifier_extractor(
  name: str,
  weights: str,
  identity: str,
  model: nn.Module,
  variables: object,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  class_names: tuple[str, ...],
  image_shape: tuple[int, int, int],
) -> FeatureExtractor:
  """Returns a judge by the features before the last layer of a classifier of ours.

  Args:
    name: of the run.
    weights, identity: see `FeatureExtractor`.
    model, variables: of the classifier.
    mean, std: its normalisation, in units of [0, 1].
    class_names: its classes.
    image_shape: (H, W, C) of its images.
  """

  def program(variables, images):
    normal = normalize(images, mean, std)
    features, logits = features_and_logits(model, variables, normal)
    return features, jax.nn.softmax(logits)

  look = _padded(program, variables, _BATCH)
  return FeatureExtractor(
    f'FD-{name}', weights, '', identity, class_names, look, _BATCH, image_shape
  )


def inception_extractor(
  variables: object, sha256: str, resizer: str
) -> FeatureExtractor:
  """Returns the judge that FID, KID and Inception Score are defined by.

  Args:
    variables: of `models.inception.InceptionV3`.
    sha256: of the file that they came from.
    resizer: 'clean' or 'tensorflow', see `data.resizing`.
  """
  model = InceptionV3()

  def program(variables, images):
    outputs = model.apply(variables, resize(images, resizer))
    # Without the bias, as the first implementations had it.
    probabilities = jax.nn.softmax(outputs.logits_unbiased)
    return outputs.features.astype(jnp.float32), probabilities

  size = _INCEPTION_BATCH_ON_CPU if jax.default_backend() == 'cpu' else _BATCH
  known = '' if sha256 == SHA256 else ' (not the published file)'
  return FeatureExtractor(
    'FID',
    f'Inception-v3 2015-12-05, sha256 {sha256[:8]}{known}',
    resizer,
    f'inception {sha256} {resizer}',
    None,
    _padded(program, variables, size),
    size,
  )
