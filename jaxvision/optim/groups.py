"""Parameters by the patterns of their paths: groups of an optimiser, frozen leaves.

The path of a leaf is its keys joined by '/', as in 'group1/conv2/kernel'. A pattern is
a regular expression that must match a whole path: 'whiten/.*', '.*/bias'.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxvision.errors import UserError

_SHOWN_PATHS = 8


def paths(params: Any) -> Any:
  """Returns the tree of the paths of `params`.

  >>> paths({'conv': {'kernel': 1, 'bias': 2}})
  {'conv': {'bias': 'conv/bias', 'kernel': 'conv/kernel'}}
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: '/'.join(str(key.key) for key in path), params
  )


def frozen(params: Any, patterns: Sequence[str]) -> Any:
  """Returns a tree of bools: True for the leaves that one of `patterns` matches.

  Raises:
    UserError: a pattern is no regular expression, or matches no leaf.

  >>> frozen({'conv': {'kernel': 1, 'bias': 2}}, ['.*/bias'])
  {'conv': {'bias': True, 'kernel': False}}
  """
  matches = {pattern: _matcher('freeze', pattern, params) for pattern in patterns}
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
  matches = {
    name: _matcher(f'optimizer.groups.{name}.match', pattern, params)
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


def _matcher(where: str, pattern: str, params: Any):
  """Returns path -> bool, or raises UserError if the pattern is of no use."""
  try:
    match = re.compile(pattern).fullmatch
  except re.error as error:
    raise UserError(
      f'config: {where}: "{pattern}" is no regular expression: {error}'
    ) from error
  known = jax.tree.leaves(paths(params))
  if not any(match(path) for path in known):
    more = ', ...' if len(known) > _SHOWN_PATHS else ''
    raise UserError(
      f'config: {where}: "{pattern}" matches no parameter; a pattern matches a whole '
      f'path, such as {", ".join(known[:_SHOWN_PATHS])}{more}'
    )
  return match
