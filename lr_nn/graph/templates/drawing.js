// The drawing: the window through which the graph is seen, and the way from node to node.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const svg = byId("drawing");
const scene = byId("scene");
const boxes = [...document.querySelectorAll(".node")];
const lines = [...document.querySelectorAll(".edge")];
const labels = [...document.querySelectorAll(".label")];

data.nodes.forEach((node, index) => Object.assign(node, { index, incoming: [], outgoing: [] }));
data.edges.forEach((edge, index) => {
  edge.index = index;
  data.nodes[edge.source].outgoing.push(edge);
  data.nodes[edge.target].incoming.push(edge);
});

const corners = boxes.map((box) => box.getAttribute("transform").match(/-?\d+/g).map(Number));
const BOX = { width: Number(scene.dataset.boxWidth), height: Number(scene.dataset.boxHeight) };
svg.removeAttribute("viewBox"); // which shows the whole graph where this script does not run

// The window

const READABLE = 0.8;
const LEGIBLE = 0.25; // below, text is left out of the drawing
const [ABOVE, BELOW] = [56, 40]; // where the zoom buttons and the legend are
const view = { x: 0, y: 0, scale: 1 };
const size = { width: 0, height: 0 }; // kept, since asking for it lays out the whole drawing

function measure() {
  size.width = svg.clientWidth;
  size.height = svg.clientHeight;
}

function draw(glide = false) {
  scene.classList.toggle("gliding", glide);
  scene.classList.toggle("far", view.scale < LEGIBLE);
  scene.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
}

function fitted() {
  const { width, height } = size;
  const [wide, high] = [Number(scene.dataset.width), Number(scene.dataset.height)];
  const scale = Math.min(width / wide, (height - ABOVE - BELOW) / high, 1.25);
  return { scale, x: (width - wide * scale) / 2, y: (height + ABOVE - BELOW - high * scale) / 2 };
}

function fit() {
  Object.assign(view, fitted());
  draw(true);
}

function zoom(factor, x = size.width / 2, y = size.height / 2, glide = false) {
  const scale = Math.min(3, Math.max(view.scale * factor, Math.min(0.02, fitted().scale)));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  draw(glide);
}

// Opens on the whole graph if that can be read, else on its beginning.
function begin(index) {
  measure();
  Object.assign(view, fitted());
  if (view.scale < READABLE) {
    view.scale = READABLE;
    centre(index);
  }
  draw();
}

function centre(index) {
  const [left, top] = corners[index];
  view.x = size.width / 2 - (left + BOX.width / 2) * view.scale;
  view.y = size.height / 2 - (top + BOX.height / 2) * view.scale;
}

// Moves the window only if the node is not in it.
function reveal(index) {
  const [left, top] = corners[index];
  const [x, y] = [view.x + left * view.scale, view.y + top * view.scale];
  const margin = 12;
  const inside =
    x >= margin &&
    y >= ABOVE &&
    x + BOX.width * view.scale <= size.width - margin &&
    y + BOX.height * view.scale <= size.height - BELOW;
  if (!inside) {
    centre(index);
    draw(true);
  }
}

// One pointer drags, two pinch.

const pointers = new Map();
let dragged = 0;

svg.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { left, top } = svg.getBoundingClientRect();
  const turned = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 * event.deltaY : event.deltaY;
  zoom(Math.exp(-0.0015 * turned), event.clientX - left, event.clientY - top);
}, { passive: false });

svg.addEventListener("pointerdown", (event) => {
  dragged = 0;
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
});

window.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = [event.clientX, event.clientY];
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const { left, top } = svg.getBoundingClientRect();
    const apart = ([x, y]) => Math.max(10, Math.hypot(x - other[0], y - other[1]));
    zoom(apart(now) / apart(before), other[0] - left, other[1] - top);
  } else {
    view.x += now[0] - before[0];
    view.y += now[1] - before[1];
    draw();
  }
  dragged += Math.hypot(now[0] - before[0], now[1] - before[1]);
  svg.classList.toggle("moving", dragged > 4);
  pointers.set(event.pointerId, now);
});

for (const kind of ["pointerup", "pointercancel"]) {
  window.addEventListener(kind, (event) => {
    pointers.delete(event.pointerId);
    svg.classList.remove("moving");
  });
}

// The way from node to node: along an edge to the nearest operand or use, or within the layer.

const middle = (index) => corners[index][1];

function nearest(index, others) {
  const distance = (other) => Math.abs(middle(other) - middle(index));
  return others.toSorted((a, b) => distance(a) - distance(b))[0];
}

function neighbour(index, key) {
  const { incoming, outgoing } = data.nodes[index];
  if (key === "ArrowLeft") return nearest(index, incoming.map((edge) => edge.source));
  if (key === "ArrowRight") return nearest(index, outgoing.map((edge) => edge.target));
  const layer = data.nodes.map((node) => node.index).filter((other) => corners[other][0] === corners[index][0]);
  layer.sort((a, b) => middle(a) - middle(b));
  return layer[layer.indexOf(index) + (key === "ArrowUp" ? -1 : 1)];
}
