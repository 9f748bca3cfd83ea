"use strict";
const byId = (id) => document.getElementById(id);
const read = (id) => JSON.parse(byId(id).textContent);
const curves = read("curves-data"), facts = read("facts-data");

// Theme: the system's, light, dark.
const themes = ["system", "light", "dark"];
byId("theme").addEventListener("click", (event) => {
  const now = document.documentElement.dataset.theme ?? "system";
  const next = themes[(themes.indexOf(now) + 1) % themes.length];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  event.target.textContent = `Theme: ${next}`;
});

// Curves: which axis is shown, and the numbers under the pointer or the keyboard's cursor.
const axisNow = () => document.querySelector("input[name=axis]:checked").value;
const number = (v) => (Math.abs(v) >= 1e-3 && Math.abs(v) < 1e6 ? String(+v.toPrecision(5)) : v === 0 ? "0" : v.toExponential(3));

function showAxis() {
  for (const layers of document.querySelectorAll(".layers")) layers.hidden = layers.dataset.axis !== axisNow();
  for (const plot of document.querySelectorAll(".plot")) clearPlot(plot);
}

function clearPlot(plot) {
  plot.querySelectorAll(".cursor").forEach((line) => line.remove());
  plot.closest(".chart").querySelector(".readout").textContent = "";
}

function pointsOf(plot) {
  const axis = axisNow();
  return curves.charts[plot.closest(".chart").dataset.metric].map((points, run) =>
    points.map(([row, value]) => [curves.axes[run][axis][row], value]).filter(([x]) => x !== null));
}

function tell(plot, x) {
  clearPlot(plot);
  const nearest = pointsOf(plot).map((points) =>
    points.reduce((best, p) => (best === null || Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best), null));
  const said = nearest.flatMap((p, run) =>
    p === null ? [] : [`${curves.runs.length > 1 ? curves.runs[run] + ": " : ""}${number(p[1])} at ${number(p[0])}`]);
  plot.closest(".chart").querySelector(".readout").textContent = `${said.join("; ")} ${curves.names[axisNow()]}`;
  const [width, left, right, top, bottom] = curves.plot;
  for (const svg of plot.querySelectorAll(".layers:not([hidden]) svg")) {
    const [low, high] = svg.dataset.x.split(" ").map(Number);
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("class", "cursor");
    line.setAttribute("d", `M${left + ((x - low) / (high - low)) * (width - left - right)} ${top}V${svg.viewBox.baseVal.height - bottom}`);
    svg.append(line);
  }
}

function closest(xs, x) {
  return xs.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(xs[best] - x) ? i : best), 0);
}

for (const plot of document.querySelectorAll(".plot")) {
  const readout = plot.closest(".chart").querySelector(".readout");
  let at = -1;
  const places = () => [...new Set(pointsOf(plot).flat().map(([x]) => x))].sort((a, b) => a - b);
  const go = (i) => {
    const xs = places();
    if (!xs.length) return;
    at = Math.max(0, Math.min(xs.length - 1, i));
    tell(plot, xs[at]);
  };
  plot.addEventListener("pointermove", (event) => {
    const svg = event.target.closest("svg") ?? plot.querySelector(".layers:not([hidden]) svg");
    if (!svg) return;
    const [width, left, right] = curves.plot, box = svg.getBoundingClientRect();
    const [low, high] = svg.dataset.x.split(" ").map(Number);
    const share = (((event.clientX - box.left) / box.width) * width - left) / (width - left - right);
    go(closest(places(), low + share * (high - low)));
  });
  plot.addEventListener("pointerleave", () => document.activeElement !== plot && clearPlot(plot));
  plot.addEventListener("focus", () => go(at < 0 ? places().length - 1 : at));
  plot.addEventListener("blur", () => clearPlot(plot));
  plot.addEventListener("keydown", (event) => {
    const end = { Home: 0, End: Infinity }[event.key], step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (end === undefined && step === undefined) return;
    event.preventDefault();
    if (end !== undefined) return go(end);
    // Between rows of two runs that lie close to each other nothing else is told: on to where it is.
    const said = readout.textContent, last = places().length - 1;
    do go(at + step); while (readout.textContent === said && at > 0 && at < last);
  });
}
document.querySelectorAll("input[name=axis]").forEach((input) => input.addEventListener("change", showAxis));
showAxis();

// Samples: one step at a time.
const chooser = byId("step");
function showStep() {
  for (const part of document.querySelectorAll(".step")) part.hidden = part.dataset.step !== chooser.value;
}
if (chooser) {
  chooser.addEventListener("change", showStep);
  showStep();
}

