// The sweep: which step it is, what that makes of each node and edge, and the controls.

const last = data.steps.length - 1;
const forwardSteps = data.steps.filter((step) => step.phase === "forward").length;
const FEW = 60;
const MOVING = ["forward", "seed", "backward"];

// When each value is known, and when each adjoint is complete.
for (const node of data.nodes) Object.assign(node, { known: 0, sent: Infinity, seeded: Infinity });
data.steps.forEach((step, number) => {
  for (const index of step.nodes) {
    if (step.phase === "forward") data.nodes[index].known = number;
    if (step.phase === "seed") data.nodes[index].seeded = number;
    if (step.phase === "backward") data.nodes[index].sent = number;
  }
});
for (const node of data.nodes) {
  node.arrivals = node.outgoing.filter((edge) => edge.step !== null).sort((a, b) => a.branch - b.branch);
  const when = [...node.arrivals.map((edge) => edge.step), ...(node.seeded < Infinity ? [node.seeded] : [])];
  // An input that nothing depends on has an adjoint of zero from the start of the backward sweep.
  node.complete = when.length ? Math.max(...when) : node.adjoint ? forwardSteps + 1 : Infinity;
}

let now = 0;
let hovered = null;
let focused = null;
let playing = null;
let stop = 0; // the node that Tab comes to

const currentNode = () => data.steps[now].nodes[0] ?? 0;

// The drawing at a step

function adjointText(node) {
  if (now >= node.complete) return shortly("∂", node.adjoint);
  const sums = node.arrivals.filter((edge) => edge.step <= now);
  return sums.length ? `∂ ${sums.at(-1).total} + …` : "";
}

const isBad = (node) => (!node.finite && now >= node.known) || (!node.adjoint_finite && now >= node.complete);

function markOf(node, isCurrent, phase) {
  if (isCurrent) return phase === "forward" ? "▶" : "◀";
  if (isBad(node)) return "⚠";
  if (now >= node.complete && now >= Math.min(node.sent, last)) return "✓✓";
  return now >= node.known ? "✓" : "";
}

// Of 400 boxes a step changes two or three: only these are written to.
const parts = boxes.map((box) => [box, ...[".mark", ".value", ".adjoint"].map((part) => box.querySelector(part))]);
const painted = new Map();

function paint(element, property, content) {
  if (!painted.has(element)) painted.set(element, {});
  if (painted.get(element)[property] === content) return;
  painted.get(element)[property] = content;
  element[property] = content;
}

const classes = (states) => Object.keys(states).filter((state) => states[state]);

function paintNode(node) {
  const step = data.steps[now];
  const [box, mark, value, adjoint] = parts[node.index];
  const known = now >= node.known;
  const current = MOVING.includes(step.phase) && step.nodes.includes(node.index);
  const receiving = step.edges.some((edge) => data.edges[edge].source === node.index);
  const states = { known, current, receiving, bad: isBad(node) };
  paint(box.classList, "value", ["node", node.kind, ...classes(states)].join(" "));
  paint(mark, "textContent", markOf(node, current, step.phase));
  paint(value, "textContent", known ? shortly("=", node.value) : "");
  paint(adjoint, "textContent", node.adjoint ? adjointText(node) : "");
}

// A range of entries is no single number that the node equals.
function shortly(sign, array) {
  return sign === "=" && array.rows && !array.brief.startsWith("[") ? array.brief : `${sign} ${array.brief}`;
}

function paintEdge(edge) {
  const step = data.steps[now];
  const forward = step.phase === "forward" && step.nodes[0] === edge.target;
  const backward = edge.step === now;
  const carried = edge.step !== null && edge.step < now;
  const shown = backward || (carried && data.edges.length <= FEW);
  paint(lines[edge.index].classList, "value", ["edge", ...classes({ forward, backward, carried })].join(" "));
  paint(labels[edge.index].classList, "value", ["label", ...classes({ shown, now: backward })].join(" "));
}

