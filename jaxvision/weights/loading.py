"""Loading weights into the variables of a model: every name has its place, or an error."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxvision.errors import UserError, short
from jaxvision.models.paths import matcher, path_of
from jaxvision.weights import advice, naming
from jaxvision.weights.tensors import Weights, check_finite

_SHOWN = 3  # names of each kind in a message


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedWeights:
  """The variables of a model with weights in them.

  Attributes:
    variables: the tree that was given, with float32 NumPy arrays where it was loaded.
    loaded: our names ('params/...', 'batch_stats/...') of the variables that were loaded.
    fresh: our names of the variables that `skip` left as they were.
    ignored: names of the tensors that `skip` left out.
  """

  variables: Any = dataclasses.field(repr=False)
  loaded: tuple[str, ...]
  fresh: tuple[str, ...]
  ignored: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Mismatch:
  """Variables and tensors without a counterpart.

  Attributes:
    missing: our names of variables without a tensor.
    unexpected: names of tensors without a variable.
    misshapen: our names of variables whose tensor has another shape.
  """

  missing: tuple[str, ...]
  unexpected: tuple[str, ...]
  misshapen: tuple[str, ...]


def load(
  weights: Weights, variables: Mapping[str, Any], skip: Sequence[str] = ()
) -> LoadedWeights:
  """Loads weights into variables by name.

  Every tensor must have its variable and every variable its tensor, of the same shape,
  except for what `skip` leaves out on both sides.

  Args:
    weights: in our names or those of PyTorch's networks, see `naming`.
    variables: {'params': ..., 'batch_stats': ...}, freshly initialised; not changed.
    skip: patterns as in `models.paths`, over our paths ('head', 'stage4_.*'). One that
      matches none of these is matched against PyTorch's names of the same variables and
      the names in the weights ('fc', 'layer4').

  Returns:
    New variables, and the names that were loaded, left as they were and left out.

  Raises:
    UserError: a tensor or a variable has no counterpart or another shape; a pattern
      matches nothing; `skip` leaves nothing to load; or a weight is NaN or infinite.
  """
  leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
  here = {path_of(path): leaf for path, leaf in leaves}
  skipped = _skipper(skip, here, weights.tensors)

  fresh = {name for name in here if skipped(name)}
  # Our name of every tensor that stays, where it has one that no other has.
  given: dict[str, str] = {}
  unexpected, ignored = [], []
  for name in weights.tensors:
    ours = naming.to_ours(name)
    if skipped(name):
      ignored.append(name)
    elif ours in here and ours not in given:
      given[ours] = name
    else:
      unexpected.append(name)
  arrays = {
    ours: naming.layout_to_ours(name, weights.tensors[name])
    for ours, name in given.items()
  }
  # Parameters first: a reader recognises them better than statistics.
  order = sorted(here, key=lambda name: not name.startswith('params/'))
  mismatch = Mismatch(
    missing=tuple(n for n in order if n not in given and n not in fresh),
    unexpected=tuple(unexpected),
    misshapen=tuple(
      n for n in order if n in given and arrays[n].shape != here[n].shape
    ),
  )
  if mismatch.missing or mismatch.unexpected or mismatch.misshapen:
    raise UserError(_message(weights, here, given, mismatch))
  if not given:
    raise UserError(
      f'config: init.skip leaves nothing of {weights.origin} to be loaded'
    )
  loaded = tuple(name for name in here if name in given)
  check_finite(
    {given[name]: arrays[name] for name in loaded}, f'weights {weights.origin}'
  )
  values = [
    np.ascontiguousarray(arrays[name], np.float32) if name in arrays else leaf
    for name, leaf in here.items()
  ]
  return LoadedWeights(
    jax.tree_util.tree_unflatten(tree, values),
    loaded,
    tuple(name for name in here if name in fresh),
    tuple(ignored),
  )


def _skipper(
  patterns: Sequence[str], here: Iterable[str], there: Iterable[str]
) -> Callable[[str], bool]:
  """Returns the function that says whether a name, ours or theirs, is left out."""
  names = list(dict.fromkeys([*here, *there]))
  ours = {name: _our_paths(name) for name in names}
  styles = [s for s in naming.STYLES if naming.all_to_theirs(here, s)] or naming.STYLES
  theirs = {name: _their_paths(name, styles) for name in names}
  here_first = list(dict.fromkeys(path for name in names for path in ours[name]))
  known = here_first + sorted({path for paths in theirs.values() for path in paths})
  left_out: set[str] = set()
  for pattern in patterns:
    means = matcher('init.skip', pattern, known)
    # A negative pattern, '(?!head/).*', would match every one of the other names.
    spellings = ours if any(map(means, here_first)) else theirs
    left_out.update(name for name in names if any(map(means, spellings[name])))
  return left_out.__contains__


def _our_paths(name: str) -> list[str]:
  ours = naming.to_ours(name)
  return [ours.partition('/')[2]] if ours else []


def _their_paths(name: str, styles: Iterable[str]) -> list[str]:
  """Returns PyTorch's names of a tensor and of the layers that contain it."""
  ours = naming.to_ours(name)
  spellings = [] if name == ours else [name]
  if ours:
    spellings += filter(None, (naming.to_theirs(ours, style) for style in styles))
  layers = []
  for spelling in spellings:
    parts = spelling.split('.')
    layers += ['.'.join(parts[: i + 1]) for i in range(len(parts))]
  return layers


def _message(
  weights: Weights,
  here: Mapping[str, Any],
  given: Mapping[str, str],
  mismatch: Mismatch,
) -> str:
  style = naming.style_of(weights.tensors)
  is_ours = all(map(naming.is_ours, weights.tensors))

  def both(ours: str, *more: str) -> str:
    path = ours.partition('/')[2]
    theirs = None if is_ours else given.get(ours) or naming.to_theirs(ours, style)
    notes = ', '.join([path, *more] if theirs else more)
    return short(theirs or path) + (f' ({notes})' if notes else '')

  def shapes(ours: str) -> str:
    tensor = weights.tensors[given[ours]]
    expected = np.broadcast_to(0, here[ours].shape)
    if not naming.is_ours(given[ours]):
      expected = naming.layout_to_theirs(ours, expected)
    return both(ours, f'{list(tensor.shape)}, here {list(expected.shape)}')

  parts = [
    _listed(mismatch.misshapen, 'of another shape', shapes),
    _listed(mismatch.missing, 'missing in it', both),
    _listed(mismatch.unexpected, 'not in the model', short),
  ]
  return (
    f'weights {weights.origin} do not fit the model: '
    + '; '.join(part for part in parts if part)
    + advice.suggestion(
      weights,
      here,
      matching=given.keys() - set(mismatch.misshapen),
      missing=mismatch.missing,
      others=mismatch.unexpected + mismatch.misshapen,
    )
  )


def _listed(names: Sequence[str], what: str, show: Callable[[str], str]) -> str:
  if not names:
    return ''
  shown = ', '.join(show(name) for name in names[:_SHOWN])
  rest = len(names) - _SHOWN
  return f'{len(names)} {what}: {shown}' + (f' and {rest} more' if rest > 0 else '')
