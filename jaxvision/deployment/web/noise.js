// Standard normal noise of a seed. It is another than that of `jaxvision sample` with the
// same seed, whose numbers come of JAX's threefry.

// sfc32 of PractRand (Doty-Humphrey): state (seed, 2^32 / golden ratio, pi's fraction, 1),
// of which 15 numbers are passed over.
function sfc32(seed) {
  let [a, b, c, counter] = [seed >>> 0, 0x9e3779b9, 0x243f6a88, 1];
  const next = () => {
    const sum = (((a + b) >>> 0) + counter) >>> 0;
    counter = (counter + 1) >>> 0;
    a = (b ^ (b >>> 9)) >>> 0;
    b = (c + (c << 3)) >>> 0;
    c = (((c << 21) | (c >>> 11)) + sum) >>> 0;
    return sum;
  };
  for (let i = 0; i < 15; i++) next();
  return next;
}

// Box and Muller's transform of pairs of uniform numbers (u + 1/2) / 2^32.
function normals(seed, count) {
  const next = sfc32(seed);
  const uniform = () => (next() + 0.5) / 2 ** 32;
  const out = new Float32Array(count + 1);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    out[i] = radius * Math.cos(angle);
    out[i + 1] = radius * Math.sin(angle);
  }
  return out.subarray(0, count);
}

// A point on the great circle from one vector to another, as `training.sampler.slerp`.
function slerp(start, end, share) {
  const product = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const cosine = product(start, end) / Math.sqrt(product(start, start) * product(end, end));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  const sine = Math.sin(angle);
  // One direction, or opposite ones: no circle is singled out.
  const [one, other] = sine < 1e-6 ?
    [1 - share, share] : [Math.sin((1 - share) * angle) / sine, Math.sin(share * angle) / sine];
  return start.map((value, i) => one * value + other * end[i]);
}
