// What the page does: a table of runs, filters, and the detail of the selected run.
// DataTable comes from the import that stands before this script.
const content = JSON.parse(document.getElementById("content").textContent);
const runs = new Map(content.runs.map((run) => [run.id, run]));
const byId = (id) => document.getElementById(id);

/** An element: attributes, then children, which are elements, text or null. */
function make(name, attributes = {}, ...children) {
  const space = ["svg", "g", "path", "circle", "text", "title", "line"].includes(name)
    ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

const fixed = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));
const signed = (value) => (value > 0 ? "+" : "") + fixed(value);
const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
const curve = (run) => run.matrix.map(mean);
// a variant's name, or without one what differs from the defaults
const noted = (note) => (note ? ` (${note})` : "");
const distiller = (run) => run.role === "teacher" ? "(teacher)"
  : run.kd + noted(run.variant || run.kd_options);
const method = (run) => run.method + noted(run.method.includes("+") ? "" : run.method_options);
const teacher = (run) => run.teacher + noted(run.teacher_method);

// ---- the table -------------------------------------------------------------------------------

const COLUMNS = [
  { title: "distiller", of: distiller, text: true, always: true },
  { title: "dataset", of: (run) => run.dataset, text: true },
  { title: "method", of: method, text: true },
  { title: "learner", of: (run) => run.student, text: true },
  { title: "taught by", of: (run) => teacher(run) || "–", text: true },
  { title: "query", of: (run) => run.query, text: true },
  { title: "seed", of: (run) => run.seed, filter: true },
  { title: "final average accuracy", of: (run) => run.final_average_accuracy, show: fixed, always: true },
  { title: "forgetting", of: (run) => run.forgetting, show: fixed, always: true },
  { title: "gain over none", of: (run) => run.gain_over_none, show: signed, always: true },
  { title: "gap to teacher", of: (run) => run.gap_to_teacher, show: signed, always: true },
  { title: "training (s)", of: (run) => run.training_seconds, show: (x) => fixed(x, 0), always: true },
  { title: "processor (s)", of: (run) => run.processor_seconds, show: (x) => fixed(x, 0), always: true },
  { title: "parameters", of: (run) => run.trainable_parameters, show: (x) => x.toLocaleString("en"), always: true },
  { title: "protocol", of: (run) => run.protocol, text: true },
];

// a column whose rows all say the same is one fact above the table
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
  const same = ["dataset", "method", "role", "student", "teacher", "teacher_method", "query", "kd", "variant", "n_tasks"];
  const cell = content.runs.filter((other) => same.every((key) => other[key] === run[key]))
    .map((other) => other.final_average_accuracy);
  const average = mean(cell);
  const deviation = Math.sqrt(cell.reduce((sum, x) => sum + (x - average) ** 2, 0) / (cell.length - 1));
  const rows = [
    ["final average accuracy (%)", fixed(run.final_average_accuracy), "main"],
    ["gain over none (points)", signed(run.gain_over_none), "main"],
    ["gap to teacher (points)", signed(run.gap_to_teacher), "main"],
    ["forgetting", fixed(run.forgetting), "main"],
  ];
  if (cell.length > 1) rows.push([`over ${cell.length} seeds`, `${fixed(average)} ± ${fixed(deviation)}`]);
  rows.push(
    ["last accuracy, by image", fixed(run.last_accuracy)],
    ["average incremental", fixed(run.average_incremental_accuracy)],
    ["learning accuracy", fixed(run.learning_accuracy)],
    ["forgetting, maximum", fixed(run.forgetting_max)],
    ["forgetting, as published", fixed(run.forgetting_published)],
    ["trainable parameters", run.trainable_parameters.toLocaleString("en")],
    ["training time on the wall (s)", fixed(run.training_seconds, 0)],
    ["processor time of it (s)", fixed(run.processor_seconds, 0)],
    ["load of one core (%)", fixed(run.mean_load, 0)],
    ["peak memory (MB)", fixed(run.peak_memory_mb, 0)],
  );
  return make("dl", { class: "numbers" }, rows.map(([name, value, kind = ""]) =>
    make("div", {}, make("dt", {}, name), make("dd", { class: kind }, value))));
}

