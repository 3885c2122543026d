"""The switches of the DCGAN's networks, the table they come from, their summary."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.dcgan import (
  MINIBATCHES,
  NORMS,
  UPSAMPLES,
  DCGANDiscriminator,
  DCGANGenerator,
)
from jaxvision.models.spectral import power_iteration
from jaxvision.models.summary import summarize_gan

pytestmark = pytest.mark.long

CLASSES = 3
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)
DEFAULTS = {
  'latent': 100,
  'width': 32,
  'discriminator_width': 0,
  'upsample': 'transposed',
  'discriminator_norm': 'batch',
  'minibatch': 'none',
  'conditional': False,
  'class_head': 'projection',
}


def images(shape=(16, 16, 1)):
  random = np.random.default_rng(1)
  return random.uniform(-1, 1, (len(LABELS), *shape)).astype(np.float32)


def noise(latent):
  random = np.random.default_rng(2)
  return random.standard_normal((len(LABELS), latent)).astype(np.float32)


def draw(model, inputs):
  """Variables of the model, none at zero, without compiling what initialises them."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), inputs, LABELS)
  random = np.random.default_rng(3)

  def value(path, leaf):
    values = random.standard_normal(leaf.shape).astype(leaf.dtype)
    return 1 + 0.2 * abs(values) if path[-1].key in {'scale', 'var'} else 0.2 * values

  return jax.tree_util.tree_map_with_path(value, shapes)


def run(model, variables, inputs, labels=LABELS, **options):
  call = jax.jit(lambda v, x, y: model.apply(v, x, y, **options))
  return call(variables, inputs, labels)


# --- the table


def test_fields_and_their_defaults():
  assert models.gan_fields('dcgan') == DEFAULTS
  gan = models.create_gan('dcgan', (32, 32, 3), 10)
  assert models.create_gan('dcgan', (32, 32, 3), 10, **DEFAULTS) == gan
  assert gan.generator == DCGANGenerator(dtype=np.dtype('float32'))
  assert gan.discriminator == DCGANDiscriminator(dtype=np.dtype('float32'))
  assert (gan.latent, gan.conditional) == (100, False)


def test_fields_reach_the_networks():
  gan = models.create_gan(
    'dcgan',
    (28, 28, 1),
    CLASSES,
    'bfloat16',
    latent=7,
    width=8,
    discriminator_width=16,
    upsample='resize',
    discriminator_norm='spectral',
    minibatch='stddev',
    conditional=True,
    class_head='classifier',
  )
  dtype = jnp.dtype('bfloat16')
  assert gan.generator == DCGANGenerator(28, 1, 8, 7, 'resize', CLASSES, dtype)
  assert gan.discriminator == DCGANDiscriminator(
    16, 'spectral', 'stddev', CLASSES, 'classifier', dtype
  )
  assert (gan.latent, gan.conditional, gan.classifies) == (7, True, True)
  assert models.create_gan('dcgan', (28, 28, 1), 3, width=8).discriminator.width == 8


