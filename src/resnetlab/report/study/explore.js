// Two conditions of a study side by side: chosen in the form or by the address, drawn from the numbers in the page.
"use strict";

const STUDY = JSON.parse(document.getElementById("study").textContent);
const SIDES = ["first", "second"];
const NAMES = {first: "First", second: "Second"};
const OVER = {epochs: "epoch", steps: "steps of the optimizer", blocks: "block, from the input on"};
const CONDITIONS = new Map(STUDY.conditions.map((condition) => [condition.place.join(), condition]));
const find = (name) => document.getElementById(name);
const known = (values) => values.filter((value) => value !== null && value !== undefined);
const least = (values) => values.reduce((found, value) => Math.min(found, value), Infinity);
const most = (values) => -least(values.map((value) => -value));

function make(tag, given = {}, ...children) {
  const node = Object.assign(document.createElement(tag), given);
  node.append(...children);
  return node;
}

function draw(tag, given = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Numbers as text.

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}
const percent = (value) => value.toFixed(2);
const signed = (value) => `${value > 0 ? "+" : ""}${value.toFixed(1)}`;
const bounds = ({low, high}) => `[${(100 * low).toFixed(0)}, ${(100 * high).toFixed(0)}] %`;
const counted = (share) => (share ? `${share.count} of ${share.n} ${bounds(share)}` : "–");
const power = (exponent) => `10${String(exponent).replace(/./g, (letter) => (letter === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[letter]))}`;

