// Interactive parts of the page: curves, matrices, the table of single runs, the selected run.
// DataTable is imported by page.html before this script.
const content = JSON.parse(document.getElementById("content").textContent);
const runs = new Map(content.runs.map((run) => [run.id, run]));
const byId = (id) => document.getElementById(id);

/** Create an element with attributes and children: elements, text or null. */
function make(name, attributes = {}, ...children) {
  const space = ["svg", "g", "path", "circle", "text", "title", "line"].includes(name)
    ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

const fixed = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));
const whole = (value) => (value === null ? "–" : value.toLocaleString("en"));
const signed = (value) => (value > 0 ? "+" : "") + fixed(value);
const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
const curve = (run) => run.matrix.map(mean);
const INK = "#1b2026";
// the look of a run is that of its learner, as in all figures
const learners = content.panels.flatMap((panel) => panel.learners);
const learnerOf = (run) => learners.find((learner) => Object.values(learner.runs).includes(run.id))
  ?? { name: distiller(run), colour: INK, dash: "", marker: "" };
// in brackets: the variant or, without one, the options that differ from the defaults
const noted = (note) => (note ? ` (${note})` : "");
const distiller = (run) => run.role === "teacher" ? "(teacher)"
  : run.distiller + noted(run.variant || run.distiller_options);
const method = (run) => run.method + noted(run.method.includes("+") ? "" : run.method_options);
const teacher = (run) => run.teacher + noted(run.teacher_method);

// ---- the table -------------------------------------------------------------------------------

const COLUMNS = [
  { title: "distiller", of: distiller, text: true, always: true },
  { title: "dataset", of: (run) => run.data, text: true },
  { title: "method", of: method, text: true },
  { title: "backbone", of: (run) => run.backbone, text: true },
  { title: "teacher", of: (run) => teacher(run) || "none", text: true },
  { title: "query", of: (run) => run.query, text: true },
  { title: "seed", of: (run) => run.seed, filter: true },
  { title: "final average accuracy", of: (run) => run.final_average_accuracy, show: fixed, always: true },
  { title: "forgetting", of: (run) => run.forgetting_max, show: fixed, always: true },
  { title: "gain", of: (run) => run.gain_over_baseline, show: signed, always: true },
  { title: "gap to teacher", of: (run) => run.gap_to_teacher, show: signed, always: true },
  { title: "training (s)", of: (run) => run.training_seconds, show: (x) => fixed(x, 0), always: true },
  { title: "processor (s)", of: (run) => run.processor_seconds, show: (x) => fixed(x, 0), always: true },
  { title: "parameters trained", of: (run) => run.trainable_parameters, show: (x) => x.toLocaleString("en"), always: true },
  { title: "protocol", of: (run) => run.protocol, text: true },
];

// a column with one value is shown as a fact above the table
const kept = [], facts = [];
for (const column of COLUMNS) {
  const values = [...new Set(content.runs.map(column.of))].sort((a, b) => (a > b) - (a < b));
  if (column.always || values.length > 1) kept.push({ ...column, values });
  else facts.push(`${column.title} ${values[0]}`);
}
byId("facts").textContent = [`${content.runs.length} runs`, ...facts].join(" · ");

const table = new DataTable("#runs", {
  data: content.runs,
  columns: kept.map((column, i) => ({
    title: column.title,
    className: column.text ? "" : "number",
    type: column.text ? "string" : "num",
    orderSequence: ["asc", "desc", ""],
    data: null,
    render: (_, kind, run) => {
      const value = column.of(run);
      if (kind !== "display") return kind === "sort" && value === null ? -Infinity : value;
      if (i === 0) return make("a", { href: `#${run.id}` }, value);
      return column.show ? column.show(value) : String(value);
    },
  })),
  createdRow: (row, run) => { row.dataset.run = run.id; },
  paging: false,
  order: [],
  autoWidth: false,
  caption: null,
  layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
});

