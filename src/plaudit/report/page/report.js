(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const asked = new URLSearchParams(location.search);
  const byId = (id) => document.getElementById(id);
  const MINUS = "\u2212";

  // ---- memory, which a browser may refuse to a file -------------------------------------------------------------
  const remember = (name, value) => { try { localStorage.setItem(`plaudit.${name}`, value); } catch { /* refused */ } };
  const recall = (name) => { try { return localStorage.getItem(`plaudit.${name}`); } catch { return null; } };

  // ---- words ----------------------------------------------------------------------------------------------------
  let chinese = (asked.get("lang") || recall("lang") || navigator.language || "").startsWith("zh");

  function say(key, values = {}) {
    const pair = data.words[key];
    if (!pair) return key;
    return pair[chinese ? 1 : 0].replace(/\{(\w+)\}/g, (hole, name) => {
      const value = Object.hasOwn(values, name) ? String(values[name]) : hole;
      return value.startsWith("@") && data.words[value.slice(1)] ? say(value.slice(1)) : value;
    });
  }

  function translate() {
    document.documentElement.lang = chinese ? "zh-Hans" : "en";
    for (const place of document.querySelectorAll("[data-t]")) {
      place.textContent = say(place.dataset.t, place.dataset.v ? JSON.parse(place.dataset.v) : {});
    }
    for (const place of document.querySelectorAll("[data-ta]")) {
      place.setAttribute(place.dataset.ta, say(place.dataset.tk, place.dataset.v ? JSON.parse(place.dataset.v) : {}));
    }
  }

  // ---- small helpers --------------------------------------------------------------------------------------------
  /** An element. Children that are strings become text nodes, never markup. */
  function make(tag, props = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) {
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }
  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  function short(value) {
    if (!isNumber(value)) return "\u2013";
    const size = Math.abs(value);
    let text;
    if (size < 1e7 && Number.isInteger(value)) text = (value + 0).toLocaleString("en-US"); // + 0: no minus before a zero
    else if (size >= 1e7 || size < 1e-4) text = value.toExponential(1).replace(".0e", "e").replace("e+", "e");
    else if (size >= 1000) text = Math.round(value).toLocaleString("en-US");
    else text = value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
    if (size < 0.01 && size >= 1e-4) text = text.replace(/0+$/, "");
    return text.replaceAll("-", MINUS);
  }
  /** A grade in two decimals, so that many of them read well below each other. */
  const grade = (value) => (Number.isInteger(value) || Math.abs(value) < 0.005 || Math.abs(value) >= 1000 ? short(value) : value.toFixed(2).replace("-", MINUS));
  const signed = (value) => (value > 0 ? "+" : "") + grade(value);
  function asText(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "string") return value;
    if (Array.isArray(value)) return value.map(asText).join("\n\n");
    if (typeof value === "object") {
      if (typeof value.content === "string") return value.role ? `${value.role}: ${value.content}` : value.content;
      if (typeof value.text === "string") return value.text;
      if (Array.isArray(value.messages)) return asText(value.messages);
      return JSON.stringify(value);
    }
    return String(value);
  }
  /** The language of a text, so that a browser picks the right shapes for Han letters; empty where it is not told. */
  const languageOf = (text) => (/[\u3040-\u30ff]/.test(text) ? "ja" : /[\u4e00-\u9fff]/.test(text) ? "zh-Hans" : /[\uac00-\ud7af]/.test(text) ? "ko" : "");

  function words(text, find = "") {
    const language = languageOf(text);
    const element = make("div", { class: language ? "words han" : "words", dir: "auto", lang: language });
    if (!find) { element.textContent = text; return element; }
    const low = text.toLowerCase();
    let start = 0;
    for (let at = low.indexOf(find); at >= 0 && low.length === text.length; at = low.indexOf(find, start)) {
      element.append(text.slice(start, at), make("mark", {}, text.slice(at, at + find.length)));
      start = at + find.length;
    }
    element.append(text.slice(start));
    return element;
  }
  function answerWords(side, find) {
    if (!side || typeof side !== "object") return make("p", { class: "none" }, say("cmp.absent"));
    const text = asText(side.text ?? side.answer);
    return text.trim() ? words(text, find) : make("p", { class: "none" }, say("cmp.empty"));
  }
  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, label]) => make("option", { value }, label)));
    if (options.some(([value]) => String(value) === String(chosen))) select.value = chosen;
  }

  // ---- theme ----------------------------------------------------------------------------------------------------
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const theme = asked.get("theme") || recall("theme");
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember("theme", root.dataset.theme);
  });

  // ---- pictures: a cursor that reads numbers --------------------------------------------------------------------
  const svgMake = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  function nearest(values, x) {
    let best = 0;
    for (let i = 1; i < values.length; i += 1) if (Math.abs(values[i] - x) < Math.abs(values[best] - x)) best = i;
    return best;
  }

  function readable(figure) {
    const chart = data.charts[figure.dataset.chart];
    const plot = figure.querySelector(".plot");
    const svg = plot && plot.querySelector("svg");
    if (!chart || !svg || !chart.x.length) return;
    const [left, top, right, bottom] = chart.box;
    const toX = (x) => left + ((x - chart.xlim[0]) / (chart.xlim[1] - chart.xlim[0])) * (right - left);
    const toY = (y) => bottom - ((y - chart.ylim[0]) / (chart.ylim[1] - chart.ylim[0])) * (bottom - top);
    const layer = svgMake("g", {});
    const tip = make("div", { class: "tip", hidden: "" });
    svg.append(layer);
    plot.append(tip);
    let at = -1;

    const rows = (index) => chart.lines.map((line) => {
      const own = line.x || chart.x;
      const i = line.x ? nearest(own, chart.x[index]) : index;
      const span = (chart.xlim[1] - chart.xlim[0]) / 40;
      if (line.x && Math.abs(own[i] - chart.x[index]) > span) return null;
      const name = line.word ? say(line.word) : line.name;
      return { name, colour: line.colour, x: own[i], y: line.y && line.y[i], text: line.text ? line.text[i] : short(line.y[i]) };
    }).filter(Boolean);
    const heading = (index) => {
      if (chart.nearest === "xy") return `${say("step")} ${chart.labels[index] ?? ""} · √KL ${short(chart.x[index])}`;
      return chart.labels.length ? chart.labels[index] : `${say("step")} ${chart.x[index].toLocaleString("en-US")}`;
    };

    function show(index, aloud) {
      at = Math.max(0, Math.min(chart.x.length - 1, index));
      const found = rows(at);
      const x = toX(chart.x[at]);
      layer.replaceChildren(svgMake("line", { class: "cursor", x1: x, x2: x, y1: top, y2: bottom }));
      for (const row of found) {
        if (isNumber(row.y)) layer.append(svgMake("circle", { class: "cursor-dot", cx: toX(row.x), cy: toY(row.y), r: 4.5, style: `fill:var(--${row.colour})` }));
      }
      const lines = found.map((row) => make("div", {}, make("span", {}, row.name), make("b", {}, row.text)));
      tip.replaceChildren(make("span", {}, heading(at)), ...lines);
      tip.hidden = false;
      const scale = svg.clientWidth / svg.viewBox.baseVal.width;
      const wide = tip.offsetWidth;
      const place = x * scale + 12 + wide > plot.clientWidth ? x * scale - 12 - wide : x * scale + 12;
      tip.style.left = `${Math.max(0, Math.min(place, plot.clientWidth - wide))}px`;
      tip.style.top = `${top * scale}px`;
      if (aloud) byId("live").textContent = `${heading(at)}: ${found.map((row) => `${row.name} ${row.text}`).join(", ")}`;
    }
    function hide() { tip.hidden = true; layer.replaceChildren(); }
    function point(event) {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale;
      const y = (event.clientY - box.top) * scale;
      if (chart.nearest === "xy") {
        const distance = chart.x.map((value, i) => Math.hypot(toX(value) - x, toY(chart.lines[0].y[i]) - y));
        show(distance.indexOf(Math.min(...distance)));
      } else show(nearest(chart.x, chart.xlim[0] + ((x - left) / (right - left)) * (chart.xlim[1] - chart.xlim[0])));
    }
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: chart.x.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (move === undefined) return;
      event.preventDefault();
      show(move, true);
    });
  }

  // ---- before and after -----------------------------------------------------------------------------------------
  const GRADES = ["reward", "gold", "tokens"];
  function compare() {
    if (!byId("cmp-list")) return () => {};
    const rows = data.evaluation.map((row) => {
      const before = row.before || {};
      const after = row.after || {};
      const change = {};
      for (const name of GRADES) change[name] = isNumber(before[name]) && isNumber(after[name]) ? after[name] - before[name] : null;
      return { row, change, haystack: null };
    });
    const has = (name) => rows.some((each) => each.change[name] !== null);
    const judge = has("gold") ? "gold" : "reward";
    const outcome = (each) => (each.change[judge] === null ? "" : each.change[judge] > 0 ? "won" : each.change[judge] < 0 ? "lost" : "tied");
    const cut = ({ row }) => [row.before, row.after].some((side) => side && side.ended && side.ended !== "stopped");
    const shows = { all: () => true, won: (e) => outcome(e) === "won", tied: (e) => outcome(e) === "tied", lost: (e) => outcome(e) === "lost", cut };
    const by = (value) => (a, b) => {
      const [x, y] = [value(a), value(b)];
      return x === null ? (y === null ? 0 : 1) : y === null ? -1 : x - y;
    };
    const down = (name) => by((e) => (e.change[name] === null ? null : -e.change[name]));
    const up = (name) => by((e) => e.change[name]);
    const spread = (name) => {
      const all = rows.map((e) => e.change[name]).filter((value) => value !== null);
      const mean = all.reduce((sum, value) => sum + value, 0) / (all.length || 1);
      return Math.sqrt(all.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (all.length || 1)) || 1;
    };
    const sorts = { file: null };
    for (const name of GRADES) if (has(name)) { sorts[`${name}.down`] = down(name); sorts[`${name}.up`] = up(name); }
    if (has("gold") && has("reward")) {
      const [one, two] = [spread("reward"), spread("gold")];
      sorts.gap = by((e) => (e.change.gold === null || e.change.reward === null ? null : e.change.gold / two - e.change.reward / one));
    }
    const state = { find: "", show: "all", sort: "file", size: 10, page: 0 };
    const filter = byId("cmp-filter");

    function chosen() {
      const kept = rows.filter((each) => {
        if (!shows[state.show](each)) return false;
        if (!state.find) return true;
        each.haystack ??= [each.row.prompt_id, each.row.prompt, each.row.before?.text, each.row.after?.text].map(asText).join("\n").toLowerCase();
        return each.haystack.includes(state.find);
      });
      return sorts[state.sort] ? kept.sort(sorts[state.sort]) : kept;
    }
    function marks(side, other, changes) {
      const found = [];
      for (const name of GRADES) {
        if (!side || !isNumber(side[name])) continue;
        found.push(make("span", {}, `${say(`cmp.${name}`)} `, make("b", {}, grade(side[name])), changes && isNumber(other?.[name]) ? ` (${signed(side[name] - other[name])})` : ""));
      }
      const ended = { cut: "cmp.ended.cut", failed: "cmp.failed" }[side?.ended];
      if (ended) found.push(make("span", { class: "warn" }, say(ended)));
      return make("div", { class: "marks" }, ...found);
    }
    function card(each) {
      const { row, change } = each;
      const result = outcome(each);
      const head = make("div", { class: "sample-head" },
        result ? make("span", { class: `outcome ${result}` }, say(`cmp.show.${result}`)) : null,
        ...["reward", "gold"].filter((name) => change[name] !== null).map((name) =>
          make("span", { class: `delta ${change[name] > 0 ? "up" : change[name] < 0 ? "down" : ""}` }, `${say(`cmp.${name}`)} `, make("b", {}, signed(change[name])))),
        make("span", { class: "id" }, asText(row.prompt_id)));
      const side = (name, other) => make("div", { class: `side is-${name}` },
        make("span", { class: "label" }, say(`cmp.${name}`)), answerWords(row[name], state.find), marks(row[name], row[other], name === "after"));
      return make("article", { class: "card sample" }, head,
        make("div", { class: "prompt" }, make("span", { class: "label" }, say("cmp.prompt")), words(asText(row.prompt), state.find)),
        make("div", { class: "sides" }, side("before", "after"), side("after", "before")),
        asText(row.reference) ? make("details", {}, make("summary", {}, say("cmp.reference")), words(asText(row.reference))) : null);
    }
    function draw(scroll) {
      const kept = chosen();
      const pages = Math.max(1, Math.ceil(kept.length / state.size));
      state.page = Math.max(0, Math.min(state.page, pages - 1));
      const from = state.page * state.size;
      const page = kept.slice(from, from + state.size);
      byId("cmp-list").replaceChildren(...(page.length ? page.map(card) : [make("p", { class: "missing" }, say("cmp.none"))]));
      const turn = (step) => () => { state.page += step; draw(true); };
      const told = kept.length ? say("cmp.count", { from: (from + 1).toLocaleString("en-US"), to: (from + page.length).toLocaleString("en-US"), n: kept.length.toLocaleString("en-US") }) : "";
      const previous = make("button", { type: "button", onclick: turn(-1) }, say("page.previous"));
      const next = make("button", { type: "button", onclick: turn(1) }, say("page.next"));
      previous.disabled = state.page === 0;
      next.disabled = state.page >= pages - 1;
      byId("cmp-pager").replaceChildren(previous, make("span", { role: "status" }, told), next);
      if (scroll) byId("cmp-controls").scrollIntoView({ block: "start" });
    }
    function menus() {
      const number = (name) => rows.filter(shows[name]).length.toLocaleString("en-US");
      fill(byId("cmp-show"), Object.keys(shows).map((name) => [name, `${say(`cmp.show.${name}`)} (${number(name)})`]), state.show);
      fill(byId("cmp-sort"), Object.keys(sorts).map((name) => [name, say(`cmp.sort.${name}`)]), state.sort);
    }
    let waiting = 0;
    filter.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { state.find = filter.value.trim().toLowerCase(); state.page = 0; draw(); }, 120);
    });
    for (const name of ["show", "sort", "size"]) {
      byId(`cmp-${name}`).addEventListener("change", (event) => {
        state[name] = name === "size" ? Number(event.target.value) : event.target.value;
        state.page = 0;
        draw();
      });
    }
    byId("cmp-controls").addEventListener("submit", (event) => event.preventDefault());
    return () => { menus(); draw(); };
  }

  // ---- answers over time ----------------------------------------------------------------------------------------
  function timeline() {
    if (!byId("tl-list")) return () => {};
    const stageOf = (row) => asText(row.stage);
    const promptOf = (row) => asText(row.prompt_id) || asText(row.prompt);
    const stages = [...new Set(data.samples.map(stageOf))];
    const state = { mode: "prompt", stage: stages.includes("policy") ? "policy" : stages[0], pick: null, limit: 30 };
    const inStage = () => data.samples.filter((row) => stageOf(row) === state.stage);
    function groups() {
      const found = new Map();
      for (const row of inStage()) {
        const key = state.mode === "prompt" ? promptOf(row) : row.step;
        if (!found.has(key)) found.set(key, []);
        found.get(key).push(row);
      }
      if (state.mode === "prompt") return [...found].sort((a, b) => b[1].length - a[1].length);
      return [...found].sort((a, b) => a[0] - b[0]);
    }
    const followed = groups().filter(([, rows]) => new Set(rows.map((row) => row.step)).size > 1).length;
    if (followed * 2 < groups().length) state.mode = "step"; // most prompts were kept once only

    function moment(row) {
      const marks = [["reward", row.reward], ["gold", row.gold], ["tl.kl", row.kl], ["tokens", row.tokens]]
        .filter(([, value]) => isNumber(value))
        .map(([name, value]) => make("span", {}, `${say(name.startsWith("tl.") ? name : `cmp.${name}`)} `, make("b", {}, grade(value))));
      const ended = { cut: "cmp.ended.cut", failed: "cmp.failed" }[row.ended];
      if (ended) marks.push(make("span", { class: "warn" }, say(ended)));
      const head = state.mode === "prompt" ? make("span", { class: "label" }, make("b", {}, say("tl.step.of", { step: row.step })))
        : make("div", { class: "prompt" }, make("span", { class: "label" }, say("cmp.prompt")), words(asText(row.prompt)));
      const answer = answerWords(row);
      if (state.mode === "step") answer.style.marginTop = "10px";
      return make("article", { class: `card ${state.mode === "prompt" ? "moment" : "sample"}` }, head, answer, make("div", { class: "marks" }, ...marks));
    }
    function draw() {
      const found = groups();
      const index = Math.max(0, found.findIndex(([key]) => String(key) === String(state.pick)));
      const [key, rows] = found[index] || [null, []];
      state.pick = key;
      fill(byId("tl-mode"), ["prompt", "step"].map((mode) => [mode, say(`tl.mode.${mode}`)]), state.mode);
      fill(byId("tl-stage"), stages.map((stage) => [stage, data.words[`stage.${stage}`] ? say(`stage.${stage}`) : stage]), state.stage);
      byId("tl-what").textContent = say(state.mode === "prompt" ? "tl.prompt" : "tl.step");
      const label = ([value, group]) => (state.mode === "prompt" ? asText(group[0].prompt).replace(/\s+/g, " ").slice(0, 90) || String(value) : say("tl.step.of", { step: value })) + ` (${group.length})`;
      fill(byId("tl-pick"), found.map((entry) => [entry[0], label(entry)]), key);
      byId("tl-previous").disabled = index === 0;
      byId("tl-next").disabled = index >= found.length - 1;
      const ordered = state.mode === "prompt" ? [...rows].sort((a, b) => a.step - b.step) : rows;
      const cards = ordered.slice(0, state.limit).map(moment);
      const left = ordered.length - state.limit;
      const more = left > 0 ? [make("button", { type: "button", onclick: () => { state.limit += 30; draw(); } }, say("tl.more", { n: left }))] : [];
      const prompt = state.mode === "prompt" && rows.length
        ? [make("div", { class: "card sample" }, make("div", { class: "prompt" }, make("span", { class: "label" }, say("cmp.prompt")), words(asText(rows[0].prompt))))] : [];
      byId("tl-list").replaceChildren(...prompt, make("div", { class: state.mode === "prompt" ? "timeline" : "list" }, ...cards), ...more);
    }
    const step = (by) => () => {
      const found = groups();
      const index = found.findIndex(([key]) => String(key) === String(state.pick));
      state.pick = found[Math.max(0, Math.min(found.length - 1, index + by))][0];
      state.limit = 30;
      draw();
    };
    byId("tl-previous").addEventListener("click", step(-1));
    byId("tl-next").addEventListener("click", step(1));
    for (const name of ["mode", "stage", "pick"]) {
      byId(`tl-${name}`).addEventListener("change", (event) => {
        state[name] = event.target.value;
        if (name !== "pick") state.pick = null;
        state.limit = 30;
        draw();
      });
    }
    byId("tl-controls").addEventListener("submit", (event) => event.preventDefault());
    return draw;
  }

  // ---- the page -------------------------------------------------------------------------------------------------
  document.querySelectorAll("figure[data-chart]").forEach(readable);
  const drawers = [compare(), timeline()];
  function draw() { translate(); drawers.forEach((drawer) => drawer()); }
  byId("language").addEventListener("click", () => { chinese = !chinese; remember("lang", chinese ? "zh" : "en"); draw(); });
  byId("copy")?.addEventListener("click", async (event) => {
    const text = byId("recipe-text");
    try {
      await navigator.clipboard.writeText(text.textContent);
      event.target.textContent = say("rec.copied");
    } catch {
      getSelection().selectAllChildren(text);
    }
  });
  if ("IntersectionObserver" in window) {
    const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((link) => { link.classList.remove("here"); link.removeAttribute("aria-current"); });
        const link = links.get(entry.target.id);
        link?.classList.add("here");
        link?.setAttribute("aria-current", "true");
        if (link) link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.offsetLeft - 40;
      }
    }, { rootMargin: "-25% 0px -70% 0px" });
    document.querySelectorAll("main > section").forEach((section) => watch.observe(section));
  }
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((fold) => { fold.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((fold) => { fold.open = false; }));
  draw();
})();
