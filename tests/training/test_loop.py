"""Training through the API: what a run computes, whatever it runs on."""

import json
import logging

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxvision.training.build import DataFacts, make_task

from jaxvision import commands, data
from jaxvision.config import to_json
from jaxvision.errors import TrainingDiverged, UserError
from jaxvision.training import step as programs
from jaxvision.training.logging import read_history
from jaxvision.training.loop import Plan
from jaxvision.training.mesh import make_mesh, state_shardings

pytestmark = pytest.mark.usefixtures('quick_compile')


def final_state(workdir):
  return commands.load_run(workdir).state


def losses(workdir, split='train'):
  history = read_history(workdir / 'metrics.jsonl')
  return [p['loss'] for p in history if p['split'] == split]


def test_same_config_gives_the_same_bits(digits_config, tmp_path):
  digits_config.deterministic = True
  for name in ('a', 'b'):
    commands.train(digits_config, tmp_path / name, quiet=True)
  chex.assert_trees_all_equal(final_state(tmp_path / 'a'), final_state(tmp_path / 'b'))


def test_another_seed_gives_other_weights(digits_config, tmp_path):
  commands.train(digits_config, tmp_path / 'a', quiet=True)
  digits_config.seed = 1
  commands.train(digits_config, tmp_path / 'b', quiet=True)
  a, b = (final_state(tmp_path / name) for name in 'ab')
  assert all(
    (x != y).any() for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params))
  )


def test_streaming_takes_the_same_batches_as_resident(digits_config, tmp_path):
  commands.train(digits_config, tmp_path / 'resident', quiet=True)
  digits_config.data.pipeline = 'streaming'
  digits_config.data.workers = 0
  commands.train(digits_config, tmp_path / 'streaming', quiet=True)
  chex.assert_trees_all_equal(
    final_state(tmp_path / 'resident'), final_state(tmp_path / 'streaming')
  )


def test_many_steps_per_dispatch_are_the_same_steps(digits_config, tmp_path):
  digits_config.log_every_steps = 1
  digits_config.checkpoint.every_steps = 12
  commands.train(digits_config, tmp_path / 'one', quiet=True)
  digits_config.steps_per_dispatch = 4
  digits_config.log_every_steps = 6  # 4 + 1 + 1: both programs are used
  commands.train(digits_config, tmp_path / 'four', quiet=True)
  single = losses(tmp_path / 'one')
  grouped = [np.mean(single[:6]), np.mean(single[6:])]
  np.testing.assert_allclose(losses(tmp_path / 'four'), grouped, rtol=1e-5)


@pytest.mark.parametrize('fsdp', [1, 2])
def test_eight_devices_compute_what_one_computes(digits_config, tmp_path, fsdp):
  digits_config.log_every_steps = 1
  digits_config.steps = 8
  commands.train(digits_config, tmp_path / 'one', quiet=True)
  digits_config.parallel.data = -1
  digits_config.parallel.fsdp = fsdp
  commands.train(digits_config, tmp_path / 'eight', quiet=True)
  np.testing.assert_allclose(
    losses(tmp_path / 'eight'), losses(tmp_path / 'one'), rtol=1e-4
  )
  np.testing.assert_allclose(
    losses(tmp_path / 'eight', 'test'), losses(tmp_path / 'one', 'test'), rtol=1e-3
  )


