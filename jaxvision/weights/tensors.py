"""Weights as they were read: tensors by name, and their origin."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxvision.errors import UserError
from jaxvision.models.paths import path_of
from jaxvision.weights.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
  """Tensors of a file, a repository or a run.

  Attributes:
    tensors: name -> float32 array, in the names and layouts of their source, without
      what wrappers put before them ('module.', 'backbone.').
    origin: where they are from, for messages and records.
    sha256: SHA-256 of the file, in hexadecimal; None if there is no file.
    revision: commit of the repository, or None.
    preprocessing: what is known of the images they were trained on.
    model: name of the model in our table, if the file has it.
    fields: the fields that this model was made with, likewise.
    key: of the state dict in the file that they were, such as 'state_dict'; '': the file.
    left_out: names of tensors beside the network, such as the class weights of a loss.
    sections: of the config that the network was trained with, and its signature, by the
      names of `files.SECTIONS`, if the file has them.
  """

  tensors: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
  origin: str
  sha256: str | None = None
  revision: str | None = None
  preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
  model: str | None = None
  fields: Mapping[str, Any] | None = None
  key: str = ''
  left_out: tuple[str, ...] = ()
  sections: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

  @classmethod
  def of_variables(
    cls,
    variables: Mapping[str, Any],
    origin: str,
    preprocessing: Preprocessing | None = None,
    model: str | None = None,
  ) -> 'Weights':
    """Returns the variables of a model of ours as weights.

    Args:
      variables: {'params': ..., 'batch_stats': ...}; arrays of NumPy or JAX.
      origin: where they are from, for messages and records.
      preprocessing: that of their training images; None: it is not known.
      model: name of the model in our table.
    """
    known = preprocessing or Preprocessing()
    return cls(named(variables), origin, preprocessing=known, model=model)


def fingerprint(tensors: Mapping[str, np.ndarray], kind: str = '') -> str:
  """Returns the SHA-256, in hexadecimal, of arrays and their names, and of `kind`.

  >>> fingerprint({'a': np.zeros(2)}) == fingerprint({'b': np.zeros(2)})
  False
  """
  digest = hashlib.sha256(kind.encode())
  for name in sorted(tensors):
    digest.update(name.encode())
    digest.update(np.ascontiguousarray(tensors[name]).data)
  return digest.hexdigest()


def check_finite(tensors: Mapping[str, np.ndarray], origin: str) -> None:
  """Raises UserError if a number in an array is NaN or infinite.

  A network with such weights may still return numbers: on some devices the maximum of
  0 and NaN is 0.

  Args:
    tensors: name -> array.
    origin: where they are from, for the message.
  """
  for name, array in tensors.items():
    count = array.size - np.count_nonzero(np.isfinite(array))
    if count:
      raise UserError(
        f'{origin}: {name} is not finite: {count} of its {array.size} numbers are NaN or '
        'infinite, as after training that diverged; take another checkpoint'
      )


def named(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns variables as name -> float32 array, sorted by name.

  >>> list(named({'params': {'head': {'kernel': 1, 'bias': 0}}}))
  ['params/head/bias', 'params/head/kernel']
  """
  leaves = jax.tree_util.tree_leaves_with_path(variables)
  return {path_of(path): np.asarray(leaf, np.float32) for path, leaf in leaves}