@pytest.mark.parametrize(
  ('name', 'shape', 'fields', 'words'),
  [
    ('dcgam', (32, 32, 3), {}, ['"dcgam"', 'did you mean "dcgan"']),
    ('resnet20', (32, 32, 3), {}, ['"resnet20"', 'known: dcgan']),
    ('dcgan', (32, 32, 3), {'widht': 8}, ['"widht"', 'did you mean "width"']),
    ('dcgan', (32, 32, 3), {'image_size': 8}, ['"image_size"', 'latent, width']),
    ('dcgan', (32, 32, 3), {'width': 0}, ['model.width', 'from 1', 'got 0']),
    ('dcgan', (32, 32, 3), {'discriminator_width': -1}, ['from 0', 'got -1']),
    ('dcgan', (32, 32, 3), {'latent': 1.5}, ['model.latent', '1.5']),
    ('dcgan', (32, 32, 3), {'upsample': 'resise'}, ['mean "resize"']),
    ('dcgan', (32, 32, 3), {'discriminator_norm': 'layer'}, ['"spectral"', "'layer'"]),
    ('dcgan', (32, 32, 3), {'minibatch': True}, ['model.minibatch', 'True']),
    ('dcgan', (32, 32, 3), {'conditional': 'yes'}, ['True or False', "'yes'"]),
    ('dcgan', (32, 32, 3), {'dtype': 'float61'}, ['dtype', "'float61'"]),
    ('dcgan', (32, 32, 3), {'num_classes': 0}, ['num_classes', 'got 0']),
    ('dcgan', (32, 28, 3), {}, ['square', '32x28', 'data.image_size']),
    ('dcgan', (30, 30, 3), {}, ['30 does not halve', 'data.image_size']),
  ],
)
def test_create_gan_refuses_in_one_line(name, shape, fields, words):
  with pytest.raises(UserError) as info:
    models.create_gan(name, shape, **{'num_classes': 10} | fields)
  message = str(info.value)
  assert '\n' not in message
  for word in words:
    assert word in message


def test_the_table_of_classifiers_sends_a_gan_to_its_task():
  with pytest.raises(UserError, match='"dcgan" is a GAN: set task to "gan"'):
    models.create('dcgan', num_classes=10)


# --- every combination of switches


@pytest.mark.parametrize('shape', [(28, 28, 1), (32, 32, 3), (8, 8, 1)])
def test_shapes_and_types_of_every_combination(shape):
  switches = itertools.product(UPSAMPLES, NORMS, MINIBATCHES, (False, True))
  for upsample, norm, minibatch, conditional in switches:
    if upsample == 'resize' and minibatch != 'none':
      continue  # they are of two networks
    gan = models.create_gan(
      'dcgan',
      shape,
      CLASSES,
      'bfloat16',
      width=4,
      latent=5,
      upsample=upsample,
      discriminator_norm=norm,
      minibatch=minibatch,
      conditional=conditional,
    )
    labels = LABELS if conditional else None

    def both(noise, gan=gan, labels=labels):
      results, x = [], noise
      for model in gan[:2]:
        variables = model.init(jax.random.key(0), x, labels)
        x, updates = model.apply(
          variables, x, labels, train=True, mutable=['batch_stats']
        )
        results.append((x, variables['params'], updates))
        known = variables.get('batch_stats', {})
        chex.assert_trees_all_equal_shapes_and_dtypes(
          known, updates.get('batch_stats', {})
        )
      return results

    generated, judged = jax.eval_shape(both, noise(5))
    assert generated[0].shape == (len(LABELS), *shape)
    assert judged[0].shape == (len(LABELS),)
    assert ('batch_stats' in judged[2]) == (norm == 'spectral' or norm == 'batch') or (
      shape[0] == 8  # one convolution but the last: none with batch norm
    )
    chex.assert_type(jax.tree.leaves((generated, judged)), jnp.float32)


ALL_ON = [
  {'upsample': 'resize', 'discriminator_norm': 'spectral', 'minibatch': 'stddev'},
  {
    'conditional': True,
    'discriminator_norm': 'spectral',
    'minibatch': 'discrimination',
  },
  {'conditional': True, 'discriminator_norm': 'none', 'upsample': 'resize'},
]


