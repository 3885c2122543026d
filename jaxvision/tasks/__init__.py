"""What can be trained: tasks by name, and how one is found.

A task is named in the config: one of `TASKS`, or a class of the user's own.
"""

import importlib
from typing import Any

from jaxvision.config.parts import describe
from jaxvision.errors import UserError, closest, quoted
from jaxvision.tasks.base import Parts, Task, TaskContext, TrainState

# By name, as they are imported when they are used.
TASKS = {
  'classification': 'jaxvision.tasks.classification:Classification',
  'multilabel': 'jaxvision.tasks.multilabel:MultiLabel',
  'regression': 'jaxvision.tasks.regression:Regression',
  'gan': 'jaxvision.tasks.gan:GanTask',
  'flow_matching': 'jaxvision.tasks.flow_matching:FlowMatching',
}

__all__ = ['TASKS', 'Parts', 'Task', 'TaskContext', 'TrainState', 'find', 'is_task']


def is_task(part: Any) -> bool:
  """Returns whether something is a class with the interface of a task."""
  return isinstance(part, type) and issubclass(part, Task)


def find(name: str, part: Any = None) -> type[Task]:
  """Returns the class of a task.

  Args:
    name: the config's `task`.
    part: the user's own class, where the name means one.

  Raises:
    UserError: there is no such task, or the part is no task.
  """
  if part is not None:
    if not is_task(part):
      raise UserError(
        f'config: task: {describe(part)} is no subclass of jaxvision.tasks.base.Task'
      )
    return part
  if name not in TASKS:
    raise UserError(
      f'config: there is no task {quoted(name)}{closest(name, TASKS)} (known: '
      f'{", ".join(TASKS)}, or file.py:Task)'
    )
  module, _, attribute = TASKS[name].partition(':')
  return getattr(importlib.import_module(module), attribute)
