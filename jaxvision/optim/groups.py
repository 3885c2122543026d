"""Parameters by the patterns of their paths: groups of an optimiser, frozen leaves."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxvision.errors import UserError
from jaxvision.models.paths import matcher, paths


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
