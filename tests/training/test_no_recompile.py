"""Runs that differ in numbers alone compile nothing anew, in a process and across them."""

import pytest

from jaxvision import config as config_lib
from jaxvision.commands.runner import Programs, Trial, run_trials

BASE = (
  'optimizer.learning_rate=0.05',
  'optimizer.weight_decay=0.0005',
  'optimizer.momentum=0.9',
  'label_smoothing=0.1',
  'model.dropout=0.2',
)
OTHER = (
  'seed=3',
  'optimizer.learning_rate=0.02',
  'optimizer.weight_decay=0.001',
  'optimizer.momentum=0.8',
  'label_smoothing=0.2',
  'model.dropout=0.4',
)
SHORT = ('steps=6', 'eval_every_steps=3', 'parallel.data=1', 'report=False')


def cached_programs(folder):
  """Returns the entries of a compile cache; files of access times do not count."""
  return {path.name for path in folder.rglob('*') if not path.name.endswith('-atime')}


@pytest.mark.slow
def test_second_process_takes_every_program_from_the_cache(command, tmp_path):
  cache = tmp_path / 'xla'

  def train(name, overrides):
    process = command(
      '--config=configs/digits_cnn.py',
      f'--workdir={tmp_path / name}',
      *(f'--config.{override}' for override in (*SHORT, *overrides)),
      JAX_COMPILATION_CACHE_DIR=str(cache),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
      JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES='-1',
    )
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return cached_programs(cache)

  before = train('one', BASE)
  assert len(before) > 5
  assert train('two', OTHER) == before


@pytest.mark.parametrize(
  'change',
  [OTHER, ('seed=1',), ('model.dropout=0.1', 'ema_decay=0.9'), ('name=another',)],
  ids=['numbers', 'seed', 'average', 'name'],
)
def test_second_trial_in_a_process_compiles_nothing(tmp_path, change, quick_compile):
  first = [override for override in change if override.startswith('ema')]
  programs = Programs()
  compiled = []
  for name, overrides in (('one', (*BASE, *first)), ('two', (*BASE, *change))):
    config = config_lib.load('configs/digits_cnn.py', (*SHORT, *overrides))
    trial = Trial(name, config, tmp_path / name)
    assert run_trials([trial], quiet=True, programs=programs)
    compiled.append(programs.compiled())
  assert compiled[0] > 0
  assert compiled[1] == compiled[0]


def test_number_that_is_switched_on_compiles_other_programs(tmp_path, quick_compile):
  programs = Programs()
  for name, smoothing in (('off', 0.0), ('on', 0.1)):
    config = config_lib.load(
      'configs/digits_cnn.py', (*SHORT, f'label_smoothing={smoothing}')
    )
    run_trials([Trial(name, config, tmp_path / name)], quiet=True, programs=programs)
  one = programs.compiled() / 2
  assert one == int(one) > 0
