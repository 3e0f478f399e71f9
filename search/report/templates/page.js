const read = (id) => JSON.parse(document.getElementById(id).textContent);
const themes = read("themes");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const theme = () => themes[dark.matches ? "dark" : "light"];
const hover = window.matchMedia("(hover: hover)").matches; // a finger would find the bar in its way
const charts = () => [...document.querySelectorAll(".chart")];

const draw = (chart) => {
  const figure = read(chart.id + "-data");
  figure.layout.template = theme();
  figure.layout.uirevision = "kept"; // what a reader enlarged stays so when data is added
  const options = { responsive: true, displaylogo: false, displayModeBar: hover ? "hover" : false };
  return Plotly.react(chart, figure.data, figure.layout, options);
};
for (const chart of charts()) draw(chart);
const middle = (graph) => {
  graph.scrollLeft = (graph.scrollWidth - graph.clientWidth) / 2;
};
document.addEventListener(
  "toggle",
  (event) => event.target.querySelectorAll(":scope > .graph").forEach(middle),
  true,
);
dark.addEventListener("change", () => {
  for (const chart of charts()) Plotly.relayout(chart, { template: theme() });
});
