// Draws the page's figures with Vega-Lite, and shows the runs behind a number. Needs vegaEmbed; asks for nothing else.
"use strict";
const { dashes: DASHES, figures: FIGURES } = JSON.parse(document.getElementById("figures").textContent);
const COLOURS = 7; // --c0 to --c6 in page.css
const SHAPES = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "stroke"];
const CROSS = "M-.4,-.4L.4,.4M.4,-.4L-.4,.4";
const FEW_POINTS = 20; // of a line are drawn with markers
const MOST_HOVERED = 2000; // points of a panel that answer to the pointer

const colour = (style) => `var(--c${style % COLOURS})`;
const dash = (style) => DASHES[(style + Math.floor(style / COLOURS)) % DASHES.length];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// ---- Numbers: what curves.py does, again, since switches change which runs are meant ----

// The traces whose mean is taken.
function counted(traces, scattered) {
  if (scattered) return traces;
  const complete = traces.filter((trace) => trace.status === "complete");
  return complete.length ? complete : traces.filter((trace) => trace.status === "unfinished");
}

// Mean and extremes at every x that all traces have; if scattered, that any has. y is null where one has no number.
function summary(traces, scattered) {
  const places = new Map();
  for (const trace of traces) {
    trace.x.forEach((x, i) => {
      if (!places.has(x)) places.set(x, { values: [], fitted: 0 });
      places.get(x).values.push(trace.y[i]);
      places.get(x).fitted += trace.fitted;
    });
  }
  const all = [...places].filter(([, { values }]) => scattered || values.length === traces.length);
  return all.sort((a, b) => a[0] - b[0]).map(([x, { values, fitted }]) => {
    const row = { x, n: values.length, hollow: scattered && fitted < values.length, y: null, low: null, high: null };
    if (values.includes(null)) return row;
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return { ...row, y: mean, low: Math.min(...values), high: Math.max(...values) };
  });
}

// All that a panel shows, as rows for Vega-Lite: means, and every run if asked for. `tip` is what the pointer finds.
function rowsOf(figure, panel, state) {
  const means = [], runs = [];
  const text = (value) => (panel.percent ? `${(100 * value).toFixed(2)}%` : String(Number(value.toPrecision(4))));
  const tipOf = (series, x, y, of, range = []) =>
    [["series", series.name], [figure.x_title, String(x)], [panel.y_title, y], ...range, ["of", of]];
  panel.series.forEach((series, number) => {
    if (!state.series.has(number)) return;
    const index = String(number);
    const traces = series.traces.filter((trace) => state.seeds.has(trace.seed));
    let best = -Infinity;
    for (const row of summary(counted(traces, figure.scattered), figure.scattered)) {
      if (row.y !== null) best = Math.max(best, row.y);
      const several = row.n > 1 && row.y !== null;
      const range = several ? [["range", `${text(row.low)} to ${text(row.high)}`]] : [];
      const tip = tipOf(series, row.x, row.y === null ? figure.no_mean || "no number" : text(row.y),
                        row.n > 1 ? `mean of ${row.n}` : "1 run", range);
      means.push({ ...row, index, tip, best: series.shade_best ? best : null });
    }
    if (!state.runs) return;
    traces.forEach((trace, which) => trace.x.forEach((x, i) => {
      const y = trace.y[i];
      const of = trace.label + (trace.status === "complete" ? "" : ` (${trace.status})`);
      runs.push({ x, y, index, trace: `${index} ${which}`, tip: y === null ? [] : tipOf(series, x, text(y), of) });
    }));
  });
  const visible = (row) => (!state.log_x || row.x > 0) && (!state.log_y || row.y === null || row.y > 0);
  return { means: means.filter(visible), runs: runs.filter(visible) };
}

// ---- Vega-Lite ----

function channels(figure, panel, state, width, means) {
  const styles = panel.series.map((series) => series.style);
  const by = (of) => ({ field: "index", type: "nominal", legend: null,
                        scale: { domain: styles.map((_, i) => String(i)), range: styles.map(of) } });
  const places = [...new Set(means.map((row) => row.x))];
  const cut = panel.y_max !== null && means.some((row) => row.high > panel.y_max);
  const top = cut ? { domainMax: panel.y_max, nice: false } : {};
  const whole = panel.percent && means.some((row) => row.high > 0.5); // a part of 0 to 100% shows more, if that is all
  return {
    color: by(colour), strokeDash: by(dash), shape: by((style) => SHAPES[style % SHAPES.length]),
    x: { field: "x", type: "quantitative", title: figure.x_title,
         scale: { ...(state.log_x ? { type: "log" } : { zero: false }), nice: false,
                  padding: figure.scattered ? 8 : 0 },
         axis: { format: Math.max(...places) < 1000 ? "~r" : "~s", tickCount: Math.max(3, Math.round(width / 90)), labelFlush: false,
                 ...(state.log_x && places.length <= FEW_POINTS ? { values: places } : {}) } },
    y: { field: "y", type: "quantitative", title: panel.y_title,
         scale: state.log_y ? { type: "log" } : { zero: true, ...(whole ? { domainMax: 1 } : top) },
         axis: { format: panel.percent ? "~%" : state.log_y ? "~g" : "~r", tickCount: 6 } },
  };
}