function addFilters() {
  const search = make("input", { type: "search", size: 14 });
  search.addEventListener("input", () => table.search(search.value).draw());
  const form = byId("filters");
  form.append(make("label", {}, "search", search));
  kept.forEach((column, i) => {
    if (!(column.text || column.filter) || column.values.length < 2) return;
    const options = column.values.map((value) => make("option", {}, String(value)));
    const select = make("select", {}, make("option", { value: "" }, "all"), options);
    select.addEventListener("change", () => table.column(i).search(select.value, { exact: true }).draw());
    form.append(make("label", {}, column.title, select));
  });
  form.append(make("button", { type: "reset" }, "clear"), make("p", { id: "count", role: "status" }));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => table.search("").columns().search("").draw());
  const count = () => {
    const { recordsDisplay, recordsTotal } = table.page.info();
    byId("count").textContent = `${recordsDisplay} of ${recordsTotal} runs`;
  };
  table.on("draw", count);
  count();
}

// ---- the selected run ------------------------------------------------------------------------

function numbers(run) {
  const cell = content.runs.filter((other) => content.cell.every((key) => other[key] === run[key]))
    .map((other) => other.final_average_accuracy);
  const average = mean(cell);
  const deviation = Math.sqrt(cell.reduce((sum, x) => sum + (x - average) ** 2, 0) / (cell.length - 1));
  const rows = [
    ["final average accuracy (%)", fixed(run.final_average_accuracy), "main"],
    ["gain over its baseline (points)", signed(run.gain_over_baseline), "main"],
    ["gap to teacher (points)", signed(run.gap_to_teacher), "main"],
    ["forgetting (points)", fixed(run.forgetting_max), "main"],
  ];
  if (cell.length > 1) rows.push([`over ${cell.length} seeds`, `${fixed(average)} ± ${fixed(deviation)}`]);
  rows.push(
    ["last accuracy, mean over examples", fixed(run.last_accuracy)],
    ["average incremental", fixed(run.average_incremental_accuracy)],
    ["learning accuracy", fixed(run.learning_accuracy)],
    ["backward transfer (points)", signed(run.backward_transfer)],
    ["forgetting, as in the papers", fixed(run.forgetting_published)],
    ["calibration error (%)", fixed(run.calibration_error)],
    ["negative log-likelihood (nats)", fixed(run.negative_log_likelihood, 3)],
    ["Brier score", fixed(run.brier_score, 3)],
    ["agreement with the teacher (%)", fixed(run.teacher_agreement)],
    ["agreement of its baseline (%)", fixed(run.baseline_teacher_agreement)],
    ["right among labels assigned for alignment (%)", fixed(run.pseudo_label_accuracy)],
    ["training views, all tasks", whole(run.views_seen)],
    ["examples with a label, all tasks", whole(run.labelled_seen)],
    ["examples without a label, all tasks", whole(run.unlabelled_seen)],
    ["parameters trained", run.trainable_parameters.toLocaleString("en")],
    ["parameters, frozen ones included", run.parameters.toLocaleString("en")],
    ["training time, wall clock (s)", fixed(run.training_seconds, 0)],
    ["training time, processors (s)", fixed(run.processor_seconds, 0)],
    ["load of one core (%)", fixed(run.mean_load, 0)],
    ["peak memory (MB)", fixed(run.peak_memory_mb, 0)],
  );
  return make("dl", { class: "numbers" }, rows.map(([name, value, kind = ""]) =>
    make("div", {}, make("dt", {}, name), make("dd", { class: kind }, value))));
}

/** Draw accuracy over tasks as SVG. Lines differ in dash, marker and label, not only in colour.
    A line is a learner with `runs`: drawn are their mean and a band from minimum to maximum. */
