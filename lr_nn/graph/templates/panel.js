// The panel: what happens at this step, and the numbers of one node. All text goes in as text, never as markup.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

const heading = (text) => element("h2", {}, text);
const subheading = (text) => element("h3", {}, text);
const paragraph = (text, style = "") => element("p", { class: style }, text);
const equation = (text) => element("code", { class: "equation" }, text);
const inNumbers = (text) => (text ? element("code", { class: "worked" }, text) : null);

function list(items, most = 16) {
  const shown = items.slice(0, most).map((item) => element("li", {}, item));
  const rest = items.length > most ? [element("li", {}, `and ${items.length - most} more`)] : [];
  return element("ul", { class: "list" }, ...shown, ...rest);
}

// The numbers of an array

function numbers(array, label) {
  if (array.number !== undefined) return [element("p", { class: "number" }, array.number)];
  if (!array.rows) return [paragraph(`${array.shape} ${array.dtype}: empty`, "facts")];
  const [least, mean, largest] = array.extremes;
  return [
    paragraph(`${array.shape} ${array.dtype}`, "facts"),
    paragraph(`min ${least}, mean ${mean}, max ${largest}`, "facts"),
    array.bad ? paragraph(`${array.bad} not finite`, "alarm") : null,
    entries(array, label),
    array.heat ? heatMap(array, label) : null,
    array.heat ? paragraph("blue below zero, orange above", "muted facts") : null,
  ].filter(Boolean);
}

function entries(array, label) {
  const row = (cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell)));
  const table = element("table", { class: "entries" }, element("tbody", {}, ...array.rows.map(row)));
  const frame = element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `Entries of the ${label}` }, table);
  if (array.more) frame.append(paragraph(array.more, "muted facts"));
  return frame;
}

function heatMap(array, label) {
  const [high, wide] = [array.heat.length, array.heat[0].length];
  const canvas = element("canvas", { class: "heat", width: wide, height: high, role: "img" });
  canvas.setAttribute("aria-label", `Heat map of the ${label}, ${array.shape}: blue below zero, orange above`);
  const cell = Math.max(4, Math.min(14, Math.floor(260 / wide), Math.floor(160 / high)));
  canvas.style.width = `${wide * cell}px`;
  canvas.style.height = `${high * cell}px`;
  const pen = canvas.getContext("2d");
  const colours = getComputedStyle(document.documentElement);
  const [low, top] = ["--low", "--high"].map((name) => colours.getPropertyValue(name));
  array.heat.forEach((line, y) => {
    [...line].forEach((letter, x) => {
      const level = (letter.charCodeAt(0) - "j".charCodeAt(0)) / 9;
      pen.fillStyle = letter === "!" ? colours.getPropertyValue("--alarm") : `rgba(${level < 0 ? low : top}, ${Math.abs(level)})`;
      pen.fillRect(x, y, 1, 1);
    });
  });
  return canvas;
}

// This step

const named = (index) => data.nodes[index];
const equals = (name, array) => (array.rows ? `${name}: ${array.shape}, ${array.brief}` : `${name} = ${array.brief}`);
const adjointOf = (node) => equals(node.bar, node.adjoint);

const results = data.steps.find((step) => step.phase === "seed")?.nodes ?? [];

// ∂v6/∂a where there is one result
function derivative(node) {
  return results.length === 1 ? `∂${named(results[0]).name}/∂${node.name}` : node.bar;
}

const telling = {
  start: (step) => [
    paragraph("Inputs and constants are given. The forward sweep goes from left to right and computes each operation from its operands."),
    data.steps.at(-1).phase === "end" ? null : paragraph("The backward sweep is not in this file: call graph.backward() before graph.html()."),
    subheading("Given"),
    list(step.nodes.map((index) => equals(named(index).name, named(index).value))),
  ],
  forward: ({ nodes: [index] }) => {
    const node = named(index);
    const operands = [...new Set(node.incoming.map((edge) => named(edge.source)))];
    return [
      equation(node.equation),
      inNumbers(node.worked),
      operands.length ? subheading("from") : null,
      operands.length ? list(operands.map((operand) => equals(operand.name, operand.value))) : null,
      subheading(`${node.op} gives`),
      list([equals(node.name, node.value)]),
    ];
  },
  seed: (step) => [
    ...step.nodes.map((index) => equation(adjointOf(named(index)))),
    paragraph(`From here the sweep goes from right to left. The adjoint of a node, written with a bar, is how much ${named(step.nodes[0]).name} grows for each 1 that the node grows. For ${named(step.nodes[0]).name} itself that is 1.`),
  ],
  backward: ({ nodes: [index], edges }) => {
    const node = named(index);
    return [
      paragraph(`${arrived(node)} The rule of ${node.op} passes it on:`),
      element("p", { class: "number" }, adjointOf(node)),
      ...edges.map((edge) => branch(data.edges[edge])),
    ];
  },
  end: (step) => [
    paragraph("Every input has its adjoint: one sweep gave them all."),
    subheading("Gradient"),
    list(step.nodes.map((index) => equals(derivative(named(index)), named(index).adjoint)), 200),
  ],
};

