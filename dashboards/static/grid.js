// Epochs down, prompts across. Arrows walk, Enter opens, space shows the base model's picture, D the difference.
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

const picture = (content) => {
  if (!content.url) return make("span", "blank", "picture missing");
  const image = make("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.alt = "";
  image.src = content.url;
  image.dataset.own = content.url;
  image.dataset.base = content.base || content.url;
  return image;
};

const cell = (content, row, column, at, measure) => {
  const button = make("button", "cell");
  button.type = "button";
  button.dataset.at = at;
  button.style.setProperty("--shape", column.shape);
  if (!content) {
    button.disabled = true;
    button.append(make("span", "blank", "–"));
    return button;
  }
  button.dataset.cell = content.cell;
  let title = `${row.title}: ${content.prompt ?? column.label}, ${column.group}`;
  if (content.note) title += `; ${measure} ${content.note}`;
  button.title = title;
  button.setAttribute("aria-label", title);
  button.append(picture(content));
  if (content.note) {
    const note = make("span", "note", content.note);
    note.style.setProperty("--level", content.level);
    button.append(note);
  }
  return button;
};

const side = (row) => {
  const button = make("button", `side ${row.fit}${row.apart ? " apart" : ""}`);
  button.type = "button";
  button.dataset.epoch = row.epoch;
  button.title = row.title;
  button.append(make("span", "number", row.label));
  if (row.side) button.append(make("span", "more", row.side));
  if (row.shape) button.append(make("span", "shape", row.shape));
  return button;
};

const build = (data) => {
  const grid = make("div", "grid");
  grid.style.gridTemplateColumns = `auto repeat(${data.columns.length}, minmax(${data.size}px, ${2 * data.size}px))`;
  grid.append(make("div", "corner", "epoch"));
  for (const column of data.columns) {
    const head = make("div", "head");
    head.title = column.title;
    head.append(make("span", "group", column.group), make("span", "prompt", column.label));
    grid.append(head);
  }
  data.rows.forEach((row, r) => {
    if (row.apart && !data.rows[r - 1]?.apart) {
      const between = make("div", "between");
      between.append(make("span", "", "The same prompts with the trigger left out"));
      grid.append(between);
    }
    grid.append(side(row));
    row.cells.forEach((content, c) => grid.append(cell(content, row, data.columns[c], `${r},${c}`, data.measure)));
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

// Drawn anew, as when another measure is shown, it stays where it was.
const place = (root, data) => {
  const before = root.querySelector(".grid");
  const [top, left] = [before?.scrollTop ?? 0, before?.scrollLeft ?? 0];
  const grid = build(data);
  root.replaceChildren(grid);
  if (before?.classList.contains("difference")) difference(grid);
  grid.scrollTo(left, top);
};

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".root");
  const stamp = JSON.stringify([data.columns, data.rows, data.measure]);
  if (root.dataset.stamp !== stamp) {
    root.dataset.stamp = stamp;
    place(root, data);
  }
  const grid = root.querySelector(".grid");
  for (const button of grid.querySelectorAll(".side"))
    button.setAttribute("aria-pressed", String(Number(button.dataset.epoch) === data.chosen));
  grid.onclick = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.epoch) setTriggerValue("chosen", Number(button.dataset.epoch));
    else if (button.dataset.cell) setTriggerValue("opened", Number(button.dataset.cell));
  };
  grid.onkeydown = (event) => {
    const here = event.target.closest(".cell");
    const based = data.rows.some((row) => row.cells.some((content) => content?.base));
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
