"""Optimiser and learning rate (row S4): SGD, Adam and AdamW on CIFAR-10 with SimCNN.

Each at five learning rates, as what an optimiser is worth at one rate says little. SGD has
a momentum of 0.9 and decays weights by 5e-4, AdamW by 0.05, Adam not at all; the rest is
configs/cifar10_simcnn.py, one cycle of the learning rate with it. Measured on the test
split: a study of what they do, not a search for the best number.

  cpu   2 epochs, 2 seeds: about 30 minutes on one core.
  full  the 10 epochs of the config, 3 seeds, for a GPU.

    python experiments/optimisers_and_rates.py --budget=cpu
"""

from study import Axis, Budget, Study, Variant, main

RATES = {
  'sgd': ('SGD', 5e-4, (0.001, 0.003, 0.01, 0.03, 0.1)),
  'adam': ('Adam', 0.0, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
  'adamw': ('AdamW', 0.05, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
}

STUDY = Study(
  name='optimisers_and_rates',
  question='SGD, Adam or AdamW, and at which learning rate?',
  variants=tuple(
    Variant(
      f'{title} at {rate:g}',
      'cifar10_simcnn',
      (
        f'optimizer.name={name}',
        f'optimizer.learning_rate={rate}',
        f'optimizer.weight_decay={decay}',
      ),
    )
    for name, (title, decay, rates) in RATES.items()
    for rate in rates
  ),
  budgets=(
    Budget('cpu', 2, ('epochs=2',)),
    Budget('full', 3),
  ),
  axis=Axis('optimizer.learning_rate', 'learning rate', 'optimizer.name', log=True),
  plots=('axis', 'ranking'),
)

if __name__ == '__main__':
  raise SystemExit(main(STUDY))
