// The page of a generator: one image of a seed and a class, the way to another seed, and
// samples of the seeds from there on.
const SAMPLES = 24;
const STEPS = 9;  // images on the way, both ends included
const SEEDS = 10000;
const BESIDE = 20;  // classes drawn beside one another; the page says so

const engine = prepared();
engine.catch(() => {});
const [rows, columns] = page.image_shape;
const area = page.image_shape.reduce((product, size) => product * size, 1);
const conditional = page.class_names.length > 0;
const inBrowser = page.engine !== 'server';

const state = {seed: 0, other: 1, share: 0, label: conditional ? 0 : null, first: 0};

const noiseOf = (seed) => normals(seed, page.latent);
const className = (label) => (label === null ? '' : page.class_names[label]);
const describe = (seed, label) => `seed ${seed}${label === null ? '' : `, ${className(label)}`}`;

// Draws images for rows of noise, each onto a canvas of its own.
async function drawOnto(canvases, noises, labels) {
  const noise = new Float32Array(noises.length * page.latent);
  noises.forEach((row, i) => noise.set(row, i * page.latent));
  const pixels = await (await engine).draw(noise, labels.map((label) => label ?? 0), noises.length);
  canvases.forEach((canvas, i) => drawPixels(canvas, pixels.subarray(i * area, (i + 1) * area), page.image_shape));
}

// Of a server: a file for each seed and class.
async function drawServed(canvases, seeds, labels) {
  const ready = await engine;
  for (const [i, canvas] of canvases.entries()) {
    const {source, width, height} = await decoded(await ready.sample(seeds[i], labels[i]));
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext('2d').drawImage(source, 0, 0);
    source.close?.();
  }
}

const drawSeeds = (canvases, seeds, labels) => (inBrowser ?
  drawOnto(canvases, seeds.map(noiseOf), labels) : drawServed(canvases, seeds, labels));

// A list of images that are buttons.
function tiles(list, count, pick) {
  const canvases = Array.from({length: count}, (_, i) => {
    const canvas = element('canvas', {width: columns, height: rows});
    const button = element('button', {type: 'button'}, canvas, element('span', {class: 'name', dir: 'auto'}));
    button.addEventListener('click', () => pick(i));
    list.append(element('li', {}, button));
    return canvas;
  });
  const label = (i, text, shown) => {
    const button = canvases[i].parentElement;
    button.setAttribute('aria-label', text);
    button.title = text;
    button.lastChild.textContent = shown;
  };
  return {canvases, label};
}

const failed = (error) => complain(`The image could not be drawn. ${sentence(error)}`);
const guarded = (work) => newest(async (...args) => {
  try {
    await work(...args);
    complain('');
  } catch (error) {
    if (await engine.then(() => true, () => false)) failed(error);
  }
});

// The image in large.
const main = byId('sample');
[main.width, main.height] = [columns, rows];
if (Math.max(rows, columns) <= 256) main.classList.add('enlarged');
let counted = 0;

const drawMain = guarded(async () => {
  const {seed, other, share, label} = state;
  await engine;
  const begin = performance.now();
  if (share > 0) await drawOnto([main], [slerp(noiseOf(seed), noiseOf(other), share)], [label]);
  else await drawSeeds([main], [seed], [label]);
  byId('time').textContent = milliseconds(performance.now() - begin);
  const words = share > 0 ? `${percent(share, 0)} of the way from seed ${seed} to ${other}` : `seed ${seed}`;
  byId('caption').textContent = label === null ? words : `${className(label)}, ${words}`;
  main.setAttribute('aria-label', `Drawn image: ${byId('caption').textContent}`);
  document.body.dataset.done = ++counted;
});

// Samples of following seeds.
const samples = tiles(byId('samples'), inBrowser ? SAMPLES : SAMPLES / 2, (i) => setSeed(state.first + i));
const drawSamples = guarded(async () => {
  const {first, label} = state;
  const seeds = samples.canvases.map((_, i) => first + i);
  await drawSeeds(samples.canvases, seeds, seeds.map(() => label));
  seeds.forEach((seed, i) => samples.label(i, describe(seed, label), String(seed)));
  byId('range').textContent = `Seeds ${first} to ${seeds.at(-1)}`;
  byId('previous').disabled = first === 0;
  document.body.dataset.samples = first;
});

