// Start: read the address, draw, and listen.

// The main axis of each side, and where the others go until somebody chooses otherwise.
const usualPlaces = () => {
  const places = {};
  const several = Data.axes.filter((axis) => axis.labels.length > 1);
  const main = (side, wished) =>
    several.find((axis) => axis.key === wished) ?? several.find((axis) => axis.side === side) ?? Facts.axis(wished);
  const rows = main("down", "epoch");
  const columns = main("across", "prompt");
  const groups = ["trigger", "base", "companions"];
  for (const axis of Data.axes) {
    if (axis === rows) places[axis.key] = "rows";
    else if (axis === columns) places[axis.key] = "columns";
    else if (axis.labels.length < 2) places[axis.key] = 0;
    else if (groups.includes(axis.key)) places[axis.key] = "row-groups";
    else places[axis.key] = axis.side === "down" ? "in-rows" : "in-columns";
  }
  return places;
};

// As large as the small copies are, within what a screen shows well.
const usualSize = () => {
  const held = Data.pictures.longer ?? 256;
  return Math.round(Math.min(Data.count > 2000 ? 128 : 192, Math.max(96, held)) / 8) * 8;
};

const GRID_KEYS = {
  ArrowUp: () => Grid.move(-1, 0),
  ArrowDown: () => Grid.move(1, 0),
  ArrowLeft: () => Grid.move(0, -1),
  ArrowRight: () => Grid.move(0, 1),
  Enter: () => Large.open(Grid.here()),
  " ": () => Large.open(Grid.here()),
  "/": () => Controls.focusSearch(),
  "+": () => State.set({ size: Math.min(640, State.now.size + 24) }),
  "=": () => State.set({ size: Math.min(640, State.now.size + 24) }),
  "-": () => State.set({ size: Math.max(40, State.now.size - 24) }),
  p: () => Play.toggle(),
  "?": () => Help.open(),
};

const onGridKey = (event) => {
  if (find("dialog[open]") || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, button")) return;
  if (event.key === "Home" || event.key === "End") {
    event.preventDefault();
    Grid.ends(event.key === "End", event.ctrlKey);
    return;
  }
  const act = GRID_KEYS[event.key] ?? GRID_KEYS[event.key.toLowerCase()];
  if (!act || event.ctrlKey) return;
  event.preventDefault();
  act();
};

const follow = (names) => {
  const changed = (...keys) => keys.some((key) => names.includes(key)) || names.includes("address");
  if (changed("show")) Overlay.choose(State.now.show);
  if (changed("places", "find")) Layout.compute();
  if (changed("places", "find", "show", "size")) {
    Overlay.legend();
    Grid.lay();
    Controls.follow();
  }
  Large.follow(names);
};

const begin = () => {
  State.begin(usualPlaces(), usualSize());
  State.onChange(follow);
  Large.build();
  Help.build();
  Controls.build();
  Grid.begin(Large.open);
  document.addEventListener("keydown", onGridKey);
  follow(["address"]);
  if (document.readyState === "loading")
    document.addEventListener("DOMContentLoaded", () => follow(["places", "open"]));
};

begin();