function plot(lines) {
  const curves = lines.map(({ runs }) => runs.map(curve));
  const drawn = lines.map((line, i) => ({ ...line, values: curves[i][0].map((_, t) => {
    const at = curves[i].map((values) => values[t]);
    return [mean(at), Math.min(...at), Math.max(...at)];
  }) }));
  const values = curves.flat(2);
  const step = [1, 2, 5, 10, 20].find((s) => (Math.max(...values) - Math.min(...values)) / s <= 5) ?? 25;
  const low = Math.floor(Math.min(...values) / step) * step;
  const high = Math.max(Math.ceil(Math.max(...values) / step) * step, low + step);
  // the longest name behind its line, at the font size of `.plot`
  const letter = matchMedia("(max-width: 40rem)").matches ? 10.5 : 7.4;
  const space = 18 + letter * Math.max(...lines.map(({ name }) => name.length));
  const [width, height, left, right, top, bottom] = [600, 270, 42, Math.min(space, 300), 10, 40];
  const n = drawn[0].values.length;
  const x = (t) => left + (n > 1 ? t / (n - 1) : 0.5) * (width - left - right);
  const y = (value) => top + (high - value) / (high - low) * (height - top - bottom);
  const svg = make("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img" },
    make("title", {}, `Average accuracy (%) over the tasks learnt: ${drawn.map(({ name, values }) =>
      `${name} from ${fixed(values[0][0])} to ${fixed(values.at(-1)[0])} %`).join(", ")}`));
  for (let tick = low; tick <= high; tick += step) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      make("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (let t = 0; t < n; t += Math.ceil(n / 12)) {
    svg.append(make("text", { x: x(t), y: height - bottom + 18, "text-anchor": "middle" }, String(t + 1)));
  }
  svg.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" },
    "tasks learnt"));
  const labels = drawn.map(({ values }) => y(values.at(-1)[0]));
  const order = labels.map((_, i) => i).sort((a, b) => labels[a] - labels[b]);
  order.forEach((i, k) => { // keep labels one line apart
    if (k) labels[i] = Math.max(labels[i], labels[order[k - 1]] + 15);
  });
  const over = Math.max(0, labels[order.at(-1)] - (height - bottom));
  drawn.map(({ name, colour, dash, marker, values }, i) => {
    const path = (points) => "M" + points.map((point) => point.join(" ")).join("L");
    const band = values.map(([, , top], t) => [x(t), y(top)])
      .concat(values.map(([, low], t) => [x(t), y(low)]).reverse());
    return make("g", { class: "line", style: `--own: ${colour}` },
      make("path", { class: "band", d: `${path(band)}Z` }),
      make("path", { d: path(values.map(([value], t) => [x(t), y(value)])), "stroke-dasharray": dash || "none" }),
      values.map(([value], t) => make("path", { class: "point", d: marker, transform: `translate(${x(t)} ${y(value)})` })),
      make("text", { x: x(n - 1) + 10, y: labels[i] - over + 4 }, name));
  }).reverse().forEach((line) => svg.append(line));
  return make("figure", {}, svg);
}

const averaged = (runs) => runs[0].matrix.map((line, t) => line.map((_, i) => mean(runs.map((run) => run.matrix[t][i]))));

/** Create the table of an accuracy matrix; colours reach from `low` to `high`. */
function matrix(rows, name, low = Math.min(...rows.flat()), high = Math.max(...rows.flat())) {
  const tasks = rows.map((_, i) => make("th", { scope: "col" }, String(i + 1)));
  const lines = rows.map((line, t) => make("tr", {}, make("th", { scope: "row" }, String(t + 1)),
    rows.map((_, i) => i > t ? make("td")
      : make("td", { style: `--share: ${((line[i] - low) / (high - low || 1)).toFixed(3)}` }, line[i].toFixed(1))),
    make("td", {}, mean(line).toFixed(1))));
  return make("table", { class: rows.length > 6 ? "matrix dense" : "matrix" },
    name ? make("caption", {}, name) : null,
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "after"), tasks,
      make("th", { scope: "col" }, "mean"))),
    make("tbody", {}, lines));
}

const scroll = (label, ...inside) => make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": label }, inside);

/** Add the curves and matrices of all panels, means over seeds. */
function drawPanels() {
  for (const panel of content.panels) {
    const lines = panel.learners.map((learner) => ({ ...learner, runs: Object.values(learner.runs).map((id) => runs.get(id)) }));
    byId(panel.id).append(plot(lines), make("p", { class: "note" }, lines.some(({ runs }) => runs.length > 1)
      ? "Mean over seeds; band: minimum to maximum." : "One seed: the variation over seeds is unknown."));
    const means = lines.map(({ runs }) => averaged(runs));
    const values = means.flat(2);
    document.querySelector(`.matrices[data-panel=${panel.id}]`).append(...means.map((rows, i) =>
      scroll(`Accuracy matrix of ${lines[i].name}`, matrix(rows, lines[i].name, Math.min(...values), Math.max(...values)))));
  }
}

/** List nested settings by dotted names. */
function leaves(value, path = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    return [make("dt", {}, path), make("dd", {}, JSON.stringify(value))];
  }
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path ? `${path}.${key}` : key));
}

const fold = (title, ...inside) => make("details", {}, make("summary", {}, title), inside);
const settings = (title, value) => fold(title, make("dl", { class: "leaves" }, leaves(value)));
// embedded in another document (Snakemake's report), relative links lead nowhere
const file = (text, path) => location.protocol.startsWith("data") || location.protocol.startsWith("about")
  ? make("span", { title: path }, text) : make("a", { href: path }, text);
