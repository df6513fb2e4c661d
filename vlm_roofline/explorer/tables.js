// The tables: headline numbers, stages, ops.
const cell = (text, value, css) => element("td", { class: css, "data-value": value ?? "" }, text);
const interval = (low, high, unit) => (low === null || high === null ? "" : `${show(low, unit)} to ${show(high, unit)}`);

const HEADLINE = [
  ["time to the first token (TTFT)", "s", (p) => [p.ttft_s, interval(p.ttft_low_s, p.ttft_high_s, "s")], "ttft_s"],
  ["time per output token (TPOT)", "s", (p) => [p.tpot_s, interval(p.tpot_low_s, p.tpot_high_s, "s")], "tpot_s"],
  ["whole request", "s", (p) => [p.time_s, interval(p.time_low_s, p.time_high_s, "s")], "time_s"],
  ["whole request, roofline at best", "s", (p) => [p.ideal_time_s, ""], "ideal_time_s"],
  ["peak memory", "B", (p, grid) => [p.peak_memory_bytes,
    `${p.fits === null ? "capacity not known" : p.fits ? "fits in" : "does not fit in"} ${show(grid.capacity_bytes, "B")}`], "peak_memory_bytes"],
  ["weights", "B", (p) => [p.weight_bytes, ""], "weight_bytes"],
  ["KV cache at the end", "B", (p) => [p.kv_cache_bytes, ""], "kv_cache_bytes"],
  ["energy", "J", (p) => (p.energy_j === null ? [p.energy_high_j, "at most: power limit × time"]
    : [p.energy_j, interval(p.energy_low_j, p.energy_high_j, "J")]), "energy_high_j"],
  ["FLOPs", "FLOP", (p) => [p.flops, ""], "flops"],
  ["visual tokens before reduction", "count", (p) => [p.visual_tokens, ""], "visual_tokens"],
  ["visual tokens per layer, mean", "count", (p) => [p.mean, ""], "mean"],
];

function headline(sides) {
  const two = sides.length > 1;
  const head = element("tr", {}, element("th", { class: "words", scope: "col" }, ""),
    ...sides.map((side) => element("th", { scope: "col", class: side.key }, side.key.toUpperCase())),
    two ? element("th", { scope: "col" }, "B / A") : null);
  const rows = HEADLINE.map(([name, unit, read, key]) => {
    const found = sides.map((side) => read(side.point, side.grid));
    const [a, b] = found.map(([value]) => value);
    const ratio = two && a > 0 && b !== null && b !== undefined ? b / a : null;
    return element("tr", { "data-key": key }, element("th", { class: "words", scope: "row" }, name),
      ...found.map(([value, remark], k) => element("td", { "data-value": value ?? "", "data-side": sides[k].key },
        show(value, unit), remark ? element("small", {}, remark) : null)),
      two ? cell(ratio === null ? "–" : ratio.toFixed(3), ratio) : null);
  });
  replace("headline", element("thead", {}, head), element("tbody", {}, ...rows));
}

function stageTable(sides) {
  const heads = ["", "stage", "time", "from", "to", "at best", "FLOP", "bytes moved", "kernels", "bound"];
  const rows = sides.flatMap((side) => STAGES.filter((stage) => side.point.stages[stage].kernels > 0).map((stage) => {
    const cost = side.point.stages[stage];
    return element("tr", {}, cell(side.key.toUpperCase(), side.key, "words"), cell(stage, stage, "words"),
      cell(show(cost.time_s, "s"), cost.time_s), cell(show(cost.time_low_s, "s"), cost.time_low_s),
      cell(show(cost.time_high_s, "s"), cost.time_high_s), cell(show(cost.ideal_time_s, "s"), cost.ideal_time_s),
      cell(show(cost.flops, "FLOP"), cost.flops), cell(show(cost.hbm_bytes, "B"), cost.hbm_bytes),
      cell(show(cost.kernels, "count"), cost.kernels), cell(cost.bound, cost.bound));
  }));
  replace("stage-table", element("thead", {}, element("tr", {}, ...heads.map((head, k) =>
    element("th", { scope: "col", class: k < 2 ? "words" : null }, head)))), element("tbody", {}, ...rows));
}

const OP_COLUMNS = [
  ["stage", "stage", null], ["op", "name", null], ["class", "op_class", null], ["dtype", "dtype", null], ["times", "count", "count"],
  ["time", "time_s", "s"], ["speed of light", "sol_percent", "%"], ["FLOP", "flops", "FLOP"], ["bytes", "hbm_bytes", "B"],
  ["bound", "bound", null], ["time from", "provenance", null],
];

function opTable(side, { sort, descending, stage, words }, resort) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = opsOf(side.grid, side.point).filter((op) => {
    const text = [op.stage, op.name, op.op_class, op.dtype, op.bound, op.provenance].join(" ").toLowerCase();
    return (!stage || op.stage === stage) && wanted.every((word) => text.includes(word));
  });
  if (sort) {
    const order = (a, b) => (typeof a === "string" ? a.localeCompare(b) : (a ?? -1) - (b ?? -1));
    rows.sort((a, b) => (descending ? -1 : 1) * order(a[sort], b[sort]));
  }
  const left = (unit) => (unit === null ? "words" : null);
  const heads = OP_COLUMNS.map(([title, key, unit]) => element("th", {
    scope: "col", class: left(unit), "aria-sort": sort === key ? (descending ? "descending" : "ascending") : "none",
  }, sortButton(title, () => resort(key, unit !== null))));
  const sources = [...new Set(rows.map((op) => op.provenance))];
  const shown = (op, key, unit) => (key === "provenance" ? `[${sources.indexOf(op[key]) + 1}]` : unit === null ? op[key] : show(op[key], unit));
  const body = rows.map((op) => element("tr", {}, ...OP_COLUMNS.map(([, key, unit]) => cell(shown(op, key, unit), op[key], left(unit)))));
  replace("op-sources", ...sources.map((text) => element("li", {}, text)));
  replace("ops", element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body));
  const time = rows.reduce((sum, op) => sum + op.time_s, 0);
  document.getElementById("ops-sum").textContent = `${rows.length} rows, ${brief(time, "s")} on the device alone, ops one by one`;
}

function sortButton(title, act) {
  const button = element("button", { type: "button" }, title);
  button.addEventListener("click", act);
  return button;
}
