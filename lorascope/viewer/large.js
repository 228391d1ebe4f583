// One picture, large: what it is, what was measured of it, and what it is compared with.

const Large = (() => {
  const dialog = find(".large");
  const own = make("img", "own");
  const other = make("img", "other");
  const pan = make("div", "pan");
  const stage = make("div", "stage");
  const tag = make("p", "tag"); // which of the two pictures is seen
  const note = make("p", "note faint");
  const title = make("h2");
  const subtitle = make("p", "subtitle");
  const panel = make("div", "panel");
  const controls = make("div", "controls");
  const details = make("div", "details");
  let where = [-1, -1];
  let target = null;

  const build = () => {
    own.alt = "the picture";
    other.alt = "the picture it is compared with";
    for (const image of [own, other]) image.draggable = false;
    stage.tabIndex = 0;
    stage.setAttribute("aria-label", "Picture. Arrows walk, plus and minus zoom, space compares.");
    pan.append(own, other);
    stage.append(pan, tag);
    const close = button("×", "Close (Escape)", leave, "close-large");
    close.setAttribute("aria-label", "Close");
    const top = make("div", "top");
    const names = make("div", "names");
    names.append(title, subtitle);
    top.append(names, close);
    panel.append(top, controls, details);
    dialog.append(stage, panel);
    Zoom.begin(stage, pan);
    Compare.begin(stage);
    stage.addEventListener("flipped", showTag);
    dialog.addEventListener("keydown", onKey);
    dialog.addEventListener("keyup", (event) => event.key === " " && Compare.up());
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      leave();
    });
  };

  const open = (at) => {
    const place = Layout.at(...at);
    if (place < 0) return;
    where = at;
    State.step({ open: place, zoom: { scale: 1, x: 0, y: 0 } });
  };

  const leave = () => {
    if (history.state?.large) history.back();
    else State.set({ open: -1 });
  };

  // Follow the state: open, close, or show another picture.
  const follow = (names) => {
    const place = State.now.open;
    if (place < 0) return hide();
    if (Layout.at(...where) !== place) where = Layout.where(place);
    if (!dialog.open) {
      dialog.showModal();
      stage.focus();
    }
    if (names.some((name) => ["open", "address", "with", "places"].includes(name))) {
      showPicture(place);
      showDetails(place);
    }
    if (names.some((name) => ["open", "address", "with", "mode"].includes(name))) showControls();
    Compare.show(target !== null);
    Zoom.show();
    showTag();
    return undefined;
  };

  const hide = () => {
    if (!dialog.open) return;
    Compare.stop();
    Play.stop();
    dialog.close();
    own.removeAttribute("src");
    other.removeAttribute("src");
    Grid.go(where);
  };

  const showPicture = (place) => {
    target = Compare.target(place, where);
    put(own, Pictures.slot(place), Facts.link(place), place);
    if (target) put(other, target.slot, target.link, place);
    else other.removeAttribute("src");
    title.textContent = Facts.name(place, "down") || Data.title;
    subtitle.textContent = Facts.value("prompt", place) || Facts.name(place, "across");
    speak(`${title.textContent}: ${subtitle.textContent}`);
  };

  // The small copy at once; the full picture takes its place when it lies beside the page.
  const put = (image, slot, link, place) => {
    const state = Pictures.state(slot);
    image.classList.toggle("gone", Boolean(state));
    if (image === own) note.textContent = state ? `This picture is ${state}.` : "";
    if (state) return image.removeAttribute("src");
    image.src = Pictures.address(slot);
    if (Data.pictures.lossless || !link) return undefined;
    const full = new Image();
    const current = () => State.now.open === place && dialog.open;
    full.onload = () => {
      if (!current() || image.src !== Pictures.address(slot)) return;
      image.src = full.src;
      Zoom.show();
    };
    full.onerror = () => {
      if (current() && image === own) note.textContent = "A small copy: the full picture does not lie beside this page.";
    };
    full.src = link;
    return undefined;
  };

  const showTag = () => {
    const place = State.now.open;
    if (place < 0) return;
    const own_name = Facts.name(place, "down") || "this picture";
    const none = `nothing to compare with: no ${Compare.NAMES[State.now.with]} here`;
    const asked = State.now.mode !== "plain" || Compare.other();
    if (!target) tag.textContent = asked ? none : own_name;
    else if (State.now.mode === "difference") tag.textContent = `difference to ${target.name}, × ${State.now.gain}`;
    else tag.textContent = Compare.other() ? target.name : own_name;
    stage.classList.toggle("alone", !target);
  };

  const showControls = () => {
    const focused = document.activeElement?.dataset?.control;
    const chosen = select(
      Compare.choices().map((key) => [key, Compare.NAMES[key]]),
      State.now.with,
      (value) => State.set({ with: value }),
    );
    const flicker = pressable("Flicker", "F", State.now.mode === "flicker", () => Compare.toggle("flicker"));
    const difference = pressable("Difference", "D", State.now.mode === "difference", () => Compare.toggle("difference"));
    const line = make("div", "line");
    line.append(flicker, difference, Play.button());
    controls.replaceChildren(labelled("Compare with", chosen), line);
    if (State.now.mode === "difference") {
      const gain = slider(1, 16, 1, State.now.gain, (value) => State.set({ gain: value }));
      controls.append(labelled("Amplify", gain));
    }
    [chosen, flicker, difference].forEach((node, i) => (node.dataset.control = String(i)));
    if (focused) find(`[data-control="${focused}"]`, controls)?.focus();
  };

  const pressable = (text, key, on, act) => {
    const node = button(text, `${text} (${key})`, act, "button");
    node.append(make("kbd", "", key));
    node.setAttribute("aria-pressed", String(on));
    return node;
  };

  const showDetails = (place) => {
    details.replaceChildren(note);
    const nearest = Data.nearest[place] ?? -1;
    if (nearest >= 0) details.append(trainingImage(nearest));
    const measured = Data.metrics.filter((metric) => metric.values[place] !== null);
    if (measured.length) details.append(measuredList(measured, place));
    details.append(factList(place));
    const text = Facts.text(place);
    if (text) details.append(parameters(text));
  };

  const trainingImage = (number) => {
    const box = make("figure", "nearest");
    const image = make("img");
    image.src = Pictures.address(Pictures.reference(number));
    image.alt = `training image ${Data.references[number]}`;
    const caption = make("figcaption", "");
    caption.append(make("span", "faint", "Nearest training image"), make("span", "", Data.references[number]));
    box.append(image, caption);
    return box;
  };

  const measuredList = (measured, place) => {
    const box = make("dl", "facts numbers");
    for (const metric of measured) {
      const range = Overlay.range(metric);
      const words = make("dt", "", metric.name);
      words.title = metric.meaning;
      const before = Data.baseline[place] >= 0 ? metric.values[Data.baseline[place]] : null;
      const value = make("dd", "", short(metric.values[place], range));
      if (before !== null && Data.baseline[place] !== place) value.append(make("span", "faint", ` base ${short(before, range)}`));
      box.append(words, value);
    }
    return box;
  };

  const factList = (place) => {
    const box = make("dl", "facts");
    for (const [words, value] of Facts.of(place)) box.append(make("dt", "", words), make("dd", "", String(value)));
    return box;
  };

  const parameters = (text) => {
    const box = make("section", "parameters");
    const copied = button("Copy", "Copy the text that other programs read (C)", () => copy(text, copied));
    copied.dataset.copies = "true";
    const line = make("div", "line");
    line.append(make("span", "faint", "Generation parameters"), copied);
    box.append(line, make("pre", "", text));
    return box;
  };

  // Without the clipboard (a page opened from a plain address), through a selection.
  const copy = async (text, node) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea");
      area.value = text;
      dialog.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    node.textContent = "Copied";
    speak("Copied");
    setTimeout(() => (node.textContent = "Copy"), 1500);
  };

  const walk = (down, across) => {
    const found = Layout.beside(where, down, across);
    if (found[0] < 0) return;
    where = found;
    State.set({ open: Layout.at(...found) });
  };

  const show = (place) => {
    where = Layout.where(place);
    State.set({ open: place });
  };

  const KEYS = {
    ArrowUp: () => walk(-1, 0),
    ArrowDown: () => walk(1, 0),
    ArrowLeft: () => walk(0, -1),
    ArrowRight: () => walk(0, 1),
    "+": () => Zoom.by(1.4),
    "=": () => Zoom.by(1.4),
    "-": () => Zoom.by(1 / 1.4),
    0: () => Zoom.reset(),
    f: () => Compare.toggle("flicker"),
    d: () => Compare.toggle("difference"),
    n: () => Compare.next(),
    p: () => Play.toggle(),
    c: () => find("[data-copies]", details)?.click(),
    "?": () => Help.open(),
  };

  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typed = event.target.closest("select, input");
    if (typed && event.key !== "Escape") return;
    if (event.key === " " && !event.target.closest("button")) {
      event.preventDefault();
      if (!event.repeat) Compare.down();
      return;
    }
    const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  };

  return { build, open, follow, show, isOpen: () => dialog.open };
})();
