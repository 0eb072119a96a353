// A network as a list of ONNX operations, computed for one image. A tensor is {shape, data}. No page is needed here.
"use strict";

const sizeOf = (shape) => shape.reduce((product, length) => product * length, 1);
const listOf = (tensor) => Array.from(tensor.data);

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function singleOfHalf(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return bits & 0x8000 ? -size : size;
}

// The operations with the constants of a program that deploy/web/program.py wrote.
function readProgram(program) {
  const data = bytesOf(program.data).buffer;
  const constants = program.constants.map(({name, shape, values, at, half}) => {
    const length = sizeOf(shape);
    if (values) return [name, {shape, data: Float32Array.from(values)}];
    return [name, {shape, data: half
      ? Float32Array.from(new Uint16Array(data, at, length), singleOfHalf) : new Float32Array(data, at, length)}];
  });
  const last = new Map(program.operations.flatMap(({inputs}, number) => inputs.map((name) => [name, number])));
  return {...program, constants, last};
}

// Computes the logits of pixels (side, side, channels). Every step is one operation, so that a page may pause between.
function* logitsOf(program, pixels) {
  const known = new Map(program.constants);
  known.set(program.input, {shape: program.shape, data: Float32Array.from(pixels)});
  for (const [number, {op, inputs, output, given}] of program.operations.entries()) {
    known.set(output, OPERATIONS[op](given, ...inputs.map((name) => known.get(name))));
    for (const name of inputs) if (program.last.get(name) === number) known.delete(name);
    yield;
  }
  return known.get(program.output).data;
}

// For every element of an array of that shape, row by row, where it lies at such strides.
function placesOf(shape, strides, start = 0) {
  const places = new Int32Array(sizeOf(shape));
  let filled = 1;
  places[0] = start;
  for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
    for (let i = 1; i < shape[axis]; i += 1) {
      for (let j = 0; j < filled; j += 1) places[i * filled + j] = places[j] + i * strides[axis];
    }
    filled *= shape[axis];
  }
  return places;
}

function stridesOf(shape) {
  const strides = shape.map(() => 1);
  for (let axis = shape.length - 2; axis >= 0; axis -= 1) strides[axis] = strides[axis + 1] * shape[axis + 1];
  return strides;
}

const taken = (x, shape, strides, start) => (
  {shape, data: Float32Array.from(placesOf(shape, strides, start), (at) => x.data[at])});
const each = (f) => (given, x) => ({shape: x.shape, data: x.data.map((value) => f(value, given))});
const reshaped = (x, shape) => ({shape, data: x.data});
const axisOf = (axis, x) => (axis < 0 ? axis + x.shape.length : axis);

function paired(f) {
  return (_, a, b) => {
    const rank = Math.max(a.shape.length, b.shape.length);
    const [first, second] = [a, b].map((x) => [...Array(rank - x.shape.length).fill(1), ...x.shape]);
    const shape = first.map((length, axis) => Math.max(length, second[axis]));
    const [left, right] = [first, second].map((own) => {
      const strides = stridesOf(own);
      return sizeOf(own) === sizeOf(shape) ? null : placesOf(shape, strides.map((stride, axis) => (own[axis] === 1 ? 0 : stride)));
    });
    const data = new Float32Array(sizeOf(shape));
    for (let i = 0; i < data.length; i += 1) data[i] = f(a.data[left ? left[i] : i], b.data[right ? right[i] : i]);
    return {shape, data};
  };
}

// value * scale[channel] + shift[channel]
function perChannel(x, scale, shift) {
  const size = sizeOf(x.shape.slice(2)), data = new Float32Array(x.data.length);
  for (let i = 0; i < data.length; i += 1) {
    const channel = Math.floor(i / size) % x.shape[1];
    data[i] = x.data[i] * scale[channel] + shift[channel];
  }
  return {shape: x.shape, data};
}

function padded(x, [top, left, bottom, right], value) {
  const [n, channels, height, width] = x.shape;
  if (!(top || left || bottom || right)) return x;
  const [high, wide] = [height + top + bottom, width + left + right];
  const data = new Float32Array(n * channels * high * wide).fill(value);
  for (let row = 0; row < n * channels * height; row += 1) {
    const [map, y] = [Math.floor(row / height), row % height];
    data.set(x.data.subarray(row * width, (row + 1) * width), (map * high + y + top) * wide + left);
  }
  return {shape: [n, channels, high, wide], data};
}

