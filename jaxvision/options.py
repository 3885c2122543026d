"""The options of each command beside --config and --workdir, with their help."""

import argparse


def _train(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--overwrite', action='store_true', help='replace the run that is in the workdir'
  )
  parser.add_argument(
    '--extend',
    action='store_true',
    help='go on with the run in the workdir for more epochs, or with another learning '
    'rate or schedule, from its last step on',
  )
  parser.add_argument(
    '--seeds',
    type=int,
    default=0,
    metavar='N',
    help='train N seeds one after the other, in WORKDIR-seed0, WORKDIR-seed1, ...',
  )
  parser.add_argument(
    '--help-config', action='store_true', help='list every field of the config and exit'
  )


def _launch(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--processes', type=int, required=True, metavar='N', help='how many'
  )
  parser.add_argument(
    '--devices-per-process',
    type=int,
    default=0,
    metavar='M',
    help='GPUs of each, or with JAX_PLATFORMS=cpu simulated devices (default: an equal '
    'share of the GPUs)',
  )
  parser.add_argument(
    '--restarts',
    type=int,
    default=0,
    metavar='N',
    help='how often all are started again after one has failed or was killed (default: 0); '
    'training goes on from its last checkpoint',
  )
  parser.add_argument(
    'rest', nargs=argparse.REMAINDER, metavar='-- COMMAND', help='what each runs'
  )


def _average(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--average',
    type=int,
    metavar='N',
    help='take the mean of the weights of the last N checkpoints (checkpoint.keep)',
  )


