"""The axes of `growth.py`: what changes, what a row measures, and why it grows so."""

import dataclasses
from collections.abc import Callable
from typing import Any

_BATCH = 64

# Settings of a step that an axis does not change.
_STEP: dict[str, Any] = {
  'name': 'resnet20',
  'fields': {},
  'batch_size': _BATCH,
  'size': 32,
  'classes': 10,
  'devices': 1,
}

Request = tuple[str, dict[str, Any]]


def _step(**changed: Any) -> Request:
  return 'step', {**_STEP, **changed}


@dataclasses.dataclass(frozen=True)
class Axis:
  """One thing that changes.

  Attributes:
    title: heading on the page.
    unit: of its values.
    values: rising.
    request: value -> what the process is asked for.
    measured: what the time of a row is of.
    why: how it grows and, where that is not by the work, the reason; Markdown.
    any_model: whether another model than ResNet-20 can be asked for.
  """

  title: str
  unit: str
  values: tuple[int, ...]
  request: Callable[[int], Request]
  measured: str
  why: str
  any_model: bool = False


_A_STEP = f'a training step of ResNet-20, batch {_BATCH}, 32x32 pixels, 10 classes'

AXES = {
  'batch': Axis(
    'Batch',
    'images',
    (16, 32, 64, 128, 256),
    lambda n: _step(batch_size=n),
    'a training step of ResNet-20 by the images of its batch',
    'Time and memory follow the images: an image costs 3.9 ms in batches of 32, 3.5 in '
    'those of 64 and 4.2 in those of 256.',
    any_model=True,
  ),
  'width': Axis(
    'Width',
    'channels',
    (8, 16, 32, 64),
    lambda n: _step(fields={'width': n}),
    f'{_A_STEP}, by the channels of its first stage',
    'Operations grow with the square of the width, and what is held between layers with '
    'the width itself. Time grows less than operations, for narrow layers wait for '
    'memory: 32 GFLOP/s are done at 8 channels and 96 at 32, while the time, 5.2 times '
    'as much, follows the temporary memory, 4.6 times as much.',
  ),
  'depth': Axis(
    'Depth',
    'layers',
    (20, 32, 44, 56),
    lambda n: _step(name=f'resnet{n}'),
    'a training step of the 6n+2 family, batch 64, by its layers',
    '',
  ),
  'size': Axis(
    'Image size',
    'pixels a side',
    (32, 64, 96, 128),
    lambda n: _step(size=n, batch_size=16),
    'a training step of ResNet-20, batch 16, by the side of its images',
    '',
    any_model=True,
  ),
  'classes': Axis(
    'Classes, training',
    'classes',
    (10, 100, 1_000, 10_000, 100_000),
    lambda n: _step(classes=n),
    f'{_A_STEP.removesuffix(", 10 classes")}, by the number of classes',
    '',
    any_model=True,
  ),
  'report': Axis(
    'Classes, report',
    'classes',
    (10, 100, 1_000, 10_000, 100_000),
    lambda n: ('evaluation', {'classes': n, 'examples': 1_000}),
    'the report of 1,000 test images, 70 % of them right: metrics, plots, page',
    'Outputs are read once, which takes time and memory by classes times images. The '
    'confusion matrix is drawn and written as a whole up to 1,000 classes, whence its '
    'time and size there; above, only its cells that are not 0 are kept, no more than '
    'there are images, where a matrix of 100,000 classes would have 80 GB. What is left '
    'is a line for each class in the page and the JSON.',
  ),
  'order': Axis(
    'Images, of a step',
    'images',
    (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    lambda n: ('order', {'images': n}),
    'finding the 128 images of a step, in shuffled order, among all',
    'It does not grow: the place of an image in the order is computed from its position '
    'alone, see `jaxvision.data.order`, and nothing is stored or sorted.',
  ),
  'splits': Axis(
    'Images, once',
    'images',
    (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    lambda n: ('splits', {'images': n}),
    'drawing a validation split of a tenth, stratified over 1,000 classes, and sorting '
    'the rest by class as balanced batches want it',
    '',
  ),
  'devices': Axis(
    'Devices, the same batch',
    'devices',
    (1, 2, 4, 8),
    lambda n: _step(devices=n),
    f'{_A_STEP}, shared among simulated devices',
    '',
    any_model=True,
  ),
  'devices-each': Axis(
    'Devices, the same batch on each',
    'devices',
    (1, 2, 4, 8),
    lambda n: _step(devices=n, batch_size=32 * n),
    'a training step of ResNet-20 with 32 images on each simulated device',
    '',
    any_model=True,
  ),
}
