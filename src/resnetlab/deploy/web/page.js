// The page: images that come in, one after the other, and their answers.
"use strict";

const MOST_PIXELS = 50e6;
const EXAMPLES = 8;
const NETWORK = JSON.parse(document.getElementById("network").textContent);
const PROGRAM = NETWORK.program && readProgram(NETWORK.program);
const find = (name) => document.getElementById(name);
const pause = () => new Promise((resolve) => setTimeout(resolve));

function make(tag, given = {}, ...children) {
  const node = Object.assign(document.createElement(tag), given);
  node.append(...children);
  return node;
}

// RGB bytes of an opened image, on white, a part at a time: some canvases are limited to a few million pixels.
function sourceOf(bitmap) {
  const {width, height} = bitmap;
  return {width, height, rows: (left, top, wide, high) => {
    const canvas = make("canvas", {width: wide, height: high});
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.fillStyle = "white";
    context.fillRect(0, 0, wide, high);
    context.drawImage(bitmap, -left, -top);
    const {data} = context.getImageData(0, 0, wide, high), bytes = new Uint8Array(wide * high * 3);
    for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
      bytes[to] = data[from]; bytes[to + 1] = data[from + 1]; bytes[to + 2] = data[from + 2];
    }
    return bytes;
  }};
}

// The square that the network sees, in RGB.
async function seen(blob) {
  const {turn, bytes} = readOrientation(new Uint8Array(await blob.arrayBuffer()));
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes], {type: blob.type}), {colorSpaceConversion: "none", premultiplyAlpha: "none"});
  } catch {
    throw new Error("this browser cannot read it as an image; JPEG, PNG, WebP, GIF and BMP are read");
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    throw new Error(`it has ${bitmap.width} × ${bitmap.height} pixels; up to 50 million are read`);
  }
  const square = squareOf(sourceOf(bitmap), NETWORK.side, turn);
  bitmap.close();
  return square;
}

async function computed(square) {
  const steps = logitsOf(PROGRAM, inChannels(square, NETWORK.channels));
  let started = performance.now(), step = steps.next();
  while (!step.done) {
    if (performance.now() - started > 40) {
      await pause();  // so that the page can be scrolled meanwhile
      started = performance.now();
    }
    step = steps.next();
  }
  return step.value;
}

function probable(logits) {
  const most = Math.max(...logits), weights = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  const order = weights.map((_, k) => k).sort((a, b) => weights[b] - weights[a] || a - b).slice(0, NETWORK.top);
  return order.map((k) => ({class: NETWORK.classes[k], probability: weights[k] / sum}));
}

async function asked(blob) {
  const answer = await fetch(`predict?top=${NETWORK.top}`, {method: "POST", body: blob}).catch(() => null);
  if (!answer) throw new Error("the server does not answer");
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error || `the server answers ${answer.status}`);
  return said.predictions;
}

