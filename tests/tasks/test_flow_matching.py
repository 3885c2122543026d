"""Flow matching against closed forms: its loss, its step, what it is shown and measures."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.config import base_config, override
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.tasks.flow_matching import draw_times, keys_of, matching_losses
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

SHAPE = (8, 8, 1)
INFO = DatasetInfo(
  name='test',
  class_names=tuple('abcdefghij'),
  image_shape=SHAPE,
  mean=(0.5,),
  std=(0.5,),
  examples={'train': 64, 'test': 16},
)


def make(*overrides, info=INFO):
  """Returns the task of a small U-Net that trains by Adam at a constant rate."""
  config = override(
    base_config(),
    [
      'task=flow_matching',
      'batch_size=8',
      'steps=4',
      'model.name=unet',
      'model.width=4',
      'model.multipliers=(1,)',
      'model.embedding=8',
      'model.conditional=True',
      'optimizer.name=adam',
      'optimizer.learning_rate=1e-3',
      'schedule.name=constant',
      *overrides,
    ],
  )
  return Run.build(config, info, mesh=make_mesh(data=1)).task


def start(task):
  """Returns the state at step 0, compiled as a whole."""
  return jax.jit(task.init)(jax.random.key(0))


def moved(state):
  """Returns the state with none of its parameters at 0."""
  params = jax.device_get(state.params)
  return state.replace(params=jax.tree.map(lambda leaf: leaf + 0.1, params))


def batch_of(size=8, seed=0):
  draw = np.random.default_rng(seed)
  images = draw.integers(0, 256, (size, *SHAPE), np.uint8)
  return {'image': images, 'label': draw.integers(0, 10, size).astype(np.int32)}


# --- the loss


def test_loss_is_least_at_the_velocity_of_the_closed_form():
  """For images from N(m, s**2) the least loss at uniform times is s pi / 2."""
  mean, deviation, count = 0.3, 0.5, 4096
  keys = jax.random.split(jax.random.key(0), 3)
  images = mean + deviation * jax.random.normal(keys[0], (count, 4, 4, 1))
  noise = jax.random.normal(keys[1], images.shape)
  times = draw_times(keys[2], 'uniform', count)

  def loss(scale=1.0, shift=0.0):
    def velocity(x, t):
      t = t[:, None, None, None]
      variance = (1 - t) ** 2 + t**2 * deviation**2
      slope = (t * deviation**2 - (1 - t)) / variance
      return mean + shift + scale * slope * (x - t * mean)

    return float(matching_losses(velocity, images, noise, times).mean())

  assert loss() == pytest.approx(deviation * np.pi / 2, rel=0.02)
  for changed in ({'scale': 0.8}, {'scale': 1.2}, {'shift': 0.2}, {'shift': -0.2}):
    assert loss(**changed) > loss() + 0.01


def test_loss_is_of_the_line_from_noise_to_image():
  images, noise = jnp.full((2, 1, 1, 1), 3.0), jnp.ones((2, 1, 1, 1))
  seen = []

  def velocity(x, t):
    seen.append((x.reshape(-1), t))
    return jnp.zeros_like(x)

  losses = matching_losses(velocity, images, noise, jnp.array([0.0, 0.5]))
  np.testing.assert_allclose(losses, [4.0, 4.0])
  np.testing.assert_allclose(seen[0][0], [1.0, 2.0])


@pytest.mark.parametrize(
  ('distribution', 'quarter'), [('uniform', 0.25), ('logit_normal', 0.1359)]
)
def test_times_are_drawn_by_their_distribution(distribution, quarter):
  times = draw_times(jax.random.key(0), distribution, 20_000)
  assert times.min() >= 0
  assert times.max() <= 1
  assert float(times.mean()) == pytest.approx(0.5, abs=0.01)
  assert float((times < 0.25).mean()) == pytest.approx(quarter, abs=0.01)


# --- the step


@pytest.mark.long
def test_step_is_that_of_the_textbook(quick_compile):
  task = make(
    'flow.label_dropout=0', 'flow.time=uniform', 'grad_clip=0.5', 'ema_decay=0.5'
  )
  state, batch, key = start(task), batch_of(), jax.random.key(1)
  stepped, measured = jax.jit(task.train_step)(state, batch, key)
  keys = jax.random.split(key, 5)
  images = batch['image'] / 127.5 - 1
  noise = jax.random.normal(keys[1], images.shape)
  t = jax.random.uniform(keys[2], (8,))
  x = (1 - t)[:, None, None, None] * noise + t[:, None, None, None] * images

  def loss(params):
    found = task.model.network.apply({'params': params}, x, t, batch['label'])
    return jnp.mean((found - (images - noise)) ** 2)

  @jax.jit
  def step(params):
    value, grads = jax.value_and_grad(loss)(params)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-3))
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return value, optax.apply_updates(params, updates)

  value, expected = step(state.params)
  chex.assert_trees_all_close(stepped.params, expected, atol=1e-5)
  assert float(measured.compute()['loss']) == pytest.approx(float(value), rel=1e-4)
  assert int(stepped.step) == 1
  # (1 + 0) / (10 + 0) of the old at the first step, less than the decay.
  pairs = jax.device_get((state.params, stepped.params))
  average = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, *pairs)
  chex.assert_trees_all_close(stepped.ema['params'], average, atol=1e-6)
  assert stepped.eval_variables is stepped.ema


@pytest.mark.parametrize(('chance', 'lowest', 'highest'), [(0, 0, 0), (0.5, 0.4, 0.6)])
def test_labels_are_dropped_with_their_chance(chance, lowest, highest):
  task = make(f'flow.label_dropout={chance}')
  labels = jnp.full(1000, 7)
  shown = task._labels_to_learn(jax.random.key(0), labels)
  assert set(np.unique(shown)) <= {7, 10}
  assert lowest <= float((shown == 10).mean()) <= highest
  assert (
    make('model.conditional=False')._labels_to_learn(jax.random.key(0), labels) is None
  )


@pytest.mark.slow
def test_a_batch_in_parts_trains_on_all_of_it(quick_compile):
  task = make('grad_accumulation=2')
  state, batch = start(task), batch_of()
  stepped, measured = jax.jit(task.train_step)(state, batch, jax.random.key(1))
  assert np.isfinite(float(measured.compute()['loss']))
  assert float(measured.loss.count) == 8
  last = stepped.params['last']['kernel']
  assert np.abs(last).max() > 0


@pytest.mark.slow
def test_what_other_networks_are_trained_by_holds_too(quick_compile):
  key, batch = jax.random.key(1), batch_of()

  def step(*overrides):
    task = make(*overrides)
    state = task.init(jax.random.key(0))
    return jax.jit(task.train_step)(moved(state), batch, key)[0]

  sgd = ('optimizer.name=sgd', 'optimizer.learning_rate=1')
  plain = step(*sgd).params['last']['kernel']
  uphill = step(*sgd, 'optimizer.sam=1.0').params['last']['kernel']
  assert np.abs(uphill - plain).max() > 1e-6
  pulled = step('lookahead.every=1', 'lookahead.decay=0.5')
  chex.assert_trees_all_close(pulled.ema['params'], pulled.params)
  free = step('optimizer.schedule_free=True')
  averaged = free.eval_variables['params']['last']['kernel']
  assert np.abs(averaged - free.params['last']['kernel']).max() > 0


@pytest.mark.long
def test_rates_live_in_the_state(quick_compile):
  task = make('model.dropout=0.5', 'flow.label_dropout=0')
  state = moved(start(task)).replace(
    hparams={'model.dropout': jnp.float32(0.0)},
  )
  key = jax.random.key(1)
  loss = jax.jit(lambda state: task.loss(state.params, state, batch_of(), key)[0])
  undropped = loss(state)
  dropped = loss(state.replace(hparams={'model.dropout': jnp.float32(0.5)}))
  assert undropped != dropped
  plain = make('flow.label_dropout=0')
  plain_loss = jax.jit(
    lambda state: plain.loss(state.params, state, batch_of(), key)[0]
  )
  expected = plain_loss(state.replace(hparams={}))
  np.testing.assert_allclose(undropped, expected, rtol=1e-5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_state_is_float32_in_any_dtype(dtype):
  task = make(f'dtype={dtype}', 'ema_decay=0.9')

  def two(key):
    state, _ = task.train_step(task.init(key), batch_of(), key)
    return (
      state.params,
      state.ema,
      task.generator.draw(
        state.eval_variables, jnp.zeros((2, 64)), jnp.zeros(2, jnp.int32)
      ),
    )

  *states, images = jax.eval_shape(two, jax.random.key(0))
  chex.assert_type(jax.tree.leaves(states), jnp.float32)
  chex.assert_type(images, jnp.uint8)
  chex.assert_shape(images, (2, *SHAPE))


# --- held-out images


def test_keys_of_images_depend_on_their_pixels_alone():
  images = batch_of(6)['image']
  images[3] = images[0]
  words = np.asarray(jax.random.key_data(keys_of(images)))
  assert len(np.unique(words, axis=0)) == 5
  np.testing.assert_array_equal(words[::-1], jax.random.key_data(keys_of(images[::-1])))
  images[1, 0, 0, 0] ^= 1
  changed = np.asarray(jax.random.key_data(keys_of(images)))
  assert ((words != changed).any(1) == (np.arange(6) == 1)).all()


@pytest.mark.long
def test_held_out_loss_is_the_same_in_batches_of_any_size(quick_compile):
  task = make()
  state = moved(start(task))
  batch = batch_of() | {'mask': np.arange(8) < 6}
  measured, losses = jax.jit(task.eval_step)(state, batch)
  assert float(measured.loss.count) == 6
  assert float(measured.compute()['loss']) == pytest.approx(float(losses[:6].mean()))
  half = {name: values[4:] for name, values in batch.items()}
  _, second = jax.jit(task.eval_step)(state, half)
  np.testing.assert_allclose(second, losses[4:], rtol=1e-4)


# --- what is refused


@pytest.mark.parametrize(
  ('overrides', 'wanted'),
  [
    (['freeze=first'], 'trains as a whole'),
    (['init.pretrained=runs/x'], 'random weights'),
    (['label_smoothing=0.1'], 'no classes'),
    (['loss.name=huber'], 'mean squared error'),
    (['optimizer.groups.a.match=first'], 'one optimiser'),
    (['optimizer.layer_decay=0.5'], 'one learning rate'),
    (['data.mean=(0.5,)', 'data.std=(1,)'], 'images in [-1, 1]'),
    (['gan.r1=1'], 'no discriminator'),
    (['augment.mixup=1'], 'mix targets'),
    (['flow.guidance=2', 'flow.label_dropout=0'], 'flow.label_dropout'),
    (['flow.guidance=2', 'model.conditional=False'], 'model.conditional'),
    (['model.name=dcgan'], 'unet'),
    (['model.multipliers=(1,2,2,2,2)'], 'multiple of 16'),
  ],
)
def test_what_means_nothing_is_refused_in_one_line(overrides, wanted):
  with pytest.raises(UserError) as error:
    make(*overrides)
  assert wanted in str(error.value)
  assert '\n' not in str(error.value)


def test_labels_must_be_classes():
  info = DatasetInfo(
    name='test',
    class_names=('age',),
    image_shape=SHAPE,
    mean=(0.5,),
    std=(0.5,),
    examples={'train': 64, 'test': 16},
    label_kind='regression',
  )
  with pytest.raises(UserError, match='labels that are classes'):
    make(info=info)


# --- what it is ranked by


def test_runs_are_ranked_by_the_distance_where_it_is_measured():
  task = make()
  assert task.best == ('loss', 'min')
  assert task.measure['key'] == 'test_loss'
  task = make('evaluation.features=somewhere')
  assert task.best == (task.measure['key'], task.measure['mode']) == ('fd', 'min')
  assert make(
    'evaluation.features=somewhere', 'evaluation.samples_while_training=0'
  ).best == ('loss', 'min')


def test_flops_of_an_image_are_those_of_all_evaluations():
  task = make('flow.steps=10', 'flow.guidance=2')
  (table,) = task.summaries()
  assert task.flops_per_image == 40 * table.flops
