// Small helpers of the page: finding and making elements, texts, messages.
const page = JSON.parse(document.getElementById('page').textContent);
const SHOWN = 5;  // classes of a prediction
const byId = (id) => document.getElementById(id);

// Makes an element; texts go in as text alone, whatever they hold.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A name of somebody else's: control characters and marks that reorder text as escapes.
function printable(name) {
  return name.replace(/[\p{Cc}\p{Cs}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (character) =>
    `\\u${character.codePointAt(0).toString(16).padStart(4, '0')}`);
}

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;

function milliseconds(time) {
  return time < 10 ? `${time.toFixed(1)} ms` : time < 1000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(1)} s`;
}

// Says something to a screen reader, once the reader has said what it is at.
function announce(text) {
  byId('announcement').textContent = text;
}

// Shows what went wrong, in words; '' takes it away.
function complain(text) {
  byId('problem').hidden = !text;
  byId('problem').textContent = text;
}

const sentence = (error) => {
  const text = String(error?.message ?? error).split('\n')[0].trim();
  return /[.!?]$/.test(text) ? text : `${text}.`;
};

// Prepares the engine, with a bar that says how far it is.
async function prepared() {
  if (page.engine === 'server') {
    byId('loading').hidden = true;
    return serverEngine();
  }
  const total = Object.values(page.files).reduce((sum, file) => sum + file.size, 0);
  const bar = byId('loading').querySelector('progress');
  let loaded = 0;
  if (!page.files.wasm) bar.removeAttribute('value');  // it is in the page: nothing to count
  try {
    const engine = await browserEngine((bytes) => {
      loaded += bytes;
      bar.value = Math.min(1, loaded / total);
    });
    byId('loading').hidden = true;
    return engine;
  } catch (error) {
    byId('loading').hidden = true;
    complain(`The network could not be loaded. ${sentence(error)}`);
    throw error;
  }
}

// Calls with the newest arguments only: those that wait while it is busy are replaced.
function newest(work) {
  let waiting = null;
  let busy = false;
  return async (...args) => {
    waiting = args;
    if (busy) return;
    busy = true;
    try {
      while (waiting) {
        const next = waiting;
        waiting = null;
        await work(...next);
      }
    } finally {
      busy = false;
    }
  };
}
