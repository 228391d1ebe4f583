// What the page holds: the facts as JSON, and the pictures as blocks of text, read when needed.

const Data = JSON.parse(find("#data").textContent);

const Facts = (() => {
  const decode = (coded, place) =>
    coded.values[typeof coded.index === "number" ? coded.index : coded.index[place]];
  const column = (key) => Data.facts.find((fact) => fact.key === key);

  // The axis of a key; its places tell where each picture lies on it, -1: it does not apply.
  const axis = (key) => Data.axes.find((one) => one.key === key);

  const label = (one, place) => (one.places[place] < 0 ? "" : one.labels[one.places[place]]);

  // Everything known of one picture: [words, value] pairs.
  const of = (place) =>
    Data.facts
      .map((fact) => [fact.name, decode(fact, place)])
      .filter(([, value]) => value !== null && value !== "");

  const value = (key, place) => {
    const found = column(key);
    return found ? decode(found, place) : null;
  };

  // What tells one picture from the others, in words: "epoch 3, strength 0.8".
  const name = (place, side = "") =>
    Data.axes
      .filter((one) => (!side || one.side === side) && one.labels.length > 1)
      .filter((one) => one.key !== "trigger" || one.places[place] === 1)
      .map((one) => label(one, place))
      .filter(Boolean)
      .join(", ");

  const link = (place) => decode(Data.links, place);

  const row = (place) => decode(Data.row, place);

  const text = (place) => (Data.texts.of[place] ?? []).map((line) => Data.texts.lines[line]).join("\n");

  // What the search looks at.
  const words = (place) =>
    [label(axis("prompt"), place), value("prompt", place), value("group", place)].join(" ").toLowerCase();

  return { axis, label, of, value, name, link, row, text, words };
})();

const Pictures = (() => {
  const { sizes, of, starts, states, references } = Data.pictures;
  const blocks = []; // text of those that were looked at
  const offsets = new Uint32Array(sizes.length); // of each picture in its block

  const packed = (size) => 4 * Math.ceil(size / 3); // base64
  let block = 0;
  for (let i = 0, offset = 0; i < sizes.length; i++) {
    if (starts[block + 1] === i) [block, offset] = [block + 1, 0];
    offsets[i] = offset;
    offset += packed(sizes[i]);
  }

  const blockOf = (slot) => {
    let low = 0;
    let high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= slot) low = middle;
      else high = middle - 1;
    }
    return low;
  };

  // The address of a small copy: the picture itself. "" while its block is still being loaded.
  const address = (slot) => {
    if (!sizes[slot]) return "";
    const number = blockOf(slot);
    if (blocks[number] === undefined) {
      const node = document.getElementById(`pictures-${number}`);
      if (!node || (document.readyState === "loading" && !node.nextSibling)) return "";
      blocks[number] = node.textContent;
    }
    const start = offsets[slot];
    return `data:image/webp;base64,${blocks[number].slice(start, start + packed(sizes[slot]))}`;
  };

  const slot = (place) => of[place];
  const reference = (number) => references + number;
  const state = (slotNumber) => states[slotNumber] ?? "";

  return { address, slot, reference, state };
})();
