// Walk along an axis by itself: in the grid all pictures change together, large only the open one.

const Play = (() => {
  const EVERY_MS = 700;
  let axis = null; // the axis walked along
  let timer = 0;

  const varying = () => Data.axes.filter((one) => one.labels.length > 1);
  const chosen = () =>
    axis ?? varying().find((one) => State.now.places[one.key] === "rows") ?? varying()[0] ?? null;

  const toggle = () => (timer ? stop() : start());

  const start = () => {
    if (!chosen()) return;
    timer = setInterval(step, EVERY_MS);
    step();
    marked();
  };

  const stop = () => {
    clearInterval(timer);
    timer = 0;
    marked();
  };

  const step = () => (Large.isOpen() ? stepLarge() : stepGrid());

  const stepGrid = () => {
    axis = chosen(); // it stays the one, though it has no rows any more
    const { key, labels } = chosen();
    const now = State.now.places[key];
    State.place(key, typeof now === "number" ? (now + 1) % labels.length : 0);
  };

  // The picture with the next value on this axis and the same on all others; the base model's
  // picture, which has no strength, belongs to each of them.
  const stepLarge = () => {
    const along = chosen();
    const open = State.now.open;
    const others = Data.axes.filter((one) => one !== along && one.key !== "lora");
    const found = [];
    for (let place = 0; place < Data.count; place++) {
      const same = others.every((one) => {
        const [a, b] = [one.places[place], one.places[open]];
        return a === b || a < 0 || b < 0;
      });
      if (same && along.places[place] >= 0) found.push(place);
    }
    found.sort((a, b) => along.places[a] - along.places[b]);
    const next = found.find((place) => along.places[place] > along.places[open]) ?? found[0];
    if (next !== undefined) Large.show(next);
  };

  const choose = (key) => {
    axis = Facts.axis(key) ?? null;
  };

  const label = () => (timer ? "Stop" : "Play");

  const marked = () => {
    for (const node of document.querySelectorAll(".play")) {
      node.firstChild.textContent = label();
      node.setAttribute("aria-pressed", String(Boolean(timer)));
    }
  };

  const playButton = () => {
    const node = button("", "Play along the chosen axis (P)", toggle, "button play");
    node.append(document.createTextNode(label()), make("kbd", "", "P"));
    node.setAttribute("aria-pressed", String(Boolean(timer)));
    return node;
  };

  return { varying, chosen, choose, toggle, stop, button: playButton };
})();
