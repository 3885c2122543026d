"""Every config of the repository trains, and the table of fields holds together."""

from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data, models, optim
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.tasks import freezing
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

CONFIGS = sorted(
  (Path(__file__).resolve().parent.parent / 'configs').glob('*.py'),
  key=lambda p: p.stem,
)

# Image shape and classes of the set that a config names, for made-up images like them.
LIKE = {
  'digits': (8, 1, 10),
  'mnist': (28, 1, 10),
  'cifar10': (32, 3, 10),
  'cifar100': (32, 3, 100),
  'folder': (64, 3, 3),
  'stanford_dogs': (64, 3, 120),
}


def load(path):
  folder = path.stem.startswith(('folder', 'dogs_lite0'))
  return config_lib.load(path, ['data.root=somewhere'] if folder else [])


def shape_of(config):
  """Returns side, channels and classes of the images that a config trains on."""
  size, channels, classes = LIKE[config.data.name]
  return config.data.image_size or size, config.data.channels or channels, classes


def with_images_like_its_own(path):
  """Returns the run of a config on one device, and made-up images of its shape."""
  config = load(path)
  size, channels, classes = shape_of(config)
  config.data.name = 'synthetic'
  config.data.image_size, config.data.channels = size, channels
  config.data.synthetic_classes = classes
  config.data.synthetic_examples = max(64, classes)
  config.data.pipeline = 'auto'
  config.batch_size = 8
  dataset = data.load(config.data)
  return Run.build(config, DatasetInfo.of(dataset), mesh=make_mesh(data=1)), dataset


def is_large(path):
  """Whether a config's model takes too long to compile for every one to be run."""
  config = load(path)
  if config.model.name in models.GANS:
    return False
  if config.model.name in models.FLOWS:
    return config.model.width > 64
  size, channels, classes = LIKE[config.data.name]
  fields = dict(config.model)
  model = models.create(fields.pop('name'), classes, **fields)
  variables = jax.eval_shape(
    model.init, jax.random.key(0), np.zeros((1, size, size, channels), np.float32)
  )
  return sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) > 3e6


SMALL = [path for path in CONFIGS if not is_large(path)]

# One of each kind of network and recipe, which the suite trains; the others are slow.
TRAINED = (
  'cifar100_smallcnn',
  'cifar10_resnet20',
  'digits_cnn',
  'digits_dcgan',
  'mnist_cnn',
)


