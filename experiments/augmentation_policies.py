"""Augmentation policies: which help a ResNet-20 and a CCT-2 on CIFAR-10, and which hurt.

Each is added to mirroring and padded crops, alone; nothing else differs. The policies are
those of the papers at their usual strength: RandAugment of two operations at magnitude 9,
TrivialAugment, AutoAugment for CIFAR-10, random erasing of half of the images, mixup with
alpha 0.2, CutMix with alpha 1.

  cpu   500 images of each class, drawn anew for each seed, 30 epochs, 3 seeds: about
        eight hours on one core. Few images seen often, where augmentation is worth most.
  full  all images, 100 epochs, 3 seeds, for a GPU.

    python experiments/augmentation_policies.py --budget=cpu
"""

from study import Budget, Study, Variant, main

BASE = ('augment.flip=True', 'augment.crop_padding=4', 'augment.policy=')
POLICIES = {
  '': (),
  'RandAugment': ('augment.policy=rand_augment',),
  'TrivialAugment': ('augment.policy=trivial_augment',),
  'AutoAugment': ('augment.policy=auto_augment_cifar10',),
  'erasing': ('augment.erasing=0.5',),
  'mixup': ('augment.mixup=0.2',),
  'CutMix': ('augment.cutmix=1.0',),
}
NETWORKS = {'ResNet-20': 'cifar10_resnet20_augment', 'CCT-2': 'cifar10_cct2'}

STUDY = Study(
  name='augmentation_policies',
  question='Which augmentation policies help a ResNet-20 and a CCT-2 on CIFAR-10?',
  variants=tuple(
    Variant(f'{network} + {policy}' if policy else network, name, (*BASE, *changes))
    for network, name in NETWORKS.items()
    for policy, changes in POLICIES.items()
  ),
  budgets=(
    Budget(
      'cpu', 3, ('data.examples_per_class=500', 'epochs=30', 'eval_every_steps=300')
    ),
    Budget('full', 3, ('epochs=100',)),
  ),
  plots=('ranking', 'curves'),
)

if __name__ == '__main__':
  raise SystemExit(main(STUDY))