@pytest.mark.parametrize('fields', ALL_ON)
def test_a_step_reaches_every_parameter_and_statistic(fields):
  gan = models.create_gan('dcgan', (16, 16, 1), CLASSES, width=2, latent=5, **fields)
  for model, inputs in zip(gan, (noise(5), images())):
    variables = draw(model, inputs)
    outputs = jax.eval_shape(model.apply, variables, inputs, LABELS)
    weight = np.random.default_rng(4).standard_normal(outputs.shape)

    @jax.jit
    def gradient(params, model=model, inputs=inputs, weight=weight, kept=variables):
      def total(params):
        outputs, updates = model.apply(
          {**kept, 'params': params}, inputs, LABELS, train=True, mutable='batch_stats'
        )
        return (outputs * weight).sum(), updates

      return jax.grad(total, has_aux=True)(params)

    grads, updates = gradient(variables['params'])
    chex.assert_tree_all_finite((grads, updates))
    for name, old in variables.get('batch_stats', {}).items():
      new = updates['batch_stats'][name]
      chex.assert_trees_all_equal_shapes(old, new)
      moved = jax.tree.map(lambda old, new: (old != new).all(), old, new)
      assert all(jax.tree.leaves(moved)), name
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
      assert np.abs(leaf).max() > 1e-6, jax.tree_util.keystr(path)


def test_every_kernel_begins_at_a_deviation_of_one_fiftieth():
  fields = ALL_ON[1] | {'upsample': 'resize'}
  gan = models.create_gan('dcgan', (16, 16, 1), CLASSES, width=16, **fields)
  for model, inputs in zip(gan, (noise(100), images())):
    params = jax.jit(model.init)(jax.random.key(0), inputs, LABELS)['params']
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
      kind = path[-1].key
      if kind == 'kernel':
        tolerance = 0.02 * 4 / np.sqrt(2 * leaf.size)
        assert leaf.std() == pytest.approx(0.02, abs=tolerance), path
      else:
        np.testing.assert_array_equal(leaf, {'scale': 1.0, 'bias': 0.0}[kind])


# --- spectral normalisation


def test_spectral_layers_are_those_of_kernels_divided_by_their_singular_value():
  fields = {'width': 4, 'minibatch': 'discrimination', 'num_classes': CLASSES}
  model, x = DCGANDiscriminator(norm='spectral', **fields), images((8, 8, 1))
  variables = draw(model, x)
  train = jax.jit(
    lambda v, x: model.apply(v, x, LABELS, train=True, mutable=['batch_stats'])[1]
  )
  first = variables['batch_stats']
  for _ in range(30):
    variables = {**variables, **train(variables, x)}
  chex.assert_trees_all_equal_shapes(first, variables['batch_stats'])
  params = {}
  for name, layer in variables['params'].items():
    kernel = np.asarray(layer['kernel'])
    largest = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
    sigma, _ = power_iteration(kernel, variables['batch_stats'][f'{name}_u'])
    assert sigma == pytest.approx(largest, rel=1e-2), name
    params[name] = {**layer, 'kernel': kernel / largest}
  plain = DCGANDiscriminator(norm='none', **fields)
  np.testing.assert_allclose(
    run(model, variables, x), run(plain, {'params': params}, x), rtol=0.03, atol=0.03
  )


def test_one_pass_is_one_iteration_and_evaluation_none():
  model, x = DCGANDiscriminator(width=4, norm='spectral'), images((8, 8, 1))
  variables = draw(model, x)
  mutable = ['params', 'batch_stats']
  _, after = run(model, variables, x, train=False, mutable=mutable)
  chex.assert_trees_all_equal(after, variables)
  _, after = run(model, variables, x, train=True, mutable=mutable)
  chex.assert_trees_all_equal(after['params'], variables['params'])
  u = variables['batch_stats']['conv1_u']
  _, expected = power_iteration(variables['params']['conv1']['kernel'], u)
  np.testing.assert_allclose(after['batch_stats']['conv1_u'], expected, atol=1e-6)
  assert np.abs(expected - u / np.linalg.norm(u)).max() > 0.01


def test_batch_norm_is_there_by_default_alone():
  for norm in NORMS:
    shapes = jax.eval_shape(
      DCGANDiscriminator(width=4, norm=norm).init, jax.random.key(0), images()
    )
    params = shapes['params']
    assert ('bn2' in params) == (norm == 'batch')
    assert ('bias' in params['conv1']) == (norm != 'batch')
    assert ('bias' in params['conv3']) == (norm != 'batch')


