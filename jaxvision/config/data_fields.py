"""The fields of `data`, `augment` and `evaluation`."""

from typing import Any

from jaxvision.config.field import Field
from jaxvision.config.limits import (
  all_numbers,
  all_strings,
  at_least,
  between,
  interval,
  one_of,
)

DATA_FIELDS: dict[str, Any] = {
  'name': Field(
    'digits',
    'digits, folder, synthetic, any TFDS set, or a function of your own that returns '
    'a data set or arrays, file.py:function.',
  ),
  'dir': Field(
    '', 'TFDS directory; empty: $TFDS_DATA_DIR, then the default.', free=True, path=True
  ),
  'root': Field('', 'Directory of the images of data.name=folder.', path=True),
  'cache_dir': Field(
    '',
    'Directory of decoded sets; empty: $JAXVISION_CACHE, then ~/.cache/jaxvision.',
    free=True,
    path=True,
  ),
  'train_fraction': Field(
    1.0,
    'Share of the training split that trains; the rest, stratified, is the '
    'validation split.',
    valid=lambda v: 0 < v <= 1,
    limits='above 0 and at most 1',
  ),
  'test_fraction': Field(
    0.2,
    'Share of the training images that becomes the test split where there is none.',
    valid=lambda v: 0 < v < 1,
    limits='above 0 and below 1',
  ),
  'split_seed': Field(
    0,
    'Seed of the splits, apart from `seed`, so that runs of several seeds share them.',
    **at_least(0, 2**32 - 1),
  ),
  'examples_per_class': Field(
    0,
    'Training images of each class, drawn by `split_seed`; 0: all.',
    **at_least(0, 2**31),
  ),
  'balanced': Field(
    False,
    'Whether training draws every class equally often, however many images it has; an '
    'epoch stays as many images as the split has.',
  ),
  'image_size': Field(
    0,
    'Height and width to resize to, in pixels; 0: of the pretrained weights, else as '
    'stored.',
    **at_least(0, 8192),
  ),
  'crop_fraction': Field(
    0.0,
    'Side of the centre crop over the shorter side of the resized image (crop_pct of '
    'timm); 0: of the pretrained weights, else 1.',
    **between(0, 1),
  ),
  'interpolation': Field(
    'auto',
    'How images are resized; auto: as the pretrained weights want it, else bilinear.',
    **one_of('auto', 'bilinear', 'bicubic'),
  ),
  'channels': Field(
    0,
    '1: grey, 3: RGB, 0: as stored.',
    valid=lambda v: v in (0, 1, 3),
    limits='0, 1 or 3',
  ),
  'mean': Field(
    (),
    'Mean of each channel, in units of [0, 1]; empty: that of the pretrained weights, '
    'else measured on the training split.',
    **all_numbers(0, 1),
  ),
  'std': Field(
    (),
    'Standard deviation of each channel, in units of [0, 1]; empty: as for data.mean.',
    **all_numbers(1e-6, 1),
  ),
  'pipeline': Field(
    'auto',
    'resident: uint8 on the device; streaming: decoded as it goes; auto: by size.',
    **one_of('auto', 'resident', 'streaming'),
  ),
  'resident_limit_mb': Field(
    2048,
    'Largest set (decoded, MB) that auto keeps on the device.',
    **at_least(0, 1_000_000_000),
  ),
  'workers': Field(
    -1,
    'Processes that decode a streamed set; -1: by the number of cores, 0: threads.',
    free=True,
    **at_least(-1, 256),
  ),
  'skip_unreadable': Field(
    False, 'Skip and count unreadable images instead of stopping.'
  ),
  'synthetic_examples': Field(
    1024,
    'Number of training images of data.name=synthetic.',
    **at_least(2, 10_000_000),
  ),
  'synthetic_classes': Field(
    10, 'Number of classes of data.name=synthetic.', **at_least(2, 100_000)
  ),
}

EVALUATION_FIELDS: dict[str, Any] = {
  'tta': Field(
    'none',
    'Test-time augmentation, whose logits are averaged: flip: the image and its mirror '
    'image; flip_shift: those of two shifts by a pixel too.',
    **one_of('none', 'flip', 'flip_shift'),
  ),
  'features': Field(
    '',
    'Feature extractor for the measures of samples: inception (its weights are '
    'downloaded), the file of these weights, or the workdir of a classifier; empty: '
    'none.',
    free=True,
    path=True,
  ),
  'reference': Field(
    'test',
    'Split that generated images are measured against.',
    free=True,
    **one_of('test', 'train', 'validation'),
  ),
  'samples': Field(
    10_000,
    'Images generated for the measures at the end.',
    free=True,
    **at_least(2, 100_000_000),
  ),
  'samples_while_training': Field(
    2_000,
    'Images generated for the measures while a run trains; 0: none.',
    free=True,
    valid=lambda v: v == 0 or 2 <= v <= 100_000_000,
    limits='0, or at least 2 and at most 100,000,000',
  ),
  'resizer': Field(
    'clean',
    'How images become 299x299 for Inception: clean (clean-fid) or tensorflow (as the '
    'first implementation did).',
    free=True,
    **one_of('clean', 'tensorflow'),
  ),
  'classifier': Field(
    '',
    'Workdir of a classifier of the classes that samples show; empty: that of '
    'evaluation.features, if it is one.',
    free=True,
    path=True,
  ),
}

