"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const TRAINED = 0; // the classes with special treatment, as indices into data.classes
const MEDIA = 3;
const PADDING = 4;
const number = new Intl.NumberFormat("en");
const cards = []; // of each sample: its entry, its element, its blocks
const turns = []; // the assistant's blocks, in order
const failures = []; // of each failed row: its element and its error
const links = []; // of the list of rows, each with its row's element
let turnAt = -1;
let matches = [];
let matchAt = -1;

// Everything is made as elements and text nodes, so nothing in the data can become markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== "") element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)}%` : "0%");
// Characters that hide or reorder the text around them are replaced.
const visible = (text) => text
  .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
  .replace(/[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, (c) => `<U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}>`)
  .replace(/\n/g, "↵\n").replace(/\t/g, "→\t");
const classOf = (run) => `k${run.k}${run.d ? ` d${run.d}` : ""}`;

function folded(entry, run) {
  const what = run.k === MEDIA ? `${entry.media[run.m].kind} ${run.m + 1}` : "padding";
  return `${what}: ${number.format(run.n)} token${run.n === 1 ? "" : "s"}`;
}

// ---------------------------------------------------------------- one sample

function bar(segments, label) {
  const shown = make("div", { class: "bar", role: "img", "aria-label": label });
  for (const [kind, size] of segments) {
    if (size) shown.append(make("i", { class: `k${kind}`, style: `flex-grow:${size}` }));
  }
  return shown;
}

function legend(counts) {
  const total = counts.reduce((a, b) => a + b, 0);
  return make("ul", { class: "legend" }, ...counts.flatMap((count, kind) => count ? [
    make("li", {}, make("i", { class: `dot k${kind}` }),
      `${data.meanings[kind]} `, make("b", {}, number.format(count)), ` (${percent(count, total)})`),
  ] : []));
}

const noteList = (notes) =>
  make("ul", { class: "notes" }, ...notes.map((note) => make("li", {}, note)));

function sampleCard(entry, index, isPacked) {
  const counts = entry.counts;
  const title = make("div", { class: "title" }, make("h3", {}, entry.title),
    make("span", { class: "meta" }, `${number.format(entry.tokens)} tokens, ` +
      `${percent(counts[TRAINED], entry.tokens)} trained, by ${entry.strategy}, format ${entry.format}`));
  const order = entry.blocks.flatMap((block) => block.runs.map((run) => [run.k, run.n]));
  const card = make("article", { class: `card${isPacked ? " inpack" : ""}`, id: `sample-${index}` },
    title, bar(order, "Where the tokens went, from first to last"), legend(counts));
  const notes = [...entry.warnings, ...(entry.note ? [entry.note] : [])];
  if (notes.length) card.append(noteList(notes));
  if (entry.media.length) card.append(thumbs(entry));
  const blocks = make("div", { class: "blocks" });
  const holder = { entry, card, blocks: [], isSplit: false };
  for (const block of entry.blocks) {
    const text = make("div", { class: "text", tabindex: "0", role: "group",
      "aria-label": `Tokens of ${block.role}` });
    const element = make("section", { class: `block ${block.role === "assistant" ? "assistant" : ""}`,
      tabindex: "-1", "aria-label": block.role }, make("div", { class: "role" }, block.role), text);
    for (const run of block.runs) {
      const isFolded = run.k === MEDIA || run.k === PADDING;
      const shown = isFolded ? folded(entry, run) : visible(run.t.join(""));
      text.append(make("span", { class: classOf(run) }, shown));
    }
    const found = { block, element, text, holder };
    holder.blocks.push(found);
    if (block.role === "assistant") turns.push(found);
    blocks.append(element);
  }
  const stages = Object.entries(entry.ms).map(([stage, ms]) => `${stage} ${ms}`).join(", ");
  const roles = Object.entries(entry.roles).map(([role, [all, trained]]) =>
    `${role} ${number.format(all)}${trained ? ` (${number.format(trained)} trained)` : ""}`);
  card.append(blocks, make("div", { class: "meta" }, `Tokens: ${roles.join(", ")}`),
    make("div", { class: "meta" }, `Milliseconds: ${stages}`));
  cards.push(holder);
  return card;
}

function thumbs(entry) {
  return make("ul", { class: "thumbs" }, ...entry.media.map((item, i) => {
    const name = `${item.kind} ${i + 1}`;
    const text = `${name}: ${item.size}, ${number.format(item.tokens)} tokens`;
    return make("li", {}, ...(item.thumb ? [make("img", { src: item.thumb, alt: name })] : []),
      make("span", {}, text));
  }));
}

// A run is split into one element per token only when its sample comes near the window.
function split(holder) {
  if (holder.isSplit) return;
  holder.isSplit = true;
  for (const found of holder.blocks) {
    const spans = [];
    const runs = [];
    for (const run of found.block.runs) {
      const outer = make("span", { class: classOf(run) });
      const isFolded = run.k === MEDIA || run.k === PADDING;
      const texts = isFolded ? [folded(holder.entry, run)] : run.t;
      texts.forEach((text, i) => {
        const token = make("span", { class: "tok", tabindex: "-1" }, isFolded ? text : visible(text));
        Object.assign(token, { facts: { run, i, isFolded, block: found.block, holder } });
        outer.append(token);
        spans.push(token);
      });
      runs.push(outer);
    }
    found.parts = spans;
    found.text.replaceChildren(...runs);
  }
}

// ---------------------------------------------------------------- what a token is

const tip = make("div", { id: "tip", role: "tooltip" });
let tipOf = null; // the token that it is about

function showTip(token) {
  const { run, i, isFolded, block, holder } = token.facts;
  const rows = [];
  const last = run.s + run.n - 1;
  if (isFolded) {
    rows.push(["tokens", run.n === 1 ? `${run.s}` : `${run.s} to ${last}`]);
    if (run.k === MEDIA) rows.push(["size", holder.entry.media[run.m].size]);
  } else {
    rows.push(["token", JSON.stringify(run.t[i])], ["id", `${run.i[i]}`], ["position", `${run.s + i}`]);
    rows.push(["offset", run.o[i] < 0 ? "not in the prompt" : `${run.o[i]}`]);
  }
  const message = block.message < 0 ? "" : `, message ${block.message}`;
  rows.push(["role", `${block.role}${message}`], ["class", data.meanings[run.k]]);
  rows.push(["label", run.k === TRAINED ? `${run.i[i]}` : "-100"]);
  if (run.d) rows.push(["differs", run.d === 1 ? "trained here only" : `only ${data.diff} trains it`]);
  const list = make("dl");
  for (const [name, value] of rows) list.append(make("dt", {}, name), make("dd", {}, value));
  tip.replaceChildren(list);
  tipOf = token;
  document.querySelectorAll("[aria-describedby=tip]").forEach((e) => e.removeAttribute("aria-describedby"));
  token.setAttribute("aria-describedby", "tip");
  placeTip();
}

function placeTip() {
  if (!tipOf) return;
  const box = tipOf.getClientRects()[0] || tipOf.getBoundingClientRect();
  tip.style.display = box.bottom < 0 || box.top > innerHeight ? "none" : "block";
  const below = box.bottom + 8 + tip.offsetHeight < innerHeight;
  tip.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - tip.offsetHeight - 8)}px`;
  tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
}

function hideTip() {
  tip.style.display = "none";
  tipOf = null;
}
const tokenOf = (event) => (event.target.closest ? event.target.closest(".tok") : null);

for (const kind of ["mouseover", "focusin", "click"]) {
  document.addEventListener(kind, (event) => {
    const token = tokenOf(event);
    if (token) showTip(token);
    else hideTip();
  });
}
addEventListener("scroll", placeTip, { passive: true });

// ---------------------------------------------------------------- search and turns

function search(query) {
  for (const token of matches.flat()) token.classList.remove("hit", "now");
  matches = [];
  matchAt = -1;
  if (query) {
    const pattern = new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu");
    for (const holder of cards) {
      if (!holder.card.hidden) for (const found of holder.blocks) searchBlock(found, pattern);
    }
    for (const { card, error } of failures) {
      if (!card.hidden && error.textContent.search(pattern) >= 0) {
        error.classList.add("hit");
        matches.push([error]);
      }
    }
    matches.sort(([a], [b]) => (a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1));
  }
  const status = document.getElementById("matches");
  status.textContent = query ? `${number.format(matches.length)} found` : "";
  if (matches.length) toMatch(0);
}

function searchBlock(found, pattern) {
  const pieces = [];
  let length = 0;
  for (const run of found.block.runs) {
    for (const text of run.t || []) {
      pieces.push([length, length + text.length]);
      length += text.length;
    }
  }
  const whole = found.block.runs.map((run) => (run.t || []).join("")).join("");
  for (const hit of whole.matchAll(pattern)) {
    split(found.holder);
    const tokens = found.parts.filter((part) => !part.facts.isFolded);
    const end = hit.index + hit[0].length;
    const inside = tokens.filter((_, i) => pieces[i][0] < end && hit.index < pieces[i][1]);
    inside.forEach((token) => token.classList.add("hit"));
    matches.push(inside);
  }
}

// Samples that were never seen have a guessed height, so the first jump may miss.
function show(element) {
  element.scrollIntoView({ block: "center" });
  requestAnimationFrame(() => element.scrollIntoView({ block: "center" }));
}

function toMatch(step) {
  if (!matches.length) return;
  if (matchAt >= 0) matches[matchAt].forEach((token) => token.classList.remove("now"));
  matchAt = matchAt < 0 ? 0 : (matchAt + step + matches.length) % matches.length;
  matches[matchAt].forEach((token) => token.classList.add("now"));
  show(matches[matchAt][0]);
  document.getElementById("matches").textContent = `${matchAt + 1} of ${number.format(matches.length)}`;
}

function toTurn(step) {
  const isShown = (turn) => !turn.holder.card.hidden;
  if (!turns.some(isShown)) return;
  if (turnAt >= 0) turns[turnAt].element.classList.remove("here");
  do {
    turnAt = turnAt < 0 ? (step > 0 ? 0 : turns.length - 1) : (turnAt + step + turns.length) % turns.length;
  } while (!isShown(turns[turnAt]));
  const { element, holder } = turns[turnAt];
  split(holder);
  element.classList.add("here");
  show(element);
  element.focus({ preventScroll: true });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const token = tokenOf(event);
  if (event.key === "Escape") { hideTip(); document.activeElement.blur(); return; }
  if (event.target.id === "search") {
    if (event.key === "Enter") { toMatch(event.shiftKey ? -1 : 1); event.preventDefault(); }
    return;
  }
  const isArrow = event.key === "ArrowRight" || event.key === "ArrowLeft";
  if (isArrow && (token || event.target.classList.contains("text"))) {
    split(cards.find((holder) => holder.card.contains(event.target)));
    const tokens = [...event.target.closest(".text").querySelectorAll(".tok")].filter((t) => t.textContent);
    const step = event.key === "ArrowRight" ? 1 : -1;
    const next = token ? tokens[tokens.indexOf(token) + step] : tokens[0];
    if (next) next.focus();
    event.preventDefault();
  } else if (event.key === "/") { document.getElementById("search").focus(); event.preventDefault(); }
  else if (event.key === "n") toTurn(1);
  else if (event.key === "p") toTurn(-1);
  else if (event.key === "f") {
    const isFailed = document.querySelector('.filter [data-show="failed"]').getAttribute("aria-pressed") === "true";
    if (failures.length) showOnly(isFailed ? "all" : "failed");
  }
});

// ---------------------------------------------------------------- which rows are shown

const kinds = [ // of rows, each with the rows that it shows
  ["all", "All", () => true],
  ["failed", "Failed", (entry) => Boolean(entry.error)],
  ["warnings", "Warnings", (entry) => Boolean(entry.warnings && entry.warnings.length)],
];
const rows = []; // of each row: its entry and its element

function showOnly(name) {
  const isShown = kinds.find(([kind]) => kind === name)[2];
  for (const { entry, card } of rows) card.hidden = !isShown(entry);
  for (const { link, card } of links) link.hidden = card.hidden;
  for (const pack of document.querySelectorAll(".pack")) pack.hidden = name !== "all";
  for (const button of document.querySelectorAll(".filter button")) {
    button.setAttribute("aria-pressed", `${button.dataset.show === name}`);
  }
  hideTip();
  search(document.getElementById("search").value);
  if (name !== "all") scrollTo(0, 0);
}

function filter() {
  const shown = make("div", { class: "filter", role: "group", "aria-label": "Rows to show" });
  for (const [name, title, isShown] of kinds) {
    const count = data.entries.filter((entry) => !entry.documents && isShown(entry)).length;
    const button = make("button", { type: "button", "data-show": name, "aria-pressed": `${name === "all"}` },
      `${title} `, make("b", {}, number.format(count)));
    button.disabled = !count;
    button.addEventListener("click", () => showOnly(name));
    shown.append(button);
  }
  return shown;
}

// ---------------------------------------------------------------- the page

function head() {
  const input = make("input", { id: "search", type: "search", placeholder: "Search tokens and errors",
    "aria-label": "Search tokens and errors" });
  let waiting = 0;
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(input.value), 120);
  });
  const previous = make("button", { id: "previous", type: "button", "aria-label": "Previous turn", title: "Previous turn (p)" }, "‹");
  const next = make("button", { id: "next", type: "button", title: "Next turn (n)" }, "Next turn ›");
  previous.addEventListener("click", () => toTurn(-1));
  next.addEventListener("click", () => toTurn(1));
  return make("header", {}, make("h1", {}, "vlmcollate inspect",
    make("small", {}, document.title.replace(/ - vlmcollate inspect$/, ""))),
  make("div", { class: "search", role: "search" }, input,
    make("span", { id: "matches", "aria-live": "polite" })),
  filter(), previous, next, make("button", { id: "theme", type: "button" }));
}

function overview(entries) {
  const good = entries.filter((e) => e.counts);
  const failed = entries.filter((e) => e.error).length;
  const counts = data.classes.map((_, k) => good.reduce((sum, e) => sum + e.counts[k], 0));
  const total = counts.reduce((a, b) => a + b, 0);
  const tile = (value, name) => make("div", {}, make("b", {}, value), make("span", {}, name));
  const tiles = make("div", { class: "tiles" }, tile(number.format(good.length + failed), "rows"),
    tile(number.format(total), "tokens"), tile(percent(counts[TRAINED], total), "trained"),
    tile(percent(counts[MEDIA], total), "media"),
    tile(number.format(good.reduce((n, e) => n + e.warnings.length, 0)), "warnings"),
    tile(number.format(failed), "failed"));
  const card = make("section", { class: "card", "aria-label": "All rows" }, tiles,
    bar(counts.map((count, kind) => [kind, count]), "Tokens by class"), legend(counts));
  const makers = [...new Set(good.map((e) => e.made_by))];
  const line = make("div", { class: "meta", style: "margin-top:10px" }, makers.join("; "));
  if (data.diff) {
    line.append(" · ", make("span", { class: "key d1" }, "trained here only"), " ",
      make("span", { class: "key d2" }, `only ${data.diff} trains it`));
  }
  card.append(line);
  if (data.notes.length) card.append(noteList(data.notes));
  return card;
}

function packCard(entry) {
  const shown = make("div", { class: "bar", role: "img", "aria-label": `Documents of ${entry.documents.join(", ")} tokens` });
  entry.documents.forEach((length, i) => {
    shown.append(make("i", { style: `flex-grow:${length}` }, `${i + 1}`));
  });
  const free = Math.max(0, entry.room - entry.documents.reduce((a, b) => a + b, 0));
  shown.append(make("i", { class: "free", style: `flex-grow:${free}` }));
  return make("section", { class: "card pack", "aria-label": entry.title }, make("h3", { style: "margin:0" }, entry.title), shown);
}

function failedCard(entry, id) {
  const error = make("p", {}, visible(entry.error));
  const card = make("article", { class: "card failed", id },
    make("div", { class: "title" }, make("h3", {}, entry.title), make("span", { class: "meta" }, "failed")), error);
  failures.push({ card, error });
  return card;
}

function build() {
  const rail = make("nav", { class: "rail", "aria-label": "Rows" }, make("h2", {}, "Rows"));
  const main = make("main", {}, overview(data.entries));
  let isPacked = false;
  data.entries.forEach((entry, index) => {
    const id = `sample-${index}`;
    if (entry.documents) {
      isPacked = true;
      main.append(packCard(entry));
      return;
    }
    const card = entry.error ? failedCard(entry, id) : sampleCard(entry, index, isPacked);
    main.append(card);
    rows.push({ entry, card });
    const note = entry.error ? "failed" : number.format(entry.tokens);
    const link = make("a", { href: `#${id}`, class: entry.error ? "bad" : "" }, entry.title, make("span", {}, note));
    links.push({ link, card });
    rail.append(link);
  });
  const keys = make("footer", { class: "keys" }, make("kbd", {}, "/"), " search  ", make("kbd", {}, "Enter"),
    " next match  ", make("kbd", {}, "n"), " ", make("kbd", {}, "p"), " next and previous turn  ", make("kbd", {}, "f"), " failed rows  ",
    make("kbd", {}, "←"), " ", make("kbd", {}, "→"), " tokens");
  document.getElementById("app").replaceWith(head(), make("div", { class: "layout" }, rail, main), keys, tip);
  const near = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      split(cards.find((holder) => holder.card === target));
    }
  }, { rootMargin: "600px" });
  cards.forEach((holder) => near.observe(holder.card));
}
build();
