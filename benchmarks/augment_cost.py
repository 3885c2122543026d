"""What augmentation costs: a training step with it beside one without, in turns.

    python benchmarks/augment_cost.py
    python benchmarks/augment_cost.py --config=configs/cifar10_resnet18.py --rounds=5

Each row adds one augmentation to the config and takes `--steps` steps of both programs by
turns, in one process; what it costs is the median over the rounds of the difference, as a
share of the step without. The images are made up: what a pixel holds changes no time.
"""

import argparse
import statistics

import jax
import numpy as np

import jaxvision
from jaxvision.data import from_arrays
from jaxvision.training.benchmark import BenchmarkRun

ROWS = {
  'nothing (the spread of two equal programs)': {},
  'rand_augment': {'policy': 'rand_augment'},
  'trivial_augment': {'policy': 'trivial_augment'},
  'auto_augment_cifar10': {'policy': 'auto_augment_cifar10'},
  'mixup and cutmix': {'mixup': 0.2, 'cutmix': 1.0},
  'erasing': {'erasing': 0.25},
}


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--config', default='configs/cifar10_resnet18.py')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--steps', type=int, default=2, help='steps of a turn')
  parser.add_argument('--batch', type=int, default=128)
  options = parser.parse_args()
  config = jaxvision.load_config(
    options.config, [f'batch_size={options.batch}', 'parallel.data=1']
  )
  shape = (32, 32, 3)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (1024, *shape), np.uint8)
  dataset = from_arrays((images, np.arange(1024) % 10), (images[:10], np.arange(10)))
  steps = options.steps * (options.rounds + 1)
  plain = BenchmarkRun(config, dataset, steps * (len(ROWS) + 1))
  device = jax.devices()[0]
  print(f'{config.model.name}, batch {options.batch}, {shape}; {device.device_kind}')
  for name, fields in ROWS.items():
    changed = jaxvision.config.thaw(config)
    for field, value in fields.items():
      changed.augment[field] = value
    other = BenchmarkRun(changed, dataset, steps)
    plain.take(options.steps), other.take(options.steps)
    differences, without = [], []
    for _ in range(options.rounds):
      before = plain.take(options.steps)
      after = other.take(options.steps)
      without.append(1000 * before.seconds / before.steps)
      differences.append(1000 * after.seconds / after.steps - without[-1])
    cost, step = statistics.median(differences), statistics.median(without)
    print(f'{name:45} {cost:+8.1f} ms of {step:.0f} ms  {cost / step:+.1%}', flush=True)
    other.close()
  plain.close()


if __name__ == '__main__':
  main()
