"""What is trained: pure functions that the engine compiles, shards and repeats."""

from jaxvision.tasks.classification import make_classification
from jaxvision.tasks.gan import make_gan, make_generator
from jaxvision.tasks.task import Generator, Task, TrainState

__all__ = [
  'Generator',
  'Task',
  'TrainState',
  'make_classification',
  'make_gan',
  'make_generator',
]
