"""The models that the benchmarks compare, and how they are run."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
  """One model on images of 32x32x3.

  Attributes:
    classes: number of logits; 0 of a GAN.
    cpu_batch, gpu_batch: images in a batch, where nothing else is asked for.
    task: of the config.
    fields: of the model, where they are not its defaults.
  """

  classes: int
  cpu_batch: int
  gpu_batch: int = 512
  task: str = 'classification'
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# By the name in `jaxvision.models` (for another task, that of its peer).
CASES: dict[str, Case] = {
  'small_filters_cnn': Case(classes=100, cpu_batch=128),
  'custom_cnn': Case(classes=10, cpu_batch=128),
  'resnet18': Case(classes=10, cpu_batch=64),
  'resnet50': Case(classes=10, cpu_batch=32),
  'dcgan': Case(classes=0, cpu_batch=64, task='gan'),
  'vit_small': Case(classes=10, cpu_batch=32, fields={'patch': 4}),
}


def case(name: str) -> Case:
  """Returns the case of a name, or ends the command with what there is."""
  if name not in CASES:
    raise SystemExit(f'there is no model "{name}" here: {", ".join(CASES)}')
  return CASES[name]
