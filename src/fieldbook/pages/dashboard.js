"use strict";
(() => {
const $ = id => document.getElementById(id), NS = document.querySelector("svg").namespaceURI;
const NONE = "nothing yet", NAMES = {fallback: "by the heuristic", shed: "turned away"};
const LEVELS = {ok: "\u25cf All well", watch: "\u25b2 Worth a look", bad: "\u25a0 Trouble"};

function fill(node, attributes, kids) {  // text goes in as text, never as HTML
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  node.append(...kids);
  return node;
}
const el = (tag, attributes, ...kids) => fill(document.createElement(tag), attributes, kids);
const svg = (tag, attributes, ...kids) => fill(document.createElementNS(NS, tag), attributes, kids);
const put = (id, ...kids) => $(id).replaceChildren(...kids);
const known = list => list.filter(x => x !== null), top = list => Math.max(0, ...known(list));
const sum = counts => Object.values(counts).reduce((a, b) => a + b, 0);
const or = form => x => x === null ? NONE : form(x);
const num = or(x => x.toLocaleString("en", {maximumSignificantDigits: x < 100 ? 3 : 9, maximumFractionDigits: 2}));
const share = or(x => x > 0 && x < .001 ? "<0.1 %" : +(100 * x).toPrecision(2) + " %");
const time = or(x => x < 1 ? +(1000 * x).toPrecision(2) + " ms" : +x.toPrecision(2) + " s");
const clock = text => new Date(text).toLocaleTimeString();
const called = kind => NAMES[kind] || kind;

const legend = rows => el("ul", {}, ...rows.map(([kind, text]) => el("li", {class: kind}, el("i"), text)));
const axis = (...texts) => el("div", {class: "axis"}, ...texts.map(text => el("span", {}, text)));
const flat = (viewBox, more, ...kids) => svg("svg", {viewBox, preserveAspectRatio: "none", ...more}, ...kids);
function chart(words, shapes, tips, most, ends, notes) {
  const over = tips.map((tip, x) => svg("rect", {x, width: 1, height: 100}, svg("title", {}, tip)));
  const drawn = flat(`0 0 ${tips.length} 100`, {role: "img", "aria-label": words}, ...shapes, ...over);
  return [axis(most), drawn, axis(...ends), legend(notes)];
}
function bars(kind, list, from, high, x, width) {  // each stands on `from`, which grows by it
  const d = list.map((value, i) => {
    const foot = 100 - 100 * from[i] / high, tall = 100 * value / high;
    from[i] += value;
    return value ? `M${i + x} ${foot}v${-tall}h${width}v${tall}z` : "";
  });
  return svg("path", {class: kind, d: d.join("")});
}
function line(kind, list, high, height, low = 0) {  // with gaps
  const d = list.map((value, i) => value === null ? "" :
    `${list[i - 1] == null ? "M" : "L"}${i + .5} ${height - height * (value - low) / (high - low || 1)}h.01`);
  return svg("path", {class: "l " + kind, d: d.join("")});
}
function overTime(id, words, rows, high, form, notes, draw) {  // rows: [class, name, a value a minute]
  const n = rows[0][2].length, past = i => i < n - 1 ? n - 1 - i + " min before" : "last minute";
  const tips = rows[0][2].map((_, i) =>
    [past(i), ...rows.filter(r => r[2][i]).map(r => r[1] + " " + form(r[2][i]))].join("\n"));
  put(id, ...chart(words, rows.map(draw), tips, form(high), [n + " min ago", "now"], notes));
}
function stacked(id, words, rows, high, form, notes) {
  const from = rows[0][2].map(() => 0);
  overTime(id, words, rows, high, form, notes, r => bars(r[0], r[2], from, high, .06, .88));
}
function lines(id, words, rows, form) {
  const all = rows.flatMap(r => r[2]), high = 1.04 * top(all), low = Math.min(0, ...known(all));
  const told = x => (x === high && low < 0 ? form(low) + " to " : "") + form(x);
  overTime(id, words, rows, high, told, rows, r => line(r[0], r[2], high, 100, low));
}
const row = (kind, name, ...cells) =>
  el("tr", {class: kind}, el("th", {scope: "row"}, name), ...cells.map(cell => el("td", {}, cell)));
const table = (heads, rows) => el("div", {class: "scroll", tabindex: 0}, el("table", {},
  el("thead", {}, el("tr", {}, ...heads.map(text => el("th", {scope: "col"}, text)))), el("tbody", {}, ...rows)));

function tiles({hour, models, in_flight, lag, slowest}) {
  const beyond = hour.p99 && hour.p99 >= slowest, rows = [
    ["Predictions", num(hour.rows), `in ${num(sum(hour.requests))} requests`],
    ["99 % within", (beyond ? "more than " : "") + time(hour.p99), "50 %: " + time(hour.p50)],
    ["Open requests", num(in_flight), "at the last look"],
    ["Prediction log", lag ? num(lag) + " s behind" : "takes every row", num(hour.lost) + " rows lost"],
    ["Feedback", num(hour.feedback), "outcomes received"],
    ["Decisions kept", num(hour.kept), "in the window"],
    ["Model", models.map(m => m.version).join(", ") || NONE,
      models.map(m => `${m.model || ""} since ${clock(m.since)}`).join(", ")]];
  put("tiles", ...rows.map(([name, value, note]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", {}, note)))));
}
function requests({each, hour}) {
  const rows = Object.entries(each.requests).map(([kind, list]) => [kind, called(kind), list]);
  const all = each.rows.map((x, i) => x === null ? null : rows.reduce((sum, r) => sum + r[2][i], 0));
  const notes = Object.entries(hour.requests).map(([kind, n]) => [kind, called(kind) + " " + num(n)]);
  stacked("requests", `Requests a minute: ${num(Math.min(...known(all)))} to ${num(top(all))}, ${num(all.at(-1))} in ` +
    `the last. Altogether: ${notes.map(n => n[1]).join(", ")}.`, rows, top(all), num, notes);
}
function latency({each, hour}) {
  lines("latency", `50 % were answered within ${time(hour.p50)}, 99 % within ${time(hour.p99)}; in the worst minute ` +
    `${time(top(each.p50))} and ${time(top(each.p99))}.`,
    [["answered", "50 % within", each.p50], ["shed thin", "99 % within", each.p99]], time);
}
function decisions({each, hour}) {
  const rows = Object.entries(each.decisions).map(([name, list], i) => ["d" + i, name, list]);
  const rest = each.rows.map((_, i) => rows[0][2][i] === null ? null : rows.reduce((left, r) => left - r[2][i], 1));
  const notes = rows.map(([kind, name]) => [kind, name + " " + share(hour.decisions[name] / sum(hour.decisions))]);
  if (top(rest) > .01) rows.push(["other", "others", rest]), notes.push(["other", "others"]);
  stacked("decisions", "Shares of the decisions: " + notes.map(n => n[1]).join(", "), rows, 1, share, notes);
}
function scores(told, training) {
  put("scores", ...told.flatMap(({of, earlier, now, mean}) => {
    const then = training && training.scores.find(one => one.of === of);
    const n = now.length, high = top([...now, ...earlier, ...(then ? then.training : [])]);
    const half = (kind, list, x) => bars(kind, list, list.map(() => 0), high, x, .42);
    const notes = [["d1", "first half: mean " + num(mean[0])], ["d0", "second half: mean " + num(mean[1])]];
    const tips = now.map((x, i) => `${i / n} to ${(i + 1) / n}: ${share(x)}, before ${share(earlier[i])}`);
    const shapes = [half("d1", earlier, .06), half("d0", now, .52)];
    if (then) {
      shapes.push(line("answered thin training", then.training, high, 100));
      notes.push(["training", "training: mean " + num(then.mean[0])]);
    }
    return chart(`Scores of ${of}, ${notes.map(note => note[1]).join(", ")}`, shapes,
      tips, `${of}: up to ${share(high)}`, ["0", "1"], notes);
  }));
}
function fields(id, rows) {
  const trend = list => flat(`0 -2 ${list.length} 24`, {"aria-hidden": true}, line("answered", list, top(list), 20));
  put(id, table(["field", "first half", "second half", "by 5 minutes"], rows.map(r => row(r.risen ? "risen" : "",
    (r.risen ? "\u25b2 " : "") + r.field, share(r.earlier), share(r.now), trend(r.each)))));
}
function against({decisions, scores, missing, value}) {
  const mark = on => on ? "risen" : "", lead = on => on ? "\u25b2 " : "", part = (rows, text, form) => rows.map(one =>
    row(mark(one.risen || one.moved), lead(one.risen || one.moved) + text(one), form(one.training), form(one.now)));
  const means = scores.map(one => ({...one, training: one.mean[0], now: one.mean[1]}));
  put("against", table(["share or mean", "training", "last hour"], [
    ...part(decisions, one => "decided: " + one.of, share), ...part(means, one => "mean score of " + one.of, num),
    ...part(value ? [value] : [], () => "mean value", num), ...part(missing, one => "missing: " + one.field, share)]));
}
const counts = (id, name, what, found) =>
  put(id, table([name, what], Object.entries(found).map(([key, n]) => row("", key, num(n)))));
function minutes({each}) {
  const kinds = Object.keys(each.requests), n = each.rows.length, cell = form => x => x === null ? "" : form(x);
  const rows = each.rows.map((rows, i) => row("", String(i + 1 - n),
    ...[...kinds.map(kind => each.requests[kind][i]), rows].map(cell(num)),
    ...[each.p50[i], each.p99[i], each.lag[i]].map(cell(time))));
  put("minutes", table(["minute", ...kinds.map(called), "rows", "50 %", "99 %", "log behind"], rows.reverse()));
}
function say(id, text) {  // only what is new: it is read out
  if ($(id).textContent !== text) $(id).textContent = text;
}
function draw(told) {
  const {verdict, hour, each} = told, title = $("title").textContent;
  $("verdict").className = verdict.level;
  $("level").textContent = LEVELS[verdict.level];
  say("text", verdict.text);
  put("more", ...verdict.more.map(text => el("p", {}, text)));
  document.title = verdict.level === "ok" ? title : LEVELS[verdict.level] + ": " + title;
  $("at").textContent = `as of ${clock(told.at)}` + (told.left_out ? `; ${told.left_out} series not followed` : "");
  tiles(told);
  const parts = {
    requests: [sum(hour.requests), () => requests(told)],
    latency: [hour.p50, () => latency(told)],
    decisions: [sum(hour.decisions), () => decisions(told)],
    scores: [told.scores.length, () => scores(told.scores, told.training)],
    against: [told.training && hour.rows, () => against(told.training)],
    missing: [told.fields.missing.length, () => fields("missing", told.fields.missing)],
    unseen: [told.fields.unseen.length, () => fields("unseen", told.fields.unseen)],
    broken: [sum(hour.refused), () => counts("broken", "field", "refusals", hour.refused)],
    status: [sum(hour.status), () => counts("status", "status", "responses", hour.status)],
    value: [known(each.value).length, () => lines("value", "Mean by minute", [["d0", "mean", each.value]], num)]};
  $("against").parentNode.hidden = !told.training;
  for (const id of ["decisions", "scores", "value"]) $(id).parentNode.hidden = hour.rows && !parts[id][0];
  for (const id in parts) parts[id][0] ? parts[id][1]() : put(id, el("p", {class: "soft"}, NONE));
  if ($("all").open) minutes(told);
}
let last = null, since = 0;
async function ask() {
  let note = "";
  if (document.hidden) return;
  try {
    const reply = await fetch("./dashboard.json", {cache: "no-store", signal: AbortSignal.timeout(10000)});
    if (!reply.ok) throw Error("answer " + reply.status);
    const told = await reply.json();
    if (!last || told.at !== last.at) since = performance.now();
    draw(last = told);
    if (performance.now() - since > 60000) note = `The server has not looked at its figures since ${clock(told.at)}.`;
  } catch (error) {
    note = `The figures cannot be fetched (${error.message}); trying again.`;
    if (last) note += ` What you see is from ${clock(last.at)}.`;
  }
  $("stale").hidden = !note;
  say("stale", note);
}
$("all").addEventListener("toggle", () => last && minutes(last));
document.addEventListener("visibilitychange", ask);
setInterval(ask, 15000);
ask();
})();