# --- what sees the whole batch


@pytest.mark.parametrize('minibatch', MINIBATCHES)
def test_the_logit_of_an_image_hangs_on_its_batch_only_where_asked(minibatch):
  model, x = DCGANDiscriminator(width=4, minibatch=minibatch), images((8, 8, 1))
  variables = draw(model, x)
  collapsed = np.repeat(x[:1], len(x), axis=0)
  diverse = run(model, variables, x)[0]
  alone = run(model, variables, collapsed)
  np.testing.assert_allclose(alone, alone[0], rtol=1e-5)
  shift = abs(alone[0] - diverse)
  assert shift < 1e-4 if minibatch == 'none' else shift > 1e-2


@pytest.mark.parametrize('minibatch', ['discrimination', 'stddev'])
def test_a_batch_split_over_devices_is_seen_as_a_whole(minibatch):
  model = DCGANDiscriminator(width=4, norm='spectral', minibatch=minibatch)
  x = images((8, 8, 1))
  variables = draw(model, x)
  mesh = Mesh(np.array(jax.devices()[:8]), ('data',))
  split = NamedSharding(mesh, PartitionSpec('data'))
  everywhere = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
  logits, stats = run(
    model, everywhere, jax.device_put(x, split), train=True, mutable=['batch_stats']
  )
  assert len(logits.sharding.device_set) == 8
  expected = run(model, variables, x, train=True, mutable=['batch_stats'])
  chex.assert_trees_all_close((logits, stats), expected, rtol=1e-4, atol=1e-5)


# --- classes


def test_each_class_has_gains_and_biases_of_its_own():
  model, z = DCGANGenerator(8, 1, 4, 5, num_classes=CLASSES), noise(5)
  variables = draw(model, z)
  made = np.asarray(run(model, variables, z))
  plain = DCGANGenerator(8, 1, 4, 5)
  own = jax.jit(lambda variables: plain.apply(variables, z))
  stats = {'bn1': variables['batch_stats']['bn1']['norm']}
  for label in range(CLASSES):
    rows = {kind: table[label] for kind, table in variables['params']['bn1'].items()}
    params = {**variables['params'], 'bn1': rows}
    expected = np.asarray(own({'params': params, 'batch_stats': stats}))
    close = np.isclose(made, expected, atol=1e-5).all((1, 2, 3))
    np.testing.assert_array_equal(close, label == LABELS)


