"""The CPU's own forms of transposed and strided convolutions have XLA's numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.models.cpu import conv_general_dilated, conv_transpose, convolution

pytestmark = [pytest.mark.long, pytest.mark.usefixtures('without_onednn')]

NHWC = ('NHWC', 'HWIO', 'NHWC')

# Kernel, strides, padding, height and width, channels in and out: one of each form,
# then what each of them has to be careful about.
SMALL_TO_LARGE = [
  ((4, 4), (2, 2), 'SAME', (4, 4), (16, 16)),  # Winograd
  ((4, 4), (2, 2), 'SAME', (2, 6), (24, 16)),
  ((4, 4), (2, 2), 'VALID', (4, 2), (16, 17)),
  ((6, 4), (3, 2), 'SAME', (2, 4), (16, 16)),
  ((4, 4), (2, 2), ((3, 1), (0, 4)), (4, 4), (16, 16)),
  ((4, 4), (2, 2), 'SAME', (5, 4), (16, 16)),  # patches: an odd side
  ((4, 4), (2, 2), 'SAME', (3, 7), (5, 3)),
  ((4, 2), (2, 2), 'SAME', (4, 4), (16, 16)),
  ((2, 2), (2, 2), 'VALID', (3, 4), (2, 3)),
  ((6, 3), (2, 3), ((2, 3), (1, 5)), (3, 4), (4, 2)),
  ((4, 4), (1, 1), 'VALID', (1, 1), (10, 6)),  # one product
  ((4, 5), (2, 3), 'SAME', (1, 1), (3, 4)),
  ((3, 3), (2, 2), 'SAME', (4, 5), (3, 4)),  # XLA's own
  ((3, 3), (1, 1), 'SAME', (4, 5), (3, 4)),
  ((2, 2), (3, 3), 'SAME', (4, 5), (3, 4)),
]

LARGE_TO_SMALL = [
  ((4, 4), (2, 2), ((1, 1), (1, 1)), (8, 8), (16, 16)),  # Winograd
  ((4, 4), (2, 2), 'SAME', (4, 12), (17, 24)),
  ((4, 4), (2, 2), 'VALID', (11, 6), (16, 16)),  # a last row that no window covers
  ((6, 4), (3, 2), ((2, 1), (0, 2)), (12, 8), (16, 16)),
  ((4, 4), (2, 2), ((1, 1), (1, 1)), (6, 8), (16, 16)),  # patches: three rows
  ((4, 4), (2, 2), 'SAME', (9, 7), (3, 5)),
  ((2, 2), (2, 2), 'VALID', (7, 4), (2, 3)),
  ((4, 2), (2, 1), 'SAME', (5, 6), (4, 4)),
  ((4, 4), (1, 1), 'VALID', (4, 4), (6, 1)),  # one product
  ((4, 4), (2, 2), ((1, 0), (0, 0)), (4, 5), (3, 2)),
  ((3, 3), (2, 2), 'SAME', (8, 8), (3, 4)),  # none of these forms
  ((4, 4), (1, 1), 'SAME', (5, 5), (3, 4)),
  ((3, 3), (1, 1), 'SAME', (1, 1), (64, 64)),  # one pixel under a padded window
]


def draw(*shapes):
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]


def value_and_gradients(convolve, images, kernel):
  def loss(images, kernel):
    out = convolve(images, kernel)
    return jnp.sum(jnp.sin(out)), out

  # In one program, for one by one the operators compile for longer than all of them.
  both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
  (_, out), gradients = both(images, kernel)
  return out, gradients


@pytest.mark.parametrize('turned', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
  ('kernel', 'strides', 'padding', 'size', 'channels'), SMALL_TO_LARGE
)
def test_transposed_equals_xla(kernel, strides, padding, size, channels, turned):
  images, weights = draw(
    (3, *size, channels[0]), (*kernel, *(channels[::-1] if turned else channels))
  )

  def using(convolve):
    return value_and_gradients(
      lambda x, w: convolve(x, w, strides, padding, transpose_kernel=turned),
      images,
      weights,
    )

  chex.assert_trees_all_close(
    using(conv_transpose), using(jax.lax.conv_transpose), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize(
  ('kernel', 'strides', 'padding', 'size', 'channels'), LARGE_TO_SMALL
)
def test_strided_equals_xla(kernel, strides, padding, size, channels):
  images, weights = draw((3, *size, channels[0]), (*kernel, *channels))

  def using(convolve):
    return value_and_gradients(
      lambda x, w: convolve(x, w, strides, padding, dimension_numbers=NHWC),
      images,
      weights,
    )

  ours, plain = using(conv_general_dilated), using(jax.lax.conv_general_dilated)
  # Rounding goes with the largest terms of a sum, not with the sum.
  for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
    assert jnp.abs(mine - theirs).max() <= 3e-5 * max(1, jnp.abs(theirs).max())


def test_rounding_of_winograd_is_that_of_the_plain_sum():
  images, weights = draw((4, 8, 8, 64), (4, 4, 64, 32))
  exact = jax.lax.conv_transpose(
    *(np.asarray(a) for a in (images, weights)), (2, 2), 'SAME'
  )
  ours = conv_transpose(images, weights, (2, 2), 'SAME')
  assert float(jnp.abs(ours - exact).max() / jnp.abs(exact).max()) < 3e-6


@pytest.mark.parametrize('channels', [3, 16], ids=['patches', 'winograd'])
def test_the_gradient_has_a_gradient(channels):
  """As a gradient penalty needs it."""
  images, up, down = draw(
    (2, 4, 4, channels), (4, 4, channels, 16), (4, 4, 16, channels)
  )

  up, down = 0.1 * up, 0.1 * down

  def penalty(transpose, convolve):
    def score(images, up, down):
      x = jnp.sin(transpose(images, up, (2, 2), 'SAME'))
      pads = ((1, 1), (1, 1))
      return jnp.sum(jnp.sin(convolve(x, down, (2, 2), pads, dimension_numbers=NHWC)))

    def norm(images, up, down):
      return jnp.mean(jax.grad(score)(images, up, down) ** 2)

    return jax.jit(jax.grad(norm, argnums=(0, 1, 2)))(images, up, down)

  ours = penalty(conv_transpose, conv_general_dilated)
  plain = penalty(jax.lax.conv_transpose, jax.lax.conv_general_dilated)
  largest = max(float(jnp.abs(leaf).max()) for leaf in plain)
  chex.assert_trees_all_close(ours, plain, rtol=1e-3, atol=1e-5 * largest)


def test_vmap_over_kernels_is_a_loop_over_them():
  """As training several seeds at once needs it."""
  images, kernels = draw((2, 4, 4, 16), (3, 4, 4, 16, 16))

  @jax.jit
  def gradient(kernel):
    return jax.grad(
      lambda k: jnp.sum(jnp.sin(conv_transpose(images, k, (2, 2), 'SAME')))
    )(kernel)

  chex.assert_trees_all_close(
    jax.jit(jax.vmap(gradient))(kernels),
    jnp.stack([gradient(kernel) for kernel in kernels]),
    rtol=1e-4,
    atol=1e-4,
  )


def test_same_is_pytorchs_padding_of_one_with_the_kernel_turned():
  """Against the sum that torch.nn.ConvTranspose2d(4, stride=2, padding=1) is."""
  images, kernel = draw((1, 3, 4, 2), (4, 4, 2, 3))
  full = np.zeros((1, 8, 10, 3))
  for i in range(3):
    for j in range(4):
      full[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum(
        'bc,hwcf->bhwf', images[:, i, j], kernel
      )
  ours = conv_transpose(images, kernel[::-1, ::-1], (2, 2), 'SAME')
  np.testing.assert_allclose(ours, full[:, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)


def test_convolutions_are_matrix_products_on_a_cpu_only(monkeypatch):
  images, kernel = jnp.zeros((2, 4, 4, 16)), jnp.zeros((4, 4, 16, 16))

  def traced(images=images, **options):
    # Made anew, for what was traced before is remembered.
    def both(x, k):
      up = conv_transpose(x, k, (2, 2), 'SAME', **options)
      return conv_general_dilated(
        up, k, (2, 2), 'SAME', dimension_numbers=NHWC, **options
      )

    return str(jax.make_jaxpr(both)(images, kernel.astype(images.dtype)))

  assert 'conv_general_dilated' not in traced()
  assert 'conv_general_dilated' not in traced(precision='highest')
  assert traced(images.astype(jnp.bfloat16)).count('conv_general_dilated[') == 2
  monkeypatch.setattr(convolution.jax, 'default_backend', lambda: 'gpu')
  assert traced().count('conv_general_dilated[') == 2
