// Numbers as people read them: as many digits as the grid holds, no more.
const SCALES = { s: [[1, "s"], [1e-3, "ms"], [1e-6, "us"], [1e-9, "ns"]] };
const BIG = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
for (const unit of ["", "FLOP", "B", "FLOP/s", "B/s"]) SCALES[unit] = BIG.map(([factor, prefix]) => [factor, prefix + unit]);

function show(value, unit) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  if (unit === "count") return value.toLocaleString("en-US", { maximumFractionDigits: 1 });
  if (unit === "%") return `${value.toPrecision(3)} %`;
  if (unit === "J") return value >= 1000 ? `${(value / 1e3).toPrecision(INDEX.digits)} kJ` : `${value.toPrecision(INDEX.digits)} J`;
  if (value === 0) return `0 ${unit}`;
  const [factor, name] = SCALES[unit].find(([least]) => value >= least * (1 - 1e-12)) ?? SCALES[unit].at(-1);
  return `${(value / factor).toPrecision(INDEX.digits)} ${name}`;
}

// Fewer digits, for the ends of intervals and the marks of axes.
function brief(value, unit) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const [factor, name] = SCALES[unit].find(([least]) => value >= least * (1 - 1e-12)) ?? SCALES[unit].at(-1);
  return `${Number((value / factor).toPrecision(3))} ${name}`.trim();
}

const keepText = (keep) => (keep === null ? "its default" : /^\d+$/.test(keep) ? `${keep} tokens` : `${Number((keep * 100).toPrecision(12))} %`);

// An element with attributes; text is only ever text.
function element(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "line", "path", "rect", "circle", "text", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const replace = (id, ...children) => document.getElementById(id).replaceChildren(...children.flat());
