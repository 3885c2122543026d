"""The measurements of the `benchmark` command are there and add up."""

import json

import jax
import numpy as np
import pytest

import jaxvision
from jaxvision import data
from jaxvision.models import create
from jaxvision.models.summary import summarize
from jaxvision.training import benchmark
from jaxvision.training.peak_flops import known_peak, peak


@pytest.fixture
def tiny_config(digits_config):
  digits_config.model = {'name': 'small_filters_cnn', 'features': (2, 2, 2)}
  digits_config.batch_size = 8
  return digits_config


@pytest.mark.parametrize(
  ('pipeline', 'programs'),
  [
    ('resident', ['init', 'train_step', 'train_steps_scan']),
    pytest.param('streaming', ['init', 'train_step_on'], marks=pytest.mark.slow),
  ],
)
def test_benchmark_measures_every_value(tiny_config, pipeline, programs, monkeypatch):
  monkeypatch.setattr(benchmark, 'peak', lambda dtype, devices: (1e12, 'made up'))
  tiny_config.data.pipeline, tiny_config.data.workers = pipeline, 0
  tiny_config.steps_per_dispatch = 2
  result = jaxvision.benchmark(tiny_config, steps=15)
  json.dumps(result, allow_nan=False)
  # Ten dispatches of two at least, and whole ones.
  assert result['steps'] == (20 if pipeline == 'resident' else 15)
  assert result['pipeline'] == pipeline
  times = result['step_seconds']
  order = [times[name] for name in ('min', 'p50', 'p90', 'p99', 'max')]
  assert order == sorted(order)
  assert times['min'] > 0
  assert result['images_per_second'] == pytest.approx(8 / times['mean'])
  assert list(result['compile_seconds']) == programs
  assert all(seconds > 0 for seconds in result['compile_seconds'].values())
  assert 0 <= result['input_share'] <= 1
  one = result['program_memory_bytes'][programs[1]]
  assert one['argument'] > one['alias'] > 0
  assert result['peak_memory_bytes'] > 0
  model = create('small_filters_cnn', 10, features=(2, 2, 2))
  forward = summarize(model, (8, 8, 1)).flops
  assert result['model_flops_per_step'] == 3 * 8 * forward
  assert result['peak_share'] == pytest.approx(
    3 * forward * result['images_per_second'] / 1e12
  )
  text = benchmark.render(result)
  assert f'{result["images_per_second"]:,.0f} images/s over' in text
  assert 'p99' in text
  assert 'made up' in text


@pytest.mark.slow
def test_benchmark_of_a_frozen_network_runs_on_its_features(digits_config):
  digits_config.model = {'name': 'resnet20', 'width': 2}
  digits_config.freeze = ('(?!head/).*',)
  digits_config.augment.crop_padding = 0
  digits_config.data.pipeline, digits_config.data.workers = 'streaming', 0
  result = jaxvision.benchmark(digits_config, steps=3)
  assert result['pipeline'] == 'resident'
  assert result['model_flops_per_step'] is None
  benchmark.render(result)


def test_benchmark_takes_training_steps(tiny_config):
  dataset = data.load(tiny_config.data)
  bench = benchmark.BenchmarkRun(tiny_config, dataset, steps=12)
  before = jax.tree.map(np.array, bench.state.params)
  timing = bench.take(5)
  bench.close()
  assert timing.steps == int(bench.state.step) == 5
  assert len(timing.step_seconds) == 3  # a turn that only waits is none
  assert sum(timing.step_seconds) <= timing.seconds
  changed = jax.tree.map(lambda a, b: (a != b).any(), before, bench.state.params)
  assert all(jax.tree.leaves(changed))


def test_benchmark_takes_more_steps_than_the_config_has(tiny_config):
  tiny_config.steps = 2
  tiny_config.data.pipeline, tiny_config.data.workers = 'streaming', 0
  dataset = data.load(tiny_config.data)
  bench = benchmark.BenchmarkRun(tiny_config, dataset, steps=9)
  assert bench.take(9).steps == 9
  bench.close()


def test_known_peak_matches_whole_device_names():
  assert known_peak('NVIDIA A100-SXM4-80GB', 'float32') == 156e12
  assert known_peak('NVIDIA L4', 'bfloat16') == 121e12
  assert known_peak('NVIDIA L40S', 'bfloat16') > known_peak('NVIDIA L4', 'bfloat16')
  assert known_peak('NVIDIA L40', 'bfloat16') is None
  assert known_peak('NVIDIA H100 PCIe', 'bfloat16') < known_peak(
    'NVIDIA H100 80GB HBM3', 'bfloat16'
  )


def test_peak_of_a_cpu_is_measured():
  flops, source = peak('bfloat16', devices=8)
  assert flops > 1e8
  assert 'float32 product' in source
