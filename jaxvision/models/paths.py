"""Parameters by their paths: a leaf's keys joined by '/', as in 'stage1_block1/conv1/kernel'.

A pattern is a regular expression that matches a whole path, or all of a path up to a
'/': '.*/bias' is every bias, 'head' everything in the layer head, 'stage[12]_.*' two
stages of a ResNet, '(?!head/).*' all but the head.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from jaxvision.errors import UserError, quoted

_SHOWN_PATHS = 8


def paths(params: Any) -> Any:
  """Returns the tree of the paths of `params`.

  >>> paths({'conv': {'kernel': 1, 'bias': 2}})
  {'conv': {'bias': 'conv/bias', 'kernel': 'conv/kernel'}}
  """
  return jax.tree_util.tree_map_with_path(lambda keys, _: path_of(keys), params)


def path_of(keys: Sequence[Any]) -> str:
  """Returns the path of a leaf, given its keys as JAX's tree functions give them."""
  return '/'.join(str(key.key) for key in keys)


def kernels(params: Any) -> Any:
  """Returns a tree of bools: True for the kernels, which are matrices or stacks of them.

  Those are the leaves of two or more dimensions, but for learned positions, which are
  added to features as a bias is: leaves that are called 'positions'.

  Args:
    params: tree of arrays, or of their shapes.

  >>> import jax.numpy as jnp
  >>> embed = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}
  >>> kernels({**embed, 'positions': jnp.ones((4, 3))})
  {'bias': False, 'kernel': True, 'positions': False}
  """

  def is_kernel(keys: Sequence[Any], leaf: Any) -> bool:
    name = getattr(keys[-1], 'key', None) if keys else None
    return leaf.ndim > 1 and name != 'positions'

  return jax.tree_util.tree_map_with_path(is_kernel, params)


def matcher(where: str, pattern: str, known: Iterable[str]) -> Callable[[str], bool]:
  """Returns whether a path is one that `pattern` means, as a function.

  Args:
    where: the config field, for the message.
    pattern: a regular expression, as in the docstring of this module.
    known: the paths that there are.

  Raises:
    UserError: the pattern is no regular expression, or means none of `known`.

  >>> is_head = matcher('freeze', 'head', ['stem/kernel', 'head/kernel'])
  >>> is_head('head/kernel'), is_head('stem/kernel')
  (True, False)
  """
  try:
    re.compile(pattern)  # by itself, so that the message is about what was written
    match = re.compile(f'(?:{pattern})(?:/.*)?').fullmatch
  except re.error as error:
    raise UserError(
      f'config: {where}: {quoted(pattern)} is no regular expression: {error}'
    ) from error
  known = list(known)
  if not any(map(match, known)):
    more = ', ...' if len(known) > _SHOWN_PATHS else ''
    raise UserError(
      f'config: {where}: {quoted(pattern)} matches no parameter; a pattern matches a layer or '
      f'a whole path, such as {", ".join(known[:_SHOWN_PATHS])}{more}'
    )
  return lambda path: match(path) is not None
