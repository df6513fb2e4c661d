// State, controls and the address: `#a=...&b=...` says all that is chosen, so a link shows the same page.
const FIELDS = ["model", "hardware", "precision", "method", "keep", "image_size", "batch_size", "text_tokens", "output_tokens"];
const TITLES = { model: "model", hardware: "device", precision: "precision", method: "method", keep: "keep",
  image_size: "image size", batch_size: "batch", text_tokens: "text tokens", output_tokens: "output tokens" };
const SELECTS = ["model", "hardware", "precision", "method"];
const state = { a: {}, b: null, table: { sort: "", descending: false, stage: "", words: "", side: "a" } };
let turn = 0;

const distinct = (values) => [...new Set(values)];

// What a field offers, given the grid and what was chosen before it.
function offered(field, grid, choice) {
  if (field === "model") return distinct(INDEX.pairs.map((pair) => pair.model));
  if (field === "hardware") return INDEX.pairs.filter((pair) => pair.model === choice.model).map((pair) => pair.hardware);
  if (field === "method") return distinct(grid.axes.setting.map(([method]) => method));
  if (field === "keep") return grid.axes.setting.filter(([method]) => method === choice.method).map(([, keep]) => keep);
  return grid.axes[field];
}

// A choice with every field on the grid; what is not offered becomes the first that is, `first` the first
// that reduces.
async function settled(wanted) {
  const choice = {};
  let grid = null;
  for (const field of FIELDS) {
    if (field === "precision") grid = await unpack(gridNumber(choice.model, choice.hardware));
    const values = offered(field, grid, choice);
    const first = wanted[field] === "first" && values.length > 1 ? values[1] : values[0];
    choice[field] = values.includes(wanted[field]) ? wanted[field] : first;
  }
  const number = pointNumber(grid, choice);
  return { choice, grid, point: pointAt(grid, number) };
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const side = (text) => {
    const parts = text.split("~");
    return Object.fromEntries(FIELDS.map((field, k) => {
      const value = parts[k] ?? "";
      if (["model", "hardware", "precision"].includes(field)) return [field, value];
      if (["method", "keep", "image_size"].includes(field)) return [field, value === "-" ? null : value];
      return [field, value === "-" ? null : Number(value)];
    }));
  };
  state.a = given.has("a") ? side(given.get("a")) : {};
  state.b = given.has("b") ? side(given.get("b")) : given.has("a") ? null : { method: "first" };
  const sort = given.get("sort") ?? "";
  state.table = { sort: sort.replace(/-$/, ""), descending: sort.endsWith("-"), stage: given.get("stage") ?? "",
    words: given.get("words") ?? "", side: given.get("of") === "b" && state.b ? "b" : "a" };
  if (!OP_COLUMNS.some(([, key]) => key === state.table.sort)) state.table.sort = "";
}

function writeAddress(sides) {
  const said = new URLSearchParams();
  for (const { key, choice } of sides) said.set(key, FIELDS.map((field) => choice[field] ?? "-").join("~"));
  const { sort, descending, stage, words, side } = state.table;
  if (sort) said.set("sort", sort + (descending ? "-" : ""));
  if (stage) said.set("stage", stage);
  if (words) said.set("words", words);
  if (side === "b") said.set("of", "b");
  history.replaceState(null, "", `#${said}`);
}

function control(side, field) {
  const { key, choice, grid } = side;
  const values = offered(field, grid, choice), id = `${key}-${field}`;
  const title = element("label", { for: id }, TITLES[field]);
  const shown = (value) => (field === "keep" ? keepText(value) : value === null ? (field === "method" ? "none" : "the model's own") : String(value));
  const change = (value) => {
    state[key] = { ...choice, [field]: value };
    draw(id);
  };
  if (SELECTS.includes(field)) {
    const select = element("select", { id }, ...values.map((value, k) =>
      element("option", { value: k, selected: value === choice[field] }, shown(value))));
    select.addEventListener("change", () => change(values[select.value]));
    return element("div", { class: "control" }, title, select);
  }
  const range = element("input", { id, type: "range", min: 0, max: values.length - 1, step: 1, value: values.indexOf(choice[field]),
    "aria-valuetext": shown(choice[field]) });
  range.addEventListener("input", () => change(values[range.value]));
  return element("div", { class: "control", hidden: values.length < 2 && values[0] === null }, title, range,
    element("output", { for: id }, shown(choice[field])));
}

