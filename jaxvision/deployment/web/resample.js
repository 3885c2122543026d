// Pictures of any size to that of the network, as `jaxvision.data.decode.decode_image`
// has Pillow do it: the steps, roundings and order of Resample.c and Convert.c of Pillow 13
// for 8 bits, so that the same decoded pixels give the same input.
const PRECISION_BITS = 32 - 8 - 2;
const STRIP_PIXELS = 1 << 22;  // read at a time, so that large photos need little memory

const FILTERS = {
  bilinear: {
    support: 1,
    weight(x) {
      x = Math.abs(x);
      return x < 1 ? 1 - x : 0;
    },
  },
  bicubic: {
    support: 2,
    weight(x) {
      const a = -0.5;
      x = Math.abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    },
  },
};

// The part of a picture that the network sees: [left, top, right, bottom] in its pixels.
// Pillow takes the numbers as floats of 32 bits.
function centreBox(width, height, [rows, columns], fraction) {
  const scale = Math.min(width / columns, height / rows) * fraction;
  const left = Math.max(0, (width - columns * scale) / 2);
  const top = Math.max(0, (height - rows * scale) / 2);
  return [left, top, left + columns * scale, top + rows * scale].map(Math.fround);
}

// Of each of `count` new samples: where its window begins, its length, its weights. The
// window grows with the scale, which is the antialiasing.
function windows(size, first, last, count, filter) {
  const scale = Math.fround(last - first) / count;
  const filterScale = Math.max(scale, 1);
  const support = filter.support * filterScale;
  const length = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(count);
  const lengths = new Int32Array(count);
  const weights = new Int32Array(count * length);
  const inverse = 1 / filterScale;
  const row = new Float64Array(length);
  for (let i = 0; i < count; i++) {
    const centre = first + (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const taken = Math.min(size, Math.trunc(centre + support + 0.5)) - start;
    let sum = 0;
    for (let j = 0; j < taken; j++) sum += row[j] = filter.weight((j + start - centre + 0.5) * inverse);
    for (let j = 0; j < taken; j++) {
      const share = (sum ? row[j] / sum : row[j]) * (1 << PRECISION_BITS);
      weights[i * length + j] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    }
    starts[i] = start;
    lengths[i] = taken;
  }
  return {starts, lengths, weights, length};
}

const clip8 = (sum) => Math.min(255, Math.max(0, sum >> PRECISION_BITS));

// A value over white, as AlphaComposite.c has it.
function overWhite(value, alpha) {
  const sum = value * alpha * 128 + 255 * (255 - alpha) * 128 + (0x80 << 7);
  return (((sum >> 8) + sum) >> 8) >> 7;
}

// RGBA to RGB over white, and to grey by ITU-R 601 (Convert.c).
function flattened(rgba, channels) {
  const count = rgba.length / 4;
  const out = new Uint8Array(count * channels);
  for (let i = 0, from = 0, to = 0; i < count; i++, from += 4, to += channels) {
    let r = rgba[from];
    let g = rgba[from + 1];
    let b = rgba[from + 2];
    const alpha = rgba[from + 3];
    if (alpha !== 255) {
      r = overWhite(r, alpha);
      g = overWhite(g, alpha);
      b = overWhite(b, alpha);
    }
    if (channels === 1) {
      out[to] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    } else {
      out[to] = r;
      out[to + 1] = g;
      out[to + 2] = b;
    }
  }
  return out;
}

function resampledAcross(pixels, width, rows, columns, channels, at) {
  const out = new Uint8Array(rows * columns * channels);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const from = (y * width + at.starts[x]) * channels;
      for (let c = 0; c < channels; c++) {
        let sum = 1 << (PRECISION_BITS - 1);
        for (let j = 0, k = x * at.length; j < at.lengths[x]; j++) {
          sum += pixels[from + j * channels + c] * at.weights[k + j];
        }
        out[(y * columns + x) * channels + c] = clip8(sum);
      }
    }
  }
  return out;
}

function resampledDown(pixels, rows, line, at, shift) {
  const out = new Uint8Array(rows * line);
  for (let y = 0; y < rows; y++) {
    const from = (at.starts[y] - shift) * line;
    for (let x = 0; x < line; x++) {
      let sum = 1 << (PRECISION_BITS - 1);
      for (let j = 0, k = y * at.length; j < at.lengths[y]; j++) {
        sum += pixels[from + j * line + x] * at.weights[k + j];
      }
      out[y * line + x] = clip8(sum);
    }
  }
  return out;
}

// Returns the input of the network, uint8 [H * W * C], for a picture.
//   picture: {width, height, read}, read(top, rows) -> RGBA of whole rows.
//   signature: {image_shape: [H, W, C], crop_fraction, interpolation}.
function fitted(picture, signature) {
  const [rows, columns, channels] = signature.image_shape;
  const {width, height} = picture;
  const [left, top, right, bottom] = centreBox(width, height, [rows, columns], signature.crop_fraction);
  if (left === Math.trunc(left) && top === Math.trunc(top) &&
      Math.fround(right - left) === columns && Math.fround(bottom - top) === rows) {
    return cutOut(picture, left, top, signature.image_shape);
  }
  const filter = FILTERS[signature.interpolation];
  const across = columns !== width || left || right !== columns ?
    windows(width, left, right, columns, filter) : null;
  const down = windows(height, top, bottom, rows, filter);
  // As of Pillow 13, whose rule this is; earlier versions go across first, with another
  // rounding of such high pictures.
  if (height > rows && height - rows > 2 * (width - columns)) {
    const flat = new Uint8Array(rows * width * channels);
    for (let y = 0; y < rows; y++) {
      const strip = flattened(picture.read(down.starts[y], down.lengths[y]), channels);
      const at = {starts: [0], lengths: [down.lengths[y]], weights: down.weights.subarray(y * down.length), length: 0};
      flat.set(resampledDown(strip, 1, width * channels, at, 0), y * width * channels);
    }
    return across ? resampledAcross(flat, width, rows, columns, channels, across) : flat;
  }
  const first = down.starts[0];
  const last = down.starts[rows - 1] + down.lengths[rows - 1];
  const line = columns * channels;
  const middle = new Uint8Array((last - first) * line);
  const strip = Math.max(1, Math.floor(STRIP_PIXELS / width));
  for (let y = first; y < last; y += strip) {
    const count = Math.min(strip, last - y);
    const flat = flattened(picture.read(y, count), channels);
    middle.set(across ? resampledAcross(flat, width, count, columns, channels, across) : flat, (y - first) * line);
  }
  const done = rows === height && !top && bottom === rows;
  return done ? middle : resampledDown(middle, rows, line, down, first);
}

// The part of a picture that has the size already.
function cutOut({width, read}, left, top, [rows, columns, channels]) {
  const flat = flattened(read(top, rows), channels);
  if (columns === width) return flat;
  const out = new Uint8Array(rows * columns * channels);
  for (let y = 0; y < rows; y++) {
    const from = (y * width + left) * channels;
    out.set(flat.subarray(from, from + columns * channels), y * columns * channels);
  }
  return out;
}