AUGMENT_FIELDS: dict[str, Any] = {
  'flip': Field(False, 'Mirror half of the images left to right.'),
  'flip_mode': Field(
    'random',
    'random: half of each batch; alternating: each image in every other epoch.',
    **one_of('random', 'alternating'),
  ),
  'resized_crop': Field(
    (),
    'Smallest and largest share of the area of a random resized crop, such as '
    '(0.08, 1); empty: off.',
    **interval(1e-6, 1, may_be_empty=True),
  ),
  'resized_crop_ratio': Field(
    (0.75, 4 / 3),
    'Smallest and largest ratio of width to height of a random resized crop.',
    **interval(0.001, 1000),
  ),
  'crop_padding': Field(
    0,
    'Pixels of padding on each side before a random crop of the original size; 0: off.',
    **at_least(0, 8192),
  ),
  'crop_mode': Field(
    'reflect',
    'Padding of random crops: reflect, or constant (zeros).',
    **one_of('reflect', 'constant'),
  ),
  'cutout': Field(
    0,
    'Side in pixels of a square that is set to the mean colour; 0: off.',
    **at_least(0, 8192),
  ),
  'cutout_mode': Field(
    'clipped',
    'clipped: the centre lies anywhere in the image; inside: the whole square does.',
    **one_of('clipped', 'inside'),
  ),
  'rotation': Field(0.0, 'Largest random rotation in degrees.', **between(0, 180)),
  'brightness': Field(
    0.0, 'Strength of brightness jitter, as in torchvision.', **at_least(0, 100)
  ),
  'contrast': Field(
    0.0, 'Strength of contrast jitter, as in torchvision.', **at_least(0, 100)
  ),
  'saturation': Field(
    0.0, 'Strength of saturation jitter, as in torchvision.', **at_least(0, 100)
  ),
  'hue': Field(
    0.0, 'Largest shift of the hue, in turns of the colour wheel.', **between(0, 0.5)
  ),
  'policy': Field(
    '',
    'Operations drawn for each image: rand_augment, trivial_augment, '
    'auto_augment_cifar10, auto_augment_imagenet; empty: none.',
    **one_of(
      '',
      'rand_augment',
      'trivial_augment',
      'auto_augment_cifar10',
      'auto_augment_imagenet',
    ),
  ),
  'num_ops': Field(
    2,
    'Operations of rand_augment for each image, one after another.',
    **at_least(1, 14),
  ),
  'magnitude': Field(
    9, 'Strength of the operations of rand_augment, 0 to 30.', **between(0, 30)
  ),
  'grayscale': Field(
    0.0, 'Share of the images that lose their colour.', **between(0, 1)
  ),
  'posterize': Field(
    0.0, 'Share of the images that keep few bits of each value.', **between(0, 1)
  ),
  'posterize_bits': Field(4, 'Bits that posterize keeps.', **between(1, 8)),
  'solarize': Field(
    0.0, 'Share of the images whose bright values are inverted.', **between(0, 1)
  ),
  'solarize_threshold': Field(
    128.0, 'Value from which on solarize inverts.', **between(0, 256)
  ),
  'equalize': Field(
    0.0, 'Share of the images whose histogram is made even.', **between(0, 1)
  ),
  'autocontrast': Field(
    0.0, 'Share of the images that are stretched to the whole range.', **between(0, 1)
  ),
  'sharpness': Field(
    0.0, 'Share of the images whose sharpness changes.', **between(0, 1)
  ),
  'sharpness_factor': Field(
    2.0, 'Sharpness then: 0 smooth, 1 as it was, 2 sharp.', **between(0, 100)
  ),
  'blur': Field(
    0.0,
    'Largest standard deviation of a Gaussian blur, in pixels; 0: off.',
    **between(0, 100),
  ),
  'blur_probability': Field(
    0.5, 'Share of the images that are blurred.', **between(0, 1)
  ),
  'noise': Field(
    0.0,
    'Standard deviation of Gaussian noise, in units of [0, 1]; 0: off.',
    **between(0, 1),
  ),
  'erasing': Field(
    0.0, 'Share of the images of which a random box is erased.', **between(0, 1)
  ),
  'erasing_area': Field(
    (0.02, 1 / 3),
    'Smallest and largest share of the area that is erased.',
    **interval(1e-6, 1),
  ),
  'erasing_ratio': Field(
    (0.3, 10 / 3),
    'Smallest and largest ratio of height to width of the box.',
    **interval(0.001, 1000),
  ),
  'erasing_mode': Field(
    'noise',
    'noise: the box is filled with standard normal noise; mean: with the mean colour.',
    **one_of('noise', 'mean'),
  ),
  'mixup': Field(
    0.0,
    'Alpha of mixup, which blends each image and its target with those of another; 0: '
    'off.',
    **at_least(0, 1000),
  ),
  'cutmix': Field(
    0.0,
    'Alpha of CutMix, which pastes a box of another image; 0: off. With both, each batch '
    'gets one of them.',
    **at_least(0, 1000),
  ),
  'mix_probability': Field(
    1.0, 'Share of the batches that are mixed.', **between(0, 1)
  ),
  'cutmix_share': Field(
    0.5, 'Share of the mixed batches that get CutMix, with both on.', **between(0, 1)
  ),
  'custom': Field(
    (),
    'Functions of your own, (key, images [B, H, W, C] in [0, 255]) -> images.',
    **all_strings(),
  ),
}
