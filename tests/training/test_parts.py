"""Parts of a user's own in a run: what is refused, what is recorded, what is used."""

import functools
import json
import shutil

import flax.linen as nn
import jax
import pytest
from command_line import DIGITS, assert_refused

import jaxvision
from jaxvision.errors import UserError
from jaxvision.training.parts import make_callbacks

SHORT = (
  '--config.steps=4',
  '--config.checkpoint.every_steps=2',
  '--config.parallel.data=1',
  '--config.report=False',
)

WRONG = """
import flax.linen as nn
import jax.numpy as jnp
import optax


class Net(nn.Module):
  num_classes: int
  width: int = 4

  @nn.compact
  def __call__(self, images, train=False):
    return nn.Dense(self.num_classes)(images.mean((1, 2)))


class Images(nn.Module):
  @nn.compact
  def __call__(self, images):
    return nn.Conv(1, (3, 3))(images)


class Raises(nn.Module):
  @nn.compact
  def __call__(self, images):
    return nn.Dense(10)(images.no_such_method())


class Needs(nn.Module):
  depth: int


def returns_none(*args, **options):
  return None


def scalar_loss(logits, labels):
  return logits.mean()


def raising_loss(logits, labels):
  return logits + labels[:, :, None]


def cropped(key, images):
  return images[:, 1:]


def no_rate(peak, total_steps):
  return lambda step: None


class NoTask:
  pass


class NeedsArguments:
  def __init__(self, patience):
    pass


WIDTH = 3
"""


@pytest.fixture
def wrong(tmp_path):
  """A file of parts that are wrong in one way each."""
  path = tmp_path / 'wrong.py'
  path.write_text(WRONG)
  return path


def line_of(text):
  return WRONG[: WRONG.index(text)].count('\n') + 1


@pytest.mark.parametrize(
  ('field', 'part', 'place', 'message'),
  [
    ('model.name', 'Nett', '', 'has no attribute "Nett", did you mean "Net"'),
    ('model.name', 'WIDTH', '', 'is not callable'),
    ('model.name', 'returns_none', 'def returns_none', 'returned NoneType, not a flax'),
    ('model.name', 'Images', 'class Images', 'returned (2, 8, 8, 1) for a batch of 2'),
    ('model.name', 'Raises', 'images.no_such_method', 'AttributeError'),
    (
      'model.name',
      'Needs',
      'class Needs',
      "missing 1 required positional argument: 'de",
    ),
    ('loss.name', 'scalar_loss', 'def scalar_loss', 'must return the loss of each ex'),
    ('loss.name', 'raising_loss', 'labels[:, :, None]', 'IndexError'),
    ('loss.name', 'WIDTH', '', 'is not callable'),
    ('augment.custom', 'cropped', 'def cropped', 'returned (4, 7, 8, 1) for images of'),
    ('augment.custom', 'returns_none', 'def returns_none', 'must keep their shape'),
    ('optimizer.name', 'returns_none', 'def returns_none', 'GradientTransformation'),
    ('schedule.name', 'returns_none', 'def returns_none', 'not a function of the step'),
    ('schedule.name', 'no_rate', 'def no_rate', 'must be one number'),
    ('task', 'NoTask', 'class NoTask', 'is no subclass of jaxvision.tasks.base.Task'),
    ('callbacks', 'NoTask', 'class NoTask', 'is no jaxvision.training.callbacks.Call'),
    ('callbacks', 'NeedsArguments', 'class NeedsArguments', "argument: 'patience'"),
    ('metrics', 'NoTask', 'class NoTask', 'is no clu.metrics.Metric'),
    ('metrics', 'WIDTH', '', 'is no clu.metrics.Metric'),
  ],
)
def test_wrong_parts_are_refused_in_one_line(
  call, wrong, tmp_path, field, part, place, message
):
  workdir = tmp_path / 'run'
  result = call(DIGITS, f'--workdir={workdir}', f'--config.{field}={wrong}:{part}')
  where = f'{wrong}:{line_of(place)}' if place else ''
  assert_refused(result, where, message)
  assert result[2].count('\n') == 1
  assert not workdir.exists()


