"""The preprocessing of images that weights were trained with, and where it is recorded."""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvision.weights import naming

_LARGEST = 1e6  # of a number in a file that we believe
_INTERPOLATIONS = ('bilinear', 'bicubic')


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """The preprocessing of images for a set of weights; None where it is not known.

  Attributes:
    mean: mean of each channel, in units of [0, 1], which is subtracted.
    std: standard deviation of each channel, in the same units, divided by.
    image_size: height and width of the network's input, in pixels.
    crop_fraction: side of the centre crop over the shorter side of the resized image.
    interpolation: how images are resized, 'bilinear' or 'bicubic'.
    class_names: names of the classes in the order of the logits.
    channels: number of channels of the images.
  """

  mean: tuple[float, ...] | None = None
  std: tuple[float, ...] | None = None
  image_size: int | None = None
  crop_fraction: float | None = None
  interpolation: str | None = None
  class_names: tuple[str, ...] | None = None
  channels: int | None = None

  def or_else(self, other: 'Preprocessing') -> 'Preprocessing':
    """Returns a copy with the values of `other` for what is None.

    >>> known = Preprocessing(image_size=32)
    >>> known.or_else(Preprocessing(image_size=224, crop_fraction=0.875)).crop_fraction
    0.875
    """
    mine = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
    return dataclasses.replace(other, **mine)

  @classmethod
  def of_json(cls, given: Any) -> 'Preprocessing':
    """Returns the preprocessing that `dataclasses.asdict` wrote to JSON.

    Args:
      given: the parsed JSON; values of another form become None.

    Example:
      >>> known = Preprocessing(mean=(0.1, 0.2, 0.3), class_names=('cat', 'dog'))
      >>> import json
      >>> text = json.dumps(dataclasses.asdict(known))
      >>> Preprocessing.of_json(json.loads(text)) == known
      True
    """
    given = given if isinstance(given, dict) else {}
    return cls(
      mean=_numbers(given.get('mean')),
      std=_positive(given.get('std')),
      image_size=_whole(given.get('image_size')),
      crop_fraction=_fraction(given.get('crop_fraction')),
      interpolation=_interpolation(given.get('interpolation')),
      class_names=_strings(given.get('class_names')),
      channels=_whole(given.get('channels')),
    )


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

# The evaluation of torchvision's first weights, "IMAGENET1K_V1": shorter side 256,
# centre crop 224. The second ones resize to 232, which the file does not say.
IMAGENET = Preprocessing(_IMAGENET_MEAN, _IMAGENET_STD, 224, 0.875, 'bilinear')

# https://github.com/akamaster/pytorch_resnet_cifar10, whose weights are the most widely
# used, normalises CIFAR-10 with the statistics of ImageNet.
CIFAR = Preprocessing(_IMAGENET_MEAN, _IMAGENET_STD, 32, 1.0)

# torchvision's first weights of EfficientNets, by the number of blocks and of features.
_EFFICIENTNETS = {
  key: Preprocessing(_IMAGENET_MEAN, _IMAGENET_STD, size, size / resized, 'bicubic')
  for key, (size, resized) in {
    (16, 1280): (224, 256),  # B0
    (23, 1280): (240, 256),
    (23, 1408): (288, 288),
    (26, 1536): (300, 320),
  }.items()
}

# TensorFlow's EfficientNet-Lite0: (pixels - 127) / 128. It resizes bilinearly without
# antialiasing, to which bicubic with it is closer than bilinear with it.
LITE0 = Preprocessing(3 * (127 / 255,), 3 * (128 / 255,), 224, 0.875, 'bicubic')


def of_names(tensors: Mapping[str, np.ndarray]) -> Preprocessing:
  """Returns the preprocessing that follows from the names of weights without metadata.

  A ResNet in the names of torchvision and timm with a 7x7 convolution for its stem, and
  an EfficientNet B0 to B3 in torchvision's: ImageNet, evaluated as torchvision does. A
  ResNet of the 6n+2 family (3x3, 16 channels wide, three stages, `linear`): CIFAR,
  normalised as its best-known implementation does. EfficientNet-Lite0 in the names of
  efficientnet_pytorch: as in TensorFlow, where these are from. Anything else, such as an
  EfficientNet in timm's names, of which there are weights of three kinds: nothing is
  known.

  Args:
    tensors: name -> array, in PyTorch's names and layouts.
  """
  stages = naming.stage_sizes(tensors)
  features = tensors.get('features.8.0.weight')
  if features is not None and 'features.1.0.block.1.fc1.weight' in tensors:
    return _EFFICIENTNETS.get((sum(stages), *features.shape[:1]), Preprocessing())
  if '_conv_stem.weight' in tensors:
    is_lite0 = sum(stages) == 16 and '_blocks.0.0._se_reduce.weight' not in tensors
    return LITE0 if is_lite0 else Preprocessing()
  stem = tensors.get('conv1.weight')
  if stem is None or not stages or stem.ndim != 4 or stem.shape[1] != 3:
    return Preprocessing()
  if stem.shape[2:] == (7, 7):
    return IMAGENET
  is_cifar = stem.shape == (16, 3, 3, 3) and len(stages) == 3
  return CIFAR if is_cifar and 'linear.weight' in tensors else Preprocessing()


def of_timm(config: Any) -> Preprocessing:
  """Returns the preprocessing in the config.json of a repository that timm wrote.

  It is in 'pretrained_cfg', in older repositories at the top level. `image_size` and
  `crop_fraction` are those that the network was trained for ('input_size',
  'crop_pct'), as in timm's `resolve_model_data_config`; the pair 'test_...', a larger
  image that some networks score better on, is only used in their absence.

  Args:
    config: the parsed JSON; None or another form gives no values.
  """
  if not isinstance(config, dict):
    return Preprocessing()
  inner = config.get('pretrained_cfg')
  inner = inner if isinstance(inner, dict) else {}
  given = config | inner
  test = '' if given.get('input_size') else 'test_'
  size = given.get(f'{test}input_size')
  size = size if isinstance(size, list) and len(size) == 3 else [0, 0, 0]
  names = _strings(given.get('label_names'))
  return Preprocessing(
    mean=_numbers(given.get('mean')),
    std=_positive(given.get('std')),
    image_size=_whole(size[1]) if size[1] == size[2] else None,
    crop_fraction=_fraction(given.get(f'{test}crop_pct')),
    interpolation=_interpolation(given.get('interpolation')),
    class_names=names if names and given.get('num_classes') == len(names) else None,
  )


def _is_number(value: Any) -> bool:
  good = isinstance(value, numbers.Real) and not isinstance(value, bool)
  return good and abs(value) < _LARGEST  # NaN is not


def _numbers(value: Any) -> tuple[float, ...] | None:
  good = isinstance(value, list) and value and all(map(_is_number, value))
  return tuple(map(float, value)) if good else None


def _positive(value: Any) -> tuple[float, ...] | None:
  found = _numbers(value)
  return found if found and min(found) > 0 else None


def _strings(value: Any) -> tuple[str, ...] | None:
  good = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
  return tuple(value) if good else None


def _whole(value: Any) -> int | None:
  return int(value) if _is_number(value) and value >= 1 else None


def _fraction(value: Any) -> float | None:
  return float(value) if _is_number(value) and 0 < value <= 1 else None


def _interpolation(value: Any) -> str | None:
  return value if value in _INTERPOLATIONS else None