// Four filters at two places of a row at a time: a sum stays in a register, and a value is read once for four.
function convolved({strides: [down, across], pads, dilations: [rowStep, columnStep], group}, x, w, b) {
  const {shape: [, channels, height, width], data: maps} = padded(x, pads, 0);
  const [filters, part, tall, broad] = w.shape;
  const rows = Math.floor((height - rowStep * (tall - 1) - 1) / down) + 1;
  const columns = Math.floor((width - columnStep * (broad - 1) - 1) / across) + 1;
  const taps = placesOf([part, tall, broad], [height * width, rowStep * width, columnStep]);
  const n = taps.length, own = filters / group, data = new Float32Array(filters * rows * columns);
  const four = new Float32Array(4 * n);
  for (let first = 0; first < filters; first += Math.min(4, own - first % own)) {
    const count = Math.min(4, own - first % own), map = Math.floor(first / own) * part * height * width;
    four.fill(0);
    for (let k = 0; k < count; k += 1) for (let i = 0; i < n; i += 1) four[4 * i + k] = w.data[(first + k) * n + i];
    const bias = [0, 1, 2, 3].map((k) => (b && k < count ? b.data[first + k] : 0));
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 2) {
        const at = map + row * down * width + column * across, next = column + 1 < columns ? at + across : at;
        let [p0, p1, p2, p3] = bias, [q0, q1, q2, q3] = bias;
        for (let i = 0, j = 0; i < n; i += 1, j += 4) {
          const p = maps[at + taps[i]], q = maps[next + taps[i]];
          const w0 = four[j], w1 = four[j + 1], w2 = four[j + 2], w3 = four[j + 3];
          p0 += p * w0; p1 += p * w1; p2 += p * w2; p3 += p * w3;
          q0 += q * w0; q1 += q * w1; q2 += q * w2; q3 += q * w3;
        }
        const sums = [p0, p1, p2, p3, q0, q1, q2, q3];
        for (let k = 0; k < count; k += 1) {
          const into = ((first + k) * rows + row) * columns + column;
          data[into] = sums[k];
          if (column + 1 < columns) data[into + 1] = sums[4 + k];
        }
      }
    }
  }
  return {shape: [1, filters, rows, columns], data};
}

// ``empty`` begins each window; what lies outside the image counts for nothing, or as 0 where ``outside`` says so.
function pooled({strides: [down, across], pads: [top, left, bottom, right], kernel_shape: [tall, broad], ceil_mode: up}, x, mean, outside) {
  const [n, channels, height, width] = x.shape;
  const count = (length, before, after, kernel, step) => {
    const found = Math[up ? "ceil" : "floor"]((length + before + after - kernel) / step) + 1;
    return up && (found - 1) * step >= length + before ? found - 1 : found;
  };
  const rows = count(height, top, bottom, tall, down), columns = count(width, left, right, broad, across);
  const data = new Float32Array(n * channels * rows * columns);
  for (let i = 0; i < data.length; i += 1) {
    const column = i % columns, row = Math.floor(i / columns) % rows, map = Math.floor(i / columns / rows);
    const [y0, x0] = [row * down - top, column * across - left];
    const [y1, x1] = [Math.min(y0 + tall, height + bottom), Math.min(x0 + broad, width + right)];
    let sum = 0, most = -Infinity, inside = 0;
    for (let y = Math.max(0, y0); y < Math.min(y1, height); y += 1) {
      for (let at = Math.max(0, x0); at < Math.min(x1, width); at += 1) {
        const value = x.data[(map * height + y) * width + at];
        sum += value; inside += 1;
        if (value > most) most = value;
      }
    }
    data[i] = mean ? sum / (outside ? (y1 - y0) * (x1 - x0) : inside) : most;
  }
  return {shape: [n, channels, rows, columns], data};
}

function multiplied(a, b, transposed, bias) {
  const inner = a.shape[a.shape.length - 1], rows = a.data.length / inner;
  const columns = b.shape[transposed ? 0 : 1], data = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      let sum = bias ? bias.data[column % bias.data.length] : 0;
      for (let i = 0; i < inner; i += 1) {
        sum += a.data[row * inner + i] * b.data[transposed ? column * inner + i : i * columns + column];
      }
      data[row * columns + column] = sum;
    }
  }
  return {shape: [...a.shape.slice(0, -1), columns], data};
}

function mean(x, axes, keep) {
  const own = axes.map((axis) => axisOf(axis, x));
  const kept = x.shape.map((length, axis) => (own.includes(axis) ? 1 : length)), strides = stridesOf(kept);
  const places = placesOf(x.shape, strides.map((stride, axis) => (own.includes(axis) ? 0 : stride)));
  const sums = new Float64Array(sizeOf(kept)), n = x.data.length / sums.length;
  for (let i = 0; i < places.length; i += 1) sums[places[i]] += x.data[i];
  return {shape: keep ? kept : kept.filter((_, axis) => !own.includes(axis)), data: Float32Array.from(sums, (sum) => sum / n)};
}

