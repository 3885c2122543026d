"""Training runs compute the same on any pipeline, dispatch and number of devices."""

import io
import json
import logging
import os
import signal
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvision
from jaxvision import data
from jaxvision.config import to_json
from jaxvision.errors import TrainingDiverged, UserError
from jaxvision.training.callbacks import Callback
from jaxvision.training.run_directory import read_history

pytestmark = pytest.mark.usefixtures('quick_compile')


def final_state(workdir):
  return jaxvision.load_run(workdir).state


def losses(workdir, split='train'):
  history = read_history(workdir / 'metrics.jsonl')
  return [p['loss'] for p in history if p['split'] == split]


def test_deterministic_runs_are_bit_identical(digits_config, tmp_path):
  digits_config.deterministic = True
  for name in ('a', 'b'):
    jaxvision.train(digits_config, tmp_path / name, quiet=True)
  chex.assert_trees_all_equal(final_state(tmp_path / 'a'), final_state(tmp_path / 'b'))


@pytest.mark.slow
def test_another_seed_gives_other_weights(digits_config, tmp_path):
  jaxvision.train(digits_config, tmp_path / 'a', quiet=True)
  digits_config.seed = 1
  jaxvision.train(digits_config, tmp_path / 'b', quiet=True)
  a, b = (final_state(tmp_path / name) for name in 'ab')
  assert all(
    (x != y).any() for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params))
  )


def test_streaming_matches_resident_bit_for_bit(digits_config, tmp_path):
  jaxvision.train(digits_config, tmp_path / 'resident', quiet=True)
  digits_config.data.pipeline = 'streaming'
  digits_config.data.workers = 0
  jaxvision.train(digits_config, tmp_path / 'streaming', quiet=True)
  chex.assert_trees_all_equal(
    final_state(tmp_path / 'resident'), final_state(tmp_path / 'streaming')
  )


@pytest.mark.slow
def test_steps_per_dispatch_does_not_change_the_losses(digits_config, tmp_path):
  digits_config.log_every_steps = 1
  digits_config.checkpoint.every_steps = 12
  jaxvision.train(digits_config, tmp_path / 'one', quiet=True)
  digits_config.steps_per_dispatch = 4
  digits_config.log_every_steps = 6  # 4 + 1 + 1: both programs are used
  jaxvision.train(digits_config, tmp_path / 'four', quiet=True)
  single = losses(tmp_path / 'one')
  grouped = [np.mean(single[:6]), np.mean(single[6:])]
  np.testing.assert_allclose(losses(tmp_path / 'four'), grouped, rtol=1e-5)


@pytest.mark.parametrize('fsdp', [pytest.param(1, marks=pytest.mark.slow), 2])
def test_eight_devices_match_one(digits_config, tmp_path, fsdp):
  digits_config.log_every_steps = 1
  digits_config.steps = 8
  jaxvision.train(digits_config, tmp_path / 'one', quiet=True)
  digits_config.parallel.data = -1
  digits_config.parallel.fsdp = fsdp
  jaxvision.train(digits_config, tmp_path / 'eight', quiet=True)
  np.testing.assert_allclose(
    losses(tmp_path / 'eight'), losses(tmp_path / 'one'), rtol=1e-4
  )
  np.testing.assert_allclose(
    losses(tmp_path / 'eight', 'test'), losses(tmp_path / 'one', 'test'), rtol=1e-3
  )


def test_each_program_compiles_once(digits_config, tmp_path, caplog):
  # 359 test images in batches of 100: the last is odd. 12 steps, 3 evaluations.
  digits_config.eval_batch_size = 100
  jax.config.update('jax_log_compiles', True)  # in every thread
  try:
    with caplog.at_level(logging.WARNING, 'jax'):
      jaxvision.train(digits_config, tmp_path / 'run', quiet=True)
  finally:
    jax.config.update('jax_log_compiles', False)
  compiled = [
    r.getMessage().split(' in ')[0]
    for r in caplog.records
    if 'Finished XLA compilation' in r.getMessage()
  ]
  assert sum('jit(train_step)' in line for line in compiled) == 1, compiled
  assert sum('jit(eval_from_split)' in line for line in compiled) == 1, compiled
  assert sum('jit(init)' in line for line in compiled) == 1, compiled


