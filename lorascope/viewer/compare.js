// What the large picture is compared with, and how: flicker or difference.

const Compare = (() => {
  const EVERY_MS = 450; // of the automatic flicker
  const HELD_MS = 300; // shorter than this, the space bar is a switch
  const NAMES = {
    baseline: "base model",
    above: "row above",
    below: "row below",
    left: "column left",
    right: "column right",
    training: "nearest training image",
  };
  const STEPS = { above: [-1, 0], below: [1, 0], left: [0, -1], right: [0, 1] };
  let stage = null;
  let timer = 0;
  let pressed = 0;
  let other = false; // the other picture is on top

  // The other picture: its place in the file, its full picture, what it is called. null: there is none.
  const target = (place, where) => {
    if (State.now.with === "training") {
      const number = Data.nearest[place] ?? -1;
      if (number < 0) return null;
      return { slot: Pictures.reference(number), link: "", name: `training image ${Data.references[number]}` };
    }
    const found = State.now.with === "baseline" ? Data.baseline[place] : besides(where);
    if (found < 0 || found === undefined || found === place) return null;
    const name = [Facts.name(found, "down"), State.now.with === "baseline" ? "" : Facts.name(found, "across")];
    return { slot: Pictures.slot(found), link: Facts.link(found), name: name.filter(Boolean).join(", ") };
  };

  const besides = (where) => {
    const found = Layout.beside(where, ...STEPS[State.now.with]);
    return Layout.at(...found);
  };

  const choices = () => State.WITH.filter((key) => key !== "training" || Data.nearest.length);

  const next = () => {
    const all = choices();
    State.set({ with: all[(all.indexOf(State.now.with) + 1) % all.length] });
  };

  const begin = (stageNode) => {
    stage = stageNode;
  };

  // Bring the stage into the state's mode; a flicker goes on until the mode changes.
  const show = (possible) => {
    const mode = possible ? State.now.mode : "plain";
    stage.classList.toggle("difference", mode === "difference");
    stage.style.setProperty("--gain", String(State.now.gain));
    if (mode !== "flicker") {
      clearInterval(timer);
      timer = 0;
    } else if (!timer) {
      timer = setInterval(() => flip(!other), EVERY_MS);
    }
    if (mode !== "flicker" || !possible) flip(false);
  };

  const flip = (on) => {
    other = on;
    stage.classList.toggle("other-on-top", on);
    stage.dispatchEvent(new CustomEvent("flipped"));
  };

  const toggle = (mode) => State.set({ mode: State.now.mode === mode ? "plain" : mode });

  // Held down, the space bar shows the other picture as long; touched, it switches.
  const down = () => {
    if (pressed) return;
    pressed = performance.now();
    flip(!other);
  };

  const up = () => {
    if (pressed && performance.now() - pressed > HELD_MS) flip(!other);
    pressed = 0;
  };

  const stop = () => {
    clearInterval(timer);
    timer = 0;
    pressed = 0;
    other = false;
    stage.classList.remove("other-on-top");
  };

  return { NAMES, begin, target, choices, next, show, toggle, down, up, stop, other: () => other };
})();