// The same seed in every class.
const classes = conditional ? page.class_names.slice(0, BESIDE) : [];
const variants = tiles(byId('classes'), classes.length, (i) => setLabel(i));
byId('variants').hidden = !classes.length;
classes.forEach((name, i) => variants.label(i, name, name));
const drawClasses = guarded(async () => {
  if (!classes.length) return;
  const {seed} = state;
  await drawSeeds(variants.canvases, classes.map(() => seed), classes.map((_, i) => i));
  variants.canvases.forEach((canvas, i) => canvas.parentElement.setAttribute('aria-pressed', String(i === state.label)));
});

// The way to another seed.
const way = tiles(byId('way'), inBrowser ? STEPS : 0, (i) => setShare(i / (STEPS - 1)));
byId('travel').hidden = !inBrowser;
const drawWay = guarded(async () => {
  if (!inBrowser) return;
  const {seed, other, label} = state;
  const [start, end] = [noiseOf(seed), noiseOf(other)];
  const shares = way.canvases.map((_, i) => i / (STEPS - 1));
  await drawOnto(way.canvases, shares.map((share) => slerp(start, end, share)), shares.map(() => label));
  shares.forEach((share, i) => way.label(i, `${percent(share, 0)} of the way`, ''));
});

// What is set, and what it changes.
const whole = (value) => Math.min(SEEDS - 1, Math.max(0, Math.round(Number(value)) || 0));

function setSeed(value) {
  state.seed = whole(value);
  byId('seed').value = byId('seed-number').value = state.seed;
  setShare(0);
  drawClasses();
  drawWay();
}

function setOther(value) {
  state.other = whole(value);
  byId('other').value = byId('other-number').value = state.other;
  drawWay();
  drawMain();
}

function setShare(value) {
  state.share = value;
  byId('share').value = Math.round(100 * value);
  byId('share').setAttribute('aria-valuetext', `${percent(value, 0)} of the way to the other seed`);
  drawMain();
}

function setLabel(label) {
  state.label = label;
  byId('class').value = label;
  variants.canvases.forEach((canvas, i) => canvas.parentElement.setAttribute('aria-pressed', String(i === label)));
  drawMain();
  drawWay();
  drawSamples();
}

function setFirst(first) {
  state.first = Math.max(0, Math.min(SEEDS - samples.canvases.length, first));
  drawSamples();
}

byId('class').append(...page.class_names.map((name, i) => element('option', {value: i}, name)));
byId('class').closest('label').hidden = !conditional;
byId('class').addEventListener('change', ({target}) => setLabel(Number(target.value)));
for (const [id, set] of [['seed', setSeed], ['other', setOther]]) {
  byId(id).addEventListener('input', ({target}) => set(target.value));
  byId(`${id}-number`).addEventListener('change', ({target}) => set(target.value));
}
byId('share').addEventListener('input', ({target}) => { stopPlaying(); setShare(Number(target.value) / 100); });
byId('random').addEventListener('click', () => {
  setSeed(crypto.getRandomValues(new Uint32Array(1))[0] % SEEDS);
  announce(`Drawn: ${describe(state.seed, state.label)}`);
});
byId('previous').addEventListener('click', () => setFirst(state.first - samples.canvases.length));
byId('next').addEventListener('click', () => setFirst(state.first + samples.canvases.length));

// There and back, four seconds each way; where motion is unwelcome, in single steps.
let playing = null;
const still = matchMedia('(prefers-reduced-motion: reduce)');

function stopPlaying() {
  cancelAnimationFrame(playing);
  clearTimeout(playing);
  playing = null;
  byId('play').textContent = 'Play';
  byId('play').setAttribute('aria-pressed', 'false');
}

byId('play').addEventListener('click', () => {
  if (playing !== null) { stopPlaying(); return; }
  byId('play').textContent = 'Stop';
  byId('play').setAttribute('aria-pressed', 'true');
  const begin = performance.now() - 4000 * state.share;
  const step = () => {
    const place = ((performance.now() - begin) / 4000) % 2;
    const share = place < 1 ? place : 2 - place;
    setShare(still.matches ? Math.round(share * (STEPS - 1)) / (STEPS - 1) : share);
    playing = still.matches ? setTimeout(step, 1000) : requestAnimationFrame(step);
  };
  step();
});

byId('save').addEventListener('click', () => main.toBlob((blob) => {
  const link = element('a', {href: URL.createObjectURL(blob), download: `sample-${state.seed}.png`});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}));

setSeed(0);
setFirst(0);
engine.then(() => { document.body.dataset.ready = ''; }, () => {});
