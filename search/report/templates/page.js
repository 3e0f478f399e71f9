const read = (id) => JSON.parse(document.getElementById(id).textContent);
const themes = read("themes");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const theme = () => themes[dark.matches ? "dark" : "light"];
const hover = window.matchMedia("(hover: hover)").matches; // a finger would find the bar in its way
const charts = [...document.querySelectorAll(".chart")];

for (const chart of charts) {
  const figure = read(chart.id + "-data");
  figure.layout.template = theme();
  const options = { responsive: true, displaylogo: false, displayModeBar: hover ? "hover" : false };
  Plotly.newPlot(chart, figure.data, figure.layout, options);
}
dark.addEventListener("change", () => {
  for (const chart of charts) Plotly.relayout(chart, { template: theme() });
});
