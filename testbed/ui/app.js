// The page of `testbed ui`: shows the server's messages, requests traces and faults. No library, no build step.
"use strict";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const TABLES = ["nodes", "leases", "forwarding", "pods", "services", "faults", "events"];
const TABS = ["path", "facts", ...TABLES];
const TITLES = { forwarding: "forwarding tables", faults: "active faults" };
const SECONDS_PER_HOP = 0.6;
const MOST_ZOOM = 12;
const READABLE = 0.55; // screen pixels per pixel of the picture; below this scale the view follows the packet
const FOLLOWED = 0.8; // the same while it follows the packet
const TYPE_SIZES = [14, 17, 20, 24];
const HINT = "Click two pods to send a packet. Space plays, ← → step, wheel zooms, drag pans; t type, d dark, f path, 0 all.";
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

const state = { edges: "", unanswered: "", rates: {}, ports: {}, pods: [], services: [], texts: [], chosen: null, thing: null, way: null, whole: null, view: null };
const player = { at: 0, part: 0, playing: false, drawn: 0, speed: 1 }; // at: number of the hop in the list, from 0

// --- small things -------------------------------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function button(text, action, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", action);
  return made;
}

function onClicks(actions) {
  for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", action);
}

async function ask(what, body) {
  const answer = await fetch(what, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error || answer.statusText);
  return value;
}

async function act(what, body, describe) {
  try {
    say(describe(await ask(what, body)));
  } catch (failure) {
    say(String(failure.message), true);
  }
}

function say(text, bad = false) {
  $("outcome").textContent = text;
  $("outcome").className = bad ? "bad" : "";
}

function amount(bytes) {
  if (bytes < 1000) return `${Math.round(bytes)} B/s`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB/s`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB/s` : `${(bytes / 1e9).toFixed(2)} GB/s`;
}

const picture = () => $("picture").querySelector("svg");
const hops = () => (state.way ? state.way.trace.hops : []);
const legWords = (leg) => state.way.legs[leg];

// --- the picture --------------------------------------------------------------------------------------------------

// Redrawing would lose the keyboard focus: the control of the same name gets it back.
function keepingKeyboard(place, draw) {
  const controls = "g.pod[data-pod], button.kill";
  const named = (control) => control.dataset.pod || control.dataset.node;
  const held = place.contains(document.activeElement) && document.activeElement.matches(controls)
    ? named(document.activeElement)
    : null;
  draw();
  if (held === null) return;
  [...place.querySelectorAll(controls)].find((control) => named(control) === held)?.focus({ preventScroll: true });
}

function showPicture({ svg }) {
  keepingKeyboard($("picture"), () => drawPicture(svg));
  markChosen();
  showTraffic();
  drawWay();
}

function drawPicture(svg) {
  $("picture").innerHTML = svg; // made by the server; every name in it is escaped there
  const whole = picture().getAttribute("viewBox");
  if (whole !== state.whole) state.view = null;
  state.whole = whole;
  showView();
  state.texts = [...document.querySelectorAll("#picture > svg text")].map((text) => text.getBBox());
  for (const pod of document.querySelectorAll("#picture g.pod[data-pod]")) {
    pod.setAttribute("tabindex", "0");
    pod.setAttribute("role", "button");
    pod.setAttribute("aria-label", `pod ${pod.dataset.pod}`);
  }
  for (const wire of document.querySelectorAll("#picture g.link path.wire")) {
    const hit = wire.cloneNode(); // wide enough for a mouse
    hit.setAttribute("class", "hit");
    wire.after(hit);
  }
}

function markChosen() {
  for (const pod of document.querySelectorAll("#picture g.pod[data-pod]")) {
    pod.classList.toggle("chosen", pod.dataset.pod === state.chosen);
  }
  $("hint").textContent = state.chosen ? `From ${state.chosen}: click the pod or Service to send to.` : HINT;
  $("hint").classList.toggle("usual", state.chosen === null);
  showPolicies();
}

