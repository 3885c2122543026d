"""Augmentation (row S3): a basic CNN and a ResNet-20 on CIFAR-10, with and without it.

Augmentation is mirroring and padded crops, and nothing else differs between a network with
it and without. A fifth variant is configs/cifar10_basiccnn_augment.py, the CNN with the
recipe that suits augmentation: it drops fewer units and has a higher rate. All have the
same number of epochs.

  cpu   500 images of each class, drawn anew for each seed, 15 epochs, 3 seeds: about
        an hour on one core. Few images seen often, for a network that sees all of
        CIFAR-10 once or twice has nothing to overfit yet.
  full  all images, 20 epochs, 3 seeds, for a GPU.

    python experiments/augmentation.py --budget=cpu
"""

from study import Budget, Study, Variant, main

AUGMENT = ('augment.flip=True', 'augment.crop_padding=4')

STUDY = Study(
  name='augmentation',
  question='What does augmentation do for a basic CNN and for a ResNet on CIFAR-10?',
  variants=(
    Variant('CNN', 'cifar10_basiccnn'),
    Variant('CNN + augmentation', 'cifar10_basiccnn', AUGMENT),
    Variant('CNN + augmentation, its recipe', 'cifar10_basiccnn_augment'),
    Variant('ResNet-20', 'cifar10_resnet20'),
    Variant('ResNet-20 + augmentation', 'cifar10_resnet20', AUGMENT),
  ),
  budgets=(
    Budget(
      'cpu', 3, ('data.examples_per_class=500', 'epochs=15', 'eval_every_steps=150')
    ),
    Budget('full', 3, ('epochs=20',)),
  ),
  plots=('curves', 'ranking'),
)

if __name__ == '__main__':
  raise SystemExit(main(STUDY))