function arrived(node) {
  const branches = node.outgoing.filter((edge) => edge.step !== null).length;
  if (branches === 0) return `${node.bar} is where the sweep starts.`;
  return branches === 1 ? `${node.bar} is complete.` : `${node.bar} is complete: its ${branches} branches have been added.`;
}

function branch(edge) {
  const { bar, adjoint } = named(edge.source);
  const sum =
    edge.branches === 1 ? `The only branch, so ${bar} is complete.`
    : edge.branch < edge.branches ? `Branch ${edge.branch} of ${edge.branches}: ${bar} = ${edge.total} so far, more to come.`
    : `Branch ${edge.branch} of ${edge.branches}, the last: ${bar} = ${sumOf(edge)}, complete.`;
  return element("div", { class: "branch" },
    equation(edge.equation),
    inNumbers(edge.worked),
    edge.worked ? null : paragraph(`contribution: ${edge.contribution.brief}`, "facts"),
    paragraph(sum, "muted"));
}

// 2 + 4 = 6, in the order in which the branches came
function sumOf(last) {
  const parts = data.edges
    .filter((edge) => edge.source === last.source && edge.step !== null)
    .sort((a, b) => a.branch - b.branch)
    .map((edge) => edge.contribution.number === undefined ? null : edge.contribution.brief);
  return parts.includes(null) || parts.length > 8 ? last.total : `${parts.join(" + ")} = ${last.total}`;
}

function tellStep(number) {
  const step = data.steps[number];
  const direction = step.phase === "start" || step.phase === "forward" ? "forward" : "backward";
  byId("step").className = `card ${direction}`;
  byId("step").replaceChildren(heading(step.title), ...telling[step.phase](step).filter(Boolean));
}

// One node

function tellNode(index, why, choose, state) {
  const node = named(index);
  const link = (other) => element("button", { type: "button", class: "link", onclick: () => choose(other) }, named(other).name);
  const links = (text, others) =>
    others.length ? element("div", { class: "links" }, element("span", { class: "muted" }, text), ...others.slice(0, 24).map(link)) : null;
  const branches = node.outgoing.filter((edge) => edge.step !== null);
  byId("node").replaceChildren(
    ...[
      heading(node.name),
      paragraph(`${node.kind === node.op ? node.kind : `${node.kind}, ${node.op}`}${why}`, "muted"),
      node.source ? paragraph(node.source, "muted facts") : null,
      node.equation ? equation(node.equation) : null,
      node.finite && node.adjoint_finite ? null : paragraph("⚠ holds numbers that are not finite", "alarm"),
      subheading(state.known ? "Value" : "Value (not yet computed at this step)"),
      ...numbers(node.value, "value"),
      ...(node.adjoint
        ? [
            subheading(`Adjoint ${[...new Set([node.bar, derivative(node)])].join(" = ")}${state.complete ? "" : " (not yet complete at this step)"}`),
            ...numbers(node.adjoint, "adjoint"),
            branches.length > 1 ? paragraph(`the sum of ${branches.length} branches:`, "muted") : null,
            branches.length > 1 ? list(branches.map((edge) => `${edge.contribution.brief} from ${named(edge.target).name}`)) : null,
          ]
        : [subheading("Adjoint"), paragraph("none: no derivative is asked of it", "muted")]),
      links("from", [...new Set(node.incoming.map((edge) => edge.source))]),
      links("to", [...new Set(node.outgoing.map((edge) => edge.target))]),
    ].filter(Boolean),
  );
}