function command({ grid, choice }) {
  const words = [grid.command, "--precision", choice.precision];
  if (choice.method !== null) words.push("--method", choice.method);
  if (choice.keep !== null) words.push("--keep", choice.keep);
  if (choice.image_size !== null) words.push("--image-size", choice.image_size);
  for (const field of ["batch_size", "text_tokens", "output_tokens"]) words.push(`--${field.replace("_", "-")}`, choice[field]);
  return [...words, ...INDEX.options].join(" ");
}

function panel(side) {
  const name = element("legend", {}, side.key.toUpperCase());
  const lines = side.point.refused ? [element("p", { class: "bad" }, side.point.refused)] : [];
  return element("fieldset", { class: side.key }, name, ...FIELDS.map((field) => control(side, field)), ...lines,
    element("p", { class: "note" }, element("code", {}, command(side))));
}

function leftOut(sides) {
  const told = distinct(sides.flatMap(({ grid }) => grid.left_out.map(([what, why]) => `${grid.model} on ${grid.hardware}: ${what}. ${why}`)));
  document.getElementById("left-out").hidden = !told.length;
  replace("left-out-list", ...told.map((line) => element("li", {}, line)));
}

async function draw(focus = null) {
  const mine = ++turn;
  const wanted = [["a", state.a], ...(state.b ? [["b", state.b]] : [])];
  const sides = await Promise.all(wanted.map(async ([key, choice]) => ({ key, ...(await settled(choice)) })));
  if (mine !== turn) return;
  for (const { key, choice } of sides) state[key] = choice;
  if (state.table.side === "b" && sides.length < 2) state.table.side = "a";
  document.getElementById("both").setAttribute("aria-pressed", String(sides.length > 1));
  replace("sides", ...sides.map(panel));
  if (focus) document.getElementById(focus)?.focus();
  const priced = sides.filter(({ point }) => !point.refused);
  document.getElementById("results").hidden = !priced.length;
  writeAddress(sides);
  leftOut(sides);
  document.getElementById("time-source").textContent = distinct(sides.map(({ grid }) =>
    `${grid.hardware_name}: ${grid.calibration === "none" ? "the ideal roofline" : `calibration ${grid.calibration}`}`)).join("; ");
  if (priced.length) results(priced);
  document.documentElement.dataset.drawn = String(mine);
}

function results(sides) {
  headline(sides);
  stageTable(sides);
  stageBars("first-token-bars", sides, STAGES.slice(0, 4));
  stageBars("request-bars", sides, STAGES);
  roofline("roofline-chart", sides);
  const seeing = sides.filter(({ point }) => point.layers.length);
  layerChart("layers-chart", seeing);
  stairs("stairs-chart", sides);
  ops(sides);
}

function ops(sides) {
  const table = state.table, side = sides.find(({ key }) => key === table.side) ?? sides[0];
  document.getElementById("ops-side").parentElement.hidden = sides.length < 2;
  document.getElementById("ops-side").value = side.key;
  document.getElementById("ops-stage").value = table.stage;
  document.getElementById("ops-words").value = table.words;
  const change = (changes, focus) => {
    Object.assign(state.table, changes);
    writeAddress(sides);
    ops(sides);
    if (focus) document.querySelector(`#ops th:nth-child(${focus}) button`).focus();
  };
  opTable(side, table, (key, number) => {
    const again = table.sort === key;
    change({ sort: key, descending: again ? !table.descending : number }, OP_COLUMNS.findIndex(([, name]) => name === key) + 1);
  });
  document.getElementById("ops-side").onchange = (event) => change({ side: event.target.value });
  document.getElementById("ops-stage").onchange = (event) => change({ stage: event.target.value });
  document.getElementById("ops-words").oninput = (event) => change({ words: event.target.value });
}

function save(name, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

document.getElementById("both").addEventListener("click", () => {
  state.b = state.b ? null : { ...state.a };
  draw();
});
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
document.getElementById("csv").addEventListener("click", async () => {
  const grid = await unpack(gridNumber(state.a.model, state.a.hardware));
  save(`${grid.model}_${grid.hardware}.csv`.replace(/[^\w.-]+/g, "_"), csvOf(grid));
});
document.getElementById("print").addEventListener("click", () => print());
window.addEventListener("hashchange", () => { readAddress(); draw(); });
let resizing = 0;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => draw(document.activeElement?.id || null), 150);
});
readAddress();
draw();
