"""Activation and architecture (row S7): what helps the CNN of 57,332 parameters.

Its author named what to try next: Leaky ReLU, Swish, residual connections, attention,
augmentation. Each is tried alone against the base, SmallFiltersCNN with ReLU and no
augmentation, otherwise by the recipe of configs/cifar100_smallcnn.py: CIFAR-100, AdamW, one
cycle, 10,000 steps. Attention adds 742 parameters, the others none.

  cpu    10,000 steps of 64 images (12.8 epochs), half the rate, 3 seeds: 2 minutes a run
         on one core, an hour for all 24.
  full   10,000 steps of 256 images, 3 seeds; its last variant is the config itself.

    python experiments/smallcnn_activations.py --budget=cpu
"""

from study import Budget, Study, Variant, main

PLAIN = (
  'model.activation=relu',
  'augment.flip=False',
  'augment.crop_padding=0',
)
AUGMENT = ('augment.flip=True', 'augment.crop_padding=4')
CHANGES = {
  'ReLU': (),
  'Leaky ReLU': ('model.activation=leaky_relu',),
  'Swish': ('model.activation=swish',),
  'GELU': ('model.activation=gelu',),
  'residual': ('model.residual=True',),
  'attention': ('model.attention=True',),
  'augmentation': AUGMENT,
  'Swish + augmentation': ('model.activation=swish', *AUGMENT),
}

STUDY = Study(
  name='smallcnn_activations',
  question=(
    'Which of activation, residual connections, attention and augmentation helps a CNN of '
    '57,332 parameters on CIFAR-100?'
  ),
  variants=tuple(
    Variant(label, 'cifar100_smallcnn', (*PLAIN, *changes))
    for label, changes in CHANGES.items()
  ),
  budgets=(
    Budget('cpu', 3, ('batch_size=64', 'optimizer.learning_rate=4e-3')),
    Budget('full', 3),
  ),
  reference='ReLU',
  plots=('ranking', 'curves'),
)

if __name__ == '__main__':
  raise SystemExit(main(STUDY))
