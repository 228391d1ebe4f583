// One measured number for each picture: its colour goes from orange (low) over grey to blue (high).
// The number is always written as well, so nobody has to tell colours apart.

const Overlay = (() => {
  const STOPS = [[224, 121, 11], [176, 183, 193], [31, 111, 180]];
  let metric = null;
  let low = 0;
  let high = 1;

  // From low to high, without the few that lie far outside where there are many.
  const ends = (one) => {
    const known = one.values.filter((value) => value !== null).sort((a, b) => a - b);
    const quantile = (share) => known[Math.round(share * (known.length - 1))];
    return known.length > 40 ? [quantile(0.02), quantile(0.98)] : [known[0], known.at(-1)];
  };

  const range = (one) => {
    const [from, to] = ends(one);
    return to - from;
  };

  const choose = (key) => {
    metric = Data.metrics.find((one) => one.key === key) ?? null;
    if (metric) [low, high] = ends(metric);
  };

  const written = (value) => short(value, high - low);

  const share = (value) => (high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0.5);

  const colour = (at) => {
    const place = at * (STOPS.length - 1);
    const before = Math.min(STOPS.length - 2, Math.floor(place));
    const mixed = STOPS[before].map((c, i) => Math.round(c + (place - before) * (STOPS[before + 1][i] - c)));
    return `rgb(${mixed.join(" ")})`;
  };

  // A number, its colour, and a bar as long as it is large.
  const mark = (value, name) => {
    const node = make("div", name);
    node.append(make("span", "number", written(value)), make("span", "bar-of"));
    if (value === null) return node;
    node.style.setProperty("--tone", colour(share(value)));
    node.style.setProperty("--share", String(share(value)));
    return node;
  };

  const under = (place) => mark(metric.values[place], "measured");

  // The mean of a row: what the tool says of it, else the mean of what is on screen.
  const ofRow = (r) => {
    const places = Layout.inRow(r);
    const rows = new Set(places.map(Facts.row));
    const told = rows.size === 1 && !State.now.find ? metric.means[[...rows][0]] : undefined;
    if (told) {
      const node = mark(told[0], "measured mean");
      const span = told[1] === null ? "" : `, 95 % ${written(told[1])} to ${written(told[2])}`;
      node.title = `${metric.name}: mean of this row ${written(told[0])}${span}`;
      return node;
    }
    const known = places.map((place) => metric.values[place]).filter((value) => value !== null);
    if (!known.length) return null;
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    const node = mark(mean, "measured mean");
    node.title = `${metric.name}: mean of the ${plural(known.length, "picture")} shown in this row`;
    return node;
  };

  const legend = () => {
    const node = find(".legend");
    node.hidden = !metric;
    node.replaceChildren();
    if (!metric) return;
    const scale = make("span", "scale");
    scale.append(make("span", "end", written(low)), make("span", "ramp"), make("span", "end", written(high)));
    const count = metric.values.filter((value) => value !== null).length;
    const about = [`n = ${plural(count, "picture")}`, ...metric.numbers].join(" · ");
    const meaning = metric.meaning ? `: ${metric.meaning}` : "";
    const text = make("span", "meaning");
    text.append(make("strong", "", metric.name), document.createTextNode(meaning));
    node.append(scale, text, make("span", "faint", about));
  };

  return { choose, range, under, ofRow, legend, on: () => metric !== null };
})();
