"""What is trained: pure functions that the engine compiles, shards and repeats."""

from jaxvision.tasks.base import Generator, Task, TrainState
from jaxvision.tasks.classification import make_classification
from jaxvision.tasks.gan import make_gan, make_generator

__all__ = [
  'Generator',
  'Task',
  'TrainState',
  'make_classification',
  'make_gan',
  'make_generator',
]