// Its series; no term of it is large within 5, and beyond it is 1 to twelve digits.
function erf(x) {
  const size = Math.abs(x);
  if (size > 5) return Math.sign(x);
  let term = size, sum = size;
  for (let n = 1; n < 120; n += 1) { term *= -size * size / n; sum += term / (2 * n + 1); }
  return Math.sign(x) * sum * 2 / Math.sqrt(Math.PI);
}

const OPERATIONS = {
  Add: paired((a, b) => a + b),
  Sub: paired((a, b) => a - b),
  Mul: paired((a, b) => a * b),
  Div: paired((a, b) => a / b),
  Relu: each((value) => (value > 0 ? value : 0)),
  LeakyRelu: each((value, {alpha}) => (value < 0 ? alpha * value : value)),
  Elu: each((value, {alpha}) => (value < 0 ? alpha * Math.expm1(value) : value)),
  Gelu: each((value) => value * (1 + erf(value / Math.SQRT2)) / 2),
  Erf: each(erf),
  Sigmoid: each((value) => 1 / (1 + Math.exp(-value))),
  Tanh: each(Math.tanh),
  Cast: (_, x) => x,
  Identity: (_, x) => x,
  Conv: convolved,
  Gemm: (given, a, b, c) => multiplied(a, b, given.transB, c),
  MatMul: (_, a, b) => multiplied(a, b, 0),
  MaxPool: (given, x) => pooled(given, x, false),
  AveragePool: (given, x) => pooled(given, x, true, given.count_include_pad),
  GlobalAveragePool: (_, x) => mean(x, x.shape.map((_, axis) => axis).slice(2), 1),
  ReduceMean: (given, x, axes) => mean(x, listOf(axes), given.keepdims),
  BatchNormalization: ({epsilon}, x, scale, shift, means, variances) => {
    const factor = scale.data.map((value, k) => value / Math.sqrt(variances.data[k] + epsilon));
    return perChannel(x, factor, factor.map((value, k) => shift.data[k] - means.data[k] * value));
  },
  InstanceNormalization: ({epsilon}, x, scale, shift) => {
    const axes = x.shape.map((_, axis) => axis).slice(2), means = mean(x, axes, 1).data;
    const apart = perChannel(x, means.map(() => 1), means.map((value) => -value));
    const factor = mean({shape: x.shape, data: apart.data.map((value) => value * value)}, axes, 1).data
      .map((value, k) => scale.data[k] / Math.sqrt(value + epsilon));
    return perChannel(apart, factor, shift.data);
  },
  Transpose: ({perm}, x) => {
    const strides = stridesOf(x.shape);
    return taken(x, perm.map((axis) => x.shape[axis]), perm.map((axis) => strides[axis]));
  },
  Reshape: (given, x, to) => {
    const shape = listOf(to).map((length, axis) => (length === 0 && !given.allowzero ? x.shape[axis] : length));
    return reshaped(x, shape.map((length) => (length < 0 ? x.data.length / Math.abs(sizeOf(shape)) : length)));
  },
  Flatten: ({axis}, x) => reshaped(x, [sizeOf(x.shape.slice(0, axis)), sizeOf(x.shape.slice(axis))]),
  Squeeze: (_, x, axes) => reshaped(x, x.shape.filter((_, axis) => !listOf(axes).some((one) => axisOf(one, x) === axis))),
  Slice: (_, x, starts, ends, axes, steps) => {
    const shape = [...x.shape], strides = stridesOf(x.shape);
    let start = 0;
    listOf(axes).forEach((one, i) => {
      const axis = axisOf(one, x), length = x.shape[axis], step = steps ? steps.data[i] : 1;
      const edge = (value) => Math.min(length, Math.max(0, value < 0 ? value + length : value));
      shape[axis] = Math.ceil((edge(ends.data[i]) - edge(starts.data[i])) / step);
      start += edge(starts.data[i]) * strides[axis];
      strides[axis] *= step;
    });
    return taken(x, shape, strides, start);
  },
  Pad: (_, x, pads, value) => {
    const rank = x.shape.length, before = listOf(pads);
    const shape = x.shape.map((length, axis) => length + before[axis] + before[axis + rank]);
    const strides = stridesOf(shape), start = before.slice(0, rank).reduce((sum, n, axis) => sum + n * strides[axis], 0);
    const data = new Float32Array(sizeOf(shape)).fill(value ? value.data[0] : 0);
    placesOf(x.shape, strides, start).forEach((at, i) => { data[at] = x.data[i]; });
    return {shape, data};
  },
};
