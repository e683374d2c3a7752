// The page of `testbed ui`: shows what the server tells, sends traces and faults. No library, no build step.
"use strict";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const TABLES = ["nodes", "leases", "forwarding", "pods", "services", "faults", "events"];
const TITLES = { forwarding: "forwarding tables", faults: "faults that are on" };
const SECONDS_PER_LEG = 2.2;
const HINT = "Click a pod, then another one: a packet is sent from the first to the second and followed.";
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

const state = { rates: {}, ports: {}, chosen: null, way: null, run: 0 };

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

function say(text, bad = false) {
  $("outcome").textContent = text;
  $("outcome").className = bad ? "bad" : "";
}

function amount(bytes) {
  if (bytes < 1000) return `${Math.round(bytes)} B/s`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB/s`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB/s` : `${(bytes / 1e9).toFixed(2)} GB/s`;
}

// --- the picture --------------------------------------------------------------------------------------------------

// What is drawn anew would lose the keyboard: whoever has the same name gets it again.
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
  drawWay(false);
}

function drawPicture(svg) {
  $("picture").innerHTML = svg; // made by the server; every name in it is escaped there
  for (const pod of document.querySelectorAll("#picture g.pod[data-pod]")) {
    pod.setAttribute("tabindex", "0");
    pod.setAttribute("role", "button");
    pod.setAttribute("aria-label", `pod ${pod.dataset.pod}`);
  }
}

function markChosen() {
  for (const pod of document.querySelectorAll("#picture g.pod[data-pod]")) {
    pod.classList.toggle("chosen", pod.dataset.pod === state.chosen);
  }
}

function choose(pod) {
  if (state.chosen === null || state.chosen === pod) {
    state.chosen = state.chosen === pod ? null : pod;
    $("hint").textContent = state.chosen
      ? `From ${pod}: click the pod to send to.`
      : HINT;
    markChosen();
    return;
  }
  $("source").value = state.chosen;
  $("destination").value = pod;
  state.chosen = null;
  $("hint").textContent = HINT;
  markChosen();
  suggestPort();
  send();
}

$("picture").addEventListener("click", (event) => {
  const pod = event.target.closest("g.pod[data-pod]");
  if (pod) choose(pod.dataset.pod);
});
$("picture").addEventListener("keydown", (event) => {
  const pod = event.target.closest("g.pod[data-pod]");
  if (pod && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    choose(pod.dataset.pod);
  }
});

// --- traffic ------------------------------------------------------------------------------------------------------

function showTraffic() {
  const svg = $("picture").querySelector("svg");
  if (!svg) return;
  svg.querySelectorAll("text.rate").forEach((old) => old.remove());
  if (!$("show-traffic").checked) return;
  for (const link of svg.querySelectorAll("g.link[data-link]")) {
    const path = link.querySelector("path");
    const kind = path.classList.contains("cable") ? "cable" : path.classList.contains("veth") ? "veth" : null;
    if (kind === null) continue;
    const ends = link.dataset.link.split(" ");
    const near = state.rates[ends[0]], far = state.rates[ends[1]];
    // What leaves the upper end goes down. A pod's own end is not listened at, its node's end is.
    const down = near ? near.tx_bytes : far ? far.rx_bytes : 0;
    const up = near ? near.rx_bytes : far ? far.tx_bytes : 0;
    const lost = [near, far].reduce((sum, one) => sum + (one ? one.tx_dropped + one.rx_dropped : 0), 0);
    if (down + up < 1 && lost === 0) continue;
    const middle = path.getPointAtLength(path.getTotalLength() / 2);
    const text = document.createElementNS(SVG, "text");
    text.setAttribute("class", lost ? "rate lost" : "rate");
    text.setAttribute("x", middle.x - 6);
    text.setAttribute("y", middle.y + 3);
    text.textContent = `↓${amount(down)} ↑${amount(up)}` + (lost ? ` ✕${Math.round(lost)}/s lost` : "");
    link.append(text);
  }
}

$("show-traffic").addEventListener("change", showTraffic);

// --- tracing ------------------------------------------------------------------------------------------------------

