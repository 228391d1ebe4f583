// Epochs down, prompts across. Arrows walk, Enter opens, space shows the base model's picture, D the difference.
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

const cell = (content, base, row, column) => {
  const button = make("button", "cell");
  button.type = "button";
  button.dataset.at = `${row},${column}`;
  if (!content) {
    button.disabled = true;
    button.append(make("span", "blank", "–"));
    return button;
  }
  button.dataset.file = content.file;
  button.title = content.title;
  button.setAttribute("aria-label", content.title);
  if (!content.url) {
    button.append(make("span", "blank", "picture missing"));
    return button;
  }
  const image = make("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = "";
  image.src = content.url;
  image.dataset.own = content.url;
  image.dataset.base = base || content.url;
  button.append(image);
  return button;
};

const build = (data) => {
  const grid = make("div", "grid");
  grid.style.gridTemplateColumns = `auto repeat(${data.columns.length}, minmax(${data.size}px, ${2 * data.size}px))`;
  grid.style.setProperty("--shape", data.shape);
  grid.append(make("div", "corner", "epoch"));
  for (const column of data.columns) {
    const head = make("div", "head");
    head.title = column.title;
    head.append(make("span", "group", column.group), make("span", "prompt", column.label));
    grid.append(head);
  }
  data.rows.forEach((row, r) => {
    const side = make("button", `side ${row.fit}`);
    side.type = "button";
    side.dataset.epoch = row.epoch;
    side.title = row.title;
    side.append(make("span", "number", row.label), make("span", "shape", row.shape));
    grid.append(side);
    row.cells.forEach((content, c) => grid.append(cell(content, data.columns[c].base, r, c)));
  });
  grid.addEventListener("focusout", (event) => flip(event.target.closest(".cell"), "own"));
  return grid;
};

const flip = (button, which) => {
  const image = button?.querySelector("img");
  if (image) image.src = image.dataset[which];
  button?.classList.toggle("flipped", which === "base");
};

const difference = (grid) => {
  const on = grid.classList.toggle("difference");
  for (const image of grid.querySelectorAll("img"))
    image.parentElement.style.backgroundImage = on ? `url("${image.dataset.base}")` : "";
};

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".root");
  const stamp = JSON.stringify([data.columns, data.rows, data.shape]);
  if (root.dataset.stamp !== stamp) {
    root.dataset.stamp = stamp;
    root.replaceChildren(build(data));
  }
  const grid = root.querySelector(".grid");
  for (const side of grid.querySelectorAll(".side"))
    side.setAttribute("aria-pressed", String(Number(side.dataset.epoch) === data.chosen));
  grid.onclick = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.epoch) setTriggerValue("chosen", Number(button.dataset.epoch));
    else if (button.dataset.file) setTriggerValue("opened", button.dataset.file);
  };
  grid.onkeydown = (event) => {
    const here = event.target.closest(".cell");
    const based = data.columns.some((column) => column.base);
    if (based && (event.key === "d" || event.key === "D")) return difference(grid);
    if (!here) return;
    if (event.key === " ") {
      event.preventDefault();
      return flip(here, "base");
    }
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const [r, c] = here.dataset.at.split(",").map(Number);
    grid.querySelector(`[data-at="${r + move[0]},${c + move[1]}"]`)?.focus();
  };
  grid.onkeyup = (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    flip(event.target.closest(".cell"), "own");
  };
}
