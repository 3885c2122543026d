"""Speed runs: one compilation for all seeds, and each seed as it is alone."""

import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

import jaxvision
from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.errors import UserError

sys.path.append(str(Path(__file__).resolve().parents[2] / 'benchmarks'))
from speedrun_engine import SpeedRun, statistics

ROOT = Path(__file__).resolve().parents[2]

TINY = (
  'data.name=synthetic',
  'data.image_size=12',
  'data.channels=3',
  'data.synthetic_examples=60',
  'model.widths=(4,6)',
  'batch_size=16',
  'eval_batch_size=9',
  'steps=5',
  'dtype=float32',
  'parallel.data=1',
  # As the logits are divided by the width: rates for a net that is 40 times narrower.
  'optimizer.groups.head.learning_rate=30',
  'optimizer.groups.norm_biases.learning_rate=2',
  'optimizer.groups.whiten_bias.learning_rate=2',
)


def tiny(*assignments):
  path = ROOT / 'configs' / 'cifar10_airbench94.py'
  return config_lib.load(path, [*TINY, *assignments])


@pytest.fixture(scope='module')
def dataset():
  return data.load(tiny().data)


@pytest.fixture(scope='module')
def alone(dataset):
  """Seeds 0 and 1 of one SpeedRun: results, final states, and the SpeedRun."""
  speedrun, results, states = SpeedRun(tiny(), dataset), [], []
  for seed in (0, 1):
    results.append(speedrun(seed))
    states.append(jax.device_get(speedrun.state))
  return results, states, speedrun


@pytest.mark.slow
def test_one_compilation_for_all_seeds(alone):
  results, states, speedrun = alone
  assert speedrun.base.compiler.programs == 4  # init, whitening, steps, evaluation
  assert [result.seed for result in results] == [0, 1]
  assert all(0 <= r.accuracy <= 1 and np.isfinite(r.loss) for r in results)
  heads = [state.params['head']['kernel'] for state in states]
  assert (heads[0] != heads[1]).any()
  assert states[0].step == speedrun.base.plan.total_steps == 5


@pytest.mark.slow
def test_a_seed_of_a_speed_run_matches_a_single_run(alone, tmp_path):
  results, states, _ = alone
  summary = jaxvision.train(tiny('seed=1'), tmp_path / 'run', quiet=True)
  state = jaxvision.load_run(tmp_path / 'run').state
  chex.assert_trees_all_close(
    jax.device_get(state.params), states[1].params, rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(summary['test_loss'], results[1].loss, rtol=1e-4)
  assert summary['test_accuracy'] == pytest.approx(results[1].accuracy)


def test_streamed_data_and_phases_are_refused(dataset):
  streamed = data.load(tiny('data.pipeline=streaming').data)
  with pytest.raises(UserError, match='streamed'):
    SpeedRun(tiny(), streamed)
  with pytest.raises(UserError, match='one program for all steps'):
    SpeedRun(tiny('optimizer.groups.head.start=0.5'), dataset)


def test_statistics_of_one_and_of_many():
  assert statistics([0.5])['interval95'] is None
  many = statistics([0.93, 0.94, 0.95, 0.94])
  assert many['mean'] == pytest.approx(0.94)
  assert many['interval95'] == pytest.approx(3.182446 * many['std'] / 2, rel=1e-6)


def test_the_peer_is_read_from_its_table_and_its_absence_reported(tmp_path):
  script = tmp_path / 'peer.py'
  script.write_text(
    "print('|  run   |  epoch  |  tta_val_acc  |  time_seconds  |')\n"
    "for run in ('warmup', 0, 1, 2):\n"
    "  print(f'|  {run}  |  1  |    |  1.0000  |')\n"
    "  print(f'|    |  eval  |  0.9{len(str(run))}  |  2.5000  |', flush=True)\n"
  )
  code = (
    'import sys; sys.path.insert(0, "benchmarks")\n'
    'from pathlib import Path; import speedrun\n'
    'print(speedrun.run_peer(Path(sys.argv[1]), sys.executable, int(sys.argv[2])))\n'
  )

  def peer(path, runs):
    return subprocess.run(
      [sys.executable, '-c', code, path, str(runs)],
      cwd=ROOT,
      capture_output=True,
      text=True,
      timeout=300,
      check=True,
    )

  found = peer(script, 2).stdout.splitlines()[-1]
  assert found == str([{'accuracy': 0.91, 'seconds': 2.5}] * 2)
  assert 'ended after 3 of 9 runs' in peer(script, 9).stderr
  missing = peer(tmp_path / 'none.py', 1)
  assert missing.stdout.splitlines()[-1] == '[]'
  assert 'is not there' in missing.stderr
  script.write_text("raise RuntimeError('no CUDA device')\n")
  assert 'gave no run: RuntimeError: no CUDA device' in peer(script, 1).stderr
