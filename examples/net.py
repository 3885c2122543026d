"""A network of one's own, on the command line:

    jaxvision --config=digits_cnn.py --config.model.name=net.py:Net --config.model.width=32

Run it in this directory, or name the file's path. `num_classes` is given where the module
has such a field; `--config.model.*` sets the others.
"""

import flax.linen as nn
import jax


class Net(nn.Module):
  """Two convolutions with batch norm and a dense layer."""

  num_classes: int
  width: int = 16

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = images
    for features in (self.width, 2 * self.width):
      x = nn.Conv(features, (3, 3), use_bias=False)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
      x = nn.max_pool(x, (2, 2), (2, 2))
    return nn.Dense(self.num_classes)(x.reshape(x.shape[0], -1))