def test_unknown_options_of_parts_are_refused(call, wrong, tmp_path):
  run = (DIGITS, f'--workdir={tmp_path / "run"}')
  net = f'--config.model.name={wrong}:Net'
  assert_refused(
    call(*run, net, '--config.model.widht=8'),
    f'Net ({wrong}:{line_of("class Net")}) has no field "widht", did you mean "width"',
  )
  loss = f'--config.loss.name={wrong}:scalar_loss'
  assert_refused(
    call(*run, loss, '--config.loss.gamma=2'),
    f'scalar_loss ({wrong}:{line_of("def scalar_loss")}) has no option "gamma"',
  )
  assert_refused(
    call(*run, '--config.augment.custom=salt'), 'takes parts of your own', '"salt"'
  )
  assert_refused(
    call(*run, '--config.callbacks=tensorbord'), 'did you mean "tensorboard"'
  )
  assert not (tmp_path / 'run').exists()


LOSS = """import optax


def squared(logits, labels):
  return SCALE * optax.softmax_cross_entropy_with_integer_labels(logits, labels)
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run with a loss out of a file, and the file."""
  folder = tmp_path_factory.mktemp('own')
  file = folder / 'loss.py'
  file.write_text(LOSS.replace('SCALE', '1.0'))
  config = jaxvision.load_config(
    'configs/digits_cnn.py',
    [option.removeprefix('--config.') for option in SHORT]
    + [f'loss.name={file}:squared'],
  )
  jaxvision.train(config, folder / 'run', quiet=True)
  return file, folder / 'run'


@pytest.fixture
def run(trained, tmp_path):
  """A copy of that run, whose file may be changed."""
  file, workdir = trained
  shutil.copytree(workdir, tmp_path / 'run')
  text = file.read_text()
  yield file, tmp_path / 'run'
  file.write_text(text)


def test_run_directory_records_the_parts(run):
  file, workdir = run
  record = json.loads((workdir / 'parts.json').read_text())
  entry = record['loss.name']
  assert entry['name'] == f'{file}:squared'
  assert len(entry['sha256']) == 64
  copy = workdir / 'parts' / entry['file']
  assert copy.name == f'{entry["sha256"][:12]}-loss.py'
  assert copy.read_text() == file.read_text()


def test_changed_part_is_refused_and_overwrite_replaces_the_run(run, call):
  file, workdir = run
  again = (DIGITS, *SHORT, f'--config.loss.name={file}:squared', f'--workdir={workdir}')
  shutil.rmtree(workdir / 'checkpoints' / '4')
  (workdir / 'summary.json').unlink()
  before = file.read_text()
  file.write_text(LOSS.replace('SCALE', '2.0'))
  result = call(*again)
  assert_refused(
    result, 'another version of loss.name', str(file), '--workdir=DIR', '--overwrite'
  )
  assert result[2].count('\n') == 1
  # Resumed from the run directory alone, too.
  assert_refused(call('train', f'--workdir={workdir}'), 'another version of loss.name')
  assert not (workdir / 'summary.json').exists()

  file.write_text(before)
  code, output, errors = call(*again)
  assert code == 0, errors
  assert 'resumed at step 2' in output

  file.write_text(LOSS.replace('SCALE', '2.0'))
  assert call(*again, '--overwrite')[0] == 0
  copies = [path.read_text() for path in (workdir / 'parts').iterdir()]
  assert copies == [file.read_text()]


