"""Model comparison (row S2): OriginalCNN, CustomCNN and ResNet-18 on CIFAR-10.

The same images in the same order, the same schedule and learning rate.

  cpu   one epoch in batches of 64, in float32, 3 seeds: about 100 minutes on one core.
        Who learns fastest from seeing each image once; not who is best in the end.
  full  100 epochs in batches of 128, in bfloat16, 3 seeds, for a GPU.

    python experiments/model_comparison.py --budget=cpu
"""

from study import Budget, Study, Variant, main

STUDY = Study(
  name='model_comparison',
  question='Which of three networks is worth its parameters and FLOPs on CIFAR-10?',
  variants=(
    # The recipe of ResNet-20 for all: their own configs have Muon at different rates.
    Variant('OriginalCNN', 'cifar10_resnet20_augment', ('model.name=original_cnn',)),
    Variant('CustomCNN', 'cifar10_resnet20_augment', ('model.name=custom_cnn',)),
    Variant('ResNet-18', 'cifar10_resnet20_augment', ('model.name=resnet18',)),
  ),
  budgets=(
    Budget(
      'cpu',
      3,
      (
        'dtype=float32',
        'batch_size=64',
        'epochs=1',
        'eval_every_steps=391',
        'optimizer.learning_rate=0.05',
        'schedule.warmup_epochs=0',
        'schedule.warmup_steps=200',
        'ema_decay=0',
      ),
    ),
    Budget(
      'full',
      3,
      (
        'dtype=bfloat16',
        'batch_size=128',
        'epochs=100',
        'optimizer.learning_rate=0.1',
        'schedule.warmup_epochs=5',
        'augment.cutout=8',
      ),
    ),
  ),
  plots=('time', 'curves', 'ranking'),
)

if __name__ == '__main__':
  raise SystemExit(main(STUDY))
