// Filters the table of families. Without JavaScript the page shows the whole table.
(function () {
  "use strict";

  const KINDS = ["image", "video", "audio"];

  function cells(row) {
    return Array.from(row.cells, (cell) => cell.textContent.trim());
  }

  function labelled(text, control, className) {
    const label = document.createElement("label");
    if (className) label.className = className;
    label.append(text, control);
    return label;
  }

  function choice(any, values) {
    const select = document.createElement("select");
    for (const value of ["", ...values]) {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = value || any;
      select.append(option);
    }
    return select;
  }

  function setUp() {
    const page = document.querySelector(".families-table");
    const table = page && page.querySelector("table");
    if (!table || page.querySelector(".families-filter")) return;
    const headings = Array.from(table.tHead.rows[0].cells, (cell) => cell.textContent.trim());
    const column = (name) => headings.indexOf(name);
    const rows = Array.from(table.tBodies[0].rows, (row) => ({ row, texts: cells(row) }));
    const values = (name) =>
      [...new Set(rows.map(({ texts }) => texts[column(name)]).filter(Boolean))].sort();

    const search = document.createElement("input");
    search.type = "search";
    search.placeholder = "Qwen, tiktoken, remote code ...";
    const support = choice("any", values("support"));
    const media = choice("any", KINDS);
    const collator = choice("any", values("collator"));
    const count = document.createElement("output");

    const form = document.createElement("form");
    form.className = "families-filter";
    form.setAttribute("role", "search");
    form.append(
      labelled("Search", search, "search"),
      labelled("Support", support),
      labelled("Media", media),
      labelled("Collator", collator),
      count,
    );
    form.addEventListener("submit", (event) => event.preventDefault());

    function filter() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const { row, texts } of rows) {
        const text = texts.join(" ").toLowerCase();
        const kinds = texts[column("media")].split(", ");
        const fits =
          words.every((word) => text.includes(word)) &&
          (!support.value || texts[column("support")] === support.value) &&
          (!media.value || kinds.includes(media.value)) &&
          (!collator.value || texts[column("collator")] === collator.value);
        row.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      count.textContent = `${shown} of ${rows.length} processors`;
    }

    form.addEventListener("input", filter);
    filter();
    page.prepend(form);
  }

  // with instant navigation, pages are replaced without a load event
  if (typeof document$ !== "undefined") document$.subscribe(setUp);
  else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", setUp);
  else setUp();
})();
