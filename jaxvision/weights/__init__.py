"""Pretrained weights, in and out.

`read` takes a .safetensors file, a PyTorch checkpoint (of which only tensors are read), a
Hugging Face repository or the name of weights in a Python package; `load` puts the weights
into the variables of a model, under the names and layouts here; `save` writes variables
such that PyTorch's networks load them.
"""

from jaxvision.weights.files import in_folder, read
from jaxvision.weights.loading import LoadedWeights, load
from jaxvision.weights.preprocessing import Preprocessing
from jaxvision.weights.saving import save
from jaxvision.weights.tensors import Weights

__all__ = [
  'LoadedWeights',
  'Preprocessing',
  'Weights',
  'in_folder',
  'load',
  'read',
  'save',
]
