"""Putting weights into a model's variables: every name accounted for, or an error."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxvision.errors import UserError
from jaxvision.models.paths import matcher, path_of
from jaxvision.weights import advice, naming
from jaxvision.weights.tensors import Weights

_SHOWN = 3  # names of each kind in a message


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
  """A model's variables with weights in them.

  Attributes:
    variables: as the ones given, with what was loaded as float32 NumPy arrays.
    loaded: our names ('params/...', 'batch_stats/...') of what came from the weights.
    fresh: our names of what `skip` left as it was.
    ignored: names in the weights of what `skip` left there.
  """

  variables: Any = dataclasses.field(repr=False)
  loaded: tuple[str, ...]
  fresh: tuple[str, ...]
  ignored: tuple[str, ...]


def fit(
  weights: Weights, variables: Mapping[str, Any], skip: Sequence[str] = ()
) -> Fitted:
  """Puts weights into variables by name.

  Every tensor must have its place and every variable its tensor, of the same shape,
  but for what `skip` leaves out on both sides.

  Args:
    weights: in our names or those of PyTorch's ResNets, see `naming`.
    variables: {'params': ..., 'batch_stats': ...}, freshly initialised; not changed.
    skip: patterns as in `models.paths`, over our paths ('head', 'stage4_.*'). One that
      means none of these is read over PyTorch's names of the same variables and over
      the names in the weights ('fc', 'layer4').

  Returns:
    New variables, and what became of every name.

  Raises:
    UserError: a tensor or a variable has no counterpart or another shape; a pattern
      means nothing; or `skip` leaves nothing to load.
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
  # Parameters first: they tell a reader more than statistics do.
  order = sorted(here, key=lambda name: not name.startswith('params/'))
  misfit = advice.Misfit(
    missing=tuple(n for n in order if n not in given and n not in fresh),
    unexpected=tuple(unexpected),
    misshapen=tuple(
      n for n in order if n in given and arrays[n].shape != here[n].shape
    ),
  )
  if misfit.missing or misfit.unexpected or misfit.misshapen:
    raise UserError(_message(weights, here, given, misfit))
  if not given:
    raise UserError(
      f'config: init.skip: it leaves nothing of {weights.origin} to be loaded'
    )
  loaded = tuple(name for name in here if name in given)
  values = [
    np.ascontiguousarray(arrays[name], np.float32) if name in arrays else leaf
    for name, leaf in here.items()
  ]
  return Fitted(
    jax.tree_util.tree_unflatten(tree, values),
    loaded,
    tuple(name for name in here if name in fresh),
    tuple(ignored),
  )


def _skipper(
  patterns: Sequence[str], here: Iterable[str], there: Iterable[str]
) -> Callable[[str], bool]:
  """Returns whether a name, ours or of the weights, is left out."""
  names = list(dict.fromkeys([*here, *there]))
  ours = {name: _our_paths(name) for name in names}
  theirs = {name: _their_paths(name) for name in names}
  here_first = list(dict.fromkeys(path for name in names for path in ours[name]))
  known = here_first + sorted({path for paths in theirs.values() for path in paths})
  left_out: set[str] = set()
  for pattern in patterns:
    means = matcher('init.skip', pattern, known)
    # A pattern of what is not meant, '(?!head/).*', would mean all of the other names.
    spellings = ours if any(map(means, here_first)) else theirs
    left_out.update(name for name in names if any(map(means, spellings[name])))
  return left_out.__contains__


def _our_paths(name: str) -> list[str]:
  ours = naming.to_ours(name)
  return [ours.partition('/')[2]] if ours else []


def _their_paths(name: str) -> list[str]:
  """Returns what PyTorch calls a tensor and the layers that it is in."""
  ours = naming.to_ours(name)
  spellings = [name]
  if ours:
    spellings = [naming.to_theirs(ours, style) or '' for style in naming.STYLES]
  layers = []
  for spelling in filter(None, spellings):
    parts = spelling.split('.')
    layers += ['.'.join(parts[: i + 1]) for i in range(len(parts))]
  return layers


def _message(
  weights: Weights,
  here: Mapping[str, Any],
  given: Mapping[str, str],
  misfit: advice.Misfit,
) -> str:
  style = naming.style_of(weights.tensors)
  is_ours = all(map(naming.is_ours, weights.tensors))

  def both(ours: str, *more: str) -> str:
    path = ours.partition('/')[2]
    theirs = None if is_ours else given.get(ours) or naming.to_theirs(ours, style)
    notes = ', '.join([path, *more] if theirs else more)
    return (theirs or path) + (f' ({notes})' if notes else '')

  def shapes(ours: str) -> str:
    tensor = weights.tensors[given[ours]]
    expected = np.broadcast_to(0, here[ours].shape)
    if not naming.is_ours(given[ours]):
      expected = naming.layout_to_theirs(expected)
    return both(ours, f'{list(tensor.shape)}, here {list(expected.shape)}')

  parts = [
    _listed(misfit.misshapen, 'of another shape', shapes),
    _listed(misfit.missing, 'missing in it', both),
    _listed(misfit.unexpected, 'not in the model', lambda name: name),
  ]
  return (
    f'weights {weights.origin} do not fit the model: '
    + '; '.join(part for part in parts if part)
    + advice.way_out(weights, here, given, misfit)
  )


def _listed(names: Sequence[str], what: str, show: Callable[[str], str]) -> str:
  if not names:
    return ''
  shown = ', '.join(show(name) for name in names[:_SHOWN])
  rest = len(names) - _SHOWN
  return f'{len(names)} {what}: {shown}' + (f' and {rest} more' if rest > 0 else '')