@pytest.mark.parametrize(
  'path',
  [
    pytest.param(p, id=p.stem, marks=[] if p in SMALL else [pytest.mark.slow])
    for p in CONFIGS
  ],
)
def test_every_phase_of_a_config_fits_its_state(path):
  run, _ = with_images_like_its_own(path)
  config, task, plan = run.config, run.task, run.plan
  state = run.with_numbers(run.abstract_state())
  size, channels, _ = shape_of(load(path))
  images = plan.images_per_step
  batch = {
    'image': jax.ShapeDtypeStruct((images, size, size, channels), np.uint8),
    **{
      k: jax.ShapeDtypeStruct((images,), np.int32) for k in ('label', 'index', 'epoch')
    },
  }
  for first, train_step in task.phases():
    assert first < plan.total_steps
    after, _ = jax.eval_shape(train_step, state, batch, jax.random.key(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
  late = any('start' in g for g in config.optimizer.groups.values())
  assert len(task.phases()) == 1 + late + len(config.resize.progressive)


@pytest.mark.parametrize(
  'path',
  [
    pytest.param(p, id=p.stem, marks=[] if p.stem in TRAINED else [pytest.mark.slow])
    for p in SMALL
  ],
)
def test_config_trains_two_steps(path, quick_compile):
  run, dataset = with_images_like_its_own(path)
  config = run.config
  state = run.init()
  trainer = run.trainer(dataset, state)
  before = jax.device_get(state)
  metrics = trainer.empty_metrics()
  for _ in range(2):
    state, metrics, loss, _ = trainer.run(state, metrics, 1)
    assert np.isfinite(loss)
  after = jax.device_get(state)
  chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
  chex.assert_tree_all_finite(after.params)
  assert after.step == 2
  if config.model.name in models.TASK_OF:
    moved = jax.tree.map(lambda a, b: (a != b).any(), before.params, after.params)
    # Of a flow, what stands before two layers that begin at zero waits another step.
    assert all(jax.tree.leaves(moved if config.task == 'gan' else moved['last']))
    return
  assert metrics.accuracy.count == 2 * config.batch_size
  groups = {name: dict(group) for name, group in config.optimizer.groups.items()}
  starts = optim.first_steps(before.params, config.freeze, groups, run.plan.total_steps)
  still = freezing.frozen_at(starts, 0)
  for old, new, frozen in zip(
    jax.tree.leaves(before.params),
    jax.tree.leaves(after.params),
    jax.tree.leaves(still),
  ):
    assert old.dtype == np.float32
    assert (old == new).all() if frozen else (old != new).any()
  for layer, old in before.batch_stats.items():
    frozen = all(jax.tree.leaves(still[layer]))
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(after.batch_stats[layer])):
      assert (a == b).all() if frozen else (a != b).any()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_config_has_a_docstring_and_is_named_after_its_file(path):
  first = path.read_text().splitlines()[0]
  assert first.startswith('"""')
  assert load(path).name == path.stem


def test_every_field_has_a_meaning_and_a_possible_default():
  for path, field in config_lib.walk(config_lib.FIELDS):
    assert field.doc.endswith('.'), path
    assert field.valid(field.default), path


def test_json_round_trip_keeps_types():
  config = config_lib.base_config()
  config.schedule.boundaries = (0.25, 0.5)
  config.model.features = (8, 16)
  config.optimizer.options.b1 = 0.8
  assert config_lib.from_json(config_lib.to_json(config)) == config


@pytest.mark.parametrize(
  ('assignment', 'wanted'),
  [
    ('sede=1', 'did you mean "seed"'),
    ('learning_rate=1', 'did you mean "optimizer.learning_rate"'),
    ('lr=1', 'did you mean "optimizer.learning_rate"'),
    ('data.nmae=mnist', 'did you mean "data.name"'),
    ('steps=1.5', 'type int'),
    ('epochs=nan', 'epochs'),
    ('epochs=inf', 'epochs'),
    ('deterministic=1', 'type bool'),
    ('seed', 'needs a value'),
    ('data=mnist', 'group of fields'),
    ('label_smoothing=1.0', 'below 1'),
    ('schedule.boundaries=(0.5,0.2)', 'rising'),
    ('data.mean=(0.5,)', 'together'),
    ('grad_accumulation=3', 'equal parts'),
    ('seed=99999999999999999999', 'seed must be'),
    ('data.mean=grey', 'tuple of numbers'),
    ('evaluation.tta=mirror', 'one of none, flip'),
    ('gan.loss=wgan', 'one of bce, hinge'),
    ('gan.d_step=2', 'did you mean "gan.d_steps"'),
  ],
)
def test_refused_overrides(assignment, wanted):
  with pytest.raises(UserError) as error:
    config_lib.override(config_lib.base_config(), [assignment])
  assert wanted in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('assignment', 'path', 'value'),
  [
    ('seed=7', 'seed', 7),
    ('epochs=3', 'epochs', 3.0),
    ('optimizer.learning_rate=1e-3', 'optimizer.learning_rate', 1e-3),
    ('augment.flip', 'augment.flip', True),
    ('augment.flip=false', 'augment.flip', False),
    ('data.root=/a=b/c', 'data.root', '/a=b/c'),
    ('data.name=2024', 'data.name', '2024'),
    ('schedule.boundaries=0.5', 'schedule.boundaries', (0.5,)),
    ('schedule.boundaries=[0.5,0.7]', 'schedule.boundaries', (0.5, 0.7)),
    ('model.activation=swish', 'model.activation', 'swish'),
    ('model.features=(4,8)', 'model.features', (4, 8)),
    ('freeze=conv/.*', 'freeze', ('conv/.*',)),
  ],
)
def test_accepted_overrides(assignment, path, value):
  config = config_lib.override(config_lib.base_config(), [assignment])
  found = dict(config_lib.walk(config))[path]
  assert found == value
  assert type(found) is type(value)


def test_differences_leave_out_where_a_run_happens():
  base = config_lib.base_config()
  moved = config_lib.override(
    base, ['data.dir=/elsewhere', 'data.workers=3', 'parallel.data=2']
  )
  assert config_lib.differences(base, moved) == []
  other = config_lib.override(base, ['seed=1', 'model.width=3'])
  assert config_lib.differences(base, other) == [
    'model.width: None -> 3',
    'seed: 0 -> 1',
  ]


def test_two_averages_of_the_weights_are_one_too_many():
  with pytest.raises(UserError, match='lookahead.every and ema_decay'):
    config_lib.override(
      config_lib.base_config(), ['ema_decay=0.9', 'lookahead.every=5']
    )


def gan_message(*assignments):
  """Returns why a GAN cannot be built from a config."""
  config = config_lib.override(
    config_lib.base_config(),
    ['task=gan', 'model.name=dcgan', 'data.name=synthetic', *assignments],
  )
  with pytest.raises(UserError) as error:
    Run.build(config, DatasetInfo.of(data.load(config.data)), mesh=make_mesh(data=1))
  return str(error.value)


@pytest.mark.parametrize(
  ('assignments', 'wanted'),
  [
    (('grad_accumulation=2',), 'one part'),
    (('freeze=conv1',), 'both networks train as a whole'),
    (('init.pretrained=runs/x',), 'random weights'),
    (('optimizer.groups.a.match=conv1',), 'one optimiser'),
    (('optimizer.sam=0.05',), 'a loss of its own'),
    (('data.mean=(0.5,0.5,0.5)', 'data.std=(1,1,1)'), 'images in [-1, 1]'),
  ],
)
def test_fields_without_meaning_for_a_gan_are_refused(assignments, wanted):
  assert wanted in gan_message(*assignments)


def test_label_smoothing_needs_a_gan_loss_with_targets():
  message = gan_message('gan.loss=wasserstein', 'label_smoothing=0.1')
  assert 'wasserstein has none' in message


def test_validate_completes_a_partial_config():
  full = config_lib.validate(ConfigDict({'batch_size': 3, 'data': {'name': 'mnist'}}))
  assert (full.batch_size, full.data.name, full.epochs) == (3, 'mnist', 10.0)