class _AtStep5(Callback):
  """Calls a function at the first log point."""

  def __init__(self, act):
    self._act = act

  def on_log(self, step, measures):
    if step == 5:
      self._act()


@pytest.mark.parametrize('then', [Path.exists, Path.mkdir])
def test_a_workdir_that_is_moved_ends_training_and_is_not_made_anew(
  digits_config, tmp_path, then
):
  here, there = tmp_path / 'run', tmp_path / 'moved'
  digits_config.checkpoint.every_steps = 100  # a save under way would make its own

  def move():
    here.rename(there)
    then(here)

  with pytest.raises(UserError, match='was moved or deleted while it trained'):
    jaxvision.train(digits_config, here, quiet=True, callbacks=[_AtStep5(move)])
  assert not here.exists() or not any(here.iterdir())
  assert not (there / 'summary.json').exists()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP, None])
def test_a_stop_saves_and_the_same_call_goes_on(
  digits_config, tmp_path, monkeypatch, number
):
  """None: standard output is closed, as by `| head`."""

  def stop():
    if number:
      os.kill(os.getpid(), number)
    else:
      patch.setattr('sys.stdout', _Closed())

  before = signal.getsignal(signal.SIGTERM)
  of_hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
  try:
    with monkeypatch.context() as patch:
      stopped = jaxvision.train(
        digits_config, tmp_path / 'run', callbacks=[_AtStep5(stop)]
      )
  finally:
    signal.signal(signal.SIGHUP, of_hangup)
  assert stopped is None
  assert signal.getsignal(signal.SIGTERM) == before
  assert not (tmp_path / 'run' / 'summary.json').exists()
  assert any((tmp_path / 'run' / 'checkpoints').glob('[5-7]'))
  assert jaxvision.train(digits_config, tmp_path / 'run', quiet=True)['steps'] == 12


class _Closed(io.StringIO):
  """A pipe whose reader has ended."""

  def write(self, text):
    raise BrokenPipeError(32, 'Broken pipe')


def test_grad_accumulation_matches_the_whole_batch(digits_config, tmp_path):
  # Without batch statistics, dropout and augmentation the parts see what the whole sees.
  digits_config.augment.crop_padding = 0
  digits_config.model = {'name': 'small_filters_cnn'}
  digits_config.data.image_size = 8
  digits_config.log_every_steps = 1
  digits_config.steps = 5
  jaxvision.train(digits_config, tmp_path / 'whole', quiet=True)
  digits_config.grad_accumulation = 4
  jaxvision.train(digits_config, tmp_path / 'parts', quiet=True)
  np.testing.assert_allclose(
    losses(tmp_path / 'parts'), losses(tmp_path / 'whole'), rtol=1e-4
  )


def test_evaluation_uses_the_ema_weights(digits_config, tmp_path):
  digits_config.ema_decay = 0.9
  summary = jaxvision.train(digits_config, tmp_path / 'run', quiet=True)
  run = jaxvision.load_run(tmp_path / 'run')
  chex.assert_trees_all_equal_shapes(run.state.ema['params'], run.state.params)
  assert any(
    (a != b).any()
    for a, b in zip(
      jax.tree.leaves(run.state.ema['params']), jax.tree.leaves(run.state.params)
    )
  )
  test = data.load(digits_config.data).splits['test']
  correct = run.predict(test.images).labels == test.labels
  assert correct.mean() == pytest.approx(summary['test_accuracy'], abs=1e-6)


def test_diverged_run_keeps_its_last_good_checkpoint(digits_config, tmp_path):
  jaxvision.train(
    digits_config, tmp_path / 'run', quiet=True
  )  # exits well at this rate
  digits_config.optimizer.learning_rate = 1e18
  digits_config.checkpoint.every_steps = 1
  digits_config.steps = 40
  with pytest.raises(TrainingDiverged, match='diverged by step'):
    jaxvision.train(digits_config, tmp_path / 'bad', quiet=True)
  run = jaxvision.load_run(tmp_path / 'bad')
  chex.assert_tree_all_finite(run.state.params)
  assert not (tmp_path / 'bad' / 'summary.json').exists()


