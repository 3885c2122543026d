// The page of a classifier: pictures come in by choosing, dropping, pasting, as examples
// and from the camera, and go through the network one after the other.
const KEPT = 100;  // pictures in the list of earlier ones

const engine = prepared();
engine.catch(() => {});  // it has been said
makeRows();

function showPicture(picture) {
  const fraction = picture.blob === null ? 1 : page.crop_fraction;  // null: it is that part
  const [left, top, right, bottom] = centreBox(picture.width, picture.height, page.image_shape, fraction);
  byId('frame').style.setProperty('--ratio', picture.width / picture.height);
  const seen = byId('seen-part');
  seen.hidden = right - left > picture.width - 1 && bottom - top > picture.height - 1;
  Object.assign(seen.style, {
    left: percent(left / picture.width, 3), width: percent((right - left) / picture.width, 3),
    top: percent(top / picture.height, 3), height: percent((bottom - top) / picture.height, 3),
  });
  byId('stage').dataset.state = 'picture';
}

function showInput(pixels, time) {
  drawPixels(byId('input'), pixels, page.image_shape);
  byId('time').textContent = milliseconds(time);
}

async function classify(picture, blob) {
  const ready = await engine;
  const pixels = fitted(picture, page);
  const begin = performance.now();
  const predictions = await ready.classify(blob, pixels);
  return {pixels, predictions, time: performance.now() - begin};
}

// One after the other, in the order in which they came.
let queue = Promise.resolve();
let done = 0;

function take(blob, name, label = null) {
  queue = queue.then(async () => {
    camera.stop();
    try {
      const picture = await decoded(blob);
      const {width, height} = picture;
      const entry = {...await classify(picture, blob), name, label, blob, width, height};
      complain('');
      show(entry, previewOf(picture));
      picture.source.close?.();
      remember(entry);
      announce(summary(name, entry.predictions));
    } catch (error) {
      if (await engine.then(() => true, () => false)) complain(`${name}: ${sentence(error)}`);
    }
    document.body.dataset.done = ++done;
  });
  return queue;
}

function show(entry, canvas) {
  const {predictions, name, label} = entry;
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', name);
  byId('picture').replaceChildren(canvas);
  showPicture(entry);
  showInput(entry.pixels, entry.time);
  showPredictions(predictions);
  byId('source').textContent = name;
  const verdict = byId('verdict');
  verdict.hidden = label === null;
  const judged = page.kind === 'class';
  const right = judged && predictions[0].name === label;
  verdict.dataset.right = judged ? right : '';
  verdict.textContent = judged ? `${right ? '✓' : '✗'} labelled ${label}` : label;
}

function remember(entry) {
  const small = element('canvas', {'aria-hidden': 'true'});
  drawPixels(small, entry.pixels, page.image_shape);
  const [best] = entry.predictions;
  const words = page.kind === 'regression' ? shownValue(best.value) : best.name;
  const button = element('button', {type: 'button', title: entry.name}, small,
    element('span', {class: 'name', dir: 'auto'}, words), element('span', {class: 'value'}, shownValue(best.value)));
  button.setAttribute('aria-label', summary(entry.name, entry.predictions));
  // Of earlier pictures the files are kept, which take less memory than pixels.
  button.addEventListener('click', async () => {
    camera.stop();
    const picture = entry.blob ? await decoded(entry.blob) : pictured(small, entry.width, entry.height);
    show(entry, previewOf(picture));
    announce(summary(entry.name, entry.predictions));
  });
  const list = byId('earlier-list');
  list.prepend(element('li', {}, button));
  while (list.children.length > KEPT) list.lastChild.remove();
  byId('earlier').hidden = list.children.length < 2;
}

function takeFiles(files) {
  const images = [...files];
  if (images.length) queue.then(() => complain(''));
  for (const file of images) take(file, printable(file.name) || 'pasted image');
}

// Choosing, dropping, pasting.
byId('choose').addEventListener('change', ({target}) => {
  takeFiles(target.files);
  target.value = '';  // so that the same file may be chosen again
});
let depth = 0;  // of elements that the pointer is over while it drags
const dragging = (change) => {
  depth = change === null ? 0 : Math.max(0, depth + change);
  document.body.classList.toggle('dragging', depth > 0);
};
const withFiles = (event) => event.dataTransfer?.types.includes('Files');
addEventListener('dragenter', (event) => { if (withFiles(event)) { event.preventDefault(); dragging(1); } });
addEventListener('dragleave', (event) => { if (withFiles(event)) dragging(-1); });
addEventListener('dragover', (event) => { if (withFiles(event)) event.preventDefault(); });
addEventListener('drop', (event) => {
  event.preventDefault();  // the browser would open the file in place of the page
  dragging(null);
  if (event.dataTransfer.files.length) takeFiles(event.dataTransfer.files);
  else complain('What was dropped is no file. Save the image first, or copy it and paste it here.');
});
addEventListener('paste', (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) takeFiles(files);
  else complain('There is no image on the clipboard.');
});

