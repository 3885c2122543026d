"""Runs that share their compiled programs, since they differ in numbers only.

The learning rate, the weight decay, dropout and their like are constants of the program
that trains a config. Here they are arguments of it: `Tuned` carries them along with the
state, and the task is made anew from the config that holds them, traced, inside of the
compiled step. A number that is 0 where 0 means off stays a constant, as it changes what
there is to compute.
"""

import json
from typing import Any

import flax
import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision.config.limits import switched_on
from jaxvision.config.schema import FIELDS
from jaxvision.data.order import seed_words
from jaxvision.tasks.base import Batch, PyTree, Task
from jaxvision.training.build import DataFacts, make_task

SEED = 'seed'
_OF_MODELS = ('model.dropout',)  # an open part: what may be traced of it
_TRACED = tuple(
  path for path, field in config_lib.walk(FIELDS) if field.traced and path != SEED
)


@flax.struct.dataclass
class Tuned:
  """A state and the numbers that its run is trained with.

  Attributes:
    state: of the task.
    numbers: path of the field -> float32 scalar.
    seed: uint32 [2], `seed_words` of the run's.
  """

  state: PyTree
  numbers: dict[str, jax.Array]
  seed: jax.Array

  @property
  def step(self) -> jax.Array:
    """The state's."""
    return self.state.step

  @property
  def key(self) -> jax.Array:
    """The state's."""
    return self.state.key


def numbers(config: ConfigDict) -> dict[str, np.ndarray]:
  """Returns the numbers of a config that a program can take: path -> float32 scalar.

  >>> from jaxvision.config import base_config
  >>> sorted(numbers(base_config()))
  ['optimizer.learning_rate', 'optimizer.momentum']
  """
  # Groups take what they do not set from the base, and compute with it in Python.
  grouped = bool(config.optimizer.groups)
  return {
    path: np.float32(value)
    for path, value in config_lib.walk(config)
    if (path in _TRACED or (path in _OF_MODELS and isinstance(value, int | float)))
    and (path == 'optimizer.learning_rate' or switched_on(value))
    and not (grouped and path.startswith('optimizer.'))
  }


def signature(config: ConfigDict) -> str:
  """Returns what is equal for configs that can share their programs, and for no others.

  >>> from jaxvision.config import base_config
  >>> one, two, three = base_config(), base_config(), base_config()
  >>> two.optimizer.learning_rate, three.batch_size = 0.3, 7
  >>> signature(one) == signature(two), signature(one) == signature(three)
  (True, False)
  """
  free = {SEED, 'name', *numbers(config)}
  rest = {p: v for p, v in config_lib.walk(config) if p not in free}
  return json.dumps([sorted(numbers(config)), rest], sort_keys=True, default=str)


def tune(config: ConfigDict, state: PyTree) -> Tuned:
  """Returns a state with the numbers of a config."""
  return Tuned(state, numbers(config), seed_words(config.seed))


def tuned_task(config: ConfigDict, facts: DataFacts) -> Task:
  """Returns the task of all configs of one `signature`, over `Tuned` states.

  Args:
    config: any of them.
    facts: of their data.
  """
  concrete, _ = make_task(config, facts)

  def of(values: dict[str, jax.Array]) -> Task:
    traced = config_lib.validate(config)  # a copy
    for path, value in values.items():
      config_lib.put(traced, path, value)
    return make_task(traced, facts)[0]

  def train_step(tuned: Tuned, batch: Batch, key: jax.Array) -> tuple[Tuned, Any]:
    state, metrics = of(tuned.numbers).train_step(tuned.state, batch, key)
    return tuned.replace(state=state), metrics

  def eval_step(tuned: Tuned, batch: Batch) -> tuple[Any, jax.Array]:
    return concrete.eval_step(tuned.state, batch)

  return concrete._replace(train_step=train_step, eval_step=eval_step)
