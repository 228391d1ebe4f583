// What is chosen. All of it is in the address, so that a copied link shows the same view.

const State = (() => {
  const now = {
    places: {}, // of each axis: a role in the layout, or the one value that is shown
    show: "", // what is laid over the pictures
    size: 0, // px, width of a cell
    find: "",
    open: -1, // the picture that is large
    with: "baseline", // what it is compared with
    mode: "plain", // plain, flicker or difference
    gain: 4, // of the difference
    zoom: { scale: 1, x: 0, y: 0 }, // x, y: shift as a share of the stage
  };
  const ROLES = ["rows", "columns", "row-groups", "in-rows", "column-groups", "in-columns"];
  const WITH = ["baseline", "above", "below", "left", "right", "training"];
  const MODES = ["plain", "flicker", "difference"];
  const usual = { places: {}, size: 0 }; // set by `begin`
  const listeners = [];
  let timer = 0;

  const bounded = (value, low, high, otherwise) =>
    Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : otherwise;

  const begin = (places, size) => {
    usual.places = places;
    usual.size = size;
    read();
    window.addEventListener("popstate", changedOutside);
    window.addEventListener("hashchange", changedOutside);
  };

  const changedOutside = () => {
    clearTimeout(timer);
    const before = address();
    read();
    if (address() !== before) tell(["address"]);
  };

  const onChange = (listener) => listeners.push(listener);
  const tell = (names) => listeners.forEach((listener) => listener(names));

  const set = (changes) => {
    Object.assign(now, changes);
    write();
    tell(Object.keys(changes));
  };

  // Opening is a step of its own, so that the back button closes again.
  const step = (changes) => {
    clearTimeout(timer);
    history.replaceState(history.state, "", address());
    Object.assign(now, changes);
    history.pushState({ large: true }, "", address());
    tell(Object.keys(changes));
  };

  // The address follows with a little delay: browsers stop pages that change it too often.
  const write = () => {
    clearTimeout(timer);
    timer = setTimeout(() => history.replaceState(history.state, "", address()), 150);
  };

  const address = () => {
    const said = new URLSearchParams();
    for (const [key, place] of Object.entries(now.places))
      if (place !== usual.places[key]) said.set(key, String(place));
    if (now.show) said.set("show", now.show);
    if (now.size !== usual.size) said.set("px", String(now.size));
    if (now.find) said.set("find", now.find);
    if (now.open >= 0) {
      said.set("open", String(now.open));
      said.set("with", now.with);
      if (now.mode !== "plain") said.set("mode", now.mode);
      if (now.mode === "difference") said.set("gain", String(now.gain));
      const { scale, x, y } = now.zoom;
      if (scale !== 1) said.set("zoom", [scale, x, y].map((v) => Number(v.toFixed(3))).join(","));
    }
    return `#${said}`;
  };

  // Whatever an address says, what comes out of it is a view that exists.
  const read = () => {
    const said = new URLSearchParams(location.hash.slice(1));
    now.places = { ...usual.places };
    for (const axis of Data.axes) {
      const told = said.get(axis.key);
      if (ROLES.includes(told)) now.places[axis.key] = told;
      else if (/^\d+$/.test(told ?? "") && Number(told) < axis.labels.length)
        now.places[axis.key] = Number(told);
    }
    const show = said.get("show") ?? "";
    now.show = Data.metrics.some((metric) => metric.key === show) ? show : "";
    now.size = Math.round(bounded(parseFloat(said.get("px")), 40, 640, usual.size));
    now.find = said.get("find") ?? "";
    const open = Number(said.get("open") ?? -1);
    now.open = Number.isInteger(open) && open >= 0 && open < Data.count ? open : -1;
    now.with = WITH.includes(said.get("with")) ? said.get("with") : "baseline";
    now.mode = MODES.includes(said.get("mode")) ? said.get("mode") : "plain";
    now.gain = bounded(parseFloat(said.get("gain")), 1, 16, 4);
    const [scale, x, y] = (said.get("zoom") ?? "").split(",").map(parseFloat);
    now.zoom = { scale: bounded(scale, 1, 32, 1), x: bounded(x, -32, 32, 0), y: bounded(y, -32, 32, 0) };
  };

  // Give an axis a role; whoever had rows or columns before takes the place that became free.
  const place = (key, role) => {
    const places = { ...now.places };
    const before = places[key];
    if (role === "rows" || role === "columns") {
      const holder = Object.keys(places).find((other) => places[other] === role);
      if (holder && holder !== key) {
        const swapped = before === "rows" || before === "columns";
        places[holder] = swapped ? before : role === "rows" ? "in-rows" : "in-columns";
      }
    }
    places[key] = role;
    set({ places });
  };

  const reset = () => set({ places: { ...usual.places }, show: "", size: usual.size, find: "" });

  return { now, WITH, begin, onChange, set, step, place, reset, address };
})();
