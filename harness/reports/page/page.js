// Draws every panel from its specification and the rows that the controls select.
const data = JSON.parse(document.getElementById("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const form = document.getElementById("controls");
const views = {};

// Columns are stored as arrays; repeated texts are stored once and replaced by their number.
function rowsOf(panel) {
  const names = Object.keys(panel.columns);
  const decoded = names.map((name) => {
    const column = panel.columns[name];
    return column.words ? column.codes.map((code) => (code < 0 ? null : column.words[code])) : column;
  });
  const length = names.length ? decoded[0].length : 0;
  return Array.from({ length }, (_, i) => Object.fromEntries(names.map((name, j) => [name, decoded[j][i]])));
}

for (const panel of Object.values(data.panels)) panel.rows = rowsOf(panel);

// Vega groups rows in objects, in which the key __proto__ is taken: the heat map then is not drawn. A word joiner is invisible.
const groupable = (value) => (value === "__proto__" ? "__proto__\u2060" : value);
data.families = data.families.map(groupable);

function settings() {
  const found = Object.fromEntries(new FormData(form));
  found.log = form.elements.log.checked;
  return found;
}

function chosen(panel, asked) {
  let rows = panel.rows;
  for (const name of ["task", "metric", "family"]) {
    if (panel.controls.includes(name) && asked[name] && asked[name] !== "*") rows = rows.filter((row) => row[name] === asked[name]);
  }
  if (panel.controls.includes("level")) {
    rows = rows.map((row) => (row["low_" + asked.level] == null ? row : { ...row, low: row["low_" + asked.level], high: row["high_" + asked.level] }));
  }
  panel.lost = [];
  if (!panel.controls.includes("x")) return rows;
  rows = rows.map((row) => ({ ...row, x: row[asked.x] }));
  const placed = (row) => row.x != null && (!asked.log || row.x > 0);
  panel.points = rows.filter((row) => row.kind !== "law");
  panel.lost = panel.points.filter((row) => !placed(row));
  return rows.filter(placed);
}

// Counts the points that have no place on the horizontal axis, as harness plot does.
function notDrawn(panel, asked) {
  if (!panel.lost.length) return "";
  const families = [...new Set(panel.lost.map((row) => row.family))].filter((family) => family != null).sort();
  const named = families.slice(0, 6).join(", ") + (families.length > 6 ? ` and ${families.length - 6} more` : "");
  const axis = (data.xTitles[asked.x] || asked.x).toLowerCase().replace("flops", "FLOPs");
  return `${panel.lost.length} of ${panel.points.length} points have no ${axis} and are not drawn: those of ${named}.`;
}

function filled(node, asked) {
  if (typeof node === "string") {
    return node.replace("$metric", asked.metricLabel).replace("$x_title", data.xTitles[asked.x] || asked.x).replace("$level", asked.level);
  }
  if (Array.isArray(node)) return node.map((part) => filled(part, asked));
  if (node === null || typeof node !== "object") return node;
  const copy = Object.fromEntries(Object.entries(node).map(([key, part]) => [key, filled(part, asked)]));
  if (copy.field === "x" && copy.scale) {
    copy.scale = { ...copy.scale, type: asked.log ? "log" : "linear" };
    copy.axis = { ...copy.axis, format: asked.x === "loss" ? "~g" : asked.log ? "~e" : "~s" };
    copy.title = data.xTitles[asked.x] || asked.x;
  }
  if (asked.logY && ["value", "low"].includes(copy.field) && copy.scale && copy.scale.zero === false) copy.scale = data.logY;
  if (copy.field === "family" && copy.scale && copy.scale.range) {  // a family looks the same in every figure
    const range = copy.scale.range === "category" ? (dark.matches ? data.dark : data.light) : copy.scale.range;
    const of = (family) => range[Math.max(0, data.families.indexOf(family)) % range.length];
    copy.scale = { ...copy.scale, domain: asked.families, range: asked.families.map(of) };
    if (copy.legend) copy.legend = { ...copy.legend, columns: Math.min(copy.legend.columns || 4, asked.columns) };
  }
  return copy;
}

function metricOf(panel, rows, asked) {
  const names = [...new Set(rows.map((row) => row.metric).filter(Boolean))];
  return names.length === 1 ? names[0] : panel.controls.includes("metric") && asked.metric !== "*" ? asked.metric : "value";
}

function config() {
  const style = getComputedStyle(document.body);
  const ink = style.getPropertyValue("--ink").trim(), soft = style.getPropertyValue("--soft").trim(), line = style.getPropertyValue("--line").trim();
  return {
    background: "transparent", view: { stroke: line },
    axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: soft, tickColor: soft, gridOpacity: 0.6 },
    legend: { labelColor: ink, titleColor: ink, layout: { bottom: { direction: "vertical", anchor: "start" } } }, header: { labelColor: ink, titleColor: ink }, title: { color: ink },
    text: { color: ink }, rule: { color: soft },
    range: { category: dark.matches ? data.dark : data.light },
  };
}

function table(rows) {
  const element = document.createElement("table");
  if (!rows.length) return element;
  const names = Object.keys(rows[0]).filter((name) => rows.some((row) => row[name] != null));
  const head = element.createTHead().insertRow();
  for (const name of names) {
    const cell = document.createElement("th");
    cell.scope = "col"; cell.textContent = name; head.append(cell);
  }
  const body = element.createTBody();
  for (const row of rows.slice(0, 500)) {
    const line = body.insertRow();
    for (const name of names) line.insertCell().textContent = typeof row[name] === "number" ? Number(row[name].toPrecision(5)) : (row[name] ?? "");
  }
  return element;
}

async function draw(name) {
  const panel = data.panels[name], asked = settings(), shown = chosen(panel, asked);
  const rows = shown.map((row) => Object.fromEntries(Object.entries(row).map(([key, value]) => [key, groupable(value)])));
  asked.metricLabel = metricOf(panel, rows, asked);
  asked.logY = panel.decades.includes(asked.task);
  asked.families = [...new Set(rows.map((row) => row.family).filter((family) => family != null))].sort();
  const longest = Math.max(1, ...asked.families.map((family) => String(family).length));
  const figure = document.getElementById("figure-" + name), empty = document.getElementById("empty-" + name);
  empty.hidden = rows.length > 0; figure.hidden = !rows.length;
  panel.shown = shown;
  const lost = document.getElementById("lost-" + name);
  lost.textContent = notDrawn(panel, asked); lost.hidden = !lost.textContent;
  const details = document.querySelector("#panel-" + name + " details");
  if (details.open) document.getElementById("table-" + name).replaceChildren(table(shown));
  if (!rows.length) return;
  asked.columns = Math.max(1, Math.floor((figure.clientWidth - 60) / (Math.min(5.5 * longest, 160) + 25)));  // as in legend_columns
  const spec = { ...filled(panel.spec, asked), datasets: undefined, data: { values: rows } };
  if (!spec.facet && !spec.hconcat && !spec.vconcat) { spec.width = "container"; spec.autosize = { type: "fit-x", contains: "padding" }; }
  if (views[name]) views[name].finalize();
  views[name] = await window.vegaEmbed(figure, spec, { renderer: "svg", actions: false, config: config(), ast: false });
  figure.dataset.drawn = "yes";
  if (!performance.getEntriesByName("first figure").length) performance.mark("first figure");
}

async function drawAll(change) {
  for (const [name, panel] of Object.entries(data.panels)) {
    if (!change || change === "log" ? panel.controls.includes("x") || !change : panel.controls.includes(change)) await draw(name);
  }
}

function save(name, href) {
  const link = document.createElement("a");
  link.href = href; link.download = name; link.click();
}

function csv(rows) {
  const names = rows.length ? Object.keys(rows[0]) : [];
  const cell = (value) => (value == null ? "" : /[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\n") + "\n";
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-save]");
  if (!button) return;
  const { panel, save: kind } = button.dataset;
  if (kind === "csv") return save(`${panel}.csv`, URL.createObjectURL(new Blob([csv(data.panels[panel].shown || [])], { type: "text/csv" })));
  if (views[panel]) save(`${panel}.${kind}`, await views[panel].view.toImageURL(kind, kind === "png" ? 2 : 1));
});
document.addEventListener("toggle", (event) => {
  const section = event.target.closest?.(".panel[id]");
  if (section && event.target.open) {
    const name = section.id.replace("panel-", "");
    document.getElementById("table-" + name).replaceChildren(table(data.panels[name].shown || []));
  }
}, true);
form.addEventListener("change", (event) => drawAll(event.target.name));
dark.addEventListener("change", () => drawAll());
drawAll().then(() => { document.body.dataset.ready = "yes"; });
