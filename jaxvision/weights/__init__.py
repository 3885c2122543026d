"""Pretrained weights, in and out.

`read` takes a .safetensors file, a PyTorch checkpoint (never more of it than tensors)
or a Hugging Face repository; `fit` puts the weights into a model's variables, under the
names and layouts here; `save` writes variables such that PyTorch's ResNets load them.
"""

from jaxvision.weights.files import read
from jaxvision.weights.loading import Fitted, fit
from jaxvision.weights.preprocessing import Facts
from jaxvision.weights.saving import save
from jaxvision.weights.tensors import Weights

__all__ = ['Facts', 'Fitted', 'Weights', 'fit', 'read', 'save']
