"""The speed-run recipes through `jaxvision.train`, whole and resumed."""

import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

import jaxvision
from jaxvision import config as config_lib

ROOT = Path(__file__).resolve().parent.parent.parent


# The logits are divided by the width: rates for a net that is 16 times narrower.
NARROW_RATES = (
  'optimizer.groups.head.learning_rate=80',
  'optimizer.groups.norm_biases.learning_rate=6',
  'optimizer.groups.whiten_bias.learning_rate=6',
)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'pipeline', 'rates'),
  [
    ('cifar10_airbench94', 'resident', NARROW_RATES),
    ('cifar10_airbench94_sgd', 'streaming', ()),
  ],
)
def test_resumed_airbench_run_is_bit_identical(name, pipeline, rates, tmp_path):
  config = config_lib.load(
    ROOT / 'configs' / f'{name}.py',
    [
      'data.name=digits',
      'data.mean=()',
      'data.std=()',
      'model.widths=(8,16)',
      'dtype=float32',
      'batch_size=600',
      'eval_batch_size=400',
      'steps=8',
      'schedule.warmup_steps=0',
      'checkpoint.every_steps=5',
      'eval_every_steps=8',
      'augment.crop_padding=1',
      'parallel.data=1',
      'report=False',
      f'data.pipeline={pipeline}',
      'data.workers=0',
      *rates,
    ],
  )
  workdir = tmp_path / 'run'
  whole = jaxvision.train(config, workdir, quiet=True)
  state = jax.device_get(jaxvision.load_run(workdir).state)
  # Steps 5 to 8 once more: they take in the end of an epoch and a pull of Lookahead.
  shutil.rmtree(workdir / 'checkpoints' / '8')
  (workdir / 'summary.json').unlink()
  again = jaxvision.train(config, workdir, quiet=True)
  chex.assert_trees_all_equal(jax.device_get(jaxvision.load_run(workdir).state), state)
  assert again['test_loss'] == whole['test_loss']
  kernel = state.params['whiten']['kernel']
  np.testing.assert_allclose(kernel[..., :4], -kernel[..., 4:])  # set, and frozen
  assert whole['test_accuracy'] > 0.2
