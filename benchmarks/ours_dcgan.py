"""Our side of the DCGAN's comparison: one program that trains both networks a step.

Started as a script it answers the requests of `sides.py`. The step is that of
`peer_dcgan.py`: same networks, losses, optimiser and draws, and one compiled call.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from sides import serve
from table import versions

from jaxvision.engine import runtime
from jaxvision.models.dcgan import DCGANDiscriminator, DCGANGenerator

LATENT = 100


def make_step(
  batch_size: int, dtype: str, width: int = 32
) -> tuple[Callable, tuple[dict[str, Any], ...]]:
  """Returns (networks, images, key) -> (networks, losses), and the first networks.

  A network is a dict of its params, its batch_stats and its optimiser's state; there
  are the generator and the discriminator.
  """
  models = (
    DCGANGenerator(width=width, dtype=jnp.dtype(dtype)),
    DCGANDiscriminator(width=width, dtype=jnp.dtype(dtype)),
  )
  optimizer = optax.adam(2e-4, b1=0.5)

  def make(model, key, *inputs):
    variables = model.init(key, *inputs)
    return {**variables, 'optimizer': optimizer.init(variables['params'])}

  def apply(model, params, stats, inputs):
    result, updates = model.apply(
      {'params': params, 'batch_stats': stats},
      inputs,
      train=True,
      mutable=['batch_stats'],
    )
    return result, updates['batch_stats']

  def update(network, gradients, stats):
    changes, state = optimizer.update(
      gradients, network['optimizer'], network['params']
    )
    params = optax.apply_updates(network['params'], changes)
    return {'params': params, 'batch_stats': stats, 'optimizer': state}

  def step(networks, images, key):
    generator, discriminator = networks
    noise = jax.random.normal(key, (batch_size, LATENT))

    def generate(params):
      return apply(models[0], params, generator['batch_stats'], noise)

    fake, pull, generator_stats = jax.vjp(generate, generator['params'], has_aux=True)

    def discriminate(params):
      stats = discriminator['batch_stats']
      of_real, stats = apply(models[1], params, stats, images)
      of_fake, stats = apply(models[1], params, stats, fake)
      # Binary cross-entropy of logits, for the targets 1 and 0.
      loss = jax.nn.softplus(-of_real).mean() + jax.nn.softplus(of_fake).mean()
      return loss, stats

    (loss_d, stats), gradients = jax.value_and_grad(discriminate, has_aux=True)(
      discriminator['params']
    )
    discriminator = update(discriminator, gradients, stats)

    def deceive(fake):
      logits, stats = apply(
        models[1], discriminator['params'], discriminator['batch_stats'], fake
      )
      return jax.nn.softplus(-logits).mean(), stats

    (loss_g, stats), by_images = jax.value_and_grad(deceive, has_aux=True)(fake)
    discriminator['batch_stats'] = stats
    generator = update(generator, *pull(by_images), generator_stats)
    return (generator, discriminator), (loss_d, loss_g)

  keys = jax.random.split(jax.random.key(0))
  networks = (
    make(models[0], keys[0], jnp.zeros((1, LATENT))),
    make(models[1], keys[1], jnp.zeros((1, 32, 32, 3))),
  )
  return step, networks


class _Requests:
  """What the parent may ask for."""

  def __init__(self):
    self._run: Callable[[int], float] | None = None
    self._batch_size = 0
    self._step_seconds = 0.0

  def hello(self) -> dict[str, Any]:
    """Returns what runs here."""
    return {'versions': versions(), 'device': runtime.device_kind()}

  def prepare(self, batch_size: int, dtype: str) -> dict[str, Any]:
    """Compiles and warms up."""
    begun = time.perf_counter()
    step, networks = make_step(batch_size, dtype)
    parameters = sum(
      leaf.size for network in networks for leaf in jax.tree.leaves(network['params'])
    )
    compiled = jax.jit(step, donate_argnums=0)
    images = jax.random.uniform(
      jax.random.key(1), (batch_size, 32, 32, 3), minval=-1, maxval=1
    )
    keys = list(jax.random.split(jax.random.key(2), 64))

    def run(steps: int) -> float:
      nonlocal networks
      jax.block_until_ready(networks)
      started = time.perf_counter()
      for i in range(steps):
        networks, _ = compiled(networks, images, keys[i % len(keys)])
      jax.block_until_ready(networks)
      return (time.perf_counter() - started) / steps

    run(3)
    self._run, self._batch_size, self._step_seconds = run, batch_size, 0.0
    return {'parameters': parameters, 'seconds_to_ready': time.perf_counter() - begun}

  def run(self, seconds: float) -> float:
    """Takes steps for about so many seconds and returns the images per second."""
    assert self._run, 'prepare comes first'
    if not self._step_seconds:
      self._step_seconds = self._run(3)
    self._step_seconds = self._run(max(3, round(seconds / self._step_seconds)))
    return self._batch_size / self._step_seconds

  def peak_memory_bytes(self) -> int | None:
    """Returns the most memory so far: the device's, or on a CPU the process's."""
    return runtime.peak_memory_bytes()


def main() -> None:
  """Answers the parent's requests."""
  runtime.configure(deterministic=False)
  requests = _Requests()
  serve(
    {
      name: getattr(requests, name)
      for name in ('hello', 'prepare', 'run', 'peak_memory_bytes')
    }
  )


if __name__ == '__main__':
  main()