function painted(square) {
  const {side, channels} = NETWORK, canvas = make("canvas", {width: side, height: side});
  const image = new ImageData(side, side), grey = channels === 1 && inChannels(square, 1);
  for (let i = 0; i < side * side; i += 1) {
    for (let k = 0; k < 3; k += 1) image.data[4 * i + k] = grey ? grey[i] : square[3 * i + k];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.classList.toggle("small", side < 128);
  return canvas;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function showAnswer(card, name, square, predictions) {
  const canvas = square ? painted(square) : make("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", square ? `${name} as the network sees it` : `${name}, which this browser cannot show`);
  const bars = predictions.map(({class: label, probability}) => {
    const bar = make("i");
    bar.style.width = `${100 * probability}%`;
    return make("li", {}, make("span", {textContent: label}), make("span", {className: "share", textContent: percent(probability)}),
      make("span", {className: "track"}, bar));
  });
  const answer = predictions.length ? predictions[0].class : "no answer: the network gave a NaN";
  card.replaceChildren(canvas, make("h2", {textContent: answer}), make("p", {className: "soft", textContent: name}),
    make("ol", {className: "bars"}, ...bars));
  find("said").textContent = `${name}: ${answer}${predictions.length ? `, ${percent(predictions[0].probability)}` : ""}`;
}

function showFailure(card, name, error) {
  card.className = "card failed";
  card.replaceChildren(make("h2", {textContent: name}), make("p", {textContent: error.message}));
  find("said").textContent = `${name}: ${error.message}`;
}

// Images wait here; what the user gives goes before the rest of the check.
const waiting = [];
let busy = false;

async function work() {
  if (busy) return;
  busy = true;
  for (let job = waiting.shift(); job; job = waiting.shift()) {
    await job();
    await pause();
  }
  busy = false;
}

function classify(name, blob) {
  const card = make("li", {className: "card"}, make("h2", {className: "soft", textContent: "…"}), make("p", {textContent: name}));
  find("results").prepend(card);
  return new Promise((resolve) => {
    const last = waiting.findIndex((job) => job.check);
    waiting.splice(last < 0 ? waiting.length : last, 0, async () => {
      let predictions = [];
      try {
        // A server reads kinds of files that a browser does not show, and says itself what is no image.
        const square = PROGRAM ? await seen(blob) : await seen(blob).catch(() => null);
        const logits = PROGRAM && await computed(square);
        if (!logits) predictions = await asked(blob);
        else if (logits.every(Number.isFinite)) predictions = probable(logits);
        showAnswer(card, name, square, predictions);
        resolve({logits: logits && Array.from(logits), predictions});
      } catch (error) {
        showFailure(card, name, error);
        resolve({error: error.message});
      }
    });
    work();
  });
}

function take(files) {
  return Promise.all(Array.from(files, (file) => classify(file.name || "pasted image", file)));
}

function report(kind, bold, rest) {
  const check = find("check");
  check.className = `check ${kind}`;
  check.lastElementChild.replaceChildren(make("b", {textContent: bold}), rest);
}

function checkGolden() {
  const {golden, largest, tolerance} = NETWORK, wrong = [];
  let worst = 0, done = 0;
  for (const image of golden) {
    const blob = new Blob([bytesOf(image.png)], {type: "image/png"});
    waiting.push(Object.assign(async () => {
      let difference = Infinity, same = false;
      try {
        const square = await seen(blob), logits = await computed(square);
        difference = Math.max(...logits.map((logit, k) => Math.abs(logit - image.logits[k]))) / largest;
        same = NETWORK.classes[logits.indexOf(Math.max(...logits))] === image.answer;
        if (find("examples").children.length < EXAMPLES) {
          const button = make("button", {type: "button", title: image.label, onclick: () => classify(`${image.name}, true class: ${image.label}`, blob)}, painted(square));
          button.setAttribute("aria-label", `Classify ${image.name}, true class: ${image.label}`);
          find("examples").append(make("li", {}, button));
        }
      } catch (error) {
        console.warn(image.name, error);
      }
      worst = Math.max(worst, difference);
      if (!(difference <= tolerance && same)) wrong.push(image.name);
      done += 1;
      const rest = `, within ${worst.toExponential(1)} of the largest logit (${tolerance.toExponential(1)} is allowed)`;
      if (done < golden.length) find("check").lastElementChild.textContent = `Checking the golden images: ${done} of ${golden.length} …`;
      else if (!wrong.length) report("right", `${done} of ${done} golden images agree`, rest);
      else report("wrong", `${done - wrong.length} of ${done} golden images agree`, `. This browser computes otherwise: do not trust the answers. Wrong, by up to ${worst.toExponential(1)} of the largest logit (${tolerance.toExponential(1)} is allowed): ${wrong.slice(0, 5).join(", ")}`);
    }, {check: true}));
  }
  return work();
}

async function checkServer() {
  const answer = await fetch("readyz").catch(() => null);
  if (answer && answer.ok) return report("right", "The server is ready", ": its golden images agree");
  const said = answer ? (await answer.json().catch(() => ({}))).error : "it does not answer";
  report("wrong", "The server is not ready", said ? `: ${said}` : "");
  return setTimeout(checkServer, 2000);
}

find("choose").addEventListener("change", ({target}) => {
  take(target.files);
  target.value = "";
});
document.addEventListener("paste", ({clipboardData}) => take(clipboardData.files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
if (PROGRAM) checkGolden(); else checkServer();
