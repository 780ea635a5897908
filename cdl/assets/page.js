// Sort and filter the tables of the page, open the run that the address names, print all.
// Everything else on the page is static HTML; no number is computed here.
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

/** Sort the rows of a table by a column: ascending, descending, then as they were. */
function sortable(table) {
  const body = table.tBodies[0], original = [...body.rows];
  all("thead th", table).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const order = next === undefined ? "ascending" : next;
      all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const text = (row) => row.cells[column].textContent.trim().replace("−", "-");
      const number = (row) => { const x = parseFloat(text(row).replaceAll(",", "")); return Number.isNaN(x) ? -Infinity : x; };
      const ascending = head.classList.contains("number")
        ? (a, b) => number(a) - number(b) || 0 : (a, b) => text(a).localeCompare(text(b), "en");
      const sorted = !order ? original
        : [...original].sort(order === "ascending" ? ascending : (a, b) => ascending(b, a));
      body.append(...sorted);
    });
  });
}

/** Show the rows that contain every word and have the value chosen for each column. */
function filtered(form) {
  const table = document.getElementById(form.dataset.table), rows = [...table.tBodies[0].rows];
  const apply = () => {
    const words = form.elements.search.value.toLowerCase().split(/\s+/);
    const chosen = all("select", form).filter((select) => select.value);
    const shown = rows.filter((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every((word) => text.includes(word))
        && chosen.every((select) => row.cells[select.dataset.column].textContent.trim() === select.value));
      return !row.hidden;
    });
    all("[role=status]", form)[0].textContent = `${shown.length} of ${rows.length} rows`;
  };
  form.hidden = false;
  ["input", "change"].forEach((kind) => form.addEventListener(kind, apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply)); // after the fields are empty
  apply();
}

/** Open what the address names, with all folds around it. */
function follow() {
  let at = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const target = at;
  for (; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  target?.scrollIntoView();
}

/** Mark the boxes that scroll, which then say so. */
const markScrolling = () => all(".scroll").forEach((box) =>
  box.classList.toggle("scrolls", box.scrollWidth > box.clientWidth));

all("table.sortable").forEach(sortable);
all("form.filters").forEach(filtered);
addEventListener("hashchange", follow);
addEventListener("resize", markScrolling);
document.addEventListener("toggle", markScrolling, true); // a closed fold has no width
markScrolling();
follow();
if (/^(data|about)/.test(location.protocol)) { // embedded in Snakemake's report, files are elsewhere
  all("a:not([href^='#'])").forEach((link) => {
    link.title = link.getAttribute("href");
    link.removeAttribute("href");
  });
}
// print the content of closed folds, too
let closed = [];
addEventListener("beforeprint", () => {
  closed = all("details:not([open])");
  closed.forEach((fold) => { fold.open = true; });
});
addEventListener("afterprint", () => closed.forEach((fold) => { fold.open = false; }));
