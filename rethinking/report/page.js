// Draws the figures with Vega-Lite, opens the runs behind a number, and switches light and dark.
"use strict";

const SPECS = JSON.parse(document.getElementById("specs").textContent);
// Log level 1 shows errors only: Vega warns of layers without data, such as runs that are not shown.
const OPTIONS = { mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, logLevel: 1 };

// A copy of a figure's specification for a width in pixels, with a logarithmic y axis if asked for.
function adapted(spec, width, log) {
  const copy = structuredClone(spec);
  copy.background = null;
  copy.columns = width < 700 ? 1 : spec.columns;
  const side = Math.floor(width / copy.columns) - 80; // less the axis and its labels
  copy.config.legend.labelLimit = side;
  for (const panel of copy.concat) {
    panel.width = Math.min(side, 480);
    if (!log) continue;
    panel.layer[0].encoding.y.scale = { type: "log" };
    panel.transform = [
      { filter: "!isValid(datum.y) || datum.y > 0" },
      { calculate: "datum.low > 0 ? datum.low : null", as: "low" },
    ];
  }
  return copy;
}

// Draws a figure when it has a width, and again when that or its switch changes.
function show(chart) {
  const spec = SPECS[chart.dataset.figure];
  const log = chart.parentElement.querySelector("input.log");
  let width = 0;
  let last = Promise.resolve();
  let drawn = null;
  const draw = async () => {
    if (drawn) drawn.finalize();
    drawn = await vegaEmbed(chart, adapted(spec, width, log.checked), OPTIONS);
  };
  const redraw = () => { last = last.then(draw); };
  log.addEventListener("change", redraw);
  new ResizeObserver(() => {
    const now = Math.floor(chart.clientWidth);
    if (!now || now === width) return;
    width = now;
    redraw();
  }).observe(chart);
}

document.querySelectorAll(".chart").forEach(show);

const dialog = document.getElementById("dialog");
document.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.closest(".close")) dialog.close();
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
function isDark() {
  return root.colorScheme ? root.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function label() {
  theme.textContent = isDark() ? "Light" : "Dark";
}
theme.hidden = false;
label();
theme.addEventListener("click", () => {
  root.colorScheme = isDark() ? "light" : "dark";
  label();
});
