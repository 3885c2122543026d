"""Stanford Dogs, 120 breeds, with a ResNet-50 pretrained on ImageNet (row C13).

The photographs of this set come out of ImageNet, so the weights have seen some of the
test images: say so beside any number. Not measured yet: it wants a GPU, and the weights,
which are downloaded once.

    python -m jaxvision.main --config=configs/dogs_resnet50_transfer.py --config.seed=N

The head alone, on features that are computed once (a linear probe):

    ... "--config.freeze=(?!head/).*" "--config.augment.resized_crop=()" \\
        --config.augment.flip=False --workdir=runs/dogs_linear
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'stanford_dogs'
  config.data.image_size = 224
  config.data.pipeline = 'streaming'
  config.init.pretrained = 'timm/resnet50.a1_in1k'
  config.init.skip = ('head',)
  config.model.name = 'resnet50'
  config.model.stem = 'imagenet'
  config.batch_size = 64
  config.epochs = 20.0
  config.dtype = 'bfloat16'
  config.optimizer.learning_rate = 0.02
  config.optimizer.weight_decay = 1e-4
  config.optimizer.layer_decay = 0.9
  config.optimizer.groups = {'body': {'match': '(?!head/).*', 'start': 0.1}}
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 0.5
  config.augment.resized_crop = (0.25, 1.0)
  config.augment.flip = True
  config.label_smoothing = 0.1
  return config
