// Charts as SVG, drawn at the width the page gives them.
const LEFT = 58, RIGHT = 24, BOTTOM = 40, TOP = 8;

const linear = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);
const logarithmic = (low, high, from, to) => {
  const scale = linear(Math.log10(low), Math.log10(high), from, to);
  return (value) => scale(Math.log10(value));
};

function niceTicks(high, most = 5) {
  const raw = (high || 1) / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * (1 - 1e-9));
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, k) => k * step);
}

function decades(low, high) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  const step = Math.ceil((last - first + 1) / 7);
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, k) => 10 ** (first + k * step));
}

// A frame with axes; returns the drawing and the place to draw in.
function frame(id, label, height, x, y) {
  const width = Math.max(260, document.getElementById(id).clientWidth || 600);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const across = x.scale(x.low, x.high, LEFT, width - RIGHT), up = y.scale(y.low, y.high, height - BOTTOM, TOP);
  for (const value of x.ticks) {
    const at = across(value);
    svg.append(element("line", { class: "grid", x1: at, x2: at, y1: TOP, y2: height - BOTTOM }),
      element("text", { x: at, y: height - BOTTOM + 15, "text-anchor": "middle" }, x.show(value)));
  }
  for (const value of y.ticks) {
    const at = up(value);
    svg.append(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }),
      element("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, y.show(value)));
  }
  svg.append(element("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM }),
    element("text", { class: "soft", x: (LEFT + width - RIGHT) / 2, y: height - 6, "text-anchor": "middle" }, x.label));
  replace(id, svg);
  return { svg, across, up, width, height };
}

const pathOf = (points, { across, up }) =>
  points.map(([x, y], k) => `${k ? "L" : "M"}${across(x).toFixed(1)} ${up(y).toFixed(1)}`).join("");

function stageBars(id, sides, stages) {
  const rowHeight = 40, height = sides.length * rowHeight + TOP + BOTTOM;
  const total = (side) => stages.reduce((sum, stage) => sum + side.point.stages[stage].time_s, 0);
  const high = Math.max(...sides.map(total)) * 1.04 || 1;
  const x = { low: 0, high, scale: linear, ticks: niceTicks(high, 4), show: (value) => brief(value, "s"), label: "time, by stage" };
  const y = { low: 0, high: 1, scale: linear, ticks: [], show: String };
  const words = sides.map((side) => `${side.key.toUpperCase()}: ${show(total(side), "s")}`).join("; ");
  const plot = frame(id, `Time by stage. ${words}`, height, x, y);
  sides.forEach((side, k) => {
    let start = 0;
    plot.svg.append(element("text", { class: `fill-${side.key}`, x: LEFT - 8, y: TOP + k * rowHeight + 24, "text-anchor": "end" },
      side.key.toUpperCase()));
    for (const stage of stages) {
      const time = side.point.stages[stage].time_s;
      plot.svg.append(element("rect", {
        class: stage, x: plot.across(start), y: TOP + k * rowHeight + 6, height: rowHeight - 14,
        width: Math.max(0, plot.across(start + time) - plot.across(start)),
      }, element("title", {}, `${stage}: ${show(time, "s")}`)));
      start += time;
    }
  });
}

function layerChart(id, sides) {
  const layers = Math.max(...sides.map(({ point }) => point.layers.reduce((sum, [count]) => sum + count, 0)));
  const high = Math.max(1, ...sides.flatMap(({ point }) => point.layers.map(([, tokens]) => tokens))) * 1.05;
  const words = sides.map((side) => `${side.key.toUpperCase()}: ${side.point.layers.map(([n, t]) => `${t} in ${n} layers`).join(", ")}`);
  const plot = frame(id, `Visual tokens by layer. ${words.join("; ")}`, 220,
    { low: 0, high: layers, scale: linear, ticks: niceTicks(layers), show: String, label: "layer of the language model" },
    { low: 0, high, scale: linear, ticks: niceTicks(high, 4), show: (value) => show(value, "count") });
  for (const { key, point } of sides) {
    const steps = [];
    let layer = 0;
    for (const [count, tokens] of point.layers) {
      steps.push([layer, tokens], [layer + count, tokens]);
      layer += count;
    }
    plot.svg.append(element("path", { class: `series line-${key}`, d: pathOf(steps, plot) }));
  }
}

function stairs(id, sides) {
  const curves = sides.map((side) => ({ ...side, curve: curveOf(side.grid, side.choice) })).filter(({ curve }) => curve.length);
  document.getElementById(`${id}-part`).hidden = !curves.length;
  if (!curves.length) return;
  const mean = (point) => point.mean ?? 0;
  const right = Math.max(...curves.flatMap(({ curve, point }) => [curve.at(-1).tokens, mean(point)])) || 1;
  const high = Math.max(...curves.flatMap(({ curve, point }) => [curve.at(-1).high, point.ttft_s])) * 1.05;
  const plot = frame(id, "Time to the first token against visual tokens", 300,
    { low: 0, high: right, scale: linear, ticks: niceTicks(right), show: (value) => show(value, "count"), label: "visual tokens, unreduced" },
    { low: 0, high, scale: linear, ticks: niceTicks(high), show: (value) => brief(value, "s") });
  const drawn = new Set();
  for (const { key, curve, point } of curves) {
    const same = JSON.stringify(curve);
    plot.svg.append(element("rect", { class: `mark fill-${key}`, x: plot.across(mean(point)) - 5, y: plot.up(point.ttft_s) - 5, width: 10, height: 10 },
      element("title", {}, `this configuration: ${show(point.ttft_s, "s")}`)));
    if (drawn.has(same)) continue;
    drawn.add(same);
    const band = [...curve.map((at) => [at.tokens, at.high]), ...curve.toReversed().map((at) => [at.tokens, at.low])];
    plot.svg.prepend(
      element("path", { class: `band fill-${key}`, d: `${pathOf(band, plot)}Z` }),
      element("path", { class: `series dashed line-${key}`, d: pathOf(curve.map((at) => [at.tokens, at.ideal]), plot) }),
      element("path", { class: `series line-${key}`, d: pathOf(curve.map((at) => [at.tokens, at.time]), plot) }),
      ...curve.map((at) => element("circle", { class: `fill-${key}`, cx: plot.across(at.tokens), cy: plot.up(at.time), r: 2 },
        element("title", {}, `${at.tokens} tokens: ${show(at.time, "s")} (${brief(at.low, "s")} to ${brief(at.high, "s")})`))));
  }
}

function roofline(id, sides) {
  const placed = sides.flatMap((side) => opsOf(side.grid, side.point)
    .filter((op) => op.executed_flops > 0 && op.hbm_bytes > 0 && op.time_s > 0)
    .map((op) => ({ ...op, side, x: op.executed_flops / op.hbm_bytes, y: op.executed_flops / op.time_s })));
  const roofs = sides.flatMap((side) => Object.entries(side.grid.peaks_flop_per_s)
    .filter(([dtype]) => placed.some((op) => op.side === side && op.dtype === dtype))
    .map(([dtype, peak]) => ({ side, dtype, peak, bandwidth: side.grid.bandwidth_bytes_per_s })));
  if (!placed.length || !roofs.length) return replace(id);
  const decade = (value, round) => 10 ** round(Math.log10(value));
  const left = decade(Math.min(...placed.map((op) => op.x)), Math.floor);
  const right = decade(Math.max(...placed.map((op) => op.x), ...roofs.map((roof) => 2 * roof.peak / roof.bandwidth)), Math.ceil);
  const bottom = decade(Math.min(...placed.map((op) => op.y)), Math.floor);
  const top = decade(Math.max(...roofs.map((roof) => roof.peak)), Math.ceil);
  const plot = frame(id, "Roofline with the ops on it", 340,
    { low: left, high: right, scale: logarithmic, ticks: decades(left, right), show: (value) => String(Number(value.toPrecision(3))), label: "executed FLOP per byte" },
    { low: bottom, high: top, scale: logarithmic, ticks: decades(bottom, top), show: (value) => brief(value, "") });
  plot.svg.append(element("text", { class: "soft", x: LEFT + 6, y: TOP + 12 }, "executed FLOP/s"));
  const seen = new Set();
  for (const { side, dtype, peak, bandwidth } of roofs) {
    const name = `${side.grid.hardware} ${peak}`;
    if (seen.has(name)) continue;
    seen.add(name);
    const ridge = Math.min(Math.max(peak / bandwidth, left), right), start = Math.max(left, bottom / bandwidth);
    plot.svg.append(element("path", { class: `series line-${side.key}`, d: pathOf([[start, bandwidth * start], [ridge, Math.min(peak, bandwidth * ridge)], [right, peak]], plot) },
      element("title", {}, `${side.grid.hardware}, ${dtype}: ${brief(peak, "FLOP/s")}, ${brief(bandwidth, "B/s")}`)));
  }
  for (const op of placed) {
    plot.svg.append(element("circle", {
      class: `${op.stage}${op.side.key === "b" ? " hollow" : ""}`, cx: plot.across(op.x), cy: plot.up(Math.max(op.y, bottom)), r: 4.5, "fill-opacity": 0.85,
    }, element("title", {}, `${op.side.key.toUpperCase()} ${op.stage} ${op.name} (${op.op_class}, ${op.dtype}): ${show(op.time_s, "s")}, ${show(op.sol_percent, "%")} of the roofline`)));
  }
}
