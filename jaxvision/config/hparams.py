"""The numbers of a config that live in the train state.

The seed, the learning rate, the weight decay and their like are arguments of the
compiled train step, so that a run which differs in them alone compiles nothing. A number
that is 0 where 0 means off is a constant of the program: it changes what there is to
compute.
"""

import json

import numpy as np
from ml_collections import ConfigDict

from jaxvision.config.limits import switched_on
from jaxvision.config.loading import walk
from jaxvision.config.parts import is_own
from jaxvision.config.schema import FIELDS

_TRACED = tuple(path for path, field in walk(FIELDS) if field.traced and path != 'seed')
_FREE = tuple(path for path, field in walk(FIELDS) if field.free)
# Fields of models, an open part of the config, that may be traced.
MODEL_RATES = ('dropout', 'attention_dropout', 'drop_path')
_OF_MODELS = tuple(f'model.{rate}' for rate in MODEL_RATES)


def hparams(config: ConfigDict) -> dict[str, np.float32]:
  """Returns the numbers that a run keeps in its state.

  Parts of the user's own get Python numbers: their code may look at them.

  Args:
    config: valid.

  Returns:
    Path of the field -> float32 scalar.

  >>> from jaxvision.config import base_config
  >>> sorted(hparams(base_config()))
  ['optimizer.learning_rate', 'optimizer.momentum']
  """
  fixed = set()
  if is_own(config.optimizer.name):
    fixed |= {'optimizer.weight_decay', 'optimizer.momentum'}
  if is_own(config.schedule.name):
    fixed |= {'optimizer.learning_rate', *group_rates(config).values()}
  if not config.init.teacher:
    fixed |= {'distillation.weight', 'distillation.temperature'}
  if is_own(config.model.name):
    fixed |= set(_OF_MODELS)
  rates = {'optimizer.learning_rate', *group_rates(config).values()}
  found = {}
  for path, value in walk(config):
    number = path in _OF_MODELS and isinstance(value, int | float)
    if not (path in _TRACED or path in rates or number) or path in fixed:
      continue
    if path in rates or switched_on(value):
      found[path] = np.float32(value)
  return found


def group_rates(config: ConfigDict) -> dict[str, str]:
  """Returns group of the optimiser -> path of its learning rate, where it has one.

  >>> from jaxvision.config import base_config
  >>> config = base_config()
  >>> config.optimizer.groups.head = {'match': 'head/.*', 'learning_rate': 1.0}
  >>> group_rates(config)
  {'head': 'optimizer.groups.head.learning_rate'}
  """
  return {
    name: f'optimizer.groups.{name}.learning_rate'
    for name, group in config.optimizer.groups.items()
    if isinstance(group.get('learning_rate'), int | float)
  }


def program_signature(config: ConfigDict) -> str:
  """Returns what is equal for configs whose runs can share their compiled programs.

  >>> from jaxvision.config import base_config
  >>> one, two, three = base_config(), base_config(), base_config()
  >>> two.optimizer.learning_rate, three.batch_size = 0.3, 7
  >>> program_signature(one) == program_signature(two)
  True
  >>> program_signature(one) == program_signature(three)
  False
  """
  numbers = hparams(config)
  # The data are arguments; what a program is built from of them is in `DatasetInfo`.
  rest = {
    path: value
    for path, value in walk(config)
    if path not in {'seed', 'name', *numbers, *_FREE} and not path.startswith('data.')
  }
  return json.dumps([sorted(numbers), rest], sort_keys=True, default=str)
