"""Your own image folder, by fine-tuning a ResNet-18 pretrained on ImageNet.

    python -m jaxvision.main --config=configs/folder_resnet_transfer.py \\
        --config.data.root=DIR

with DIR/{train,test}/CLASS/*.jpg. The weights are downloaded once; those of a file are
taken with --config.init.pretrained=FILE. For the first fifth of the run only the new head
trains, then all does. Normalisation, image size and the evaluation's crop are those of
the weights.
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'folder'
  config.data.pipeline = 'streaming'
  config.init.pretrained = 'timm/resnet18.a1_in1k'
  config.init.skip = ('head',)
  config.model.name = 'resnet18'
  config.model.stem = 'imagenet'
  config.batch_size = 32
  config.epochs = 10.0
  config.log_every_steps = 20
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-2  # of the head
  config.optimizer.weight_decay = 0.05
  config.optimizer.groups = {
    'body': {'match': '(?!head/).*', 'start': 0.2, 'learning_rate': 1e-4}
  }
  config.schedule.name = 'cosine'
  config.augment.resized_crop = (0.5, 1.0)
  config.augment.flip = True
  return config
