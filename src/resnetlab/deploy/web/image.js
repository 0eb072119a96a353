// From an image to the pixels that the network takes, as data/decode.py makes them. No page is needed here.
"use strict";

const REDUCE = 4;
const BAND_PIXELS = 1 << 20;
const PRECISION = 22;
const TURNS = {2: [0, 1, 0], 3: [0, 1, 1], 4: [0, 0, 1], 5: [1, 0, 0], 6: [1, 0, 1], 7: [1, 1, 1], 8: [1, 1, 0]};

// How EXIF turns the image of a file, and its bytes without that orientation, so that no browser turns it too.
function readOrientation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (at, length) => String.fromCharCode(...bytes.subarray(at, at + length));
  const upright = {turn: [0, 0, 0], bytes};
  try {
    if (view.getUint16(0) === 0xffd8) {
      for (let at = 2; view.getUint8(at) === 0xff && view.getUint8(at + 1) !== 0xda; at += 2 + view.getUint16(at + 2)) {
        if (view.getUint8(at + 1) === 0xe1 && text(at + 4, 6) === "Exif\0\0") return uprightAt(at + 10);
      }
    } else if (text(1, 3) === "PNG") {
      for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
        if (text(at + 4, 4) !== "eXIf") continue;
        const rest = at + 12 + view.getUint32(at), found = uprightAt(at + 8);
        // A chunk has a checksum, so it is cut out rather than changed.
        const without = new Uint8Array(bytes.length - rest + at);
        without.set(bytes.subarray(0, at));
        without.set(bytes.subarray(rest), at);
        return {turn: found.turn, bytes: without};
      }
    } else if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") {
      for (let at = 12; at + 8 <= bytes.length; at += 8 + view.getUint32(at + 4, true) + view.getUint32(at + 4, true) % 2) {
        if (text(at, 4) === "EXIF") return uprightAt(at + (text(at + 8, 4) === "Exif" ? 14 : 8));
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // damaged EXIF says nothing about the pixels
  }
  return upright;

  function uprightAt(tiff) {
    const little = text(tiff, 2) === "II", first = tiff + view.getUint32(tiff + 4, little);
    for (let entry = 0; entry < view.getUint16(first, little); entry += 1) {
      const at = first + 2 + 12 * entry;
      if (view.getUint16(at, little) !== 0x0112) continue;
      const wide = view.getUint16(at + 2, little) === 4, copy = bytes.slice();
      const orientation = wide ? view.getUint32(at + 8, little) : view.getUint16(at + 8, little);
      const changed = new DataView(copy.buffer);
      if (wide) changed.setUint32(at + 8, 1, little); else changed.setUint16(at + 8, 1, little);
      return {turn: TURNS[orientation] || [0, 0, 0], bytes: copy};
    }
    return {turn: [0, 0, 0], bytes};
  }
}

// A source has width, height and rows(left, top, width, height), which gives RGB bytes. This one averages squares of
// another one's region, in Pillow's fixed-point numbers.
function reducedSource(source, factor, [left, top, right, bottom]) {
  const width = Math.ceil((right - left) / factor), height = Math.ceil((bottom - top) / factor);
  return {width, height, rows: (x, y, columns, lines) => {
    const [x0, y0] = [left + x * factor, top + y * factor];
    const wide = Math.min(right, x0 + columns * factor) - x0, high = Math.min(bottom, y0 + lines * factor) - y0;
    const whole = source.rows(x0, y0, wide, high);
    if (factor === 1) return whole;
    const small = new Uint8Array(columns * lines * 3);
    for (let row = 0; row < lines; row += 1) {
      const tall = Math.min(factor, high - row * factor);
      for (let column = 0; column < columns; column += 1) {
        const broad = Math.min(factor, wide - column * factor), n = tall * broad;
        const multiplier = Math.floor(Math.fround(2 ** 24 / n));
        for (let channel = 0; channel < 3; channel += 1) {
          let sum = n >> 1;
          for (let dy = 0; dy < tall; dy += 1) {
            let at = ((row * factor + dy) * wide + column * factor) * 3 + channel;
            for (let dx = 0; dx < broad; dx += 1, at += 3) sum += whole[at];
          }
          small[(row * columns + column) * 3 + channel] = Math.floor(sum * multiplier / 2 ** 24);
        }
      }
    }
    return small;
  }};
}

