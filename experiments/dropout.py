"""Dropout (row S4): the basic CNN on CIFAR-10 at four rates.

The recipe of configs/cifar10_basiccnn.py, without augmentation; units are dropped at the
inputs of both dense layers.

  cpu   500 images of each class, drawn anew for each seed, 20 epochs, 3 seeds: about
        20 minutes on one core. Few images seen often, so that there is something to
        overfit.
  full  all images, the 10 epochs of the config, 3 seeds, for a GPU.

    python experiments/dropout.py --budget=cpu
"""

from study import Axis, Budget, Study, Variant, main

STUDY = Study(
  name='dropout',
  question='How much dropout does a basic CNN want on CIFAR-10?',
  variants=tuple(
    Variant(
      f'dropout {rate:g}' if rate else 'no dropout',
      'cifar10_basiccnn',
      (f'model.dropout={rate}',),
    )
    for rate in (0.0, 0.1, 0.25, 0.5)
  ),
  budgets=(
    Budget(
      'cpu', 3, ('data.examples_per_class=500', 'epochs=20', 'eval_every_steps=160')
    ),
    Budget('full', 3),
  ),
  reference='no dropout',
  axis=Axis('model.dropout', 'dropout'),
  plots=('axis', 'curves'),
)

if __name__ == '__main__':
  raise SystemExit(main(STUDY))
