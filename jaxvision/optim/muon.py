"""Muon: momentum whose every update is made a nearly orthogonal matrix.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon/; here with the weight normalisation of its
use in https://github.com/KellerJordan/cifar10-airbench.
"""

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvision.models.paths import kernels

# Of the odd polynomial a x + b x**3 + c x**5, chosen by Jordan et al. for the steepest
# rise at 0: a few steps bring singular values to within about 0.7 to 1.2, not to 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPSILON = 1e-7


class MuonState(NamedTuple):
  """The optimiser's memory.

  Attributes:
    count: int32 scalar, updates so far.
    momentum: as the parameters.
  """

  count: jax.Array
  momentum: Any


def orthogonalize(matrices: jax.Array, steps: int = 3, dtype: Any = None) -> jax.Array:
  r"""Returns nearly orthogonal matrices with the singular vectors of the given ones.

  For :math:`X = U S V^T`, divided by its Frobenius norm, each of `steps` iterations is

  .. math::
    A = X X^T, \quad X \leftarrow a X + (b A + c A A) X,

  which applies :math:`a s + b s^3 + c s^5` to every singular value.

  Args:
    matrices: float [..., m, n]; all iterate in one batched product.
    steps: iterations.
    dtype: type of the iteration; None: bfloat16 on accelerators, float32 on a CPU, which
      has no faster bfloat16.

  Returns:
    As `matrices`, in `dtype`.

  Examples:
    >>> turned = orthogonalize(jnp.array([[3.0, 0.0], [0.0, 1.0]]), steps=5)
    >>> bool((abs(jnp.linalg.svd(turned)[1] - 1) < 0.35).all())
    True

  References:
    Jordan et al., `Muon <https://kellerjordan.github.io/posts/muon/>`_, 2024
  """
  if dtype is None:
    dtype = jnp.float32 if jax.default_backend() == 'cpu' else jnp.bfloat16
  tall = matrices.shape[-2] > matrices.shape[-1]
  x = matrices.swapaxes(-1, -2) if tall else matrices  # the smaller Gram matrix
  norms = jnp.linalg.norm(x.astype(jnp.float32), axis=(-2, -1), keepdims=True)
  x = (x / (norms + _EPSILON)).astype(dtype)
  a, b, c = _COEFFICIENTS
  for _ in range(steps):
    gram = x @ x.swapaxes(-1, -2)
    x = a * x + (b * gram + c * (gram @ gram)) @ x
  return x.swapaxes(-1, -2) if tall else x


def muon(
  learning_rate: optax.ScalarOrSchedule,
  momentum: float = 0.95,
  nesterov: bool = True,
  ns_steps: int = 3,
  ns_dtype: str | None = None,
  normalize_weights: bool = True,
) -> optax.GradientTransformation:
  r"""Momentum, orthogonalised, on weights of a fixed norm.

  .. math::
    m \leftarrow \mu m + g, \quad
    w \leftarrow w \sqrt{F} / \|w\| - \eta\, \mathrm{orthogonalize}(g + \mu m)

  for a kernel of F filters, taken as a matrix [F, inputs of a filter]: a convolution's
  [h, w, C, F] as [F, h w C], a dense layer's [C, F] as [F, C]. Without `nesterov` the
  update is of m itself. Kernels of equal matrices are stacked and iterate together.

  Other leaves than kernels (`models.paths.kernels`) take the plain momentum step, as SGD
  would with the same learning rate. Give biases a group of their own
  (`optimizer.groups`) where that rate does not suit them.

  Args:
    learning_rate: a number or a schedule.
    momentum: mu.
    nesterov: whether the newest gradient counts once more.
    ns_steps: iterations of `orthogonalize`.
    ns_dtype: their type, 'bfloat16' or 'float32'; None: by the backend.
    normalize_weights: whether kernels are brought to norm sqrt(F) before each step.

  Returns:
    A transformation whose `update` needs the parameters.

  Examples:
    >>> params = {'kernel': jnp.eye(2) * 5}
    >>> tx = muon(0.0)
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> norm = jnp.linalg.norm(optax.apply_updates(params, updates)['kernel'])
    >>> round(float(norm) ** 2, 4)
    2.0

  References:
    Jordan et al., `Muon <https://kellerjordan.github.io/posts/muon/>`_, 2024
  """
  if ns_steps < 1:
    raise ValueError(f'ns_steps must be at least 1, not {ns_steps}')
  if ns_dtype not in (None, 'bfloat16', 'float32'):
    raise ValueError(f'ns_dtype must be bfloat16 or float32, not {ns_dtype!r}')

  def init(params: Any) -> MuonState:
    return MuonState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

  def update(grads: Any, state: MuonState, params: Any = None) -> Any:
    if params is None:
      raise ValueError(optax.NO_PARAMS_MSG)
    rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
    memory = jax.tree.map(lambda m, g: momentum * m + g, state.momentum, grads)
    moved = memory
    if nesterov:
      moved = jax.tree.map(lambda g, m: g + momentum * m, grads, memory)
    moved = _orthogonalize_kernels(moved, ns_steps, ns_dtype)

    def step(p, u, is_kernel):
      change = -rate * u
      if normalize_weights and is_kernel:
        norm = jnp.linalg.norm(p.ravel())
        # A kernel that begins at 0, as a classifier may, has no norm to bring there.
        change += p * (jnp.sqrt(p.shape[-1]) / jnp.where(norm > 0, norm, 1) - 1)
      return change.astype(p.dtype)

    updates = jax.tree.map(step, params, moved, kernels(params))
    return updates, MuonState(optax.safe_increment(state.count), memory)

  return optax.GradientTransformation(init, update)


def _orthogonalize_kernels(tree: Any, steps: int, dtype: str | None) -> Any:
  """Orthogonalises the kernels, equal shapes as one batch."""
  leaves, structure = jax.tree.flatten(tree)
  alike = collections.defaultdict(list)
  for i, is_kernel in enumerate(jax.tree.leaves(kernels(tree))):
    if is_kernel:
      leaf = leaves[i]
      alike[leaf.size // leaf.shape[-1], leaf.shape[-1]].append(i)
  for (inputs, filters), places in alike.items():
    # Transposed beside the formula, which treats rows and columns alike.
    stack = jnp.stack([leaves[i].reshape(inputs, filters) for i in places])
    done = orthogonalize(stack, steps, dtype)
    for i, matrix in zip(places, done):
      leaves[i] = matrix.reshape(leaves[i].shape).astype(leaves[i].dtype)
  return jax.tree.unflatten(structure, leaves)
