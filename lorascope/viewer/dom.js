// Elements are made here. Whatever comes from data is text and stays text.

const make = (tag, name = "", text = undefined) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

const find = (selector, inside = document) => inside.querySelector(selector);

const button = (text, title, act, name = "button") => {
  const node = make("button", name, text);
  node.type = "button";
  node.title = title;
  node.addEventListener("click", act);
  return node;
};

// A labelled control: the words are read aloud with it, and a click on them reaches it.
const labelled = (words, control, name = "field") => {
  const node = make("label", name);
  node.append(make("span", "words", words), control);
  return node;
};

const slider = (low, high, step, value, act) => {
  const node = make("input");
  Object.assign(node, { type: "range", min: low, max: high, step, value });
  node.addEventListener("input", () => act(Number(node.value)));
  return node;
};

// options: [value, text] pairs, or [text, [pairs]] for a group of them.
const select = (options, value, act) => {
  const node = make("select");
  for (const [first, second] of options) {
    if (!Array.isArray(second)) {
      node.append(option(first, second));
      continue;
    }
    const group = make("optgroup");
    group.label = first;
    group.append(...second.map(([v, text]) => option(v, text)));
    node.append(group);
  }
  node.value = String(value);
  node.addEventListener("change", () => act(node.value));
  return node;
};

const option = (value, text) => {
  const node = make("option", "", text.length > 70 ? `${text.slice(0, 68)}…` : text);
  node.value = String(value);
  return node;
};

// A number with as many decimals as tell values apart that differ by a hundredth of `range`.
const short = (value, range = Math.abs(value)) => {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && (Math.abs(value) >= 1e6 || range < 1e-5)) return value.toExponential(1);
  const decimals = range > 0 ? Math.min(7, Math.max(0, Math.ceil(1.7 - Math.log10(range)))) : 2;
  return value.toFixed(decimals).replace("-", "−");
};

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

const speak = (text) => {
  find(".spoken").textContent = text;
};

// How many lines a text takes in a width, in px.
const linesOf = (() => {
  const pen = document.createElement("canvas").getContext("2d");
  return (text, width, font) => {
    pen.font = font;
    let lines = 1;
    let used = 0;
    for (const word of text.split(/\s+/)) {
      const length = pen.measureText(`${word} `).width;
      if (used && used + length > width) [lines, used] = [lines + 1, 0];
      used += length;
      while (used > width) [lines, used] = [lines + 1, used - width];
    }
    return lines;
  };
})();