function show(number, follow = true) {
  now = Math.max(0, Math.min(last, number));
  const step = data.steps[now];
  const forward = step.phase === "start" || step.phase === "forward";
  scene.classList.toggle("forward", forward);
  scene.classList.toggle("backward", !forward);
  data.nodes.forEach(paintNode);
  data.edges.forEach(paintEdge);
  tellStep(now);
  inspect();
  byId("slider").value = now;
  byId("slider").setAttribute("aria-valuetext", step.title);
  byId("place").textContent = `step ${now} of ${last}`;
  byId("live").textContent = step.says;
  for (const id of ["first", "back"]) byId(id).setAttribute("aria-disabled", now === 0);
  for (const id of ["last", "forth"]) byId(id).setAttribute("aria-disabled", now === last);
  if (focused === null) rest(currentNode());
  if (follow && step.nodes.length) reveal(currentNode());
  if (now === last) pause();
}

// The node in the panel: pointed at, else in focus, else the current one

function inspect() {
  if (!data.nodes.length) return;
  const index = hovered ?? focused ?? currentNode();
  const why = hovered !== null ? " · pointed at" : focused !== null ? " · in focus" : "";
  const node = data.nodes[index];
  tellNode(index, why, choose, { known: now >= node.known, complete: now >= node.complete });
}

function rest(index) {
  boxes[stop]?.setAttribute("tabindex", "-1");
  boxes[index]?.setAttribute("tabindex", "0");
  stop = index;
}

function choose(index) {
  hovered = null;
  rest(index);
  reveal(index);
  boxes[index].focus({ preventScroll: true });
}

boxes.forEach((box, index) => {
  box.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "touch") return;
    hovered = index;
    inspect();
  });
  box.addEventListener("pointerleave", () => {
    hovered = null;
    inspect();
  });
  box.addEventListener("focus", () => {
    focused = index;
    box.setAttribute("aria-selected", "true");
    rest(index);
    reveal(index);
    inspect();
  });
  box.addEventListener("blur", () => {
    focused = null;
    box.setAttribute("aria-selected", "false");
    inspect();
  });
  box.addEventListener("click", () => {
    if (dragged <= 4) box.focus({ preventScroll: true });
  });
});

// Play and pause

function play() {
  if (now === last) show(0);
  const pace = Math.max(150, Math.min(1200, 90000 / data.steps.length));
  playing = setInterval(() => show(now + 1), pace);
  byId("play").textContent = "Pause";
  byId("play").setAttribute("aria-pressed", "true");
}

function pause() {
  clearInterval(playing);
  playing = null;
  byId("play").textContent = "Play";
  byId("play").setAttribute("aria-pressed", "false");
}

function go(number) {
  pause();
  show(number);
}

// Controls and keys

const presses = {
  first: () => go(0),
  back: () => go(now - 1),
  forth: () => go(now + 1),
  last: () => go(last),
  play: () => (playing === null ? play() : pause()),
  closer: () => zoom(1.3, undefined, undefined, true),
  farther: () => zoom(1 / 1.3, undefined, undefined, true),
  fit,
  "show-keys": () => byId("keys").showModal(),
};
for (const [id, action] of Object.entries(presses)) byId(id).addEventListener("click", action);

byId("slider").max = last;
byId("slider").addEventListener("input", (event) => go(Number(event.target.value)));
document.querySelectorAll(".phases span").forEach((span, i) => {
  span.style.setProperty("--share", i === 0 ? forwardSteps + 1 : last - forwardSteps);
});

byId("show-warning")?.addEventListener("click", (event) => {
  const index = Number(event.target.dataset.node);
  const { known, complete } = data.nodes[index];
  go(event.target.dataset.what === "adjoint" ? complete : known);
  choose(index);
});

const keys = {
  " ": presses.forth,
  Enter: presses.forth,
  Backspace: presses.back,
  Home: presses.first,
  End: presses.last,
  "+": presses.closer,
  "=": presses.closer,
  "-": presses.farther,
  0: fit,
  "?": presses["show-keys"],
  Escape: () => document.activeElement.blur(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  const { target, key } = event;
  const onControl = target.closest("button, input, a, .scroll");
  if (onControl && !["+", "-", "0", "?", "Escape"].includes(key)) return;
  if (key.startsWith("Arrow")) {
    const next = focused === null ? currentNode() : neighbour(focused, key);
    if (next !== undefined && data.nodes.length) choose(next);
  } else if (keys[key]) {
    keys[key]();
  } else {
    return;
  }
  event.preventDefault();
});

if (data.nodes.length) begin(currentNode());
show(0, false);
new ResizeObserver(measure).observe(svg);
