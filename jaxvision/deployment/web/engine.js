// What runs the network: onnxruntime-web in this page, or the server that the page is of.
//   classify(blob, pixels) -> [{name, value}, ...], the best first
//   draw(noise, labels, count) -> uint8 [count * H * W * C]

// Bytes of a data block of this page, or of a file beside it; what gzip packed is unpacked
// as it comes (a server may have done so on the way).
async function bytesOf(name, report) {
  const block = document.getElementById(name);
  const stream = block ? new Blob([fromBase64(block.textContent)]).stream() : await opened(page.files[name], report);
  block?.remove();
  const reader = stream.getReader();
  const {value: first = new Uint8Array()} = await reader.read();
  const whole = new ReadableStream({
    start: (controller) => controller.enqueue(first),
    async pull(controller) {
      const {value, done} = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  });
  const packed = first[0] === 0x1f && first[1] === 0x8b;
  const unpacked = packed ? whole.pipeThrough(new DecompressionStream('gzip')) : whole;
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

function fromBase64(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// The content of a file beside the page, of which each part is reported.
async function opened({name}, report) {
  let answer;
  try {
    answer = await fetch(name);
  } catch {
    throw new Error(location.protocol === 'file:' ?
      'A browser does not let a page read the files beside it. Serve this folder ' +
      '(python3 -m http.server), or export it again with --single-file.' :
      `${name} did not load: the connection failed. Reload the page to try again.`);
  }
  if (!answer.ok) throw new Error(`${name} did not load: the server answers ${answer.status}.`);
  return answer.body.pipeThrough(new TransformStream({
    transform(part, controller) {
      report?.(part.length);
      controller.enqueue(part);
    },
  }));
}

async function browserEngine(report) {
  if (typeof WebAssembly !== 'object') {
    throw new Error('This browser has no WebAssembly, which runs the network. Any browser of 2023 or later has it.');
  }
  if (typeof ort !== 'object') throw new Error('The script of onnxruntime-web is missing beside this page.');
  const glue = page.files.glue ? null : await bytesOf('glue');
  const [wasm, model] = await Promise.all([bytesOf('wasm', report), bytesOf('model', report)]);
  ort.env.logLevel = 'error';
  ort.env.wasm.proxy = false;
  // Threads need memory that is shared, which browsers give to isolated pages alone.
  ort.env.wasm.numThreads = !glue && crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.wasmPaths = {
    mjs: glue ? URL.createObjectURL(new Blob([glue], {type: 'text/javascript'})) :
      new URL(page.files.glue.name, location.href).href,
  };
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ['wasm'], graphOptimizationLevel: 'all', logSeverityLevel: 3,
  });
  const run = async (count, inputs, output) => {
    const feeds = {};
    for (const name of session.inputNames) {
      const [type, shape, values] = inputs[name];
      feeds[name] = new ort.Tensor(type, values, [count, ...shape]);
    }
    return (await session.run(feeds, [output]))[output].data;
  };
  const made = {
    classify: async (blob, pixels) =>
      ranked(await run(1, {images: ['uint8', page.image_shape, pixels]}, page.output)),
    draw: (noise, labels, count) => run(count, {
      noise: ['float32', [page.latent], noise],
      labels: ['int32', [], Int32Array.from(labels)],
    }, 'images'),
  };
  // The first image takes longer, as the browser compiles what it needs; this is it.
  if (page.kind === 'generator') await made.draw(new Float32Array(page.latent).fill(0.1), [0], 1);
  else await made.classify(null, new Uint8Array(page.image_shape.reduce((area, side) => area * side)));
  return made;
}

function ranked(values) {
  const named = Array.from(values, (value, i) => ({name: page.class_names[i], value}));
  return page.kind === 'regression' ? named : named.sort((one, other) => other.value - one.value);
}

// See `page` in rendering.py for what the server answers.
function serverEngine() {
  const ask = async (url, options) => {
    let answer;
    try {
      answer = await fetch(url, options);
    } catch {
      throw new Error('the server does not answer');
    }
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => ({}));
    throw new Error(typeof said.error === 'string' ? said.error : `the server answers ${answer.status}`);
  };
  const shown = page.kind === 'regression' ? page.class_names.length : SHOWN;
  return {
    async classify(blob) {
      const headers = {'Content-Type': /^image\//.test(blob.type) ? blob.type : 'application/octet-stream'};
      const answer = await ask(`predict?top=${shown}`, {method: 'POST', headers, body: blob});
      const {predictions} = (await answer.json()).images[0];
      const named = predictions.map((one) => ({name: one.class, value: one.probability ?? one.value}));
      const place = new Map(page.class_names.map((name, i) => [name, i]));
      return page.kind === 'regression' ? named.sort((one, other) => place.get(one.name) - place.get(other.name)) : named;
    },
    async sample(seed, label) {
      const query = new URLSearchParams({seed, count: 1, ...(label === null ? {} : {class: page.class_names[label]})});
      return (await ask(`sample?${query}`)).blob();
    },
  };
}