/** Accuracy over tasks as SVG; lines differ in dash and label, not only in colour. */
function plot(run) {
  const lines = [["own", distiller(run), run]];
  if (run.none && run.none !== run.id && runs.has(run.none)) lines.push(["none", "none", runs.get(run.none)]);
  if (run.taught && runs.has(run.taught)) lines.push(["teacher", "teacher", runs.get(run.taught)]);
  const values = lines.flatMap(([, , other]) => curve(other));
  const step = [1, 2, 5, 10, 20].find((s) => (Math.max(...values) - Math.min(...values)) / s <= 5) ?? 25;
  const low = Math.floor(Math.min(...values) / step) * step;
  const high = Math.max(Math.ceil(Math.max(...values) / step) * step, low + step);
  const [width, height, left, right, top, bottom] = [560, 260, 42, 100, 10, 40];
  const n = run.matrix.length;
  const x = (t) => left + (n > 1 ? t / (n - 1) : 0.5) * (width - left - right);
  const y = (value) => top + (high - value) / (high - low) * (height - top - bottom);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" },
    make("title", {}, `Accuracy over tasks: ${lines.map(([, label, other]) =>
      `${label} from ${fixed(curve(other)[0])} to ${fixed(curve(other).at(-1))} %`).join(", ")}`));
  for (let tick = low; tick <= high; tick += step) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      make("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (let t = 0; t < n; t += Math.ceil(n / 12)) {
    svg.append(make("text", { x: x(t), y: height - bottom + 18, "text-anchor": "middle" }, String(t + 1)));
  }
  svg.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" },
    "tasks learnt"));
  const labels = lines.map(([, , other]) => y(curve(other).at(-1)));
  const order = labels.map((_, i) => i).sort((a, b) => labels[a] - labels[b]);
  order.forEach((i, k) => { // labels keep a line's distance from each other
    if (k) labels[i] = Math.max(labels[i], labels[order[k - 1]] + 15);
  });
  lines.map(([kind, label, other], i) => {
    const points = curve(other).map((value, t) => [x(t), y(value)]);
    return make("g", { class: `line ${kind}` },
      make("path", { d: "M" + points.map((point) => point.join(" ")).join("L") }),
      points.map(([cx, cy]) => make("circle", { cx, cy, r: kind === "own" ? 4 : 2.5 })),
      make("text", { x: points.at(-1)[0] + 10, y: labels[i] + 4 }, label));
  }).reverse().forEach((line) => svg.append(line));
  return make("figure", {}, svg);
}

function matrix(run) {
  const low = Math.min(...run.matrix.flat()), range = Math.max(...run.matrix.flat()) - low || 1;
  const tasks = run.matrix.map((_, i) => make("th", { scope: "col" }, String(i + 1)));
  const lines = run.matrix.map((line, t) => make("tr", {}, make("th", { scope: "row" }, String(t + 1)),
    run.matrix.map((_, i) => i > t ? make("td")
      : make("td", { style: `--share: ${((line[i] - low) / range).toFixed(3)}` }, line[i].toFixed(1))),
    make("td", {}, mean(line).toFixed(1))));
  const table = make("table", { class: run.matrix.length > 6 ? "matrix dense" : "matrix" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "after"), tasks,
      make("th", { scope: "col" }, "mean"))),
    make("tbody", {}, lines));
  return [
    make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Accuracy matrix" }, table),
    make("p", { class: "note" }, "R[t][i]: accuracy (%) on the test images of task i after learning task t. "
      + `Test images per task: ${run.test_images.join(", ")}.`),
  ];
}

/** Nested settings as a list of dotted names. */
function leaves(value, path = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    return [make("dt", {}, path), make("dd", {}, JSON.stringify(value))];
  }
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path ? `${path}.${key}` : key));
}

const fold = (title, ...inside) => make("details", {}, make("summary", {}, title), inside);
const settings = (title, value) => fold(title, make("dl", { class: "leaves" }, leaves(value)));
// inside another document (Snakemake's report) there is nothing beside the page to link to
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
      make("li", {}, file(`data manifest of ${run.dataset}`, content.data[run.dataset])),
      ["student", "teacher", "query"].map((role) => run[role]).filter((name, i, all) => name && all.indexOf(name) === i)
        .map((name) => make("li", {}, file(`backbone ${name}`, content.backbones[name])))),
  ];
}

function show(run) {
  const taught = run.teacher ? `${teacher(run)} → ${run.student}` : run.student;
  const links = [run.none !== run.id ? other("undistilled student", run.none) : null, other("its teacher", run.taught)]
    .filter((link) => link !== null).flatMap((link, i) => i ? [" · ", link] : [link]);
  byId("chosen").textContent = `${distiller(run)}: ${taught}`;
  byId("about").replaceChildren(
    make("p", { class: "sub" }, `${method(run)} on ${run.dataset}, seed ${run.seed}, query from ${run.query}`),
    links.length ? make("p", { class: "sub" }, "compare with ", links) : "",
    numbers(run),
    make("div", { class: "pictures" },
      make("section", {}, make("h3", {}, "Average accuracy (%) over the tasks learnt"), plot(run)),
      make("section", {}, make("h3", {}, "Accuracy matrix"), ...matrix(run))),
    make("h3", {}, "Protocol"),
    settings(`protocol ${run.protocol}: what comparable numbers share`, content.protocols[run.protocol]),
    settings("this learner: all that fixes its numbers", run.learner),
    settings("fingerprints of data and backbones", run.fingerprints),
    make("h3", {}, "Files"), ...files(run));
  for (const row of table.rows().nodes().toArray()) {
    row.setAttribute("aria-selected", String(row.dataset.run === run.id));
  }
}

/** The address names the run, so that a link leads to it and the browser's way back works. */
function follow() {
  const id = decodeURIComponent(location.hash.slice(1));
  show(runs.get(id) ?? content.runs.find((run) => run.gain_over_none !== null) ?? content.runs[0]);
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

addFilters();
addProvenance();
follow();
window.addEventListener("hashchange", () => {
  follow();
  if (matchMedia("(max-width: 112rem)").matches) byId("detail").scrollIntoView();
});
// what is folded on the screen is spelled out on paper
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