def test_the_batch_splits_over_the_devices(digits_config):
  dataset = data.load(digits_config.data)
  task, _ = make_task(digits_config, DataFacts.of(dataset))
  mesh = make_mesh()
  assert mesh.size == 8
  seen = []

  def spy(state, batch, key):
    jax.debug.inspect_array_sharding(batch['image'], callback=seen.append)
    return task.train_step(state, batch, key)

  compiler = programs.Compiler()
  state = programs.init_state(task, mesh, 0, compiler)
  programs.ResidentTrainer(
    task._replace(train_step=spy),
    mesh,
    dataset.splits['train'],
    state,
    0,
    digits_config.batch_size,
    1,
    compiler,
  )
  shard = seen[0].shard_shape((digits_config.batch_size, 8, 8, 1))
  assert shard == (digits_config.batch_size // 8, 8, 8, 1)


def test_fsdp_splits_large_parameters():
  mesh = make_mesh(data=4, fsdp=2)
  shapes = {
    'large': jax.ShapeDtypeStruct((3, 3, 64, 128), jnp.float32),
    'small': jax.ShapeDtypeStruct((64,), jnp.float32),
  }
  shardings = state_shardings(mesh, shapes)
  assert shardings['large'].shard_shape((3, 3, 64, 128)) == (3, 3, 64, 64)
  assert shardings['small'].is_fully_replicated


def test_each_program_compiles_once(digits_config, tmp_path, caplog):
  # 359 test images in batches of 100: the last is odd. 12 steps, 3 evaluations.
  digits_config.eval_batch_size = 100
  with caplog.at_level(logging.WARNING, 'jax'), jax.log_compiles():
    commands.train(digits_config, tmp_path / 'run', quiet=True)
  compiled = [
    r.getMessage().split(' in ')[0]
    for r in caplog.records
    if 'Finished XLA compilation' in r.getMessage()
  ]
  assert sum('jit(one)' in line for line in compiled) == 1, compiled
  assert sum('jit(from_split)' in line for line in compiled) == 1, compiled
  assert sum('jit(init)' in line for line in compiled) == 1, compiled


def test_accumulated_parts_give_the_gradient_of_the_whole(digits_config, tmp_path):
  # Without batch statistics, dropout and augmentation the parts see what the whole sees.
  digits_config.augment.crop_padding = 0
  digits_config.model = {'name': 'small_filters_cnn'}
  digits_config.data.image_size = 8
  digits_config.log_every_steps = 1
  digits_config.steps = 5
  commands.train(digits_config, tmp_path / 'whole', quiet=True)
  digits_config.grad_accumulation = 4
  commands.train(digits_config, tmp_path / 'parts', quiet=True)
  np.testing.assert_allclose(
    losses(tmp_path / 'parts'), losses(tmp_path / 'whole'), rtol=1e-4
  )


def test_evaluation_uses_the_average_of_the_weights(digits_config, tmp_path):
  digits_config.ema_decay = 0.9
  summary = commands.train(digits_config, tmp_path / 'run', quiet=True)
  run = commands.load_run(tmp_path / 'run')
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


def test_a_diverged_run_stops_and_keeps_its_last_good_checkpoint(
  digits_config, tmp_path
):
  commands.train(digits_config, tmp_path / 'run', quiet=True)  # exits well at this rate
  digits_config.optimizer.learning_rate = 1e18
  digits_config.checkpoint.every_steps = 1
  digits_config.steps = 40
  with pytest.raises(TrainingDiverged, match='diverged by step'):
    commands.train(digits_config, tmp_path / 'bad', quiet=True)
  run = commands.load_run(tmp_path / 'bad')
  chex.assert_tree_all_finite(run.state.params)
  assert not (tmp_path / 'bad' / 'summary.json').exists()


def test_summary_and_files_of_the_contract(digits_config, tmp_path):
  digits_config.data.train_fraction = 0.9
  digits_config.report = True
  summary = commands.train(digits_config, tmp_path / 'run', quiet=True)
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
  run = commands.load_run(tmp_path / 'run')
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
    ({'steps': 2**31}, 'more than the'),
  ],
)
def test_mistakes_are_told_before_any_work(digits_config, tmp_path, fields, message):
  with digits_config.unlocked():
    for path, value in fields.items():
      node = digits_config
      *parents, key = path.split('.')
      for parent in parents:
        node = node[parent]
      node[key] = value
  with pytest.raises(UserError) as error:
    commands.train(digits_config, tmp_path / 'run', quiet=True)
  assert message in str(error.value)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_plan_counts_epochs_and_stops():
  from jaxvision.config import base_config

  config = base_config()
  config.batch_size, config.epochs = 100, 2.5
  config.log_every_steps = 3
  plan = Plan.of(config, 1000)
  assert (plan.total, plan.eval_every, plan.save_every) == (25, 10, 10)
  stops, step = [], 0
  while step < plan.total:
    step = plan.next_stop(step)
    stops.append(step)
  assert stops == [3, 6, 9, 10, 12, 15, 18, 20, 21, 24, 25]
