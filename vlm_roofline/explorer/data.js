// The grid: one compressed document for each model and device, unpacked when it is chosen.
const AXES = ["precision", "setting", "image_size", "batch_size", "text_tokens", "output_tokens"];
const STAGES = ["vision", "projector", "reduction", "prefill", "decode"];
const INDEX = JSON.parse(document.getElementById("index").textContent);
const unpacked = new Map();

function unpack(number) {
  if (!unpacked.has(number)) {
    const text = document.getElementById(`grid-${number}`).textContent;
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    unpacked.set(number, new Response(stream).json());
  }
  return unpacked.get(number);
}

const gridNumber = (model, hardware) =>
  INDEX.pairs.findIndex((pair) => pair.model === model && pair.hardware === hardware);

// The place of a choice on every axis; a setting is a method with what it keeps.
function places(grid, choice) {
  return AXES.map((axis) => {
    const values = grid.axes[axis];
    if (axis !== "setting") return values.indexOf(choice[axis]);
    return values.findIndex(([method, keep]) => method === choice.method && keep === choice.keep);
  });
}

const row = (columns, number) =>
  Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values[number]]));

function pointNumber(grid, choice) {
  return places(grid, choice).reduce((number, place, k) => number * grid.axes[AXES[k]].length + place, 0);
}

function pointAt(grid, number) {
  const point = row(grid.points, number);
  if (point.refused !== null) return { refused: grid.words[point.refused] };
  point.stages = Object.fromEntries(STAGES.map((stage) => [stage, row(grid.blocks, point[stage])]));
  point.layers = grid.schedules.layers[point.schedule];
  point.mean = grid.schedules.mean[point.schedule];
  const steps = grid.axes.output_tokens[number % grid.axes.output_tokens.length];
  point.tpot_low_s = steps ? point.stages.decode.time_low_s / steps : null;
  point.tpot_high_s = steps ? point.stages.decode.time_high_s / steps : null;
  return point;
}

function opsOf(grid, point) {
  const word = (number) => (number === null ? "" : grid.words[number]);
  return STAGES.flatMap((stage) => {
    const block = point.stages[stage];
    return Array.from({ length: block.ops }, (_, k) => {
      const op = row(grid.ops, block.first_op + k);
      for (const name of ["name", "op_class", "dtype", "bound", "provenance"]) op[name] = word(op[name]);
      return { stage, ...op };
    });
  });
}

// Time to the first token over visual tokens, at a choice's precision, batch and text.
function curveOf(grid, choice) {
  const counts = grid.curves.visual_tokens;
  const axes = ["precision", "batch_size", "text_tokens"];
  const start = axes.reduce(
    (number, axis) => number * grid.axes[axis].length + grid.axes[axis].indexOf(choice[axis]), 0) * counts.length;
  return counts.map((tokens, k) => ({
    tokens, time: grid.curves.ttft_s[start + k], low: grid.curves.time_low_s[start + k],
    high: grid.curves.time_high_s[start + k], ideal: grid.curves.ideal_time_s[start + k],
  }));
}

// Every point of a grid as comma-separated values, in SI units.
function csvOf(grid) {
  const total = Object.keys(grid.points).filter((name) => !STAGES.includes(name) && name !== "schedule");
  const costs = Object.keys(grid.blocks).filter((name) => name !== "first_op" && name !== "ops");
  const head = ["model", "hardware", "precision", "method", "keep", ...AXES.slice(2), "mean_visual_tokens",
    ...total, ...STAGES.flatMap((stage) => costs.map((name) => `${stage}_${name}`))];
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = grid.points.refused.map((_, number) => {
    const values = [];
    let rest = number;
    for (const axis of [...AXES].reverse()) {
      const length = grid.axes[axis].length;
      values.unshift(grid.axes[axis][rest % length]);
      rest = Math.floor(rest / length);
    }
    const [precision, [method, keep], ...others] = values;
    const point = row(grid.points, number);
    const refused = point.refused === null ? null : grid.words[point.refused];
    return [grid.model, grid.hardware, precision, method ?? "none", keep, ...others,
      point.schedule === null ? null : grid.schedules.mean[point.schedule],
      ...total.map((name) => (name === "refused" ? refused : point[name])),
      ...STAGES.flatMap((stage) => costs.map((name) => (refused === null ? grid.blocks[name][point[stage]] : null))),
    ].map(cell).join(",");
  });
  return `${head.join(",")}\n${lines.join("\n")}\n`;
}
