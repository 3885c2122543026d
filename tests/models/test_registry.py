"""What holds for every model in the table, and what `create` refuses."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from jaxvision import models
from jaxvision.errors import UserError

CLASSES = 7
# Small images and narrow layers: the architectures are the same, the tests short.
NARROW = {
  'small_filters_cnn': {},
  'sim_cnn': {'features': (4, 8), 'hidden': 16, 'batch_norm': True, 'dropout': 0.5},
  'basic_cnn': {'features': (4, 8, 8), 'hidden': 16, 'dropout': 0.5},
  'original_cnn': {'features': (4, 8, 8), 'hidden': 16},
  'custom_cnn': {'features': (4, 8, 8)},
  'mnist_cnn': {'features': (4, 8, 8)},
  'digits_cnn': {'features': (4, 8), 'hidden': 16},
  'resnet20': {'width': 4},
  'mobilenet_v2': {
    'stem_width': 4,
    'widths': (4, 6, 6),
    'depths': (1, 2, 1),
    'strides': (1, 2, 2),
    'expansions': (1, 2, 2),
    'last_width': 16,
    'dropout': 0.5,
  },
  'efficientnet_b0': {
    'stem_width': 4,
    'widths': (4, 6),
    'depths': (1, 2),
    'strides': (1, 2),
    'expansions': (1, 2),
    'kernels': (3, 5),
    'last_width': 16,
    'stem': 'cifar',
  },
  'wide_resnet16_8': {'width': 4, 'widen': 1, 'dropout': 0.5},
}
# Seconds of compilation each.
COSTLY = ('mobilenet_v2', 'efficientnet_b0', 'wide_resnet16_8')
# Those whose gradients other tests compare with PyTorch's.
NARROW_PEERS = {
  'conv_mixer_256_8': {'width': 8, 'depth': 1},
  'convnext_atto': {'widths': (4,), 'depths': (1,), 'layer_scale': 0.5},
  'vit_tiny': {'patch': 4, 'width': 8, 'depth': 1, 'heads': 2},
  'cct_2_3x2': {'width': 8, 'depth': 1},
}


# Without B1 to B3, which are B0 with more and wider layers.
UNLIKE = [name for name in models.MODELS if not name.startswith('efficientnet_b')]
UNLIKE += ['efficientnet_b0']


def image_shape(name):
  return {'mnist_cnn': (28, 28, 1), 'digits_cnn': (8, 8, 1)}.get(name, (16, 16, 3))


def batch(name, size=4):
  random = np.random.default_rng(1)
  return random.standard_normal((size, *image_shape(name)), np.float32)


def run(model, variables, images, **arguments):
  return jax.jit(lambda v, x: model.apply(v, x, **arguments))(variables, images)


@pytest.mark.long
@pytest.mark.parametrize(
  'dtype', ['bfloat16', pytest.param('float32', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('name', small_models.deeper_slow(UNLIKE))
def test_logits_parameters_and_statistics_are_float32_in_any_dtype(name, dtype):
  model = models.create(name, CLASSES, dtype=dtype, **small_models.fields_of(name))
  images = jax.ShapeDtypeStruct((2, *image_shape(name)), jnp.float32)
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}

  def trace(images):
    variables = model.init(keys, images, train=False)
    logits, updates = model.apply(
      variables, images, train=True, rngs=keys, mutable=['batch_stats']
    )
    return variables, updates, logits, model.apply(variables, images, train=False)

  variables, updates, train_logits, eval_logits = jax.eval_shape(trace, images)
  chex.assert_shape([train_logits, eval_logits], (2, CLASSES))
  leaves = jax.tree.leaves((variables, updates, train_logits, eval_logits))
  chex.assert_type(leaves, jnp.float32)
  if 'batch_stats' in variables:
    chex.assert_trees_all_equal_shapes_and_dtypes(
      variables['batch_stats'], updates['batch_stats']
    )
  assert set(variables) <= {'params', 'batch_stats'}


# The first, and so the smallest, of each class of networks.
CLASSES_OF_MODELS = {
  getattr(constructor, 'func', constructor): name
  for name, constructor in reversed(models.MODELS.items())
}


@pytest.mark.long
@pytest.mark.parametrize('name', CLASSES_OF_MODELS.values())
def test_features_and_maps_of_every_model(name):
  model = models.create(name, CLASSES, **small_models.fields_of(name))
  images = jax.ShapeDtypeStruct((2, *image_shape(name)), jnp.float32)

  def trace(images):
    variables = model.init(jax.random.key(0), images, train=False)
    labels = jnp.zeros(2, jnp.int32)
    return (
      models.features_and_logits(model, variables, images),
      models.grad_cam(model, variables, images, labels),
      variables['params']['head']['kernel'],
    )

  (features, logits), maps, head = jax.eval_shape(trace, images)
  assert features.shape == (2, head.shape[0])
  assert logits.shape == (2, CLASSES)
  assert maps.shape == (2, *image_shape(name)[:2])


@pytest.mark.long
@pytest.mark.parametrize(
  'name',
  ['small_filters_cnn', 'mnist_cnn', 'resnet20', *NARROW_PEERS],
)
def test_bfloat16_is_what_the_layers_compute_in(name, fill):
  logits = {}
  for dtype in models.DTYPES:
    fields = {**NARROW, **NARROW_PEERS}[name]
    model = models.create(name, CLASSES, dtype=dtype, **fields)
    variables = fill(model, image_shape(name))
    program = jax.make_jaxpr(model.apply)(variables, batch(name))
    assert ('bf16' in str(program)) == (dtype == 'bfloat16')
    logits[dtype] = run(model, variables, batch(name))
  scale = jnp.abs(logits['float32']).max()
  difference = jnp.abs(logits['float32'] - logits['bfloat16']).max()
  assert 0 < difference < 0.05 * scale


@pytest.mark.long
@pytest.mark.parametrize(
  'name',
  [pytest.param(n, marks=[pytest.mark.slow] * (n in COSTLY)) for n in NARROW],
)
def test_a_train_step_reaches_every_parameter_and_statistic(name, fill):
  model = models.create(name, CLASSES, **NARROW[name])
  images = batch(name)
  variables = fill(model, image_shape(name))
  params, stats = variables['params'], variables.get('batch_stats', {})

  @jax.jit
  def gradients(params):
    def loss(params):
      logits, updates = model.apply(
        {'params': params, 'batch_stats': stats},
        images,
        train=True,
        rngs={'dropout': jax.random.key(2)},
        mutable=['batch_stats'],
      )
      loss = -jax.nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4)].mean()
      return loss, updates.get('batch_stats', {})

    return jax.grad(loss, has_aux=True)(params)

  grads, new_stats = gradients(params)
  chex.assert_tree_all_finite((grads, new_stats))
  still = [
    jax.tree_util.keystr(path)
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads)
    if not jnp.any(gradient)
  ]
  assert still == []
  for old, new in zip(jax.tree.leaves(stats), jax.tree.leaves(new_stats), strict=True):
    assert jnp.any(old != new)


@pytest.mark.parametrize('name', ['sim_cnn', 'original_cnn', 'resnet20'])
def test_evaluation_leaves_the_statistics_and_needs_no_key(name, fill):
  model = models.create(name, CLASSES, **NARROW[name])
  variables = fill(model, image_shape(name))
  logits, updates = run(
    model, variables, batch(name), train=False, mutable=['batch_stats']
  )
  chex.assert_trees_all_equal(updates['batch_stats'], variables['batch_stats'])
  alone = run(model, variables, batch(name)[:1], train=False)
  chex.assert_trees_all_close(alone, logits[:1], atol=1e-4)


FROZEN = {
  'resnet20': ('stage2_block1', 'bn1'),
  'sim_cnn': ('conv2', 'bn'),
  'airbench94': ('group2', 'norm1'),
}


@pytest.mark.parametrize('name', FROZEN)
def test_an_interceptor_can_freeze_the_batch_norm_of_one_layer(name, fill):
  fields = NARROW.get(name, {'widths': (4, 8)})
  model = models.create(name, CLASSES, **fields)
  variables = fill(model, image_shape(name))
  passed = []

  def freeze(call, args, kwargs, context):
    if context.module.path != FROZEN[name] or context.method_name != '__call__':
      return call(*args, **kwargs)
    result = call(*args, **kwargs | {'use_running_average': True})
    passed.append((args[0], result))
    return result

  @jax.jit
  def train(variables, images):
    passed.clear()
    with nn.intercept_methods(freeze):
      _, updates = model.apply(
        variables,
        images,
        train=True,
        rngs={'dropout': jax.random.key(0)},
        mutable=['batch_stats'],
      )
    return updates['batch_stats'], passed[0]

  updates, (x, y) = train(variables, batch(name))
  old = jax.tree_util.tree_leaves_with_path(variables['batch_stats'])
  for (path, before), after in zip(old, jax.tree.leaves(updates)):
    frozen = tuple(key.key for key in path[:-1]) == FROZEN[name]
    assert bool(jnp.all(before == after)) == frozen
  own = variables
  for key in FROZEN[name]:
    own = {kind: tree[key] for kind, tree in own.items()}
  epsilon = 1e-12 if name == 'airbench94' else 1e-5
  mean, var = own['batch_stats']['mean'], own['batch_stats']['var']
  expected = (x - mean) / jnp.sqrt(var + epsilon) * own['params'].get('scale', 1)
  chex.assert_trees_all_close(y, expected + own['params']['bias'], rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize('name', UNLIKE)
def test_batch_norm_learns_in_its_call_whether_it_trains(name):
  fields = {'batch_norm': True} if 'batch_norm' in models.fields(name) else {}
  fields |= small_models.fields_of(name)
  model = models.create(name, CLASSES, **fields)

  def check(call, args, kwargs, context):
    if isinstance(context.module, nn.BatchNorm) and context.method_name == '__call__':
      assert context.module.use_running_average is None
      assert kwargs == {'use_running_average': True}
    return call(*args, **kwargs)

  images = jax.ShapeDtypeStruct((1, *image_shape(name)), jnp.float32)
  with nn.intercept_methods(check):
    jax.eval_shape(model.init, jax.random.key(0), images)


# Where batch norm can be switched off, which would differ between training and not.
@pytest.mark.parametrize(
  'name',
  [name for name in NARROW if {'dropout', 'batch_norm'} <= set(models.fields(name))],
)
def test_dropout_is_active_only_in_training(name, fill):
  fields = NARROW[name] | {'dropout': 0.5, 'batch_norm': False}
  images = batch(name)
  dropped = models.create(name, CLASSES, **fields)
  whole = models.create(name, CLASSES, **fields | {'dropout': 0.0})
  variables = fill(dropped, image_shape(name))
  train = jax.jit(
    lambda seed: dropped.apply(
      variables, images, train=True, rngs={'dropout': jax.random.key(seed)}
    )
  )
  assert jnp.any(train(1) != train(2))
  chex.assert_trees_all_equal(train(1), train(1))
  # Without dropout, training needs no key and is what evaluation does.
  expected = run(whole, variables, images, train=True)
  evaluated = run(dropped, variables, images, train=False)
  chex.assert_trees_all_close(evaluated, expected, rtol=1e-5)


@pytest.mark.parametrize('name', models.MODELS)
def test_every_default_is_a_value_that_create_accepts(name):
  defaults = models.fields(name)
  assert {'parent', 'name', 'num_classes', 'dtype'}.isdisjoint(defaults)
  assert {'stage_sizes', 'block'}.isdisjoint(defaults)
  assert models.create(name, CLASSES, **defaults) == models.create(name, CLASSES)


def test_fields_reach_the_model_in_their_own_type():
  model = models.create(
    'basic_cnn', 10, features=[8, 16], hidden=5, dropout=0, activation='gelu'
  )
  assert model.features == (8, 16)
  assert (model.hidden, model.activation) == (5, 'gelu')
  ratio = models.create('vit_tiny', 10, mlp_ratio=2).mlp_ratio
  assert (ratio, type(ratio)) == (2.0, float)
  assert isinstance(model.dropout, float)
  assert hash(model) == hash(model.clone())


def test_fields_answers_with_a_copy():
  models.fields('resnet20')['shortcut'] = 'B'
  assert models.fields('resnet20')['shortcut'] == 'A'
  assert models.fields('resnet18')['shortcut'] == 'B'


@pytest.mark.parametrize(
  ('name', 'fields', 'words'),
  [
    ('resnet19', {}, ['"resnet19"', 'did you mean "resnet18"']),
    ('vgg', {}, ['"vgg"', 'known: small_filters_cnn, sim_cnn']),
    ('sim_cnn', {'dropuot': 0.1}, ['"sim_cnn"', '"dropuot"', 'mean "dropout"']),
    ('sim_cnn', {'zzz': 0.1}, ['"sim_cnn"', '"zzz"', 'features, hidden']),
    ('resnet18', {'stage_sizes': (1, 1)}, ['"stage_sizes"']),
    ('resnet18', {'parent': None}, ['"parent"']),
    ('sim_cnn', {'activation': 'rellu'}, ['model.activation', "'rellu'", '"relu"']),
    ('sim_cnn', {'activation': 3}, ['model.activation', '3', '"swish"']),
    ('sim_cnn', {'dropout': 1.5}, ['model.dropout', '1.5', 'below 1']),
    ('sim_cnn', {'dropout': 'a lot'}, ['model.dropout', "'a lot'"]),
    ('sim_cnn', {'dropout': float('nan')}, ['model.dropout', 'nan']),
    ('sim_cnn', {'dropout': True}, ['model.dropout', 'True']),
    ('sim_cnn', {'batch_norm': 1}, ['model.batch_norm', 'True or False', '1']),
    ('sim_cnn', {'hidden': -5}, ['model.hidden', '-5', 'whole number']),
    ('sim_cnn', {'hidden': 1.5}, ['model.hidden', '1.5']),
    ('sim_cnn', {'features': (8, -16)}, ['model.features', '(8, -16)']),
    ('sim_cnn', {'features': ()}, ['model.features', '()']),
    ('sim_cnn', {'features': 8}, ['model.features', 'got 8']),
    ('resnet20', {'shortcut': 'C'}, ['model.shortcut', '"A", "B"', "'C'"]),
    ('resnet20', {'width': 0}, ['model.width', 'got 0']),
    ('resnet20', {'width': 10**6}, ['model.width', 'to 65,536']),
    ('resnet20', {'width': 10**5000}, ['model.width', 'digits']),
    ('resnet20', {'stages': 99}, ['model.stages', 'from 1 to 4', '99']),
    ('sim_cnn', {'features': (8,) * 101}, ['model.features', 'up to 100']),
    ('mobilenet_v2', {'depths': (200,) * 7}, ['model.depths', 'to 100']),
    ('vit_tiny', {'pool': 'max'}, ['model.pool', '"token", "mean"', "'max'"]),
    ('vit_tiny', {'positions': 'sincos'}, ['model.positions', 'mean "sincos2d"']),
    ('vit_tiny', {'mlp_ratio': 0}, ['model.mlp_ratio', 'above 0', 'got 0']),
    ('vit_tiny', {'mlp_ratio': True}, ['model.mlp_ratio', 'True']),
    ('vit_tiny', {'depth': 1000}, ['model.depth', 'from 1 to 100', '1000']),
    ('vit_tiny', {'drop_path': 1.0}, ['model.drop_path', '1.0', 'below 1']),
    ('cct_2_3x2', {'attention_dropout': -0.1}, ['model.attention_dropout', '-0.1']),
    ('conv_mixer_256_8', {'kernel': 10**4}, ['model.kernel', 'to 100']),
    ('convnext_tiny', {'layer_scale': 1.5}, ['model.layer_scale', '1.5', 'most 1']),
    ('convnext_tiny', {'stem_patch': 0}, ['model.stem_patch', 'got 0']),
    ('efficientnet_b0', {'padding': 'SAME'}, ['model.padding', '"same"', "'SAME'"]),
    ('efficientnet_b0', {'epsilon': 1}, ['model.epsilon', 'below 1', 'got 1']),
    ('resnet20', {'dtype': 'float61'}, ['dtype', '"bfloat16"', "'float61'"]),
    ('resnet20', {'num_classes': 0}, ['num_classes', 'got 0']),
  ],
)
def test_create_refuses_in_one_line(name, fields, words):
  with pytest.raises(UserError) as info:
    models.create(name, **{'num_classes': 10} | fields)
  message = str(info.value)
  assert '\n' not in message
  for word in words:
    assert word in message