// Draws what NetworkPolicies allow the chosen pod and deny it, for the lab as it is now.
async function showPolicies() {
  const pod = state.chosen;
  let answer = null;
  try {
    if (pod !== null) {
      answer = await ask("policies", { pod });
      sayUnanswered("");
    }
  } catch (failure) {
    sayUnanswered(String(failure.message));
  }
  const svg = picture();
  if (!svg || pod !== state.chosen) return;
  // A picture of another size has another layout.
  const edges = answer && state.whole === answer.viewBox ? answer.edges : "";
  if (edges === state.edges && Boolean(edges) === Boolean(svg.querySelector("g.policies"))) return;
  state.edges = edges;
  svg.querySelectorAll("g.policies").forEach((old) => old.remove());
  const holder = document.createElementNS(SVG, "svg");
  holder.innerHTML = edges;
  svg.append(...holder.childNodes);
}

// What repeats itself is said once: when it fails, and when it works again.
function sayUnanswered(failure) {
  if (failure !== state.unanswered) say(failure || "the lab answers again", failure !== "");
  state.unanswered = failure;
}

// Policies come and go without a message.
async function followPolicies() {
  if (state.chosen !== null) await showPolicies();
  setTimeout(followPolicies, 1000);
}

function choose(name) {
  if (state.chosen === null || state.chosen === name) {
    if (!name.startsWith("svc/")) state.chosen = state.chosen === name ? null : name;
    markChosen();
    return;
  }
  $("source").value = state.chosen;
  $("destination").value = name;
  state.chosen = null;
  markChosen();
  suggestPort();
  send();
}

function thingAt(target) {
  for (const kind of ["pod", "service", "agent", "device", "machine", "link", "node"]) {
    const found = target.closest(`[data-${kind}]`);
    if (found && picture().contains(found)) return { kind, name: found.dataset[kind] };
  }
  return null;
}

function clicked(target) {
  const step = target.closest(".step");
  if (step) return goTo(hops().findIndex((hop) => String(hop.number) === step.dataset.step));
  const thing = thingAt(target);
  if (!thing) return undefined;
  const chosen = state.chosen;
  if (thing.kind === "pod") choose(thing.name);
  if (thing.kind === "service") choose(`svc/${thing.name}`);
  if (thing.kind !== "pod" || chosen === null) showThing(thing);
  return undefined;
}

$("picture").addEventListener("keydown", (event) => {
  const pod = event.target.closest("g.pod[data-pod]");
  if (pod && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    event.stopPropagation();
    choose(pod.dataset.pod);
  }
});

// --- zoom and pan -------------------------------------------------------------------------------------------------

const numbers = (viewBox) => viewBox.split(" ").map(Number);

function showView() {
  picture()?.setAttribute("viewBox", state.view ? state.view.join(" ") : state.whole);
}

function setView(x, y, width, height) {
  const [, , whole, high] = numbers(state.whole);
  const isWhole = width >= whole && height >= high;
  state.view = isWhole ? null : [
    Math.min(Math.max(x, -width / 2), whole - width / 2), Math.min(Math.max(y, -height / 2), high - height / 2), width, height,
  ];
  showView();
}

function pixel() { // of the screen, in units of the picture
  return 1 / picture().getScreenCTM().a;
}

function isReadable() {
  return Math.min(devicePixelRatio, 1.5) / pixel() > READABLE;
}

function placeOf(event) {
  const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture().getScreenCTM().inverse());
  return [spot.x, spot.y];
}

function zoom(factor, at = null) {
  if (!picture()) return;
  const [x, y, width, height] = state.view || numbers(state.whole);
  const whole = numbers(state.whole)[2];
  const scale = Math.max(factor, whole / MOST_ZOOM / width);
  const [toX, toY] = at || [x + width / 2, y + height / 2];
  setView(toX - (toX - x) * scale, toY - (toY - y) * scale, width * scale, height * scale);
}

