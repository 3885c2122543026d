"""Frozen parameters in a forward pass: no gradient, and batch norm as in inference."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax

from jaxvision.models import norms


def frozen_at(first_steps: Any, step: int) -> Any:
  """Returns a tree of bools: True for the leaves that do not train at `step`."""
  return jax.tree.map(lambda first: first > step, first_steps)


def without_gradient(params: Any, still: Any) -> Any:
  """Returns `params` such that nothing of the gradient of frozen leaves is computed.

  What lies before the first layer that trains takes no backward pass at all then.
  """
  return jax.tree.map(
    lambda leaf, frozen: jax.lax.stop_gradient(leaf) if frozen else leaf, params, still
  )


def frozen_norms(still: Any) -> contextlib.AbstractContextManager[None]:
  """Within it, batch norms whose every parameter is frozen work as in inference.

  They normalise by their running statistics and leave them as they are: with those of
  small, other batches the features that a frozen layer was trained for would change
  under the layers behind it.

  Args:
    still: tree of bools in the shape of the parameters, from `frozen_at`.
  """

  return norms.frozen_norms(lambda path: _all_frozen(still, path))


def _all_frozen(still: Any, path: Sequence[str]) -> bool:
  for key in path:
    if key not in still:  # a norm without parameters
      return False
    still = still[key]
  return all(jax.tree.leaves(still))
