"""What a trained network asks of images and says of them, and how files record it."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxvision.errors import UserError, short
from jaxvision.weights.files import METADATA_KEY
from jaxvision.weights.preprocessing import Preprocessing

__all__ = [
  'METADATA_KEY',
  'GeneratorSignature',
  'Signature',
  'from_json',
  'to_json',
]

KINDS = ('class', 'multilabel', 'regression')


@dataclasses.dataclass(frozen=True)
class Signature:
  """The images that a classifier takes, and the names of its outputs.

  Attributes:
    image_shape: (H, W, C) of the uint8 images; files of any size are brought to it.
    class_names: of the outputs, in their order.
    kind: 'class': the outputs are probabilities that sum to 1; 'multilabel': a probability
      for each label; 'regression': values.
    crop_fraction, interpolation: how files are brought to the shape, see `decode_image`.
    model: name of the network.
    facts: where it comes from: 'config_name', 'dataset', 'step', 'test_accuracy' and the
      like, as far as they are known.
  """

  image_shape: tuple[int, int, int]
  class_names: tuple[str, ...]
  kind: str = 'class'
  crop_fraction: float = 1.0
  interpolation: str = 'bilinear'
  model: str = ''
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def output(self) -> str:
    """The name of the output: 'probabilities', or 'values' of a regression."""
    return 'values' if self.kind == 'regression' else 'probabilities'


@dataclasses.dataclass(frozen=True)
class GeneratorSignature:
  """What a network that draws images takes, and the images that it draws.

  Attributes:
    image_shape: (H, W, C) of the uint8 images.
    class_names: of the classes to choose from; empty: it draws without classes.
    latent: length of the noise of an image, which is standard normal.
    model, facts: see `Signature`.
  """

  image_shape: tuple[int, int, int]
  class_names: tuple[str, ...]
  latent: int
  model: str = ''
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  kind: ClassVar[str] = 'generator'


def to_json(signature: Signature | GeneratorSignature) -> str:
  """Returns a signature as one line of JSON, in ASCII."""
  return json.dumps({'kind': signature.kind, **dataclasses.asdict(signature)})


def from_json(text: str, origin: str) -> Signature | GeneratorSignature:
  """Returns the signature that `to_json` wrote.

  Args:
    text: JSON of an untrusted file.
    origin: the file, for messages.

  Raises:
    UserError: it is no JSON, or not that of what we export.

  >>> one = Signature((8, 8, 1), ('no', 'yes'), facts={'step': 20})
  >>> from_json(to_json(one), 'model.onnx') == one
  True
  """
  try:
    given = json.loads(text)
  except ValueError as error:
    raise UserError(f'{origin}: its metadata are no JSON: {error}') from error
  given = given if isinstance(given, dict) else {}
  known = Preprocessing.of_json(given)
  kind, shape, latent = (given.get(key) for key in ('kind', 'image_shape', 'latent'))
  draws = kind == GeneratorSignature.kind
  wrong = [
    name
    for name, good in (
      ('kind', draws or kind in KINDS),
      ('image_shape', isinstance(shape, list) and len(shape) == 3 and _counts(*shape)),
      ('class_names', known.class_names or draws),
      ('latent', not draws or _counts(latent)),
    )
    if not good
  ]
  if wrong:
    raise UserError(
      f'{origin}: its metadata have no right {" and ".join(wrong)}: it is not what '
      '`jaxvision export` writes'
    )
  size, names = tuple(shape), known.class_names or ()
  facts = given.get('facts')
  rest = {
    'model': short(str(given.get('model', ''))),
    'facts': facts if isinstance(facts, dict) else {},
  }
  if draws:
    return GeneratorSignature(size, names, latent, **rest)
  return Signature(
    size,
    names,
    kind,
    known.crop_fraction or 1.0,
    known.interpolation or 'bilinear',
    **rest,
  )


def _counts(*values: Any) -> bool:
  return all(type(value) is int and 0 < value < 1_000_000 for value in values)
