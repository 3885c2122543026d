"""What is trained: pure functions that the engine compiles, shards and repeats."""

from jaxvision.tasks.classification import make_classification
from jaxvision.tasks.task import Task, TrainState

__all__ = ['Task', 'TrainState', 'make_classification']