// Examples of the test split.
page.examples.forEach(({image, label}, i) => {
  const picture = element('img', {src: `data:image/png;base64,${image}`, alt: ''});
  const button = element('button', {type: 'button', 'aria-label': `Example ${i + 1}: ${label}`, title: label}, picture);
  picture.addEventListener('load', () => {
    if (Math.max(picture.naturalWidth, picture.naturalHeight) <= 128) picture.classList.add('enlarged');
  });
  button.addEventListener('click', () => takeExample(i));
  byId('example-list').append(element('li', {}, button));
});
byId('examples').hidden = !page.examples.length;
const count = page.examples.length;
byId('example-list').style.setProperty('--per-row', count <= 8 ? count : Math.min(8, Math.ceil(count / 2)));
byId('example-list').style.setProperty('--per-row-narrow', count < 5 ? count : count % 5 && count % 6 === 0 ? 6 : 5);

function takeExample(i) {
  const {image, label} = page.examples[i];
  return take(new Blob([fromBase64(image)], {type: 'image/png'}), `Example ${i + 1}`, label);
}

// The camera.
const video = byId('video');
let said = {name: '', time: 0};
let frame = null;
let latest = null;  // what is on the screen when it stops
const camera = makeCamera(video, {
  async onFrame(source) {
    const [width, height] = [source.videoWidth, source.videoHeight];
    // Its canvas serves until the size is another, as of a phone that is turned.
    if (frame?.width !== width || frame?.height !== height) frame = pictured(source, width, height);
    const blob = page.engine === 'server' ? await frameFile(frame) : null;
    const result = await classify(frame, blob);
    if (!camera.running()) return;
    latest = {...result, width, height};  // without a file
    showPicture(latest);
    showInput(latest.pixels, latest.time);
    showPredictions(latest.predictions);
    const rate = camera.rate();
    byId('rate').textContent = rate === null ? '' : `${rate.toFixed(rate < 10 ? 1 : 0)} frames/s`;
    document.body.dataset.frames = Number(document.body.dataset.frames ?? 0) + 1;
    const [best] = latest.predictions;
    if (best.name !== said.name && performance.now() - said.time > 3000) {  // not at every frame
      said = {name: best.name, time: performance.now()};
      announce(summary('Camera', latest.predictions));
    }
  },
  onStart(devices, current) {
    complain('');
    byId('stage').classList.add('live');
    byId('verdict').hidden = true;
    byId('source').textContent = 'Camera';
    byId('camera').setAttribute('aria-pressed', 'true');
    byId('camera').lastElementChild.textContent = 'Stop camera';
    byId('live').hidden = false;
    const choice = byId('device');
    choice.replaceChildren(...devices.map(({deviceId, label}, i) => {
      const option = element('option', {value: deviceId}, printable(label) || `Camera ${i + 1}`);
      option.selected = deviceId === current;
      return option;
    }));
    choice.closest('label').hidden = devices.length < 2;
    announce('The camera is on.');
  },
  onStop() {
    byId('stage').classList.remove('live');
    byId('camera').setAttribute('aria-pressed', 'false');
    byId('camera').lastElementChild.textContent = 'Use camera';
    byId('live').hidden = true;
    byId('rate').textContent = '';
    announce('The camera is off.');
    if (latest) freeze();
  },
  onProblem: complain,
});

// The last frame stays, as the network had it: the part of it that was seen, whole.
function freeze() {
  const input = byId('input');
  const entry = {...latest, width: input.width, height: input.height, name: 'Camera', label: null, blob: null};
  latest = null;
  show(entry, previewOf(pictured(input, input.width, input.height)));
  remember(entry);
}

function frameFile({source, width, height}) {
  const canvas = element('canvas', {width, height});
  canvas.getContext('2d').drawImage(source, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', 0.95));
}

byId('camera').addEventListener('click', () => (camera.running() ? camera.stop() : camera.start()));
byId('device').addEventListener('change', ({target}) => camera.start(target.value));
byId('mirror').addEventListener('change', ({target}) => video.classList.toggle('mirrored', target.checked));

// Something to see at once.
if (page.examples.length) takeExample(0);
engine.then(() => { document.body.dataset.ready = ''; }, () => {});
