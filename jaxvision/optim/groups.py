"""Parameters by the patterns of their paths: groups of an optimiser, frozen leaves.

Patterns are those of `jaxvision.models.paths`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxvision.config.limits import between
from jaxvision.errors import UserError, closest, shown
from jaxvision.models.paths import matcher, paths

_RATE = between(0, 1, open_end=True)
_NUMBERS = {  # field -> (whether a value is possible, the same in words)
  'learning_rate': (lambda v: v >= 0, 'at least 0'),
  'weight_decay': (lambda v: v >= 0, 'at least 0'),
  'momentum': (_RATE['valid'], _RATE['limits']),
  'until': (lambda v: 0 < v <= 1, 'above 0 and at most 1'),
  'stop': (lambda v: 0 < v <= 1, 'above 0 and at most 1'),
  'start': (lambda v: 0 <= v < 1, 'at least 0 and below 1'),
}
_FIELDS = ('match', 'name', 'nesterov', 'options', *_NUMBERS)


def frozen(params: Any, patterns: Sequence[str]) -> Any:
  """Returns a tree of bools: True for the leaves that one of `patterns` matches.

  Raises:
    UserError: a pattern is no regular expression, or matches no leaf.

  >>> frozen({'conv': {'kernel': 1, 'bias': 2}}, ['.*/bias'])
  {'conv': {'bias': True, 'kernel': False}}
  """
  known = jax.tree.leaves(paths(params))
  matches = {pattern: matcher('freeze', pattern, known) for pattern in patterns}
  return jax.tree.map(
    lambda path: any(match(path) for match in matches.values()), paths(params)
  )


def labels(params: Any, patterns: Mapping[str, str], default: str) -> Any:
  """Returns a tree of names: the group that each leaf belongs to.

  Args:
    params: tree of dicts.
    patterns: group name -> pattern.
    default: the name for leaves that no pattern matches.

  Raises:
    UserError: a pattern is no regular expression or matches no leaf, or two match one.

  >>> labels({'conv': {'kernel': 1, 'bias': 2}}, {'slow': '.*/bias'}, 'base')
  {'conv': {'bias': 'slow', 'kernel': 'base'}}
  """
  known = jax.tree.leaves(paths(params))
  matches = {
    name: matcher(f'optimizer.groups.{name}.match', pattern, known)
    for name, pattern in patterns.items()
  }

  def label(path: str) -> str:
    found = [name for name, match in matches.items() if match(path)]
    if len(found) > 1:
      raise UserError(
        f'config: optimizer.groups: {" and ".join(found)} both match {path}: make their '
        'patterns exclusive'
      )
    return found[0] if found else default

  return jax.tree.map(label, paths(params))


def first_step(group: Mapping[str, Any], total_steps: int) -> int:
  """Returns the step at which a group begins to train: its `start` in steps.

  >>> first_step({'match': 'stem', 'start': 0.25}, 200)
  50
  """
  return round(group.get('start', 0.0) * total_steps)


def first_steps(
  params: Any,
  freeze: Sequence[str],
  groups: Mapping[str, Mapping[str, Any]],
  total_steps: int,
) -> Any:
  """Returns a tree of ints: the step from which each leaf trains.

  Args:
    params: tree of dicts.
    freeze: patterns of leaves that never train: `total_steps`.
    groups: name -> fields of the group, of which `match` and `start` count.
    total_steps: steps of the run.

  Raises:
    UserError: as `check`, `frozen` and `labels`.

  >>> late = {'early': {'match': 'conv', 'start': 0.5}}
  >>> first_steps({'conv': {'bias': 1}, 'head': {'bias': 1}}, ['head'], late, 10)
  {'conv': {'bias': 5}, 'head': {'bias': 10}}
  """
  check(groups)
  steps = {name: first_step(group, total_steps) for name, group in groups.items()}
  by_group = labels(
    params, {name: group['match'] for name, group in groups.items()}, ''
  )
  return jax.tree.map(
    lambda label, never: total_steps if never else steps.get(label, 0),
    by_group,
    frozen(params, freeze),
  )


def check(groups: Mapping[str, Mapping[str, Any]]) -> None:
  """Raises UserError where a field of a group is unknown or impossible.

  Args:
    groups: name -> fields of the group.
  """
  for name, group in groups.items():
    _check_group(f'optimizer.groups.{name}', group)


def _check_group(where: str, group: Mapping[str, Any]) -> None:
  for field, value in group.items():
    if field not in _FIELDS:
      raise UserError(
        f'config: there is no field "{where}.{field}"{closest(field, _FIELDS)} '
        f'(known: {", ".join(_FIELDS)})'
      )
    if field in _NUMBERS:
      possible, limits = _NUMBERS[field]
      number = isinstance(value, int | float) and not isinstance(value, bool)
      if not number or not possible(value):
        raise UserError(f'config: {where}.{field} must be {limits}, not {shown(value)}')
  for end in ('until', 'stop'):
    if group.get(end, 1) <= group.get('start', 0):
      raise UserError(
        f'config: {where}.{end} {group[end]} is not after its start '
        f'{group["start"]}, so that the group would never train'
      )
  if not isinstance(group.get('match'), str):
    raise UserError(
      f'config: {where}.match must say which parameters: a regular expression for '
      "their paths, such as '.*/bias'"
    )
  if not isinstance(group.get('nesterov', True), bool):
    raise UserError(f'config: {where}.nesterov must be True or False')
  if not isinstance(group.get('name', ''), str):
    raise UserError(
      f'config: {where}.name must be that of an optimiser, not {shown(group["name"])}'
    )