def test_a_classifying_discriminator_takes_no_notice_of_labels():
  model = DCGANDiscriminator(width=4, num_classes=CLASSES, class_head='classifier')
  x = images((8, 8, 1))
  variables = draw(model, x)
  logits, classes = run(model, variables, x)
  again, _ = run(model, variables, x, LABELS[::-1])
  np.testing.assert_array_equal(logits, again)
  # Leaky ReLU of the first convolution, averaged over the pixels, on one row a class.
  params = dict(variables['params'])
  kernel = params.pop('classifier')['kernel']
  assert kernel.shape == (4, CLASSES)
  features = jax.lax.conv_general_dilated(
    x,
    params['conv1']['kernel'],
    (2, 2),
    [(1, 1)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  pooled = np.where(features > 0, features, 0.2 * features).mean((1, 2))
  np.testing.assert_allclose(classes, pooled @ kernel, rtol=1e-3, atol=1e-5)
  without = run(DCGANDiscriminator(width=4), {'params': params}, x, None)
  np.testing.assert_allclose(logits, without, rtol=1e-5)


def test_a_classifier_without_classes_is_refused():
  with pytest.raises(UserError, match='set model.conditional'):
    models.create_gan('dcgan', (8, 8, 1), CLASSES, class_head='classifier')


def test_the_discriminator_projects_its_features_on_the_class():
  model, x = DCGANDiscriminator(width=4, num_classes=CLASSES), images((8, 8, 1))
  variables = draw(model, x)
  apply = jax.jit(model.apply)

  def logits(table, labels=LABELS):
    params = {**variables['params'], 'embedding': {'kernel': table}}
    return np.asarray(apply({'params': params}, x, labels))

  params = {k: v for k, v in variables['params'].items() if k != 'embedding'}
  unconditional = run(DCGANDiscriminator(width=4), {'params': params}, x, None)
  kernel = variables['params']['embedding']['kernel']
  assert kernel.shape == (CLASSES, 4)
  np.testing.assert_allclose(logits(0 * kernel), unconditional, rtol=1e-5)
  # Leaky ReLU of the first convolution, summed over the pixels, on the class's vector.
  layer = variables['params']['conv1']['kernel']
  features = jax.lax.conv_general_dilated(
    x, layer, (2, 2), [(1, 1)] * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  pooled = np.where(features > 0, features, 0.2 * features).sum((1, 2))
  projected = (pooled * kernel[LABELS]).sum(-1)
  np.testing.assert_allclose(
    logits(kernel) - unconditional, projected, rtol=1e-3, atol=1e-4
  )
  assert np.abs(logits(kernel, LABELS[::-1]) - logits(kernel)).max() > 0.1


@pytest.mark.parametrize('model', [DCGANGenerator, DCGANDiscriminator])
def test_labels_are_wanted_with_classes_and_switches_are_checked(model):
  inputs = noise(100) if model is DCGANGenerator else images()
  with pytest.raises(ValueError, match='wants labels'):
    jax.eval_shape(model(num_classes=CLASSES).init, jax.random.key(0), inputs)
  field = 'upsample' if model is DCGANGenerator else 'norm'
  with pytest.raises(ValueError, match=f'{field} must be one of'):
    jax.eval_shape(model(**{field: 'Resize'}).init, jax.random.key(0), inputs)


# --- summary


def test_summary_counts_both_networks():
  gan = models.create_gan('dcgan', (32, 32, 3), 100)
  generator, discriminator = summarize_gan(gan, (32, 32, 3))
  assert (generator.params, discriminator.params) == (370_624, 167_808)
  for table, title in (
    (generator, 'DCGANGenerator on one noise vector of 100'),
    (discriminator, 'DCGANDiscriminator on one image of 32 x 32 x 3'),
  ):
    lines = str(table).splitlines()
    assert lines[0] == title
    assert any(line.split()[:2] == ['total', f'{table.params:,}'] for line in lines)
  outputs = {row.path: row.output for row in generator.rows}
  assert outputs['up1'] == (4, 4, 128)
  assert outputs['up4'] == (32, 32, 3)


@pytest.mark.parametrize('fields', ALL_ON)
def test_summary_gives_every_parameter_and_product_to_a_layer(fields):
  gan = models.create_gan('dcgan', (28, 28, 1), CLASSES, width=4, **fields)
  for model, table, inputs in zip(
    gan, summarize_gan(gan, (28, 28, 1)), (noise(100), images((28, 28, 1)))
  ):
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs, LABELS)
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes['params'])]
    assert table.params == sum(row.params for row in table.rows) == sum(sizes)
    assert table.flops == sum(row.flops for row in table.rows)
    assert all(row.path for row in table.rows if row.params or row.flops)


def test_flops_are_those_of_the_layers_whatever_computes_them():
  generator, discriminator = summarize_gan(
    models.create_gan('dcgan', (32, 32, 3), 10), (32, 32, 3)
  )
  layers = {row.path: row.flops for row in generator.rows if row.flops}
  assert layers == {
    'up1': 2 * 100 * 16 * 128,
    'up2': 2 * 16 * 16 * 128 * 64,  # taps of the kernel at each pixel that goes in
    'up3': 2 * 64 * 16 * 64 * 32,
    'up4': 2 * 256 * 16 * 32 * 3,
  }
  assert discriminator.flops == 2 * 48 * (256 * 32) + 2 * 2 * 2**21 + 2 * 2048
