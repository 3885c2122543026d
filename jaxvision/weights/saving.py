"""Writing weights as safetensors, in PyTorch's names where it has such a network."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.io import local_path, write_whole
from jaxvision.weights import naming, torch_layout
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
) -> str:
  """Writes variables as one .safetensors file, whole or not at all.

  ResNets, EfficientNets and MobileNetV2 are written in PyTorch's names and layouts, with
  everything that its `load_state_dict(strict=True)` requires: ResNets of the 6n+2 family
  (three stages after a 3x3 stem) in the names of these (`linear`), all others and
  EfficientNets in torchvision's, and what has no attention, Lite0 and MobileNetV2, in
  timm's. Any other classifier of ours has the names and layouts of a PyTorch module with
  the same attributes, see `torch_layout`; a generator keeps our names ('params/...',
  'batch_stats/...'). `read` and `load` give the same bits back.

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

  Returns:
    The style of the names: one of `naming.STYLES`, 'module' for those of `torch_layout`,
    or 'ours'.

  Raises:
    UserError: the file cannot be written.
  """
  import safetensors.numpy

  own: dict[str, Any] = {'model': model_name, 'fields': dict(fields or {})}
  tensors, style = _tensors(
    named(variables), classifies=model_name not in models.TASK_OF
  )
  if style == 'module':
    own['layout'] = style
  own |= {name: dict(section) for name, section in (sections or {}).items() if section}
  metadata = json.dumps(own | dataclasses.asdict(preprocessing))
  # One key, because the package writes several in no fixed order, and the same weights
  # should make the same file.
  data = safetensors.numpy.save(tensors, {METADATA_KEY: metadata})
  path = local_path(path, 'weights')
  try:
    write_whole(path, data)
  except OSError as error:
    raise UserError(f'weights {path}: cannot be written: {error.strerror}') from error
  return style


def _tensors(
  ours: Mapping[str, np.ndarray], classifies: bool
) -> tuple[dict[str, np.ndarray], str]:
  """Returns variables by their names in the file, contiguous, and the style of these.

  The style is one of `naming.STYLES`, 'module' for that of `torch_layout`, or 'ours'.
  """
  names, style = _names(ours)
  tensors: dict[str, np.ndarray] = {}
  for name, theirs in names.items():
    tensors[theirs] = naming.layout_to_theirs(name, ours[name])
    if theirs.endswith('.running_mean'):
      layer = theirs.removesuffix('running_mean')
      tensors[f'{layer}num_batches_tracked'] = np.zeros((), np.int64)
  if not tensors and classifies and (found := torch_layout.to_torch(ours)):
    tensors, style = found, 'module'
  tensors = tensors or dict(ours)
  # `ascontiguousarray` gives a number an axis.
  whole = {n: np.ascontiguousarray(a).reshape(a.shape) for n, a in tensors.items()}
  return whole, style


def _names(ours: Mapping[str, np.ndarray]) -> tuple[dict[str, str], str]:
  """Returns our name -> PyTorch's, and their style; {} where it has no such network."""
  sizes, stem = naming.stage_sizes(ours), ours.get('params/stem_conv/kernel')
  is_cifar = len(sizes) == 3 and stem is not None and len(stem) == 3
  attends = any('/attention/' in name for name in ours)
  resnets = 'cifar' if is_cifar else 'torchvision'
  for style in (resnets, 'efficientnet' if attends else 'timm') if sizes else ():
    if names := naming.all_to_theirs(ours, style):
      return names, style
  return {}, 'ours'
