"""Writing weights as safetensors, in PyTorch's names where it has such a network."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.errors import UserError
from jaxvision.io import local_path, write_whole
from jaxvision.weights import naming
from jaxvision.weights.files import METADATA_KEY
from jaxvision.weights.preprocessing import Preprocessing
from jaxvision.weights.tensors import named


def save(
  path: str | Path,
  variables: Mapping[str, Any],
  preprocessing: Preprocessing,
  model_name: str,
  fields: Mapping[str, Any] | None = None,
  sections: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
  """Writes variables as one .safetensors file, whole or not at all.

  ResNets, EfficientNets and MobileNetV2 are written in PyTorch's names and layouts, with
  everything that its `load_state_dict(strict=True)` requires: ResNets of the 6n+2 family
  (three stages after a 3x3 stem) in the names of these (`linear`), all others and
  EfficientNets in torchvision's, and what has no attention, Lite0 and MobileNetV2, in
  timm's. Any other model keeps our names ('params/...', 'batch_stats/...'). `read` and
  `load` give the same bits back.

  Args:
    path: the file; one that exists is replaced.
    variables: {'params': ..., 'batch_stats': ...}; arrays of NumPy or JAX, written as
      float32.
    preprocessing: preprocessing of the images; stored as JSON in the file's metadata,
      under 'jaxvision'.
    model_name: name of the model in our table; stored there too.
    fields: fields that the model was made with; stored there too.
    sections: what else is stored there, by the names of `files.SECTIONS`: sections of the
      config without which the network is another, and the signature.

  Raises:
    UserError: the file cannot be written.
  """
  import safetensors.numpy

  own: dict[str, Any] = {'model': model_name, 'fields': dict(fields or {})}
  own |= {name: dict(section) for name, section in (sections or {}).items() if section}
  metadata = json.dumps(own | dataclasses.asdict(preprocessing))
  # One key, because the package writes several in no fixed order, and the same weights
  # should make the same file.
  data = safetensors.numpy.save(_tensors(named(variables)), {METADATA_KEY: metadata})
  path = local_path(path, 'weights')
  try:
    write_whole(path, data)
  except OSError as error:
    raise UserError(f'weights {path}: cannot be written: {error.strerror}') from error


def _tensors(ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns variables by their names in the file, contiguous."""
  names = _names(ours)
  if not names:
    return {name: np.ascontiguousarray(array) for name, array in ours.items()}
  tensors: dict[str, np.ndarray] = {}
  for name, theirs in names.items():
    array = naming.layout_to_theirs(name, ours[name])
    tensors[theirs] = np.ascontiguousarray(array)
    if theirs.endswith('.running_mean'):
      layer = theirs.removesuffix('running_mean')
      tensors[f'{layer}num_batches_tracked'] = np.zeros((), np.int64)
  return tensors


def _names(ours: Mapping[str, np.ndarray]) -> dict[str, str] | None:
  """Returns our name -> PyTorch's, or None where PyTorch's users have no such network."""
  sizes, stem = naming.stage_sizes(ours), ours.get('params/stem_conv/kernel')
  is_cifar = len(sizes) == 3 and stem is not None and len(stem) == 3
  attends = any('/attention/' in name for name in ours)
  if not sizes:
    return None
  resnet = naming.all_to_theirs(ours, 'cifar' if is_cifar else 'torchvision')
  return resnet or naming.all_to_theirs(ours, 'efficientnet' if attends else 'timm')