def _eval(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--split',
    help='test, validation or train (default: test; for a GAN or a flow '
    'evaluation.reference)',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  _average(parser)


def _predict(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('inputs', nargs='*', metavar='INPUT', help='file or folder')
  parser.add_argument(
    '--model',
    metavar='FILE',
    help='what `export` or `quantize` wrote, or a name that `models` lists, instead of a '
    'run',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  parser.add_argument(
    '--top', type=int, default=5, help='classes listed for each image (default: 5)'
  )
  parser.add_argument('--json', action='store_true', help='print JSON')


def _sample(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--weights',
    metavar='FILE',
    help='a GAN or a flow that `export` wrote, instead of a run',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  parser.add_argument(
    '--output',
    metavar='PATH',
    help='PNG file (default: samples.png), or with --files '
    'the directory (default: samples)',
  )
  parser.add_argument('--count', type=int, default=64, help='images (default: 64)')
  parser.add_argument(
    '--seed', type=int, default=0, help='seed of the noise (default: 0)'
  )
  parser.add_argument(
    '--class',
    dest='label',
    metavar='CLASS',
    help='class to draw, by name or number, where the model is conditional',
  )
  parser.add_argument(
    '--interpolate',
    type=int,
    default=0,
    metavar='ROWS',
    help='draw this many rows of interpolation between samples instead',
  )
  parser.add_argument('--files', action='store_true', help='a file for each image')
  parser.add_argument(
    '--scale', type=int, default=0, help='pixels drawn for each pixel of an image'
  )


def _serve(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--model', metavar='FILE', help='a file that `export` wrote, instead of a run'
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  parser.add_argument(
    '--host',
    default='127.0.0.1',
    help='interface to listen on (default: 127.0.0.1, which other machines cannot '
    'reach; 0.0.0.0: all)',
  )
  parser.add_argument(
    '--port', type=int, default=8000, help='0: any free one (default: 8000)'
  )
  parser.add_argument(
    '--allowed-host',
    action='append',
    default=[],
    metavar='NAME',
    help='name by which clients may ask for the server, beside those of this machine, such '
    'as that of a proxy; may be given several times; *: any (default where --host is no '
    'loopback address)',
  )
  parser.add_argument(
    '--cors-origin',
    action='append',
    default=[],
    metavar='ORIGIN',
    help='pages of this origin may ask too, such as https://example.org (default: none)',
  )
  for name, kind, default, text in (
    ('--max-batch', int, 32, 'images that go through the network at once, at most'),
    ('--max-delay-ms', float, 5.0, 'milliseconds that an image waits for others'),
    ('--queue', int, 1024, 'images that wait; beyond: 429'),
    ('--max-images', int, 64, 'images in a request, or drawn for one'),
    ('--max-body-mb', float, 32.0, 'megabytes of a request'),
    ('--max-megapixels', float, 25.0, 'megapixels of an image'),
    ('--max-connections', int, 256, 'connections at once; beyond: 503'),
    ('--timeout', float, 30.0, "seconds for a request's head, its body, its answer"),
  ):
    parser.add_argument(
      name,
      type=kind,
      default=default,
      metavar='N',
      help=f'{text} (default: {default:g})',
    )


def _distance(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('inputs', nargs='*', metavar='FOLDER', help='generated, real')
  parser.add_argument(
    '--features',
    default='inception',
    help='inception, the file of its weights, or the workdir of a classifier',
  )
  parser.add_argument(
    '--resizer', default='clean', choices=('clean', 'tensorflow'), help='for Inception'
  )
  parser.add_argument('--json', action='store_true', help='print JSON')


def _compare(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'inputs', nargs='*', metavar='WORKDIR', help='workdir of a finished run'
  )
  parser.add_argument(
    '--output',
    default='comparison',
    metavar='DIR',
    help='directory (default: comparison)',
  )


def _sweep(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--sweep', metavar='FILE', help='sweep file: the search space')
  parser.add_argument(
    '--storage',
    metavar='URL',
    help='database, which several machines may share, such as '
    'postgresql://USER@HOST/NAME (default: sweep.db in the workdir)',
  )


def _explore(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--output', metavar='DIR', help='directory (default: exploration/<config name>)'
  )
  parser.add_argument(
    '--images',
    type=int,
    default=0,
    help='largest number of images whose pixels are read (default: 100000, or 20000 '
    'where they stream)',
  )


def _export(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--format',
    choices=('safetensors', 'onnx', 'stablehlo', 'web'),
    help='what is written (default: what the suffix of --output says, or safetensors); '
    'web: a folder with a page that runs the network in the browser, or one .html',
  )
  parser.add_argument(
    '--output',
    metavar='FILE',
    help='file, .safetensors, .onnx, .stablehlo or .html (default: model.FORMAT, or the '
    'folder web, in the workdir)',
  )
  parser.add_argument(
    '--verify',
    action='store_true',
    help='compare with the run on the whole test split, too',
  )
  parser.add_argument(
    '--model',
    metavar='FILE',
    help='of --format=web: the ONNX file that the page runs, as `quantize` wrote '
    '(default: the run in float32)',
  )
  parser.add_argument(
    '--license',
    metavar='NAME',
    help='licence of the weights, for the metadata and the page, such as MIT',
  )
  parser.add_argument(
    '--single-file',
    action='store_true',
    help='of --format=web: one HTML file, which needs no host',
  )
  parser.add_argument(
    '--runtime',
    metavar='PATH',
    help='of --format=web: folder or archive of onnxruntime-web (default: it is '
    'downloaded once)',
  )
  parser.add_argument(
    'inputs',
    nargs='*',
    metavar='WORKDIR',
    help='runs of one model, whose weights are averaged, instead of --workdir',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  _average(parser)


def _quantize(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--output', metavar='FILE', help='file (default: model.TYPE.onnx in the workdir)'
  )
  parser.add_argument(
    '--type', default='int8', help='int8, float16 or bfloat16 (default: int8)'
  )
  parser.add_argument(
    '--method',
    default='minmax',
    help='ranges of activations in int8: minmax, percentile or entropy (default: minmax)',
  )
  parser.add_argument(
    '--images',
    type=int,
    default=512,
    help='training images that int8 is calibrated on (default: 512)',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='seed of their choice (default: 0)'
  )
  parser.add_argument(
    '--max-loss',
    type=float,
    default=0.3,
    metavar='POINTS',
    help='accuracy that int8 may lose on other training images, before the layers that '
    'cost most stay in float32 (default: 0.3)',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')


def _benchmark(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--steps', type=int, default=100, help='steps to time')
  parser.add_argument('--json', action='store_true', help='print JSON')


def _lr_find(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--min', type=float, default=1e-6, help='rate of the first step (default: 1e-6)'
  )
  parser.add_argument(
    '--max', type=float, default=10.0, help='rate of the last step (default: 10)'
  )
  parser.add_argument(
    '--steps', type=int, default=200, help='steps of the ramp (default: 200)'
  )


def _models(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('inputs', nargs='*', metavar='NAME', help='model to show')
  parser.add_argument('--copy', metavar='DIR', help='copy its files into a directory')


def _prepare(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('inputs', nargs='*', metavar='NAME', help='TFDS set')
  parser.add_argument('--cached', action='store_true', help='list the decoded sets')
  parser.add_argument(
    '--drop',
    action='append',
    default=[],
    metavar='FOLDER',
    help='delete a decoded set that --cached lists',
  )


# Of the commands that have some: what adds them to the parser.
OPTIONS = {
  'train': _train,
  'launch': _launch,
  'eval': _eval,
  'predict': _predict,
  'sample': _sample,
  'serve': _serve,
  'distance': _distance,
  'compare': _compare,
  'sweep': _sweep,
  'explore': _explore,
  'export': _export,
  'quantize': _quantize,
  'benchmark': _benchmark,
  'lr-find': _lr_find,
  'models': _models,
  'prepare': _prepare,
}