function fillSelects(pods) {
  for (const id of ["source", "destination"]) {
    const select = $(id);
    const names = [...select.options].map((option) => option.value);
    if (names.join() === pods.join()) continue;
    const before = select.value;
    select.replaceChildren(...pods.map((name) => element("option", { value: name }, name)));
    if (pods.includes(before)) select.value = before;
    else if (id === "destination" && pods.length > 1) select.value = pods[pods.length - 1];
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
$("clear").addEventListener("click", () => {
  state.way = null;
  state.run += 1;
  say("");
  showHops([]);
  drawWay(false);
});

async function send() {
  const port = $("port").value.trim();
  const destination = $("destination").value + (port ? `:${port}` : "");
  const source = $("source").value;
  say(`${source} → ${destination} …`);
  $("send").disabled = true;
  try {
    const answer = await ask("trace", { source, destination });
    state.way = answer;
    showHops(answer.trace.hops);
    const reasons = [answer.trace.lost_at && answer.trace.lost_at.reason, ...answer.trace.reasons];
    const words = [...new Set(reasons.filter(Boolean))].join("\n");
    say(`${source} → ${destination}: ${answer.trace.outcome}${words ? `\n${words}` : ""}`, answer.trace.outcome !== "answered");
    drawWay(true);
  } catch (failure) {
    say(String(failure.message), true);
  } finally {
    $("send").disabled = false;
  }
}

function side(packet) {
  const end = (address, port) => (port === null ? address : `${address}:${port}`);
  return packet ? `${end(packet.src, packet.sport)} → ${end(packet.dst, packet.dport)}` : "-";
}

function showHops(hops) {
  const head = ["#", "µs", "where", "ttl", "packet, and why it is here"];
  $("hops").tHead.replaceChildren(hops.length ? element("tr", {}, ...head.map((text) => element("th", {}, text))) : "");
  const rows = [];
  let leg = null;
  for (const hop of hops) {
    if (hop.leg !== leg) {
      leg = hop.leg;
      rows.push(element("tr", { class: "leg" }, element("td", { colspan: head.length }, `${leg}: ${hop.inner.proto} ${hop.inner.info}`)));
    }
    const cells = [hop.number, Math.round(hop.at_us), `${hop.where} ${hop.direction}`, hop.inner.ttl];
    const packet = element("td", {}, element("div", { class: "inner" }, side(hop.inner)));
    if (hop.outer) packet.append(element("div", { class: "outer" }, `in ${hop.outer.proto} ${side(hop.outer)}`));
    packet.append(element("div", { class: "why" }, hop.why));
    rows.push(element(
      "tr", { class: "hop", "data-step": hop.number, "data-where": `${hop.node}/${hop.interface}` },
      ...cells.map((cell) => element("td", { class: "fixed" }, String(cell))),
      packet,
    ));
  }
  $("hops").tBodies[0].replaceChildren(...rows);
}

function drawWay(animated) {
  const svg = $("picture").querySelector("svg");
  if (!svg) return;
  svg.querySelectorAll("g.way, .runner").forEach((old) => old.remove());
  document.querySelectorAll("tr.hop.now").forEach((row) => row.classList.remove("now"));
  // A picture of another size has its things elsewhere.
  if (!state.way || svg.getAttribute("viewBox") !== state.way.viewBox) return;
  const holder = document.createElementNS(SVG, "svg");
  holder.innerHTML = state.way.way;
  svg.append(...holder.childNodes);
  const playing = state.playing;
  if (animated && !calm) play(svg, ++state.run);
  else if (playing && playing.run === state.run) play(svg, state.run, playing);
}

// One leg after the other: a dot runs along the line, and each number and row lights up as it passes.
async function play(svg, run, resume = null) {
  const legs = [...svg.querySelectorAll("g.way")];
  const from = resume || { run, leg: 0, began: performance.now() };
  state.playing = from;
  legs.forEach((way, number) => way.classList.toggle("hidden", number > from.leg));
  for (let number = from.leg; number < legs.length; number += 1) {
    if (number > from.leg || from.began === null) from.began = performance.now();
    from.leg = number;
    legs[number].classList.remove("hidden");
    const finished = await playLeg(svg, legs[number], from, run);
    if (!finished) return; // another way, or a new picture, which goes on from here
  }
  state.playing = null;
  document.querySelectorAll("tr.hop.now").forEach((row) => row.classList.remove("now"));
}

function playLeg(svg, way, from, run) {
  const lane = way.querySelector("path.lane");
  const steps = [...way.querySelectorAll(".step")];
  if (!lane) {
    steps.forEach((step) => step.classList.remove("hidden"));
    return Promise.resolve(true);
  }
  const length = lane.getTotalLength();
  const runner = document.createElementNS(SVG, "circle");
  runner.setAttribute("class", "runner");
  runner.setAttribute("r", "6");
  runner.setAttribute("fill", getComputedStyle(lane).stroke);
  svg.append(runner);
  lane.style.strokeDasharray = `${length}`;
  const end = way.querySelector(".tip, .lost");
  if (end) end.classList.add("hidden");
  return new Promise((resolve) => {
    const frame = (now) => {
      if (state.run !== run || !svg.isConnected || !lane.isConnected) {
        runner.remove();
        resolve(false);
        return;
      }
      const part = Math.min(1, (now - from.began) / (1000 * SECONDS_PER_LEG));
      const at = lane.getPointAtLength(part * length);
      runner.setAttribute("cx", at.x);
      runner.setAttribute("cy", at.y);
      lane.style.strokeDashoffset = `${length * (1 - part)}`;
      steps.forEach((step, number) => {
        const reached = part >= Number(step.dataset.at) - 1e-3;
        const now_ = reached && !(number + 1 < steps.length && part >= Number(steps[number + 1].dataset.at) - 1e-3);
        step.classList.toggle("hidden", !reached);
        step.classList.toggle("now", now_ && part < 1);
        const row = document.querySelector(`tr.hop[data-step="${step.dataset.step}"]`);
        if (row) {
          if (now_ && part < 1 && !row.classList.contains("now")) row.scrollIntoView({ block: "nearest" });
          row.classList.toggle("now", now_ && part < 1);
        }
      });
      if (part < 1) {
        requestAnimationFrame(frame);
      } else {
        runner.remove();
        if (end) end.classList.remove("hidden");
        lane.style.strokeDasharray = "";
        resolve(true);
      }
    };
    requestAnimationFrame(frame);
  });
}

// --- tables -------------------------------------------------------------------------------------------------------

function makeTabs() {
  for (const name of TABLES) {
    const title = TITLES[name] || name;
    $("tabs").append(element("button", { role: "tab", id: `tab-${name}`, "aria-controls": `table-${name}` }, title));
    $("tables").append(element("div", { class: "table", id: `table-${name}`, role: "tabpanel", "aria-labelledby": `tab-${name}` }));
    $(`tab-${name}`).addEventListener("click", () => openTab(name));
  }
  openTab("nodes");
}

function openTab(name) {
  for (const one of TABLES) {
    $(`tab-${one}`).setAttribute("aria-selected", String(one === name));
    $(`table-${one}`).hidden = one !== name;
  }
}

function showTable(name, { headings, rows }) {
  const count = rows.length;
  $(`tab-${name}`).textContent = `${TITLES[name] || name} (${count})`;
  const kill = name === "nodes";
  const head = element("tr", {}, ...[...headings, ...(kill ? ["fault"] : [])].map((text) => element("th", {}, text)));
  const body = rows.map((cells) => {
    const row = element("tr", { "data-name": cells[0] }, ...cells.map((cell) => element("td", {}, cell)));
    if (kill) {
      const button = element("button", { class: "kill", "data-node": cells[0], title: `fault agent kill ${cells[0]}` }, "kill agent");
      button.addEventListener("click", () => act("kill", { node: cells[0] }, (done) => `fault ${done.number}: ${done.did}`));
      row.append(element("td", {}, button));
    }
    return row;
  });
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  keepingKeyboard($(`table-${name}`), () => $(`table-${name}`).replaceChildren(table));
  if (name === "pods") fillSelects(rows.map((cells) => cells[0]));
}

async function act(what, body, words) {
  try {
    say(words(await ask(what, body)));
  } catch (failure) {
    say(String(failure.message), true);
  }
}

$("heal").addEventListener("click", () => act("heal", {}, (healed) => {
  if (!healed.length) return "no fault was on";
  return healed.map((one) => `fault ${one.number}, ${one.fault}: ${one.healed ? "ended" : "is still on"}`).join("\n");
}));

// --- what the server tells ----------------------------------------------------------------------------------------

function listen() {
  const live = new EventSource("live");
  const on = (kind, act_) => live.addEventListener(kind, (event) => act_(JSON.parse(event.data)));
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
  for (const name of TABLES) on(name, ({ table }) => showTable(name, table));
  live.onerror = () => problem("testbed ui does not answer; is it still running?");
  live.onopen = () => problem("");
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

makeTabs();
showHops([]);
listen();
