"""Epochs: what CustomCNN and ResNet-18 gain on CIFAR-10 from a longer run.

The recipe of configs/cifar10_resnet18.py at three lengths each; the schedule ends with the
run, so that every point is a run of its own and not a checkpoint on the way of a longer one.

  cpu   1,000 images of each class, drawn anew for each seed, 5, 10 and 20 epochs, 2 seeds:
        about six hours on one core.
  full  all images, the same lengths, 3 seeds, for a GPU.

    python experiments/epochs.py --budget=cpu
"""

from study import Axis, Budget, Study, Variant, main

NETWORKS = {'CustomCNN': 'custom_cnn', 'ResNet-18': 'resnet18'}

STUDY = Study(
  name='epochs',
  question='How much accuracy do more epochs buy on CIFAR-10?',
  variants=tuple(
    Variant(
      f'{network}, {epochs} epochs',
      'cifar10_resnet18',
      (f'model.name={name}', f'epochs={epochs}'),
    )
    for network, name in NETWORKS.items()
    for epochs in (5, 10, 20)
  ),
  budgets=(
    Budget(
      'cpu',
      2,
      (
        'dtype=float32',
        'batch_size=125',
        'data.examples_per_class=1000',
      ),
    ),
    Budget('full', 3, ('dtype=bfloat16',)),
  ),
  axis=Axis('epochs', 'epochs', 'model.name', log=True),
  plots=('axis', 'ranking'),
)

if __name__ == '__main__':
  raise SystemExit(main(STUDY))