const other = (text, id) => runs.has(id) ? make("a", { href: `#${id}` }, text) : null;

function files(run) {
  const folder = run.files[0][1].replace(/[^/]*$/, "");
  const [whole, tasks] = [run.files.slice(0, 3), run.files.slice(3)];
  const named = ([what, path]) => make("li", {}, file(path.slice(folder.length), path), ` ${what}`);
  const stages = [];
  for (let t = 0; t < tasks.length; t += 4) {
    const parts = tasks.slice(t, t + 4).map(([what, path]) => [file(what, path), ", "]).flat();
    stages.push(make("li", {}, parts.slice(0, -1)));
  }
  return [
    make("p", { class: "note" }, make("code", {}, folder)),
    make("ul", { class: "files" }, whole.map(named), stages,
      make("li", {}, file(`data manifest of ${run.data}`, content.data[run.dataset])),
      ["backbone", "teacher", "query"].map((role) => run[role]).filter((name, i, all) => name && all.indexOf(name) === i)
        .map((name) => make("li", {}, file(`backbone ${name}`, content.backbones[name])))),
  ];
}

/** The run, its baseline and its teacher, of the same seed. */
const withReferences = (run) => [run, runs.get(run.baseline), runs.get(run.taught)]
  .filter((other, i, all) => other && all.indexOf(other) === i)
  .map((other) => ({ ...learnerOf(other), runs: [other] }));

function show(run) {
  const taught = run.teacher ? `${teacher(run)} → ${run.backbone}` : run.backbone;
  const links = [run.baseline !== run.id ? other("its baseline", run.baseline) : null, other("its teacher", run.taught)]
    .filter((link) => link !== null).flatMap((link, i) => i ? [" · ", link] : [link]);
  byId("chosen").textContent = `${distiller(run)}: ${taught}`;
  byId("about").replaceChildren(
    make("p", { class: "sub" }, `${method(run)} on ${run.data}, seed ${run.seed}, query from ${run.query}`),
    links.length ? make("p", { class: "sub" }, "compare with ", links) : "",
    numbers(run),
    make("div", { class: "pictures" },
      make("section", {}, make("h3", {}, "Average accuracy (%) over the tasks learnt"), plot(withReferences(run))),
      make("section", {}, make("h3", {}, "Accuracy matrix"), scroll("Accuracy matrix", matrix(run.matrix)),
        make("p", { class: "note" }, "R[t][i]: accuracy (%) on the test examples of task i after learning task t. "
          + `Test examples per task: ${run.test_images.join(", ")}.`))),
    make("h3", {}, "Protocol"),
    settings(`protocol ${run.protocol}: shared by comparable numbers`, content.protocols[run.protocol]),
    settings("this learner: full specification", run.learner),
    settings("fingerprints of data and backbones", run.fingerprints),
    make("h3", {}, "Files"), ...files(run));
  for (const row of table.rows().nodes().toArray()) {
    if (row.dataset.run === run.id) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

/** Show the run that the address names, so that links and the back button work. */
function follow() {
  const id = decodeURIComponent(location.hash.slice(1));
  show(runs.get(id) ?? content.runs.find((run) => run.gain_over_baseline !== null) ?? content.runs[0]);
}

function addProvenance() {
  const list = (title, paths, remarks = {}) => [make("h3", {}, title), make("ul", { class: "files" },
    Object.entries(paths).map(([name, path]) =>
      make("li", {}, file(name, path), remarks[name] ? ` ${remarks[name]}` : "")))];
  const versions = content.versions.map((set) =>
    make("li", {}, Object.entries(set).map(([name, version]) => `${name} ${version}`).join(", ")));
  byId("provenance").append(
    make("h3", {}, "Versions"), make("ul", { class: "files" }, versions),
    ...list("Data", content.data, content.remarks), ...list("Backbones", content.backbones),
    make("h3", {}, "Protocols"),
    ...Object.entries(content.protocols).map(([hash, protocol]) => settings(hash, protocol)),
    make("h3", {}, "Configuration, resolved"),
    fold(`all values of ${content.name} in use`, make("pre", {}, content.configuration)));
}

/** Add the deployment section: figures, table and machine. */
function addDeployment({ machine, note, rows, figures }) {
  const heads = Object.keys(rows[0]);
  const cell = (text) => make("td", { class: /^[\d.,−-]+$/.test(text) ? "number" : "" }, text);
  byId("deployment").hidden = false;
  byId("deployment").append(
    make("p", { class: "note" }, `Machine: ${machine}`),
    ...figures.map((svg) => scroll("Accuracy against latency", make("img",
      { class: "drawn", src: `data:image/svg+xml;base64,${svg}`, alt: "Accuracy against latency; the table below has the numbers" }))),
    make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Deployment" }, make("table", {},
      make("thead", {}, make("tr", {}, heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, heads.map((head) => cell(row[head]))))))),
    make("p", { class: "note" }, note));
}