def test_commands_use_the_copy_where_the_file_is_gone(run, call, tmp_path):
  file, workdir = run
  loss = json.loads((workdir / 'summary.json').read_text())['test_loss']
  other = tmp_path / 'other'
  shutil.copytree(workdir, other)
  for change in (lambda: file.write_text(LOSS.replace('SCALE', '9.0')), file.unlink):
    change()
    result = jaxvision.evaluate(workdir, quiet=True)
    assert result['loss'] == pytest.approx(loss, rel=1e-6)
  images = jaxvision.data.load('digits').splits['test'].images[:3]
  assert jaxvision.load_run(workdir).predict(images).probabilities.shape == (3, 10)
  assert call('export', f'--workdir={workdir}')[0] == 0
  output = f'--output={tmp_path / "comparison"}'
  code, _, errors = call('compare', workdir, other, output)
  assert code == 0, errors
  shutil.rmtree(workdir / 'parts')
  assert_refused(call('eval', f'--workdir={workdir}'), 'loss.name', 'copy')


class Pooled(nn.Module):
  num_classes: int
  width: int = 4

  @nn.compact
  def __call__(self, images, train=False):
    x = nn.relu(nn.Conv(self.width, (3, 3))(images)).mean((1, 2))
    return nn.Dense(self.num_classes)(x)


@pytest.mark.slow
def test_module_passed_as_an_object_is_rebuilt_with_its_fields(
  digits_config, tmp_path, quick_compile
):
  digits_config.steps = 1
  model = Pooled(num_classes=10, width=6)
  summary = jaxvision.train(digits_config, tmp_path / 'run', quiet=True, model=model)
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert config['model'] == {'name': 'test_parts.py:Pooled', 'width': 6}
  run = jaxvision.load_run(tmp_path / 'run')
  assert run.task.model.width == 6
  found = jaxvision.evaluate(tmp_path / 'run', quiet=True)
  assert found['loss'] == pytest.approx(summary['test_loss'], rel=1e-6)


def test_objects_that_eval_could_not_import_are_refused(digits_config, tmp_path):
  def local(logits, labels):
    return logits.mean(-1)

  def refused(message, **parts):
    with pytest.raises(UserError, match=message):
      jaxvision.train(digits_config, tmp_path / 'run', quiet=True, **parts)
    assert not (tmp_path / 'run').exists()

  refused('loss.name: .*local is defined inside a function', loss=local)
  refused('or is a lambda', augment=[lambda key, images: images])
  partial = functools.partial(jax.nn.relu, 1)
  refused('loss.name: functools.partial.* has no name', loss=partial)
  with pytest.raises(TypeError, match='no argument "optimiser"'):
    jaxvision.train(digits_config, tmp_path / 'run', optimiser=local)


@pytest.mark.parametrize(
  ('fields', 'measure', 'mode'),
  [
    ({}, 'accuracy', 'max'),
    ({'measure': 'loss'}, 'loss', 'min'),
    ({'measure': 'mean_absolute_error'}, 'mean_absolute_error', 'min'),
    ({'measure': 'accuracy_top5'}, 'accuracy_top5', 'max'),
    ({'measure': 'loss', 'mode': 'max'}, 'loss', 'max'),
  ],
)
def test_early_stopping_of_a_config(fields, measure, mode):
  config = jaxvision.base_config()
  config.callbacks = ()
  assert make_callbacks(config, ('accuracy', 'max')) == []
  config.early_stopping.update({'patience': 2, 'min_delta': 0.5, **fields})
  (early,) = make_callbacks(config, ('accuracy', 'max'))
  assert (early.measure, early.mode) == (measure, mode)
  assert (early.patience, early.min_delta) == (2, 0.5)


def test_a_run_that_no_longer_improves_ends_and_says_so(call, tmp_path):
  fields = ('early_stopping.patience=1', 'early_stopping.min_delta=1.0', 'steps=12')
  code, out, err = call(
    'train',
    DIGITS,
    *SHORT,
    '--config.eval_every_steps=3',
    *(f'--config.{field}' for field in fields),
    f'--workdir={tmp_path / "run"}',
  )
  assert (code, err) == (0, '')
  assert 'stopped at step 6 of 12: accuracy has not improved since step 3' in out
  assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['steps'] == 6
