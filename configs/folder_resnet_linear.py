"""Your own image folder, by a linear classifier on a pretrained ResNet-18's features.

    python -m jaxvision.main --config=configs/folder_resnet_linear.py \\
        --config.data.root=DIR

with DIR/{train,test}/CLASS/*.jpg. Nothing but the head trains, and nothing is augmented, so
the features of each image are computed once, and the training itself takes a second. Weights
and image size as in folder_resnet_transfer, which takes longer and, from some twenty images
of each class on, goes further.
"""

import runpy
from pathlib import Path

TRANSFER = runpy.run_path(str(Path(__file__).with_name('folder_resnet_transfer.py')))[
  'get_config'
]


def get_config():
  config = TRANSFER()
  config.freeze = ('(?!head/).*',)
  config.optimizer.learning_rate = 0.1
  config.optimizer.groups = {}
  config.augment.resized_crop = ()
  config.augment.flip = False
  return config
