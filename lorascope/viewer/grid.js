// The grid. Only what is on screen, and a little around it, has elements.

const Grid = (() => {
  const GAP = 4; // px
  const GROUP_GAP = 40; // between groups of rows: room for their name
  const COLUMN_GAP = 16; // between groups of columns
  const MEASURED = 20; // height of the number under a picture
  const SMALL_GAP = 12; // between epochs that have several rows
  const MOST_LINES = 5; // of a prompt
  const MOST_MEASURED = 500; // prompts that decide how much room there is above
  const OVER = 0.6; // of a screen, drawn beyond its edges
  const scroller = find(".scroller");
  const sheet = find(".sheet");
  const drawn = new Map(); // row -> { node, cells: column -> element }
  const heads = new Map(); // column -> element with its faint line
  const spans = new Map(); // number of a span -> element with what its columns share
  const size = { width: 0, height: 0, side: 0, head: 0 };
  let headRow = null;
  let shared = []; // [first, last] column of each span: one prompt, its seeds below
  let spanOf = []; // column -> number of its span
  let tops = []; // px of each row, and the end
  let lefts = []; // px of each column, and the end
  let focus = [0, 0];
  let waiting = false; // for the next frame

  // Sizes and places of everything, after a choice changed; then all is drawn anew.
  const lay = () => {
    const narrow = window.innerWidth < 640;
    size.width = State.now.size;
    size.height = Math.round(size.width / Data.aspect) + (Overlay.on() ? MEASURED : 0);
    size.side = narrow ? 96 : 160;
    lefts = edges(Layout.columns(), size.width, COLUMN_GAP, size.side);
    layHeads();
    tops = edges(Layout.rows(), size.height, GROUP_GAP, size.head + GAP);
    sheet.style.width = `${lefts.at(-1)}px`;
    sheet.style.height = `${tops.at(-1) + 40}px`;
    sheet.setAttribute("aria-rowcount", String(Layout.rows().length + 1));
    sheet.setAttribute("aria-colcount", String(Layout.columns().length + 1));
    drawn.clear();
    heads.clear();
    spans.clear();
    sheet.replaceChildren(makeHeadRow());
    if (!Layout.shown()) sheet.append(make("p", "nothing", "No prompt holds these words."));
    focus = focus.map((place, i) => Math.min(place, [Layout.rows(), Layout.columns()][i].length - 1));
    draw();
  };

  // Columns that share their prompt share its words; the room above fits the longest.
  const layHeads = () => {
    shared = [];
    spanOf = Layout.columns().map((one, c, all) => {
      if (c && !one.starts && one.label === all[c - 1].label) shared.at(-1)[1] = c;
      else shared.push([c, c]);
      return shared.length - 1;
    });
    const font = `13px ${getComputedStyle(document.body).fontFamily}`;
    let lines = 1;
    for (const [first, last] of shared.slice(0, MOST_MEASURED)) {
      const room = lefts[last] + size.width - lefts[first] - 7;
      lines = Math.max(lines, linesOf(Layout.columns()[first].label, room, font));
    }
    const more = ["group", "kind", "minor"].filter((part) => Layout.columns().some((one) => one[part]));
    size.head = 18 + 17 * Math.min(MOST_LINES, lines) + 16 * more.length;
  };

  // Where each line begins. Groups are set apart; the first has its name above it where there are more.
  const edges = (lines, length, gap, start) => {
    const named = gap === GROUP_GAP && lines.some((one) => one.group);
    const places = [];
    let place = start;
    lines.forEach((one, number) => {
      if (one.starts && (number || named)) place += number ? gap : gap - 12;
      else if (one.apart) place += SMALL_GAP;
      places.push(place);
      place += length + GAP;
    });
    return [...places, place];
  };

  const makeHeadRow = () => {
    headRow = make("div", "head-row");
    headRow.setAttribute("role", "row");
    headRow.setAttribute("aria-rowindex", "1");
    headRow.style.height = `${size.head}px`;
    const corner = make("div", "corner");
    corner.setAttribute("role", "columnheader");
    corner.style.width = `${size.side}px`;
    corner.style.height = `${size.head}px`;
    corner.append(make("span", "", plural(Layout.shown(), "picture")));
    headRow.append(corner);
    return headRow;
  };

  const makeHead = (c) => {
    const one = Layout.columns()[c];
    const node = make("div", "head", one.minor);
    node.setAttribute("role", "columnheader");
    node.setAttribute("aria-colindex", String(c + 2));
    node.setAttribute("aria-label", [one.label, one.minor].filter(Boolean).join(", "));
    node.style.left = `${lefts[c]}px`;
    node.style.width = `${size.width}px`;
    node.title = [one.label, one.minor].filter(Boolean).join("\n");
    return node;
  };

  const makeSpan = (number) => {
    const [first, last] = shared[number];
    const one = Layout.columns()[first];
    const node = make("div", "span");
    node.setAttribute("aria-hidden", "true"); // each column says it
    node.style.left = `${lefts[first]}px`;
    node.style.width = `${lefts[last] + size.width - lefts[first]}px`;
    node.style.bottom = one.minor ? "20px" : "4px";
    const text = make("div", "text");
    text.style.left = `${size.side}px`;
    text.title = [one.group, one.kind, one.label].filter(Boolean).join("\n");
    if (one.group) text.append(make("span", "faint line", one.group));
    if (one.kind) text.append(make("span", "faint line", one.kind));
    text.append(make("span", "prompt", one.label || "(no prompt)"));
    node.append(text);
    return node;
  };

  const makeRow = (r) => {
    const row = Layout.rows()[r];
    const node = make("div", "row");
    node.setAttribute("role", "row");
    node.setAttribute("aria-rowindex", String(r + 2));
    node.style.top = `${tops[r]}px`;
    node.style.height = `${size.height}px`;
    if (row.starts && row.group) node.append(make("div", "group", row.group));
    const side = make("div", "side");
    side.setAttribute("role", "rowheader");
    side.style.width = `${size.side}px`;
    side.append(make("span", "label", row.label || "pictures"));
    if (row.minor) side.append(make("span", "faint", row.minor));
    if (row.kind) side.append(make("span", "faint", row.kind));
    const mean = Overlay.on() && Overlay.ofRow(r);
    if (mean) side.append(mean);
    side.title = [row.group, row.label, row.minor].filter(Boolean).join("\n");
    node.append(side);
    return node;
  };

  const makeCell = (r, c, place) => {
    const node = make("div", "cell");
    node.setAttribute("role", "gridcell");
    node.setAttribute("aria-colindex", String(c + 2));
    node.tabIndex = r === focus[0] && c === focus[1] ? 0 : -1;
    node.style.left = `${lefts[c]}px`;
    node.style.width = `${size.width}px`;
    node.dataset.row = r;
    node.dataset.column = c;
    const name = `${Facts.name(place, "down")}: ${Facts.value("prompt", place) ?? Facts.name(place, "across")}`;
    node.title = name;
    node.append(picture(place));
    if (Overlay.on()) node.append(Overlay.under(place));
    node.setAttribute("aria-label", Overlay.on() ? `${name}, ${node.lastChild.textContent}` : name);
    return node;
  };

  const picture = (place) => {
    const slot = Pictures.slot(place);
    const address = Pictures.address(slot);
    if (!address) return make("span", "blank", Pictures.state(slot) || "loading");
    const image = make("img");
    image.decoding = "async";
    image.alt = "";
    image.draggable = false;
    image.src = address;
    return image;
  };

  // First and last line that lie between two places, by bisection.
  const between = (places, from, to) => {
    const before = (limit) => {
      let low = 0;
      let high = places.length - 2;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (places[middle] <= limit) low = middle;
        else high = middle - 1;
      }
      return low;
    };
    return [before(from), before(to)];
  };

  // Give elements to what came on screen, and take them from what left it.
  const draw = () => {
    waiting = false;
    if (!Layout.rows().length) return;
    const { scrollTop, scrollLeft, clientHeight, clientWidth } = scroller;
    const [top, bottom] = between(tops, scrollTop - clientHeight * OVER, scrollTop + clientHeight * (1 + OVER));
    const [left, right] = between(lefts, scrollLeft - clientWidth * OVER * 0.5, scrollLeft + clientWidth * (1 + OVER * 0.5));
    if (Layout.columns().length) keep(spans, spanOf[left], spanOf[right], makeSpan, headRow);
    keep(heads, left, right, makeHead, headRow);
    for (const [r, row] of drawn) {
      if (r >= top && r <= bottom) continue;
      row.node.remove();
      drawn.delete(r);
    }
    for (let r = top; r <= bottom; r++) {
      if (!drawn.has(r)) {
        drawn.set(r, { node: makeRow(r), cells: new Map() });
        sheet.append(drawn.get(r).node);
      }
      const row = drawn.get(r);
      keep(row.cells, left, right, (c) => (Layout.at(r, c) < 0 ? null : makeCell(r, c, Layout.at(r, c))), row.node);
    }
    if (!find(".cell[tabindex='0']", sheet)) find(".cell", sheet)?.setAttribute("tabindex", "0");
  };

  const keep = (elements, first, last, create, parent) => {
    for (const [key, node] of elements) {
      if (key >= first && key <= last) continue;
      node?.remove();
      elements.delete(key);
    }
    for (let key = first; key <= last; key++) {
      if (elements.has(key)) continue;
      const node = create(key);
      elements.set(key, node);
      if (node) parent.append(node);
    }
  };

  const drawSoon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(draw);
  };

  // Bring a cell on screen, past the headers that cover the edges, and give it the focus.
  const go = ([r, c], { take = true } = {}) => {
    if (r < 0 || c < 0) return;
    const { clientHeight, clientWidth } = scroller;
    const named = Layout.rows()[r].starts && Layout.rows()[r].group;
    const top = r ? tops[r] - size.head - (named ? GROUP_GAP : 2 * GAP) : 0;
    const bottom = tops[r] + size.height + GAP - clientHeight;
    const left = lefts[c] - size.side - GAP;
    const right = lefts[c] + size.width + GAP - clientWidth;
    if (scroller.scrollTop > top) scroller.scrollTop = top;
    else if (scroller.scrollTop < bottom) scroller.scrollTop = bottom;
    if (scroller.scrollLeft > left) scroller.scrollLeft = left;
    else if (scroller.scrollLeft < right) scroller.scrollLeft = right;
    find(".cell[tabindex='0']", sheet)?.setAttribute("tabindex", "-1");
    focus = [r, c];
    draw();
    const cell = drawn.get(r)?.cells.get(c);
    cell?.setAttribute("tabindex", "0");
    if (take) cell?.focus({ preventScroll: true });
  };

  const move = (down, across) => go(Layout.beside(here(), down, across));

  const ends = (last, all) => {
    const wanted = Layout.columns().map((_, c) => c).filter((c) => Layout.at(focus[0], c) >= 0);
    if (all) return go([last ? Layout.rows().length - 1 : 0, focus[1]]);
    return go([focus[0], (last ? wanted.at(-1) : wanted[0]) ?? 0]);
  };

  // Where the focus is; when the grid was scrolled away from it, the first cell on screen.
  const here = () => {
    const active = document.activeElement?.closest?.(".cell");
    return active ? [Number(active.dataset.row), Number(active.dataset.column)] : focus;
  };

  const begin = (open) => {
    scroller.addEventListener("scroll", drawSoon, { passive: true });
    new ResizeObserver(drawSoon).observe(scroller);
    sheet.addEventListener("click", (event) => {
      const cell = event.target.closest(".cell");
      if (!cell) return;
      focus = [Number(cell.dataset.row), Number(cell.dataset.column)];
      open(focus);
    });
    sheet.addEventListener("focusin", (event) => {
      const cell = event.target.closest(".cell");
      if (cell) focus = [Number(cell.dataset.row), Number(cell.dataset.column)];
    });
  };

  return { begin, lay, go, move, ends, here };
})();
