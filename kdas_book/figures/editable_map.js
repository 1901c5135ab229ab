// The map of chapter 4 that readers change. Without it the page shows four tables.
for (const box of document.querySelectorAll(".kdas-map:not([data-live])")) {
  box.dataset.live = "";
  // The colours of matplotlib's PuOr_r, as in the figures: purple, white, orange.
  const stops = ["2d004b", "542788", "8073ac", "b2abd2", "d8daeb", "f7f7f7", "fee0b6", "fdb863",
    "e08214", "b35806", "7f3b08"].map((s) => [0, 2, 4].map((k) => parseInt(s.substr(k, 2), 16)));
  const colour = (x) => {  // from -1 to 1
    const at = 5 * (Math.max(-1, Math.min(1, x)) + 1), k = Math.min(9, Math.floor(at));
    return stops[k].map((low, c) => Math.round(low + (at - k) * (stops[k + 1][c] - low)));
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255) ** 2.2);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const tables = [...box.querySelectorAll("table")];
  const cells = tables.map((t) => [...t.tBodies[0].rows].map((r) => [...r.querySelectorAll("td")]));
  const text = (x, places) => (places === undefined ? `${+x.toFixed(2)}` :
    (Math.abs(x) < 5e-3 ? 0 : x).toFixed(Math.abs(x) < 99.995 ? places : 1)).replace("-", "−");
  const first = cells[0].map((row) => row.map((td) => +td.dataset.value));
  const H = first.length, W = first[0].length, places = [undefined, 2, 2, 2];
  let P = first.map((row) => [...row]), [i, j] = box.dataset.chosen.split(" ").map(Number), maps;

  const attend = () => {
    const scores = P.map((a) => P.map((b) => a.reduce((s, x, k) => s + x * b[k], 0) / W ** 0.5));
    const weights = scores.map((row) => {
      const top = Math.max(...row), e = row.map((x) => Math.exp(x - top));
      const sum = e.reduce((a, b) => a + b, 0);
      return e.map((x) => x / sum);
    });
    const mean = (w, k) => w.reduce((s, x, r) => s + x * P[r][k], 0);
    maps = [P, scores, weights, weights.map((w) => P[0].map((_, k) => mean(w, k)))];
  };
  const said = () => {
    const w = maps[2][i], name = (r) => (r === i ? "itself" : `row ${r}`);
    const order = w.map((_, r) => r).sort((a, b) => w[b] - w[a]);
    const looks = order.slice(0, 2).map((r) => `at ${name(r)} (${Math.round(100 * w[r])} %)`);
    const says = (x) => (x > 0 ? "polyp" : x < 0 ? "background" : "neither") + ` (${text(x)})`;
    return `Row ${i} looks most ${looks.join(", then ")}. In column ${j}, P says ${says(P[i][j])}` +
      ` and A(P) says ${says(maps[3][i][j])}.`;
  };
  const draw = () => {
    attend();
    maps.forEach((map, t) => {
      const of = t % 3 ? [map] : [maps[0], maps[3]];  // P and A(P) share a scale
      const limit = 1.3 * Math.max(1e-9, ...of.flat(2).map(Math.abs));
      map.forEach((row, r) => row.forEach((x, k) => {
        const td = cells[t][r][k], rgb = colour(x / limit);
        td.textContent = text(x, places[t]);
        td.dataset.value = x.toFixed(5);
        td.style.background = `rgb(${rgb})`;
        td.style.color = light(rgb) > 0.18 ? "#000" : "#fff";
      }));
      cells[t].forEach((row, r) => row[0].parentNode.classList.toggle("asks", r === i));
    });
    cells[0].forEach((row, r) => row.forEach((td, k) => {
      const here = r === i && k === j, side = P[r][k] > 0 ? "polyp" : "background";
      td.tabIndex = here ? 0 : -1;
      td.classList.toggle("chosen", here);
      td.setAttribute("aria-selected", here);
      td.setAttribute("aria-label",
        `row ${r}, column ${k}: logit ${text(P[r][k])}, ${P[r][k] ? side : "undecided"}`);
    }));
    box.querySelector(".bar span").textContent = `row ${i}, column ${j}`;
    box.querySelector("output").textContent = text(P[i][j]);
    box.querySelector("[role=status]").textContent = said();
  };
  const set = (x) => { P[i][j] = Math.max(-9, Math.min(9, x)); draw(); };
  const flip = () => set(P[i][j] ? -P[i][j] : 1);
  const go = (r, k) => {
    i = Math.max(0, Math.min(H - 1, r));
    j = Math.max(0, Math.min(W - 1, k));
    draw();
    cells[0][i][j].focus();
  };
  const scale = (by) => P.map((row) => row.map((x) => Math.max(-9, Math.min(9, by * x))));
  const whole = {
    mirror: () => P.map((row) => [...row].reverse()),
    turn: () => (H === W ? P[0].map((_, k) => P.map((row) => row[W - 1 - k])) : P),
    double: () => scale(2), halve: () => scale(0.5), reset: () => first.map((row) => [...row]),
  };
  const arrows = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  tables[0].tBodies[0].addEventListener("click", (event) => {
    const td = event.target.closest("td"), r = cells[0].findIndex((row) => row.includes(td));
    if (td) { go(r, cells[0][r].indexOf(td)); flip(); }
  });
  tables[0].addEventListener("keydown", (event) => {
    const key = event.key, by = arrows[key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (by) go(i + by[0], j + by[1]);
    else if (key === "Home" || key === "End") go(i, key === "Home" ? 0 : W - 1);
    else if (/^[0-9]$/.test(key)) set((P[i][j] < 0 ? -1 : 1) * key);
    else if (key === "+" || key === "=") set(P[i][j] + 0.5);
    else if (key === "-" || key === "_") set(P[i][j] - 0.5);
    else if (key === " " || key === "Enter") flip();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  box.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.add) { set(P[i][j] + +button.dataset.add); return; }
    P = whole[button.dataset.do]();
    draw();
  });
  draw();
}