const layerOf = (values, mark, encoding) => ({ data: { values }, mark, encoding });

// Error bars, and a cross at the top where there is no mean; or bands.
function spreads(figure, state, means, { x, y, color }) {
  const there = means.filter((row) => row.y !== null && !(state.log_y && row.low <= 0));
  const extent = { x, y: { ...y, field: "low" }, y2: { field: "high" }, color };
  if (!figure.scattered) {
    return [layerOf(there, { type: "area", opacity: 0.18, clip: true }, extent),
            layerOf(there.filter((row) => row.best !== null), { type: "area", opacity: 0.2 },
                    { x, y, y2: { field: "best" }, color })];
  }
  return [layerOf(there.filter((row) => row.high > row.low), { type: "rule", strokeWidth: 1.2 }, extent),
          layerOf(means.filter((row) => row.y === null),
                  { type: "point", shape: CROSS, size: 400, strokeWidth: 2.2 }, { x, y: { value: 6 }, color })];
}

function lines(figure, panel, means, runs, { x, y, color, strokeDash, shape }) {
  const there = means.filter((row) => row.y !== null);
  const dot = { type: "point", filled: true, opacity: 1 };
  const clip = panel.y_max !== null; // lines may leave the panel
  const few = means.length <= FEW_POINTS * panel.series.length;
  return [
    layerOf(runs, { type: figure.scattered ? "point" : "line", strokeWidth: 0.8, opacity: 0.7, clip },
            { x, y, color, detail: { field: "trace" } }),
    layerOf(figure.scattered ? there : means, { type: "line", strokeWidth: 2, clip }, { x, y, color, strokeDash }),
    layerOf(few ? there : [], { ...dot, size: 45, clip }, { x, y, color, shape }),
    layerOf(there.filter((row) => row.hollow), { ...dot, size: 14, color: "var(--card)" }, { x, y }),
  ];
}

function references(panel, width) {
  return Object.entries(panel.references).flatMap(([text, value], i) => {
    const y = { datum: value, type: "quantitative" };
    const ink = { color: "currentColor", opacity: 0.7 };
    return [layerOf([{}], { type: "rule", strokeDash: [2, 3], ...ink }, { y }),
            layerOf([{}], { type: "text", align: "right", dy: i % 2 ? 9 : -6, fontSize: 11, text, ...ink },
                    { x: { value: width - 60 }, y })];
  });
}

function hover(figure, means, runs, { x, y, color }) {
  const top = Math.max(0, ...means.map((row) => row.high)) || 1; // where the crosses are
  const found = [...means.filter((row) => row.y !== null || figure.scattered), ...runs.filter((row) => row.y !== null)];
  const every = Math.ceil(found.length / MOST_HOVERED);
  const points = found.filter((_, i) => i % every === 0).map((row) => (row.y === null ? { ...row, y: top } : row));
  return {
    ...layerOf(points, { type: "point", filled: true, size: 70, stroke: "var(--page)", strokeWidth: 1.5, clip: !figure.scattered }, {
      x, y, color, opacity: { condition: { param: "hover", empty: false, value: 1 }, value: 0 },
      tooltip: { value: "see showTip" } }),
    params: [{ name: "hover", select: { type: "point", on: "pointerover", nearest: true, clear: "pointerout" } }],
  };
}

function spec(figure, panel, state, width) {
  const { means, runs } = rowsOf(figure, panel, state);
  const encoding = channels(figure, panel, state, width, means);
  const layer = [...spreads(figure, state, means, encoding), ...lines(figure, panel, means, runs, encoding),
                 ...references(panel, width), hover(figure, means, runs, encoding)];
  const axis = { labelColor: "currentColor", titleColor: "currentColor", domainColor: "var(--faint)",
                 tickColor: "var(--faint)", gridColor: "var(--line)", labelFontSize: 11, titleFontSize: 12,
                 titleFontWeight: "normal", labelExpr: "datum.value ? datum.label : '0'" };
  return { width, height: width < 480 ? 240 : 290, autosize: { type: "fit", contains: "padding" }, padding: 2,
           background: null, layer: layer.filter((one) => one.data.values.length), // Vega warns of empty ones
           config: { font: "system-ui, sans-serif", axis, view: { stroke: null } } };
}