// Pillow's triangle filter: for each place of the result where its weights begin, and the weights in fixed point.
function filterWeights(size, begin, end, places) {
  const start = Math.fround(begin), scale = Math.fround(Math.fround(end) - start) / places, reach = Math.max(scale, 1);
  return Array.from({length: places}, (_, place) => {
    const center = start + (place + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - reach + 0.5)), high = Math.min(size, Math.trunc(center + reach + 0.5));
    const raw = Array.from({length: high - low}, (_, i) => Math.max(0, 1 - Math.abs((i + low - center + 0.5) / reach)));
    const sum = raw.reduce((total, weight) => total + weight, 0) || 1;
    return {low, weights: Int32Array.from(raw, (weight) => Math.trunc(0.5 + weight / sum * (1 << PRECISION)))};
  });
}

// One pass of the filter over RGB bytes: each result is a sum over n bytes that lie ``step`` apart.
function filterPass(weights, bytes, step, origin, into, at, stride) {
  for (const {low, weights: own} of weights) {
    for (let channel = 0; channel < 3; channel += 1) {
      let sum = 1 << (PRECISION - 1), from = origin + low * step + channel;
      for (let i = 0; i < own.length; i += 1, from += step) sum += bytes[from] * own[i];
      into[at + channel] = sum >> PRECISION;
    }
    at += stride;
  }
}

// What is left, in the image's own pixels, when the short side is resized to ``side`` and the middle is cut out.
function middleOf(width, height, side) {
  const short = Math.min(width, height);
  const edges = [width, height].map((length) => {
    const resized = Math.floor(side * length / short), twice = resized - side;
    const start = twice % 4 === 1 ? (twice - 1) / 2 : Math.ceil(twice / 2);  // half to even, as Python rounds
    return [start * length / resized, (start + side) * length / resized];
  });
  return [edges[0][0], edges[1][0], edges[0][1], edges[1][1]];
}

function inFile([left, top, right, bottom], [swap, columns, rows], width, height) {
  if (swap) [left, top, right, bottom] = [top, left, bottom, right];
  if (columns) [left, right] = [width - right, width - left];
  if (rows) [top, bottom] = [height - bottom, height - top];
  return [left, top, right, bottom];
}

// RGB bytes of a square of that side: the short side resized to it, and the middle cut out, the right way up. libjpeg
// shrinks a large JPEG while it decodes, for the decoder, and no browser does: a level of 255 apart, here and there.
function squareOf(source, side, turn) {
  const {width, height} = source;
  const box = turn[0] ? middleOf(height, width, side) : middleOf(width, height, side);
  return turned(resizedTo(source, inFile(box, turn, width, height), side), side, turn);
}

function resizedTo(source, [left, top, right, bottom], side) {
  const across = (right - left) / side, down = (bottom - top) / side;
  const region = [
    Math.max(0, Math.floor(left - across)), Math.max(0, Math.floor(top - down)),
    Math.min(source.width, Math.ceil(right + across)), Math.min(source.height, Math.ceil(bottom + down)),
  ];
  const factor = Math.max(1, Math.floor(Math.min(right - left, bottom - top) / (REDUCE * side)));
  const small = reducedSource(source, factor, region), {width: columns, height: rows} = small;
  const place = (edge, start, most) => Math.min((edge - start) / factor, most);
  const along = filterWeights(columns, place(left, region[0], columns), place(right, region[0], columns), side);
  const below = filterWeights(rows, place(top, region[1], rows), place(bottom, region[1], rows), side);
  const narrow = new Uint8Array(side * rows * 3), square = new Uint8Array(side * side * 3);
  const lines = Math.max(1, Math.floor(BAND_PIXELS / (columns * factor * factor)));
  for (let first = 0; first < rows; first += lines) {
    const count = Math.min(lines, rows - first), band = small.rows(0, first, columns, count);
    for (let row = 0; row < count; row += 1) {
      filterPass(along, band, 3, row * columns * 3, narrow, (first + row) * side * 3, 3);
    }
  }
  for (let column = 0; column < side; column += 1) {
    filterPass(below, narrow, side * 3, column * 3, square, column * 3, side * 3);
  }
  return square;
}

function turned(square, side, [swap, columns, rows]) {
  const upright = new Uint8Array(square.length);
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      let [row, column] = swap ? [x, y] : [y, x];
      if (rows) row = side - 1 - row;
      if (columns) column = side - 1 - column;
      upright.set(square.subarray((row * side + column) * 3, (row * side + column) * 3 + 3), (y * side + x) * 3);
    }
  }
  return upright;
}

// The pixels that the network takes, (side, side, channels).
function inChannels(square, channels) {
  if (channels === 3) return square;
  const grey = new Uint8Array(square.length / 3);
  for (let i = 0; i < grey.length; i += 1) {
    grey[i] = (19595 * square[3 * i] + 38470 * square[3 * i + 1] + 7471 * square[3 * i + 2] + 0x8000) >> 16;
  }
  return grey;
}