// ---- any two rows ------------------------------------------------------------------------------

/** Return the difference between two cells, from the rows of `contrasts.csv`. */
function contrastOf(first, second) {
  const [one, other] = [first, second].map((cell) => content.contrasts.cells.indexOf(cell));
  for (const [i, j, difference, low, high, p, seeds, images] of content.contrasts.rows) {
    if (i === one && j === other) return { difference, low, high, p, seeds, images };
    if (i === other && j === one) return { difference: -difference, low: -high, high: -low, p, seeds, images };
  }
  return null;
}

function addComparison() {
  const named = new Map(content.panels.flatMap((panel) => panel.learners.map((learner) => {
    const run = runs.get(Object.values(learner.runs)[0]);
    const by = run.teacher ? `, ${teacher(run)} → ${run.backbone}` : `, ${run.backbone}`;
    const label = learner.label === method(run) ? "" : `, ${learner.label}`; // a bound has the name of its method
    return [learner.cell, `${run.data}, ${method(run)}${label}${by}`];
  })));
  const cells = [...named].filter(([cell]) => content.contrasts.cells.includes(cell));
  if (cells.length < 2) return;
  const select = (label, chosen) => {
    const options = cells.map(([cell, name]) => make("option", { value: cell }, name));
    options[chosen].setAttribute("selected", "");
    return make("label", {}, label, make("select", { name: label }, options));
  };
  const form = byId("compared-rows");
  const distilled = cells.findIndex(([cell]) => runs.get(`${cell}/seed${content.runs[0].seed}`)?.gain_over_baseline != null);
  const over = cells.findIndex(([cell]) => distilled >= 0
    && runs.get(`${cells[distilled][0]}/seed${content.runs[0].seed}`)?.baseline.startsWith(`${cell}/`));
  const first = Math.max(distilled, 0);
  form.append(select("first", first), select("second", over >= 0 ? over : (first + 1) % cells.length));
  const protocolOf = (cell) => content.panels.flatMap((panel) => panel.learners).find((learner) => learner.cell === cell).protocol;
  const write = () => {
    const [first, second] = [...form.elements].map((element) => element.value);
    const found = contrastOf(first, second);
    byId("contrast").textContent = found === null
      ? (first === second ? "Choose two different rows." : "These rows have no seed or no test examples in common.")
      : `First minus second: ${signed(found.difference)} points (${signed(found.low)} to ${signed(found.high)}), `
        + `p ${found.p === null ? "not defined" : found.p < 0.001 ? "< 0.001" : `= ${found.p.toFixed(3)}`}; `
        + `${found.seeds} seed${found.seeds > 1 ? "s" : ""}, ${found.images.toLocaleString("en")} test examples.`
        + (protocolOf(first) === protocolOf(second) ? "" : ` Protocols differ: ${protocolOf(first)}, ${protocolOf(second)}.`);
  };
  form.addEventListener("change", write);
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("comparison").hidden = false;
  write();
}

addFilters();
addComparison();
if (content.deployment) addDeployment(content.deployment);
addProvenance();
drawPanels();
follow();
window.addEventListener("hashchange", () => {
  follow();
  byId("detail").scrollIntoView();
});
// print the content of closed details, too
const folds = () => [...document.querySelectorAll("details")];
let closed = [];
window.addEventListener("beforeprint", () => {
  closed = folds().filter((fold) => !fold.open);
  closed.forEach((fold) => { fold.open = true; });
});
window.addEventListener("afterprint", () => closed.forEach((fold) => { fold.open = false; }));
byId("runs").addEventListener("click", (event) => {
  const row = event.target.closest("tbody tr[data-run]");
  if (row && !event.target.closest("a")) location.hash = row.dataset.run;
});
