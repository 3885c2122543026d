"""Batch size (row C3): SimCNN on CIFAR-10 with batches of 32 and of 64 images.

Both see every image equally often, so that 32 takes twice as many steps; the learning
rate is the same.

  cpu   4 epochs, 3 seeds: about 20 minutes on one core.
  full  the 10 epochs of configs/cifar10_simcnn.py, 3 seeds, for a GPU.

    python experiments/batch_size.py --budget=cpu
"""

from study import Budget, Study, Variant, main

STUDY = Study(
  name='batch_size',
  question='Does a CNN learn CIFAR-10 better in batches of 32 or of 64?',
  variants=tuple(
    Variant(f'batch of {size}', 'cifar10_simcnn', (f'batch_size={size}',))
    for size in (32, 64)
  ),
  budgets=(Budget('cpu', 3, ('epochs=4',)), Budget('full', 3)),
  plots=('curves', 'ranking'),
)

if __name__ == '__main__':
  raise SystemExit(main(STUDY))