function zoomToPath() {
  const ways = [...(picture()?.querySelectorAll("g.way") || [])].map((way) => way.getBBox());
  if (!ways.length) return zoomToAll();
  const left = Math.min(...ways.map((box) => box.x)) - 60, top = Math.min(...ways.map((box) => box.y)) - 60;
  const right = Math.max(...ways.map((box) => box.x + box.width)) + 60;
  const bottom = Math.max(...ways.map((box) => box.y + box.height)) + 60;
  return setView(left, top, right - left, bottom - top);
}

// Zoomed to readable size around a hop; keepInView moves along with the packet.
function followFrom(step) {
  if (!step) return;
  const [x, y] = middleOf(step);
  const width = $("picture").clientWidth / FOLLOWED, height = $("picture").clientHeight / FOLLOWED;
  setView(x - width / 2, y - height / 2, width, height);
}

function zoomToAll() {
  state.view = null;
  showView();
}

$("picture").addEventListener("wheel", (event) => {
  if (!picture()) return;
  event.preventDefault();
  zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, placeOf(event));
}, { passive: false });

const fingers = new Map();
let drag = null;
$("picture").addEventListener("pointerdown", (event) => {
  if (!picture() || event.button !== 0) return;
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  drag = { x: event.clientX, y: event.clientY, target: event.target, moved: false };
});
addEventListener("pointermove", (event) => {
  if (!drag || !fingers.has(event.pointerId) || !picture()) return;
  const spread = () => {
    const [one, other] = [...fingers.values()];
    return Math.hypot(one[0] - other[0], one[1] - other[1]);
  };
  const before = fingers.size === 2 ? spread() : 0;
  const [x, y] = fingers.get(event.pointerId);
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4) drag.moved = true;
  if (!drag.moved) return;
  picture().classList.add("dragged");
  if (fingers.size === 2) return zoom(before / Math.max(spread(), 1), placeOf(event));
  const [left, top, width, height] = state.view || numbers(state.whole);
  const unit = pixel();
  state.view = [left - (event.clientX - x) * unit, top - (event.clientY - y) * unit, width, height];
  return showView();
});
for (const kind of ["pointerup", "pointercancel"]) {
  addEventListener(kind, (event) => {
    if (!fingers.delete(event.pointerId) || fingers.size) return;
    picture()?.classList.remove("dragged");
    // The pressed element may have been redrawn since.
    const target = document.elementFromPoint(event.clientX, event.clientY);
    if (drag && !drag.moved && kind === "pointerup" && target && picture()?.contains(target)) clicked(target);
    drag = null;
  });
}

// --- traffic ------------------------------------------------------------------------------------------------------

function showTraffic() {
  const svg = picture();
  if (!svg) return;
  svg.querySelectorAll("text.rate").forEach((old) => old.remove());
  if (!$("show-traffic").checked) return;
  const taken = [...state.texts];
  for (const link of svg.querySelectorAll("g.link[data-link]")) {
    const path = link.querySelector("path");
    const kind = path.classList.contains("cable") ? "cable" : path.classList.contains("veth") ? "veth" : null;
    if (kind === null) continue;
    const ends = link.dataset.link.split(" ");
    const near = state.rates[ends[0]], far = state.rates[ends[1]];
    // Traffic out of the upper end goes down. Not the pod's own end is watched, but its node's end.
    const down = near ? near.tx_bytes : far ? far.rx_bytes : 0;
    const up = near ? near.rx_bytes : far ? far.tx_bytes : 0;
    const lost = [near, far].reduce((sum, one) => sum + (one ? one.tx_dropped + one.rx_dropped : 0), 0);
    if (down + up < 1 && lost === 0) continue;
    // A pod's link has room next to the bridge, a cable in its middle.
    const length = path.getTotalLength();
    const middle = path.getPointAtLength(kind === "veth" ? length - 16 : length / 2);
    const text = document.createElementNS(SVG, "text");
    text.setAttribute("class", lost ? "rate lost" : "rate");
    text.textContent = `↓${amount(down)} ↑${amount(up)}` + (lost ? ` ✕${Math.round(lost)}/s lost` : "");
    const box = { y: middle.y - 5, width: text.textContent.length * 5.6, height: 9 };
    // Beside the cable and the lines of a packet along it; omitted if both sides have text.
    const sides = [middle.x - 20 - box.width, middle.x + 20]; // a port's name is to the right of a cable
    if (kind === "veth") sides.reverse();
    const free = sides.find((x) => !taken.some((other) => upon({ x, ...box }, other)));
    if (free === undefined) continue;
    taken.push({ x: free, ...box });
    text.setAttribute("x", free);
    text.setAttribute("y", middle.y + 3);
    link.append(text);
  }
}

