// What stands above the grid: search, size, overlay, and a choice for each axis that varies.

const Controls = (() => {
  const ROLES = [
    ["rows", "rows"],
    ["columns", "columns"],
    ["row-groups", "groups of rows"],
    ["in-rows", "within each row"],
    ["column-groups", "groups of columns"],
    ["in-columns", "within each column"],
  ];
  const tools = find(".tools");
  const axes = find(".axes");
  const search = make("input");
  let size = null;

  const build = () => {
    find("h1").textContent = Data.title;
    find(".about").textContent = about();
    Object.assign(search, { type: "search", placeholder: "Search prompts" });
    search.setAttribute("aria-label", "Search prompts");
    search.addEventListener("input", () => State.set({ find: search.value }));
    size = slider(40, 640, 8, State.now.size, (value) => State.set({ size: value }));
    size.setAttribute("aria-label", "Size of a cell");
    const help = button("?", "Keys and notes (?)", () => Help.open(), "button round");
    help.setAttribute("aria-label", "Keys and notes");
    const reset = button("Reset", "All choices as they were at first", State.reset, "button quiet");
    tools.append(search, labelled("Size", size), ...overlays(), reset, help);
    follow();
  };

  const about = () => {
    const said = [plural(Data.count, "picture")];
    for (const key of ["epoch", "prompt", "seed"]) {
      const axis = Facts.axis(key);
      const count = axis ? axis.labels.filter((label) => label !== "Base model").length : 0;
      if (count > 1) said.push(plural(count, axis.name.toLowerCase()));
    }
    // What belongs together stays on one line.
    return [...said, ...Data.settings].map((one) => one.replaceAll(" ", "\u00a0")).join(" · ");
  };

  const overlays = () => {
    if (!Data.metrics.length) return [];
    const options = [["", "nothing"], ...Data.metrics.map((metric) => [metric.key, metric.name])];
    const chosen = select(options, State.now.show, (value) => State.set({ show: value }));
    chosen.classList.add("show");
    return [labelled("Show", chosen)];
  };

  // An axis goes down or across, whole, or one value of it is chosen.
  const axisChoice = (axis) => {
    const values = axis.labels.map((label, number) => [number, label || "(empty)"]);
    const options = [["All of them as", ROLES], ["One alone", values]];
    const act = (value) => State.place(axis.key, /^\d+$/.test(value) ? Number(value) : value);
    const chosen = select(options, State.now.places[axis.key], act);
    chosen.dataset.axis = axis.key;
    return labelled(axis.name, chosen);
  };

  const playAlong = () => {
    const options = Play.varying().map((axis) => [axis.key, axis.name.toLowerCase()]);
    const chosen = select(options, Play.chosen().key, Play.choose);
    chosen.dataset.axis = "play";
    const node = make("div", "playing");
    node.append(Play.button(), labelled("along", chosen));
    return node;
  };

  // Written anew when the state changed elsewhere; the control in use keeps the focus.
  const follow = () => {
    const used = document.activeElement?.dataset?.axis;
    const varying = Play.varying();
    axes.replaceChildren(...varying.map(axisChoice));
    if (varying.length) axes.append(playAlong());
    axes.hidden = !varying.length;
    if (used) find(`[data-axis="${used}"]`, axes)?.focus();
    if (document.activeElement !== search) search.value = State.now.find;
    size.value = State.now.size;
    const shown = find(".show", tools);
    if (shown) shown.value = State.now.show;
  };

  return { build, follow, focusSearch: () => search.focus() };
})();