function median(values) {
  const sorted = known(values).sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length === 0 ? null : sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

// The median and, of several values that differ, the range.
function ranged(values, write) {
  const there = known(values);
  if (!there.length) return "–";
  const [low, high] = [least(there), most(there)];
  return low === high ? write(low) : `${write(median(there))} [${write(low)}, ${write(high)}]`;
}

// What is chosen, and how an address says it: shortcut=none,default&depth=56 has a value for both sides, or one for each.

const chosen = (side) => STUDY.axes.map((_, k) => find(`${side}-${k}`).selectedIndex);
const conditionOf = (side) => CONDITIONS.get(chosen(side).join());
const wordsOf = (side) => chosen(side).map((place, k) => `${STUDY.axes[k].word} ${STUDY.axes[k].words[place]}`).join(", ");

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// Half of a pair, as of bytes that are no UTF-8, has no code.
const encoded = (text) => encodeURIComponent(text.replace(/\p{Cs}/gu, "\ufffd"));

function choose(first, second) {
  first.forEach((place, k) => (find(`first-${k}`).selectedIndex = place));
  second.forEach((place, k) => (find(`second-${k}`).selectedIndex = place));
}

// Choose what the address asks for; gives what of it the study has not.
function followAddress() {
  const [first, second] = STUDY.view.map((places) => [...places]), unknown = [];
  let both = false;
  for (const part of location.hash.slice(1).split("&").filter((text) => text.includes("="))) {
    const name = decoded(part.slice(0, part.indexOf("="))), values = part.slice(part.indexOf("=") + 1).split(",").map(decoded);
    const axis = STUDY.axes.findIndex((one) => one.name === name || one.word === name);
    const along = STUDY.axes.findIndex((one) => one.name === values[0] || one.word === values[0]);
    const places = axis < 0 ? [] : values.map((value) => Math.max(STUDY.axes[axis].values.indexOf(value), STUDY.axes[axis].words.indexOf(value)));
    if (name === "along" && axis < 0 && along >= 0 && find("along")) find("along").selectedIndex = along;
    else if (axis < 0 || places.length > 2 || places.includes(-1)) unknown.push(decoded(part));
    else {
      [first[axis], second[axis]] = [places[0], places[places.length - 1]];
      both = both || places.length === 2;
    }
  }
  // One value for every axis names one condition: it stands beside its counterpart.
  if (!both && first.join() === second.join()) {
    const axis = STUDY.compared, other = STUDY.view.map((places) => places[axis]).reverse().find((place) => place !== first[axis]);
    if (other !== undefined) second[axis] = other;
  }
  choose(first, second);
  return unknown;
}

function address() {
  const [first, second] = SIDES.map(chosen), same = first.join() === second.join();
  const parts = STUDY.axes.map(({name, values}, k) => {
    const [a, b] = [first, second].map((places) => encoded(values[places[k]]));
    return `${encoded(name)}=${a === b && !(same && k === 0) ? a : `${a},${b}`}`;
  });
  if (find("along")) parts.push(`along=${encoded(STUDY.axes[find("along").selectedIndex].name)}`);
  return `#${parts.join("&")}`;
}

// Sentences and the table of both.

function sentence(side) {
  const condition = conditionOf(side), name = `${NAMES[side]}, ${wordsOf(side)}`;
  if (!condition) return `${name}: no run of this condition has ended.`;
  const errors = condition.runs.map((run) => run.train), ended = known(errors).length, lost = errors.length - ended;
  const parts = [];
  if (condition.trained) parts.push(`${condition.trained.count} of ${condition.trained.n} runs trained (exact 95 % interval of the share ${bounds(condition.trained)})`);
  if (ended) {
    const [low, high] = [least(known(errors)), most(known(errors))];
    const range = low === high ? "% in every run" : `% (median; ${percent(low)} to ${percent(high)} %)`;
    parts.push(`training error after the last epoch ${percent(median(errors))} ${range}, n = ${ended}`);
  }
  if (lost) parts.push(`${lost} diverged`);
  if (condition.untrained) parts.push("hardly better than guessing");
  return `${name}: ${parts.join("; ")}.`;
}

function warning() {
  const [first, second] = SIDES.map(chosen), axes = STUDY.axes.filter((_, k) => first[k] !== second[k]).map((axis) => axis.word);
  if (!axes.length) return "Both sides show the same condition.";
  if (axes.length === 1) return `The two differ in ${axes[0]} alone. What is seen here is not tested here.`;
  return `The two differ in ${axes.slice(0, -1).join(", ")} and ${axes[axes.length - 1]}: no difference between them belongs to one of these alone.`;
}

function fill(name, heads, rows) {
  const table = find(name);
  table.tHead.replaceChildren(make("tr", {}, ...heads.map((head, k) => make("th", {scope: "col", className: k ? "" : "long", textContent: head}))));
  table.tBodies[0].replaceChildren(...rows.map(([head, ...cells]) =>
    make("tr", {}, make("th", {scope: "row", className: "long", textContent: head}), ...cells.map((text) => make("td", {textContent: text})))));
}

function fillNumbers() {
  const row = (name, tell) => [name, ...SIDES.map((side) => (conditionOf(side) ? tell(conditionOf(side)) : "–"))];
  const over = (get, write) => ({runs}) => ranged(runs.map(get), write);
  fill("both", ["", ...SIDES.map((side) => `${NAMES[side]}: ${wordsOf(side)}`)], [
    row("runs that ended", ({runs}) => String(runs.length)),
    row("of them diverged", ({runs}) => String(runs.filter((run) => run.train === null).length)),
    row("trained", ({trained}) => counted(trained)),
    row("training error after the last epoch, %", over((run) => run.train, percent)),
    row("test error after the last epoch, %", over((run) => run.test, percent)),
    row("training loss after the last epoch", over((run) => run.loss, short)),
    row("growth of the gradients before training, orders of magnitude", over((run) => run.growth[0], signed)),
    row("growth of the gradients after training, orders of magnitude", over((run) => run.growth[1], signed)),
  ]);
}

// Scales: where a value stands, and the marks at an axis.

function scaleOf(values, log) {
  const there = known(values).filter((value) => !log || value > 0);
  if (log) {
    const low = there.length ? Math.floor(Math.log10(least(there))) : -1;
    const high = there.length ? Math.max(Math.ceil(Math.log10(most(there))), low + 1) : 0;
    const every = Math.ceil((high - low) / 6), marks = [];
    for (let exponent = low; exponent <= high; exponent += every) marks.push([10 ** exponent, power(exponent)]);
    return {at: (value) => (value > 0 ? (Math.log10(value) - low) / (high - low) : null), marks};
  }
  const bottom = least([0, ...there]), top = most([0, ...there]), span = top - bottom || 1;
  const size = 10 ** Math.floor(Math.log10(span / 4)), step = size * [1, 2, 5, 10].find((times) => span / (size * times) <= 5);
  const low = Math.floor(bottom / step + 1e-9) * step, high = Math.ceil((top || (bottom ? 0 : 1)) / step - 1e-9) * step, marks = [];
  for (let k = Math.round(low / step); k * step <= high + step / 2; k += 1) marks.push([k * step, String(Number((k * step).toPrecision(6)))]);
  return {at: (value) => (value - low) / (high - low), marks, zero: low < 0};
}

// Over steps 1, 2, 4, 8 … stand equally far from each other.
function acrossOf(over, places) {
  const put = over === "steps" ? (value) => Math.log2(1 + value) : (value) => value;
  const low = put(least(places)), high = put(most(places));
  return (value) => (high > low ? (put(value) - low) / (high - low) : 0.5);
}

// As many marks as have room: of steps the last among them, of epochs and blocks those of a round distance.
function marksOf(over, places, across, room) {
  const kept = [], low = least(places), high = most(places), fits = Math.max(2, Math.min(10, room / 48));
  const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find((step) => high / step <= fits) || high;
  const round = over === "steps" ? [...places] : [low];
  for (let place = every; over !== "steps" && place <= high; place += every) if (place > low) round.push(place);
  for (const place of round.sort((a, b) => b - a)) {
    const letters = place.toLocaleString("en").length;
    if (!kept.length || across(kept[kept.length - 1]) - across(place) >= (9 * letters + 14) / room) kept.push(place);
  }
  return kept;
}

// A frame with its marks; gives the drawing and where a point of it stands.
function frame(width, height, words, scale, left = 58) {
  const right = width - 14, top = 30, bottom = height - 44;
  const y = (value) => (scale.at(value) === null ? null : bottom - scale.at(value) * (bottom - top));
  const svg = draw("svg", {viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"});
  for (const [value, text] of scale.marks) {
    svg.append(draw("line", {class: value === 0 && scale.zero ? "zero" : "grid", x1: left, x2: right, y1: y(value), y2: y(value)}),
      draw("text", {x: left - 8, y: y(value) + 5, "text-anchor": "end"}, text));
  }
  svg.append(draw("text", {x: 0, y: 14}, words.up), draw("text", {x: (left + right) / 2, y: height - 4, "text-anchor": "middle"}, words.along));
  return {svg, y, left, right, bottom};
}

function pathOf(points) {
  let path = "", pen = false;
  points.forEach(([x, y], k) => {
    if (y === null) { pen = false; return; }
    const alone = !pen && !(points[k + 1] && points[k + 1][1] !== null);
    path += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${alone ? "h0" : ""}`;
    pen = true;
  });
  return path;
}

const curves = (condition, chart, key) => condition.runs.map((run) => run[chart.over][key]);
const middle = (condition, chart, key) => condition[chart.over].map((_, k) => median(curves(condition, chart, key).map((curve) => curve[k])));
const placesOf = (chart) => [...new Set(SIDES.flatMap((side) => (conditionOf(side) ? conditionOf(side)[chart.over] : [])))].sort((a, b) => a - b);

function drawChart(chart) {
  const shown = SIDES.map(conditionOf), keys = Object.keys(chart.lines), places = placesOf(chart);
  const values = shown.filter(Boolean).flatMap((one) => [...keys.flatMap((key) => curves(one, chart, key).flat()), ...(chart.dots ? one.runs.map((run) => run[chart.dots]) : [])]);
  const scale = scaleOf(values, chart.log), across = acrossOf(chart.over, places);
  SIDES.forEach((side, k) => {
    const place = find(`${chart.name}-${side}`), condition = shown[k], width = Math.max(280, Math.round(place.clientWidth));
    find(`${chart.name}-${side}-words`).textContent = wordsOf(side) + (condition ? `, n = ${condition.runs.length}` : ": no run has ended");
    place.setAttribute("aria-label", described(chart, side, condition));
    const {svg, y, left, right, bottom} = frame(width, width < 420 ? 270 : 330, {up: chart.axis, along: OVER[chart.over]}, scale);
    const x = (value) => left + 6 + across(value) * (right - left - 12);
    for (const value of marksOf(chart.over, places, across, right - left - 12)) svg.append(draw("text", {x: x(value), y: bottom + 20, "text-anchor": "middle"}, value.toLocaleString("en")));
    if (condition) drawLines(svg, chart, condition, side, {x, y});
    if (keys.length > 1) drawLegend(svg, chart, side, right);
    place.replaceChildren(svg);
  });
}

function drawLines(svg, chart, condition, side, {x, y}) {
  const over = condition[chart.over], path = (curve, name) => draw("path", {class: name, d: pathOf(over.map((value, k) => [x(value), known([curve[k]]).length ? y(curve[k]) : null]))});
  Object.keys(chart.lines).forEach((key, number) => {
    const dashed = number ? " dashed" : "";
    curves(condition, chart, key).forEach((curve, k) => {
      const line = path(curve, `${side} run${dashed}`);
      line.append(draw("title", {}, `seed ${condition.runs[k].seed}`));
      svg.append(line);
    });
    svg.append(path(middle(condition, chart, key), `${side} middle${dashed}`));
  });
  if (!chart.dots || !over.length) return;
  for (const run of condition.runs.filter((one) => one[chart.dots] !== null)) {
    svg.append(draw("circle", {class: side, r: 4.5, cx: x(over[over.length - 1]), cy: y(run[chart.dots])},
      draw("title", {}, `seed ${run.seed}: ${percent(run[chart.dots])} %`)));
  }
}

function drawLegend(svg, chart, side, right) {
  let end = right;
  Object.values(chart.lines).forEach((name, number) => {
    const start = end - 8 * name.length - 32;
    svg.append(draw("text", {x: end, y: 14, "text-anchor": "end"}, name),
      draw("path", {class: `${side} middle${number ? " dashed" : ""}`, d: `M${start} 9h26`}));
    end = start - 14;
  });
}

function described(chart, side, condition) {
  const name = `${chart.title}, ${wordsOf(side)}`;
  if (!condition) return `${name}: no run of this condition has ended.`;
  const parts = Object.entries(chart.lines).map(([key, words]) => {
    const values = middle(condition, chart, key), over = condition[chart.over];
    return values.length ? `${words}: median from ${short(values[0])} at ${over[0]} to ${short(values[values.length - 1])} at ${over[over.length - 1]}` : `${words}: nothing measured`;
  });
  return `${name}, ${condition.runs.length} runs by ${OVER[chart.over]}; ${parts.join("; ")}.`;
}

function fillTable(chart) {
  const columns = SIDES.flatMap((side) => Object.entries(chart.lines).map(([key, words]) => ({side, key, words})));
  const name = (place) => {
    const found = SIDES.map(conditionOf).filter(Boolean).map((one) => one.names[one.blocks.indexOf(place)]).filter(Boolean);
    return [...new Set(found)].join(", ");
  };
  fill(`${chart.name}-table`, [OVER[chart.over], ...columns.map(({side, words}) => `${NAMES[side]}: ${words}`)], placesOf(chart).map((place) => [
    chart.over === "blocks" ? `${place} ${name(place)}` : place.toLocaleString("en"),
    ...columns.map(({side, key}) => {
      const condition = conditionOf(side), at = condition ? condition[chart.over].indexOf(place) : -1;
      return at < 0 ? "–" : ranged(curves(condition, chart, key).map((curve) => curve[at]), short);
    }),
  ]));
}

function fitted(text, room) {
  const fits = Math.max(2, Math.floor(room / 9));
  return text.length > fits ? `${text.slice(0, fits - 1)}…` : text;
}

// The runs that trained, along one axis from each of the two conditions.

function drawShare() {
  const along = find("along").selectedIndex, {word, words} = STUDY.axes[along];
  const places = SIDES.map(chosen), alike = places.every((place) => place.every((value, k) => k === along || value === places[0][k]));
  const series = alike ? [{name: "both", sides: places}] : SIDES.map((side, k) => ({name: side, sides: [places[k]]}));
  const shares = series.map(({sides}) => words.map((_, value) => (CONDITIONS.get(sides[0].map((old, k) => (k === along ? value : old)).join()) || {}).trained));
  const place = find("share-drawn"), width = Math.max(280, Math.round(place.clientWidth));
  const scale = {at: (value) => value / 100, marks: [0, 25, 50, 75, 100].map((value) => [value, String(value)])};
  const {svg, y, left, right, bottom} = frame(width, width < 420 ? 270 : 300, {up: "runs that trained, %", along: fitted(word, width - 80)}, scale);
  const room = (right - left) / words.length;
  words.forEach((text, value) => {
    const middle = left + (value + 0.5) * room;
    svg.append(draw("text", {x: middle, y: bottom + 20, "text-anchor": "middle"}, fitted(text, room)));
    series.forEach(({name, sides}, k) => {
      const share = shares[k][value], x = middle + (series.length > 1 ? (k - 0.5) * Math.min(24, room / 2) : 0);
      if (!share) return;
      const thick = sides.some((side) => side[along] === value);
      svg.append(draw("path", {class: `${name}${thick ? " middle" : ""}`, d: `M${x} ${y(100 * share.low)}V${y(100 * share.high)}`}),
        draw("circle", {class: `${name}${thick ? " chosen" : ""}`, r: 6, cx: x, cy: y(100 * share.count / share.n)}, draw("title", {}, counted(share))));
    });
  });
  place.replaceChildren(svg);
  const title = ({name}, k) => (alike ? "Runs that trained" : `${NAMES[name]}: ${STUDY.axes.map((axis, j) => (j === along ? "" : `${axis.word} ${axis.words[places[k][j]]}`)).filter(Boolean).join(", ")}`);
  const rows = words.map((text, value) => [text, ...shares.map((found) => counted(found[value]))]);
  place.setAttribute("aria-label", `Share of the runs that trained along ${word}. ${rows.map((row) => row.join(", ")).join("; ")}.`);
  fill("share-table", [word, ...series.map(title)], rows);
}

// The page.

function drawAll() {
  // A low form stays in sight while one scrolls.
  find("choose").classList.toggle("kept", find("choose").offsetHeight < 0.25 * window.innerHeight);
  STUDY.charts.forEach(drawChart);
  if (find("along")) drawShare();
}

function show(unknown = []) {
  const told = [...SIDES.map(sentence), warning(), ...unknown.map((text) => `The address asks for ${text}, which this study does not have.`)];
  find("said").replaceChildren(...told.map((text) => make("li", {textContent: text})));
  find("view").href = address();
  fillNumbers();
  STUDY.charts.forEach(fillTable);
  drawAll();
}

function change() {
  show();
  history.replaceState(null, "", address());
}

if (find("along")) {
  find("along").selectedIndex = STUDY.along;
  find("along").addEventListener("change", change);
}
find("choose").addEventListener("change", change);
find("choose").addEventListener("submit", (event) => event.preventDefault());
// A link within the page asks for no view.
window.addEventListener("hashchange", () => location.hash.includes("=") && show(followAddress()));
let seen = window.innerWidth;
window.addEventListener("resize", () => {
  if (seen !== window.innerWidth) drawAll();
  seen = window.innerWidth;
});
show(followAddress());