function upon(one, other) {
  return one.x < other.x + other.width && other.x < one.x + one.width && one.y < other.y + other.height && other.y < one.y + one.height;
}

$("show-traffic").addEventListener("change", showTraffic);

// --- tracing ------------------------------------------------------------------------------------------------------

function fillSelects() {
  const choices = { source: state.pods, destination: [...state.pods, ...state.services.map((name) => `svc/${name}`)] };
  for (const [id, names] of Object.entries(choices)) {
    const select = $(id);
    if ([...select.options].map((option) => option.value).join() === names.join()) continue;
    const before = select.value;
    select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    if (names.includes(before)) select.value = before;
    else if (id === "destination" && state.pods.length > 1) select.value = state.pods[state.pods.length - 1];
  }
}

function suggestPort() {
  $("port").value = state.ports[$("destination").value] || "";
}

$("destination").addEventListener("change", suggestPort);
$("trace-form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

async function send() {
  const port = $("port").value.trim();
  const destination = $("destination").value + (port ? `:${port}` : "");
  const source = $("source").value;
  document.activeElement?.blur(); // Space is for the player now
  say(`${source} → ${destination} …`);
  $("send").disabled = true;
  try {
    const answer = await ask("trace", { source, destination });
    showAnswer(answer);
    const reasons = [answer.trace.lost_at && answer.trace.lost_at.reason, ...answer.trace.reasons];
    const why = [...new Set(reasons.filter(Boolean))].join("\n");
    say(`${source} → ${destination}: ${answer.trace.outcome}${why ? `\n${why}` : ""}`, answer.trace.outcome !== "answered");
  } catch (failure) {
    say(String(failure.message), true);
  } finally {
    $("send").disabled = false;
  }
}

function showAnswer(answer) {
  state.way = answer;
  showHops();
  $("player").hidden = $("headers").hidden = !hops().length;
  drawWay();
  if (!answer) return;
  openTab("path");
  if (!isReadable()) zoomToPath();
  if (!isReadable()) followFrom(stepOf(hops()[0]));
  replay();
}

function side(packet) {
  const end = (address, port) => (port === null ? address : address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);
  return `${end(packet.src, packet.sport)} → ${end(packet.dst, packet.dport)}`;
}

function colourOf(leg) {
  const circle = picture()?.querySelector(`g.steps[data-steps="${leg}"] .step circle`);
  return circle ? getComputedStyle(circle).fill : "#57606a";
}

function showHops() {
  const rows = [];
  hops().forEach((hop, index) => {
    if (index === 0 || hops()[index - 1].leg !== hop.leg) {
      rows.push(element("tr", { class: "leg" }, element("td", { colspan: 2 }, `${legWords(hop.leg)}: ${hop.inner.proto} ${hop.inner.info}`)));
    }
    const part = (kind, text) => element(kind === "inner" || kind === "outer" || kind === "why" ? "div" : "span", { class: kind }, text);
    const what = element("td", {},
      part("where", `${hop.where} ${hop.direction}`), " ", part("at", `${Math.round(hop.at_us)} µs`), " ", part("ttl", `ttl ${hop.inner.ttl}`));
    if (hop.outer) what.append(part("outer", `[${side(hop.outer)} ${hop.outer.proto}]`));
    what.append(part("inner", side(hop.inner)), part("why", hop.why));
    const number = element("td", {}, element("span", { class: "number", "data-leg": hop.leg }, String(hop.number)));
    const row = element("tr", { class: "hop", "data-step": hop.number, "data-where": `${hop.node}/${hop.interface}` }, number, what);
    row.addEventListener("click", () => goTo(index));
    rows.push(row);
  });
  $("hops").tBodies[0].replaceChildren(...rows);
}

// Draws the answer's path on the picture, which may have been redrawn since.
function drawWay() {
  const svg = picture();
  if (!svg) return;
  svg.querySelectorAll("g.way, g.steps, .runner").forEach((old) => old.remove());
  // A picture of another size has another layout.
  if (state.way && state.whole === state.way.viewBox) {
    const holder = document.createElementNS(SVG, "svg");
    holder.innerHTML = state.way.way;
    svg.append(...holder.childNodes);
  }
  const legs = [...new Set(hops().map((hop) => hop.leg))];
  $("legend").replaceChildren(...legs.flatMap((leg) => {
    const sign = element("i");
    sign.style.background = colourOf(leg);
    return [sign, legWords(leg)];
  }));
  document.querySelectorAll("tr.hop .number").forEach((one) => { one.style.background = colourOf(one.dataset.leg); });
  showHop();
}

// --- the player ---------------------------------------------------------------------------------------------------

function goTo(index) {
  if (index < 0 || index >= hops().length) return;
  Object.assign(player, { at: index, part: 0, playing: false });
  showHop();
}

function replay() {
  Object.assign(player, { at: 0, part: 0, playing: hops().length > 1, drawn: performance.now() });
  showHop();
  requestAnimationFrame(frame);
}

function playOrPause() {
  if (!hops().length) return;
  if (!player.playing && player.at >= hops().length - 1) return replay();
  player.playing = !player.playing;
  player.drawn = performance.now();
  showHop();
  return requestAnimationFrame(frame);
}

let frames = 0;
function frame(now) {
  if (!player.playing) return;
  const mine = ++frames;
  player.part += ((now - player.drawn) * player.speed) / (1000 * SECONDS_PER_HOP);
  player.drawn = now;
  if (player.part >= 1) {
    const ends = player.at + 2 >= hops().length;
    Object.assign(player, { at: player.at + 1, part: 0, playing: !ends });
    showHop();
  } else {
    showRunner();
  }
  requestAnimationFrame((later) => { if (mine === frames) frame(later); });
}

function stepOf(hop) {
  return hop && picture()?.querySelector(`g.steps .step[data-step="${hop.number}"]`);
}

function showHop() {
  const current = hops()[player.at];
  document.querySelectorAll("tr.hop").forEach((row) => {
    const now = Boolean(current) && row.dataset.step === String(current.number);
    row.classList.toggle("now", now);
  });
  $("play").textContent = player.playing ? "pause" : "play";
  if (!current) return;
  if ($("stack").dataset.hop !== `${current.number}` || $("stack").way !== state.way) {
    $("stack").innerHTML = state.way.stacks[player.at]; // as the picture
    $("bytes").textContent = state.way.bytes[player.at];
    Object.assign($("stack"), { way: state.way }).dataset.hop = current.number;
  }
  const order = new Map(hops().map((hop, index) => [String(hop.number), index]));
  for (const step of document.querySelectorAll("#picture g.steps .step")) {
    step.classList.toggle("hidden", order.get(step.dataset.step) > player.at);
    step.classList.toggle("now", step.dataset.step === String(current.number));
  }
  keepInView(stepOf(current));
  document.querySelector("tr.hop.now").scrollIntoView({ block: "nearest" });
  showRunner();
}

function middleOf(step) {
  const circle = step.querySelector("circle");
  return [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy"))];
}

function keepInView(step) {
  if (!step || !state.view) return;
  const [x, y] = middleOf(step);
  const [left, top, width, height] = state.view;
  const inside = x > left + width / 8 && x < left + width * 7 / 8 && y > top + height / 8 && y < top + height * 7 / 8;
  if (!inside) setView(x - width / 2, y - height / 2, width, height);
}

// Draws each leg's line up to the packet's position, with a dot on its way to the next hop.
function showRunner() {
  const svg = picture();
  const current = hops()[player.at], following = hops()[player.at + 1];
  svg?.querySelectorAll(".runner").forEach((old) => old.remove());
  if (!svg || !current) return;
  for (const way of svg.querySelectorAll("g.way")) {
    const own = hops().filter((hop) => hop.leg === way.dataset.leg);
    const reached = own.filter((hop) => hops().indexOf(hop) <= player.at);
    const lane = way.querySelector("path.lane"), last = stepOf(reached[reached.length - 1]);
    const done = reached.length === own.length;
    way.classList.toggle("hidden", !reached.length);
    way.querySelectorAll(".tip, .lost, .wrapped").forEach((end) => end.classList.toggle("hidden", !done));
    if (!lane) continue;
    const length = lane.getTotalLength();
    let part = done ? 1 : last ? Number(last.dataset.at) : 0;
    const next = stepOf(following);
    if (player.playing && !calm && current.leg === way.dataset.leg && following?.leg === current.leg && next && last) {
      part += (Number(next.dataset.at) - part) * player.part;
      const at = lane.getPointAtLength(part * length);
      const runner = document.createElementNS(SVG, "circle");
      for (const [key, value] of Object.entries({ class: "runner", r: 6, cx: at.x, cy: at.y, fill: colourOf(current.leg) })) {
        runner.setAttribute(key, value);
      }
      svg.append(runner);
    }
    lane.style.strokeDasharray = part < 1 ? `${part * length} ${length}` : "";
  }
}

// --- tables and facts ---------------------------------------------------------------------------------------------

function makeTabs() {
  for (const name of TABS) {
    $("tabs").append(button(TITLES[name] || name, () => openTab(name), { role: "tab", id: `tab-${name}`, "aria-controls": `table-${name}` }));
    if (!$(`table-${name}`)) {
      $("tables").append(element("div", { class: "table", id: `table-${name}`, role: "tabpanel", "aria-labelledby": `tab-${name}` }));
    }
  }
  openTab("path");
}

function openTab(name) {
  for (const one of TABS) {
    $(`tab-${one}`).setAttribute("aria-selected", String(one === name));
    $(`table-${one}`).hidden = one !== name;
  }
}

function injectButton(label, words, attributes = {}) {
  return button(label, () => act("fault", { words }, (done) => `fault ${done.number}: ${done.did}`), {
    title: `fault ${words.join(" ")}`,
    ...attributes,
  });
}

function healed(list) {
  if (!list.length) return "no fault was active";
  return list.map((one) => `fault ${one.number}, ${one.fault}: ${one.healed ? "ended" : "is still active"}`).join("\n");
}

function buttonsOf(table, cells) {
  if (table === "nodes") return [injectButton("kill agent", ["agent", "kill", cells[0]], { class: "kill", "data-node": cells[0] })];
  if (table === "faults") return [button("heal", () => act("heal", { number: Number(cells[0]) }, healed))];
  return [];
}

function rowsOf(rows) {
  return rows.map(([name, value]) => element("tr", {}, element("th", {}, name), element("td", {}, value)));
}

function showTable(name, { headings, rows }, { said, names }) {
  const title = TITLES[name] || name;
  $(`tab-${name}`).textContent = `${title} (${rows.length})`;
  const head = element("tr", {}, ...[...headings, ""].map((text) => element("th", {}, text)));
  const body = rows.map((cells) => element(
    "tr", { "data-name": cells[0] },
    ...cells.map((cell) => element("td", {}, cell)),
    element("td", { class: "buttons" }, ...buttonsOf(name, cells)),
  ));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  keepingKeyboard($(`table-${name}`), () => $(`table-${name}`).replaceChildren(table));
  if (name === "pods") state.pods = rows.map((cells) => cells[0]);
  if (name === "services") state.services = names; // the first column may be their namespaces
  if (name === "faults") {
    $("active-faults").hidden = !rows.length;
    $("active-faults").textContent = `${rows.length} active fault${rows.length === 1 ? "" : "s"}`;
    $("active-faults").title = said.join("\n");
  }
  fillSelects();
}

async function showThing(thing) {
  state.thing = thing;
  try {
    const { rows, faults } = await ask("facts", thing);
    if (state.thing !== thing) return;
    const offers = faults.map(([label, words]) => injectButton(label, words));
    if (offers.length) offers.push(button("heal", heal));
    $("table-facts").replaceChildren(
      element("h3", {}, `${thing.kind} ${thing.name}`),
      element("div", { class: "offers" }, ...offers),
      element("table", {}, element("tbody", {}, ...rowsOf(rows))),
    );
    openTab("facts");
  } catch (failure) {
    say(String(failure.message), true);
  }
}

const heal = () => act("heal", {}, healed);

// --- keys and buttons ---------------------------------------------------------------------------------------------

function largerType() {
  const root = document.documentElement;
  const next = TYPE_SIZES.indexOf(parseFloat(getComputedStyle(root).fontSize)) + 1;
  root.style.fontSize = `${TYPE_SIZES[next % TYPE_SIZES.length]}px`;
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function otherTheme() {
  setTheme(document.documentElement.dataset.theme !== "dark");
}

function changeSpeed(by) {
  const select = $("speed");
  select.selectedIndex = Math.min(Math.max(select.selectedIndex + by, 0), select.options.length - 1);
  player.speed = Number(select.value);
}

function clear() {
  player.playing = false;
  say("");
  showAnswer(null);
}

const KEYS = {
  " ": playOrPause, ArrowLeft: () => goTo(player.at - 1), ArrowRight: () => goTo(player.at + 1), r: replay,
  "+": () => zoom(0.8), "-": () => zoom(1.25), 0: zoomToAll, f: zoomToPath, t: largerType, d: otherTheme,
  "<": () => changeSpeed(-1), ">": () => changeSpeed(1),
};
addEventListener("keydown", (event) => {
  const action = KEYS[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, select") || (event.key === " " && event.target.closest?.("button, summary"))) return;
  event.preventDefault();
  action();
});
onClicks({
  clear, heal, play: playOrPause, replay, back: () => goTo(player.at - 1), next: () => goTo(player.at + 1), larger: largerType,
  dark: otherTheme, "zoom-in": () => zoom(0.8), "zoom-out": () => zoom(1.25), "zoom-all": zoomToAll, "zoom-path": zoomToPath,
  "active-faults": () => openTab("faults"),
});
$("speed").addEventListener("change", () => changeSpeed(0));

// --- what the server sends ----------------------------------------------------------------------------------------

function listen() {
  const live = new EventSource("live");
  const on = (kind, action) => live.addEventListener(kind, (event) => action(JSON.parse(event.data)));
  on("picture", showPicture);
  on("state", ({ lab, state: word }) => {
    document.title = `${lab}: ${word}`;
    $("lab").textContent = lab;
    $("state").textContent = word;
    $("state").className = `badge ${word}`;
  });
  on("traffic", ({ rates }) => {
    state.rates = rates;
    showTraffic();
  });
  on("ports", ({ ports }) => {
    state.ports = ports;
    if (document.activeElement !== $("port") && !state.way) suggestPort();
  });
  on("problem", ({ text }) => problem(text));
  for (const name of TABLES) on(name, ({ table, ...more }) => showTable(name, table, more));
  live.onerror = () => problem("testbed ui does not answer; is it still running?");
  live.onopen = () => problem("");
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
makeTabs();
markChosen();
listen();
followPolicies();