// Tokens: what the models said of the one that is pointed at or focused.
const tip = byId("tip");
const nats = (v) => (v === null ? "none" : v.toFixed(4));

function factOf(token) {
  const [, sample, place] = token.id.match(/^(.*)-t(\d+)$/);
  return facts[sample][Number(place)];
}

function difference([, mu, q, trained]) {
  if (!trained) return "not trained";
  if (mu === null || q === null) return "not known";
  return `${mu - q > 0 ? "+" : ""}${nats(mu - q)}`;
}

function row(...cells) {
  const line = document.createElement("tr");
  for (const text of cells) line.append(Object.assign(document.createElement("td"), { textContent: text }));
  return line;
}

function showTip(token) {
  const fact = factOf(token), [text, mu, q, , told] = fact;
  const said = Object.assign(document.createElement("code"), { className: "said", textContent: JSON.stringify(text) });
  const table = document.createElement("table");
  table.append(row("log μ (student)", nats(mu)), row("log q (teacher)", nats(q)), row("log μ − log q", difference(fact)));
  told.forEach(([word, value], i) => table.append(row(`teacher’s ${i + 1}. ${JSON.stringify(word)}`, nats(value))));
  tip.replaceChildren(said, table);
  tip.hidden = false;
  const box = token.getClientRects()[0] ?? token.getBoundingClientRect();
  const below = box.bottom + 8 + tip.offsetHeight < innerHeight;
  tip.style.top = `${scrollY + (below ? box.bottom + 8 : Math.max(0, box.top - 8 - tip.offsetHeight))}px`;
  tip.style.left = `${scrollX + Math.max(6, Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 6))}px`;
}

function label(token) {
  const fact = factOf(token), [text, mu, q, , told] = fact;
  const words = told.map(([word, value]) => `${JSON.stringify(word)} ${nats(value)}`).join(", ");
  return `${JSON.stringify(text)}, log μ ${nats(mu)}, log q ${nats(q)}, difference ${difference(fact)}${words ? `; teacher: ${words}` : ""}`;
}

function verticalNeighbour(tokens, at, direction) {
  const here = tokens[at].getClientRects()[0];
  let best = at, distance = Infinity, line = null;
  for (let i = at + direction; i >= 0 && i < tokens.length; i += direction) {
    const box = tokens[i].getClientRects()[0];
    if (!box || Math.abs(box.top - here.top) < 4) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) > 4) break;
    if (Math.abs(box.left - here.left) < distance) [best, distance] = [i, Math.abs(box.left - here.left)];
  }
  return best;
}

for (const list of document.querySelectorAll(".tokens")) {
  const tokens = [...list.children];
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-orientation", "horizontal");
  tokens.forEach((token, i) => {
    token.setAttribute("role", "option");
    token.tabIndex = i ? -1 : 0;
  });
  list.addEventListener("focusin", (event) => {
    for (const token of tokens) token.tabIndex = token === event.target ? 0 : -1;
    event.target.setAttribute("aria-label", label(event.target));
    showTip(event.target);
  });
  list.addEventListener("focusout", () => (tip.hidden = true));
  list.addEventListener("pointerover", (event) => event.target !== list && showTip(event.target));
  list.addEventListener("pointerout", () => {
    const focused = document.activeElement;
    if (tokens.includes(focused)) showTip(focused);
    else tip.hidden = true;
  });
  list.addEventListener("keydown", (event) => {
    const at = tokens.indexOf(event.target), last = tokens.length - 1;
    const moves = {
      ArrowRight: () => at + 1, ArrowLeft: () => at - 1, Home: () => 0, End: () => last,
      ArrowDown: () => verticalNeighbour(tokens, at, 1), ArrowUp: () => verticalNeighbour(tokens, at, -1),
    };
    if (event.key === "Escape") tip.hidden = true;
    if (!(event.key in moves)) return;
    event.preventDefault();
    tokens[Math.max(0, Math.min(last, moves[event.key]()))].focus();
  });
}

// A link to a token opens its step and focuses it.
function jump() {
  const token = location.hash && byId(decodeURIComponent(location.hash.slice(1)));
  if (!token || !token.matches(".tokens span")) return;
  chooser.value = token.closest(".step").dataset.step;
  showStep();
  token.focus({ preventScroll: true });
  token.scrollIntoView({ block: "center" });
  showTip(token);
}
addEventListener("hashchange", jump);
document.querySelector(".worst")?.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link && link.hash === location.hash) jump();
});
jump();