@jax.custom_jvp
def zeros_with_gradients_of_nan(outputs):
  return jnp.zeros_like(outputs)


@zeros_with_gradients_of_nan.defjvp
def _(outputs, tangents):
  return jnp.zeros_like(outputs[0]), tangents[0] * jnp.nan


def finite_loss(outputs, targets):
  """As where the maximum of 0 and NaN is 0."""
  return zeros_with_gradients_of_nan(outputs.sum(-1))


def test_parameter_that_is_nan_beside_a_finite_loss_is_told(digits_config, tmp_path):
  digits_config.checkpoint.every_steps = 100
  with pytest.raises(TrainingDiverged, match='by step 5: a parameter is not finite'):
    jaxvision.train(digits_config, tmp_path / 'run', quiet=True, loss=finite_loss)


def test_run_writes_its_files_and_its_summary(digits_config, tmp_path):
  digits_config.data.train_fraction = 0.9
  digits_config.report = True
  summary = jaxvision.train(digits_config, tmp_path / 'run', quiet=True)
  names = {p.name for p in (tmp_path / 'run').iterdir()}
  assert {
    'config.json',
    'summary.json',
    'metrics.jsonl',
    'checkpoints',
    'report',
  } <= names
  assert any(name.startswith('events.out.tfevents.') for name in names)
  for file in ('report.md', 'report.html', 'report.json'):
    assert (tmp_path / 'run' / 'report' / file).stat().st_size > 0
  assert json.loads((tmp_path / 'run' / 'summary.json').read_text()) == summary
  assert (tmp_path / 'run' / 'config.json').read_text() == to_json(digits_config)
  wanted = (
    'config_name task params steps epochs seed train_loss train_accuracy test_loss '
    'test_accuracy test_accuracy_top5 seconds_train seconds_compile seconds_total '
    'images_per_second peak_memory_bytes backend device_kind device_count '
    'process_count dtype versions git_commit command'
  )
  assert set(wanted.split()) <= summary.keys()
  kinds = ('start', 'compile', 'train', 'evaluation', 'checkpoints')
  spent = sum(summary[f'seconds_{kind}'] for kind in kinds)
  assert all(summary[f'seconds_{kind}'] > 0 for kind in kinds)
  assert spent <= summary['seconds_total']
  assert summary['goodput'] == summary['seconds_train'] / summary['seconds_total']
  assert (summary['starts'], summary['repeated_steps']) == (1, 0)
  run = jaxvision.load_run(tmp_path / 'run')
  assert summary['params'] == sum(p.size for p in jax.tree.leaves(run.state.params))
  history = read_history(tmp_path / 'run' / 'metrics.jsonl')
  assert {p['split'] for p in history} == {'train', 'validation'}
  assert [p['step'] for p in history if p['split'] == 'train'] == [5, 10, 12]
  report = json.loads((tmp_path / 'run' / 'report' / 'report.json').read_text())
  assert report['accuracy'] == pytest.approx(summary['test_accuracy'], abs=1e-6)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'batch_size': 5000}, 'larger than the training split of digits'),
    ({'batch_size': 60, 'parallel.data': 8}, 'does not split over 8 devices'),
    ({'parallel.data': 9}, 'asks for more than the 8'),
    ({'optimizer.name': 'adm'}, 'did you mean "adam"'),
    ({'optimizer.options.moment': 1}, 'no option "moment"'),
    ({'model.name': 'digit_cnn'}, 'did you mean "digits_cnn"'),
    ({'model.dropuot': 0.1}, 'did you mean "dropout"'),
    ({'schedule.warmup_steps': 500}, 'leaves none of the'),
    ({'augment.cutout': 30}, 'cutout'),
    ({'steps': 2**31 - 1}, 'more than the'),
  ],
)
def test_config_mistake_is_one_line_before_any_work(
  digits_config, tmp_path, fields, message
):
  with digits_config.unlocked():
    for path, value in fields.items():
      node = digits_config
      *parents, key = path.split('.')
      for parent in parents:
        node = node[parent]
      node[key] = value
  with pytest.raises(UserError) as error:
    jaxvision.train(digits_config, tmp_path / 'run', quiet=True)
  assert message in str(error.value)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()
