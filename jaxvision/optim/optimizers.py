"""Optimisers by name, with clipping and weight decay put around them."""

import inspect

import jax
import optax
from ml_collections import ConfigDict

from jaxvision.errors import UserError, closest

OPTIMIZERS = {
  'adabelief': optax.adabelief,
  'adadelta': optax.adadelta,
  'adafactor': optax.adafactor,
  'adagrad': optax.adagrad,
  'adam': optax.adam,
  'adamax': optax.adamax,
  'adamaxw': optax.adamaxw,
  'adamw': optax.adamw,
  'adan': optax.adan,
  'amsgrad': optax.amsgrad,
  'lamb': optax.lamb,
  'lars': optax.lars,
  'lion': optax.lion,
  'radam': optax.radam,
  'rmsprop': optax.rmsprop,
  'sgd': optax.sgd,
  'sign_sgd': optax.sign_sgd,
  'yogi': optax.yogi,
}

# These take `optimizer.momentum` and `optimizer.nesterov`; what other optimisers
# call momentum is another thing with another default, set under `optimizer.options`.
_WITH_MOMENTUM = ('sgd', 'lars')


def decay_mask(params):
  """Returns a tree of bools: True for the leaves that weight decay applies to.

  Those are the kernels: leaves of two or more dimensions. Biases and the scales and
  offsets of normalisation have one (He et al. 2019, section 3.1).
  """
  return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(
  optimizer: ConfigDict, learning_rate: optax.ScalarOrSchedule, grad_clip: float = 0.0
) -> optax.GradientTransformation:
  """Returns the optax transformation that the config asks for.

  Gradients are clipped to the global norm `grad_clip` first (0: not). Weight decay is
  the optimiser's own where it has one (decoupled: adamw, lamb, lion, ...), else it is
  added to the gradient (L2, as in PyTorch's SGD); either way kernels only.

  Args:
    optimizer: the `optimizer` part of the config.
    learning_rate: a number or a schedule.
    grad_clip: largest global norm of the gradient.

  Raises:
    UserError: an unknown optimiser, or an option that it does not take.

  >>> from jaxvision.config import base_config
  >>> import jax.numpy as jnp
  >>> tx = make_optimizer(base_config().optimizer, 0.5)
  >>> grads = {'bias': jnp.ones(2)}
  >>> updates, _ = tx.update(grads, tx.init(grads), grads)
  >>> updates['bias'].tolist()  # Nesterov: (1 + 0.9) x 0.5
  [-0.949999988079071, -0.949999988079071]
  """
  name = optimizer.name
  if name not in OPTIMIZERS:
    raise UserError(
      f'config: there is no optimizer.name "{name}"{closest(name, OPTIMIZERS)} '
      f'(known: {", ".join(OPTIMIZERS)})'
    )
  make = OPTIMIZERS[name]
  takes = inspect.signature(make).parameters
  own = {'learning_rate', 'weight_decay', 'weight_decay_rate'}
  own |= {'mask', 'weight_decay_mask'}
  if name in _WITH_MOMENTUM:
    own |= {'momentum', 'nesterov'}
  free = [key for key in takes if key not in own]
  options = dict(optimizer.options)
  for option in options:
    if option in own and option in optimizer:
      raise UserError(
        f'config: set optimizer.{option} instead of optimizer.options.{option}'
      )
    if option not in free:
      raise UserError(
        f'config: optimizer {name} has no option "{option}"{closest(option, free)} '
        f'(options: {", ".join(free)})'
      )
  parts = [optax.clip_by_global_norm(grad_clip)] if grad_clip else []
  if 'weight_decay' in takes:
    mask = 'mask' if 'mask' in takes else 'weight_decay_mask'
    options['weight_decay'] = optimizer.weight_decay
    if mask in takes:
      options[mask] = decay_mask
  elif 'weight_decay_rate' in takes:
    options['weight_decay_rate'] = optimizer.weight_decay or None
    options['weight_decay_mask'] = decay_mask
  elif optimizer.weight_decay:
    parts.append(optax.add_decayed_weights(optimizer.weight_decay, decay_mask))
  if name in _WITH_MOMENTUM:
    options['momentum'] = optimizer.momentum or (None if name == 'sgd' else 0.0)
    options['nesterov'] = optimizer.nesterov
  try:
    parts.append(make(learning_rate, **options))
  except (TypeError, ValueError) as error:
    raise UserError(
      f'config: optimizer {name}: {" ".join(str(error).split())}'
    ) from error
  return optax.chain(*parts)
