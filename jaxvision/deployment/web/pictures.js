// Files and camera frames as pictures whose rows can be read: {width, height, source, read}.

const DECODING = {imageOrientation: 'from-image', premultiplyAlpha: 'none', colorSpaceConversion: 'none'};

async function decoded(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, DECODING).catch((error) => {
      // Older browsers know fewer of the options.
      if (error instanceof TypeError) return createImageBitmap(blob);
      throw error;
    });
  } catch {
    throw new Error('it is not an image that this browser can read (PNG, JPEG, WebP, GIF, BMP or AVIF)');
  }
  return pictured(bitmap, bitmap.width, bitmap.height);
}

// Of anything that a canvas draws. The canvas is on the processor, where no pixel changes
// on the way, and as large as a strip of rows.
function pictured(source, width, height) {
  if (!width || !height) throw new Error('it has no pixels');
  const canvas = document.createElement('canvas');
  const read = (top, rows) => {
    if (canvas.width !== width || canvas.height !== rows) [canvas.width, canvas.height] = [width, rows];
    const context = canvas.getContext('2d', {willReadFrequently: true, colorSpace: 'srgb'});
    if (!context) throw new Error('it is too large for this browser');
    context.imageSmoothingEnabled = false;
    context.globalCompositeOperation = 'copy';  // what was there before goes
    context.drawImage(source, 0, top, width, rows, 0, 0, width, rows);
    try {
      return context.getImageData(0, 0, width, rows).data;
    } catch {
      throw new Error('it is too large for this browser');
    }
  };
  return {source, width, height, read};
}

// Draws a picture for the eye, of at most `side` pixels in width and height.
function previewOf({source, width, height}, side = 1024) {
  const scale = Math.min(1, side / Math.max(width, height));
  const canvas = element('canvas', {
    width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)),
  });
  canvas.classList.toggle('enlarged', Math.max(width, height) <= 128);
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.fillStyle = '#fff';  // as the network has what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// Draws uint8 [H, W, C] pixels, one to one.
function drawPixels(canvas, pixels, [rows, columns, channels]) {
  const image = new ImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[i * channels + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  [canvas.width, canvas.height] = [columns, rows];
  canvas.getContext('2d', {willReadFrequently: true}).putImageData(image, 0, 0);
}
