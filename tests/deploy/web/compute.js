// Runs the page's image.js and network.js, named as arguments, over the cases that come as JSON on the input.
const fs = require("fs");
eval(process.argv.slice(2).map((path) => fs.readFileSync(path, "utf8").replace('"use strict";', "")).join("\n") + `
  const cases = JSON.parse(fs.readFileSync(0, "utf8"));
  const squares = cases.images.map(({rgb, width, height, side, turn, channels}) => {
    const bytes = bytesOf(rgb);
    const rows = (left, top, wide, high) => {
      const found = new Uint8Array(wide * high * 3);
      for (let row = 0; row < high; row += 1) {
        const at = ((top + row) * width + left) * 3;
        found.set(bytes.subarray(at, at + wide * 3), row * wide * 3);
      }
      return found;
    };
    return Array.from(inChannels(squareOf({width, height, rows}, side, turn), channels));
  });
  const logits = cases.networks.map(({program, pixels}) => {
    const read = readProgram(program), steps = logitsOf(read, pixels);
    let step = steps.next();
    const start = process.cpuUsage().user;
    while (!step.done) step = steps.next();
    return {logits: Array.from(step.value), milliseconds: (process.cpuUsage().user - start) / 1000};
  });
  const turns = cases.files.map((file) => readOrientation(bytesOf(file)));
  console.log(JSON.stringify({squares, logits, operations: Object.keys(OPERATIONS),
    turns: turns.map(({turn, bytes}) => ({turn, bytes: Buffer.from(bytes).toString("base64")}))}));
`);
