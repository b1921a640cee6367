"use strict";
// Draws every canvas with data-chart by Chart.js; the specification is that of figures.py.
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const line = (i) => colour(`--c${i % 8}`);
  const round = (value, digits = 6) => Number(value.toPrecision(digits));
  const tick = (unit) => (value) =>
    (Math.abs(value) >= 1e4 ? `${round(value / 1000, 4)}k` : String(round(value, 4))) + unit;

  function lines(spec) {
    const xs = spec.lines.flatMap((l) => l.points.map((p) => p[0]));
    const low = Math.min(...xs), high = Math.max(...xs);
    const whole = xs.every(Number.isInteger);
    return {
      type: "line",
      data: {
        datasets: spec.lines.map((l, i) => ({
          label: l.name, data: l.points.map(([x, y]) => ({ x, y })), borderWidth: 2,
          borderColor: line(i), backgroundColor: line(i), borderDash: i >= 8 ? [5, 3] : [],
          pointRadius: l.points.length > 60 ? 0 : 2.5, pointHoverRadius: 5, clip: 6,
        })),
      },
      options: {
        interaction: { mode: "nearest", axis: "x", intersect: false },
        scales: {
          x: { type: "linear", title: { display: true, text: spec.x },
               ...(high > low ? { min: low, max: high } : {}),
               ticks: { maxRotation: 0, ...(whole ? { precision: 0 } : {}), callback: tick("") } },
          y: { beginAtZero: spec.zero, ticks: { callback: tick(spec.unit), maxTicksLimit: 7 } },
        },
        plugins: {
          legend: { display: spec.lines.length > 1 },
          tooltip: { callbacks: {
            title: (items) => `${spec.x} ${items[0].parsed.x}`,
            label: (c) => ` ${c.dataset.label}: ${round(c.parsed.y)}${spec.unit}`,
          } },
          zoom: zoom("x"),
        },
      },
    };
  }

  function bars(spec) {
    const text = (v) => (Number.isInteger(v) || v >= 100 ? Math.round(v) : v.toFixed(1)) + spec.unit;
    return {
      type: "bar",
      data: { labels: spec.names, datasets: [{ data: spec.values, backgroundColor: line(0),
                                               borderRadius: 3, maxBarThickness: 18 }] },
      options: {
        indexAxis: "y", layout: { padding: { right: 56 } },
        scales: {
          x: { beginAtZero: true, display: false },
          y: { grid: { display: false }, ticks: { autoSkip: false,
               callback: (_, i) => spec.names[i].length > 22 ? `${spec.names[i].slice(0, 21)}…` : spec.names[i] } },
        },
        plugins: { legend: { display: false },
                   tooltip: { callbacks: { label: (c) => ` ${round(c.parsed.x)}${spec.unit}` } } },
      },
      plugins: [{ id: "values", afterDatasetsDraw(chart) {
        const g = chart.ctx;
        g.save();
        g.font = "12px system-ui, sans-serif"; g.fillStyle = colour("--dim"); g.textBaseline = "middle";
        chart.getDatasetMeta(0).data.forEach((bar, i) => g.fillText(text(spec.values[i]), bar.x + 6, bar.y));
        g.restore();
      } }],
    };
  }

  function heat(spec) {
    const n = spec.names.length, labels = spec.names.map((_, i) => String(i));
    const clip = (name) => (name.length > 8 ? `${name.slice(0, 7)}…` : name);
    const axis = { type: "category", labels, offset: true, grid: { display: false },
                   ticks: { autoSkip: n > 16, maxRotation: n > 8 ? 90 : 0, callback: (_, i) => clip(spec.names[i]) } };
    const alpha = (v) => Math.round(255 * (0.05 + 0.95 * v)).toString(16).padStart(2, "0");
    return {
      type: "matrix",
      data: { datasets: [{
        data: spec.values.flatMap((row, a) => row.map((v, b) => ({ x: String(b), y: String(a), v }))),
        backgroundColor: (c) => c.raw ? colour("--heat") + alpha(c.raw.v) : "transparent",
        width: (c) => (c.chart.chartArea || { width: 0 }).width / n - 1,
        height: (c) => (c.chart.chartArea || { height: 0 }).height / n - 1,
      }] },
      options: {
        scales: { x: { ...axis, position: "top" }, y: { ...axis, reverse: true } },
        plugins: { legend: { display: false }, tooltip: { callbacks: {
          title: () => "",
          label: (c) => `${(100 * c.raw.v).toFixed(1)} % of the neighbours of ${spec.names[+c.raw.y]} are of ${spec.names[+c.raw.x]}`,
        } } },
      },
      plugins: [{ id: "shares", afterDatasetsDraw(chart) {
        if (n > 12) return;
        const g = chart.ctx;
        g.save();
        g.font = "12px system-ui, sans-serif"; g.textAlign = "center"; g.textBaseline = "middle";
        chart.getDatasetMeta(0).data.forEach((cell, i) => {
          const v = spec.values[Math.floor(i / n)][i % n], c = cell.getCenterPoint();
          g.fillStyle = colour(v > 0.55 ? "--on" : "--text");
          g.fillText(String(Math.round(100 * v)), c.x, c.y);
        });
        g.restore();
      } }],
    };
  }

  function scatter(spec) {
    const named = Object.keys(spec.names).length > 0;
    const hue = (g) => `hsl(${Math.round((g * 137.508) % 360)} 65% ${[45, 60, 52][g % 3]}%)`;
    const grey = colour("--dim") + "55", radius = spec.points.length > 400 ? 2.2 : 3.2;
    const point = (i) => ({ x: spec.points[i][0], y: spec.points[i][1], group: spec.groups[i] });
    const all = spec.points.map((_, i) => point(i));
    const sets = named
      ? [...new Set(spec.groups)].map((g) => ({
          label: spec.names[g], data: all.filter((p) => p.group === g), backgroundColor: g < 0 ? grey : line(g) }))
      : [{ label: "", data: all, backgroundColor: spec.groups.map((g) => (g < 0 ? grey : hue(g))) }];
    const axis = { display: false, min: -1.05, max: 1.05 };
    return {
      type: "scatter",
      data: { datasets: sets.map((s) => ({ ...s, pointRadius: radius, pointHoverRadius: radius + 2, borderWidth: 0 })) },
      options: {
        scales: { x: axis, y: { ...axis } },
        plugins: {
          legend: { display: named },
          tooltip: { callbacks: { label: (c) => named ? ` ${c.dataset.label}` : c.raw.group < 0 ? " noise" : ` cluster ${c.raw.group}` } },
          zoom: zoom("xy"),
        },
      },
    };
  }

  // A wheel without Ctrl scrolls the page.
  const zoom = (mode) => ({
    limits: { x: { min: "original", max: "original" }, y: { min: "original", max: "original" } },
    zoom: { mode, drag: { enabled: true, threshold: 8 }, wheel: { enabled: true, modifierKey: "ctrl" },
            onZoomComplete: ({ chart }) => { reset(chart).hidden = !chart.isZoomedOrPanned(); } },
  });
  const reset = (chart) => chart.canvas.closest("figure").querySelector(".reset");

  const kinds = { line: lines, bar: bars, heat, scatter };
  function draw() {
    const defaults = Chart.defaults;
    Object.assign(defaults, { color: colour("--dim"), borderColor: colour("--line"), animation: false,
                              maintainAspectRatio: false });
    defaults.font.family = "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif";
    Object.assign(defaults.plugins.legend, { position: "bottom", align: "start" });
    Object.assign(defaults.plugins.legend.labels, { boxWidth: 14, boxHeight: 3, padding: 8 });
    for (const canvas of document.querySelectorAll("canvas[data-chart]")) {
      const old = Chart.getChart(canvas);
      if (old) old.destroy();
      const spec = JSON.parse(canvas.dataset.chart);
      const chart = new Chart(canvas, kinds[spec.kind](spec));
      const button = reset(chart);
      button.hidden = true;
      button.onclick = () => { chart.resetZoom(); button.hidden = true; };
      canvas.ondblclick = button.onclick;
    }
  }
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
