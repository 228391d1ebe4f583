// Which picture stands where, from the roles of the axes: computed anew when one of them changes.

const Layout = (() => {
  const SIDES = {
    down: ["row-groups", "rows", "in-rows"],
    across: ["column-groups", "columns", "in-columns"],
  };
  let rows = [];
  let columns = [];
  let cells = new Map(); // row * columns + column -> picture
  let repeated = new Set(); // pictures that stand in several rows
  let shown = 0;

  // The axes of one side, the outermost first.
  const axesOn = (side) =>
    SIDES[side].flatMap((role) =>
      Data.axes.filter((axis) => State.now.places[axis.key] === role).map((axis) => ({ axis, role })),
    );

  // The pictures that the chosen values and the search leave; what has no value fits every choice.
  const kept = () => {
    const chosen = Data.axes.filter((axis) => typeof State.now.places[axis.key] === "number");
    const words = State.now.find.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    for (let place = 0; place < Data.count; place++) {
      const fits = chosen.every((axis) => {
        const value = axis.places[place];
        return value < 0 || value === State.now.places[axis.key];
      });
      if (fits && (!words.length || words.every((word) => Facts.words(place).includes(word))))
        found.push(place);
    }
    return found;
  };

  // One number for a picture's values on these axes; numbers sort as the values do.
  const keyOf = (on, place) =>
    on.reduce((key, { axis }) => key * (axis.labels.length + 1) + axis.places[place] + 1, 0);

  // Lines (rows or columns) of these pictures. One without a value on an axis, as the base model has
  // no strength, stands in every line that agrees with the values it has; without any such line it
  // has its own.
  const lines = (side, places) => {
    const on = axesOn(side);
    const open = (place) => on.some(({ axis }) => axis.places[place] < 0);
    const first = new Map(); // key -> a picture of that line
    for (const place of places) if (!open(place)) first.set(keyOf(on, place), first.get(keyOf(on, place)) ?? place);
    const agree = (place, other) =>
      on.every(({ axis }) => axis.places[place] < 0 || axis.places[place] === axis.places[other]);
    const fitting = new Map(); // key of an open picture -> keys of the lines it stands in
    for (const place of places) {
      const key = keyOf(on, place);
      if (!open(place) || fitting.has(key)) continue;
      const found = [...first].filter(([, other]) => agree(place, other)).map(([line]) => line);
      fitting.set(key, found.length ? found : [key]);
    }
    for (const place of places) {
      const key = keyOf(on, place);
      if (fitting.get(key)?.[0] === key && !first.has(key)) first.set(key, place);
    }
    const keys = [...first.keys()].sort((a, b) => a - b);
    const at = new Map(keys.map((key, number) => [key, number]));
    return {
      list: keys.map((key) => describe(on, side, first.get(key))),
      of: (place) => (fitting.get(keyOf(on, place)) ?? [keyOf(on, place)]).map((key) => at.get(key)),
    };
  };

  // What is written beside a line: its group, its main label, and the fainter ones.
  const describe = (on, side, place) => {
    const said = (roles) =>
      on.filter(({ role }) => roles.includes(role)).map(({ axis }) => Facts.label(axis, place)).filter(Boolean);
    const [groups, main, inner] = SIDES[side].map((role) => said([role]));
    const chosen = Data.axes
      .filter((axis) => axis.side === side && typeof State.now.places[axis.key] === "number")
      .filter((axis) => axis.key !== "trigger" || axis.places[place] === 1)
      .map((axis) => Facts.label(axis, place))
      .filter(Boolean);
    const labels = main.length ? main : inner.length ? inner.splice(0, 1) : chosen.slice(0, 1);
    const prompt = on.find(({ axis, role }) => axis.key === "prompt" && role === SIDES[side][1])?.axis;
    return {
      group: groups.join(", "),
      label: labels.join(", "),
      minor: inner.join(", "),
      kind: prompt?.groups[prompt.places[place]] ?? "",
    };
  };

  const compute = () => {
    const places = kept();
    const down = lines("down", places);
    const across = lines("across", places);
    rows = down.list;
    columns = across.list;
    cells = new Map();
    repeated = new Set();
    for (const place of places) {
      const [own, beside] = [down.of(place), across.of(place)];
      if (own.length > 1) repeated.add(place);
      for (const r of own) for (const c of beside) cells.set(r * columns.length + c, place);
    }
    shown = places.length;
    for (const line of [rows, columns]) line.forEach((one, number) => setApart(one, line[number - 1]));
  };

  // A group begins here; or, within a group, the next epoch of several rows, the next prompt.
  const setApart = (one, before) => {
    one.starts = !before || one.group !== before.group;
    one.apart = !one.starts && one.label !== before.label && Boolean(one.minor || before.minor);
  };

  const at = (r, c) =>
    r < 0 || c < 0 || r >= rows.length || c >= columns.length ? -1 : (cells.get(r * columns.length + c) ?? -1);

  // Where a picture stands; [-1, -1] where the search or a choice hides it.
  const where = (place) => {
    for (const [key, found] of cells)
      if (found === place) return [Math.floor(key / columns.length), key % columns.length];
    return [-1, -1];
  };

  // The next picture in a direction, passing over empty places; -1 at the border.
  const beside = ([r, c], down, across) => {
    if (r < 0) return [-1, -1];
    do {
      r += down;
      c += across;
      if (r < 0 || c < 0 || r >= rows.length || c >= columns.length) return [-1, -1];
    } while (at(r, c) < 0);
    return [r, c];
  };

  // The pictures that belong to one row alone.
  const inRow = (r) => columns.map((_, c) => at(r, c)).filter((place) => place >= 0 && !repeated.has(place));

  return {
    compute, at, where, beside, inRow,
    rows: () => rows,
    columns: () => columns,
    shown: () => shown,
  };
})();