// The values of the point next to the pointer, as text: names are shown, not obeyed.
const tip = element("div", { id: "tooltip", role: "status", hidden: "" });
document.body.append(tip);
function showTip(_, event, item, value) {
  tip.hidden = !value;
  if (!value) return;
  const row = item.datum.datum ?? item.datum; // of a point, or of the area in which it is the nearest one
  tip.replaceChildren(...row.tip.flatMap(([key, what]) => [element("span", {}, key), element("b", {}, what)]));
  const below = event.clientY + 18 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 10}px`;
}

// ---- Panels with their switches ----

function swatch(style) {
  const box = element("span");
  box.innerHTML = `<svg width="26" height="10" aria-hidden="true"><line x1="1" y1="5" x2="25" y2="5" stroke-width="2.5"
    stroke="${colour(style)}" stroke-dasharray="${dash(style).join(" ")}"/></svg>`;
  return box.firstChild;
}

// Draws into `chart` when it has a width, and again when that or the state changes.
function drawer(chart, figure, panel, state) {
  let view = null, last = Promise.resolve();
  const options = { actions: false, renderer: "svg", mode: "vega-lite", defaultStyle: false, tooltip: showTip };
  const draw = () => (last = last.then(async () => {
    const width = Math.floor(chart.clientWidth);
    if (!width) return;
    if (view) view.finalize();
    tip.hidden = true;
    view = await vegaEmbed(chart, spec(figure, panel, state, width), options);
  }));
  new ResizeObserver(draw).observe(chart);
  return draw;
}

function build(figure, panel) {
  const traces = panel.series.flatMap((series) => series.traces);
  const seeds = [...new Set(traces.map((trace) => trace.seed))].sort((a, b) => a - b);
  const state = { series: new Set(panel.series.keys()), seeds: new Set(seeds), runs: false,
                  log_x: figure.log_x, log_y: figure.log_y };
  const chart = element("div", { class: "chart" });
  const draw = drawer(chart, figure, panel, state);
  const press = (button, on) => button.setAttribute("aria-pressed", String(on));
  const toggle = (label, on, change, ...before) => element("button", {
    type: "button", "aria-pressed": String(on), onclick: ({ currentTarget }) => {
      const now = currentTarget.getAttribute("aria-pressed") !== "true";
      press(currentTarget, now);
      change(now);
      draw();
    } }, ...before, label);
  const member = (set, value) => (on) => (on ? set.add(value) : set.delete(value));
  const field = (name) => (on) => { state[name] = on; };

  const names = element("div", { class: "controls series", role: "group", "aria-label": "Series" },
    ...panel.series.map(({ name, style }, i) => toggle(name, true, member(state.series, i), swatch(style))));
  const switches = element("div", { class: "controls switches", role: "group", "aria-label": "Switches" });
  if (panel.series.length > 3) {
    const all = (on) => () => {
      panel.series.forEach((_, i) => member(state.series, i)(on));
      names.querySelectorAll("button").forEach((button) => press(button, on));
      draw();
    };
    switches.append(element("button", { type: "button", onclick: all(true) }, "all"),
                    element("button", { type: "button", onclick: all(false) }, "none"));
  }
  if (seeds.length > 1) {
    switches.append(...seeds.map((seed) => toggle(`seed ${seed}`, true, member(state.seeds, seed))));
  }
  if (traces.length > panel.series.length || traces.some((trace) => trace.status !== "complete")) {
    switches.append(toggle("each run", false, field("runs")));
  }
  switches.append(toggle("log x", state.log_x, field("log_x")), toggle("log y", state.log_y, field("log_y")));
  const heading = element("h4", {}, `${panel.title}: ${panel.y_title}`);
  return element("div", { class: "panel" }, heading, names, switches, chart);
}

for (const place of document.querySelectorAll("figure[data-figure]")) {
  const figure = FIGURES[Number(place.dataset.figure)];
  place.querySelector(".panels").append(...figure.panels.map((panel) => build(figure, panel)));
}

// ---- The runs behind a number, in a dialog instead of at the end of the page; light and dark ----

const dialog = document.getElementById("dialog");
document.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.closest(".close")) dialog.close();
  const copy = event.target.closest("button.copy");
  if (copy) {
    const command = copy.previousElementSibling;
    getSelection().selectAllChildren(command); // there is no clipboard on pages that came by plain http
    navigator.clipboard?.writeText(command.textContent).then(() => { copy.textContent = "Copied"; });
  }
  const link = event.target.closest("a[data-runs]");
  if (!link) return;
  event.preventDefault();
  const runs = document.getElementById(link.getAttribute("href").slice(1)).cloneNode(true);
  runs.removeAttribute("id");
  dialog.lastElementChild.replaceChildren(runs);
  dialog.showModal();
});

const theme = document.getElementById("theme");
const root = document.documentElement.style;
const preferred = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
const dark = () => (root.colorScheme || preferred()) === "dark";
const label = () => { theme.textContent = dark() ? "Light" : "Dark"; };
theme.hidden = false;
label();
theme.addEventListener("click", () => {
  root.colorScheme = dark() ? "light" : "dark";
  label();
});
