"""Images like one's own: a DCGAN at 64x64 from a folder.

    python -m jaxvision.main --config=configs/folder_dcgan.py --config.data.root=DIR

DIR/CLASS/*.jpg, or DIR/{train,test}/CLASS/*.jpg; one class is enough. What the
discriminator sees is augmented, as a folder rarely holds the tens of thousands of images
that a GAN wants without. Without a GPU, --config.data.image_size=32 is ten times faster.
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.task = 'gan'
  config.data.name = 'folder'
  config.data.image_size = 64
  config.data.channels = 3
  config.model.name = 'dcgan'
  config.gan.diffaugment = ('color', 'translation', 'cutout')
  config.augment.flip = True
  config.steps = 30_000
  config.batch_size = 64
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 2e-4
  config.optimizer.options.b1 = 0.5
  config.schedule.name = 'constant'
  config.ema_decay = 0.999
  config.eval_every_steps = 1000
  return config
