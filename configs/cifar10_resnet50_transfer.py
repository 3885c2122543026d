"""CIFAR-10 with a ResNet-50 pretrained on ImageNet, frozen, then fine-tuned (row C10).

Images are enlarged to 160 pixels. For the first tenth of the run only the new head
trains; then all does, and slower towards the stem. Not measured yet: it wants a GPU, and
the weights, which are downloaded once.

    python -m jaxvision.main --config=configs/cifar10_resnet50_transfer.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.data.image_size = 160
  config.data.crop_fraction = 1.0
  config.data.resident_limit_mb = 6000
  config.init.pretrained = 'timm/resnet50.a1_in1k'
  config.init.skip = ('head',)
  config.model.name = 'resnet50'
  config.model.stem = 'imagenet'
  config.batch_size = 128
  config.epochs = 12.0
  config.dtype = 'bfloat16'
  config.optimizer.learning_rate = 0.05
  config.optimizer.weight_decay = 1e-4
  config.optimizer.layer_decay = 0.9
  config.optimizer.groups = {'body': {'match': '(?!head/).*', 'start': 0.1}}
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 0.5
  config.augment.flip = True
  config.augment.crop_padding = 20
  config.label_smoothing = 0.1
  config.ema_decay = 0.999
  return config
