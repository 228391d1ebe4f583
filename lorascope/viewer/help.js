// The keys, and what the tools said about what could not be measured.

const Help = (() => {
  const dialog = find(".help");
  const KEYS = [
    ["In the grid", [
      ["← ↑ ↓ →", "walk"],
      ["Enter", "open a picture large"],
      ["Home, End", "first and last picture of a row"],
      ["/", "search prompts"],
      ["+ −", "larger, smaller cells"],
      ["P", "play along an axis"],
    ]],
    ["In the large view", [
      ["↑ ↓", "row above, row below: epochs"],
      ["← →", "column left, column right: prompts"],
      ["Space", "the picture it is compared with: hold, or touch to switch"],
      ["F", "flicker by itself"],
      ["D", "difference"],
      ["N", "compare with another: base model, neighbours, training image"],
      ["+ − 0", "zoom, whole picture; the wheel and dragging work too"],
      ["P", "play along an axis"],
      ["C", "copy the generation parameters"],
      ["Escape, back", "close"],
    ]],
  ];

  const build = () => {
    const top = make("div", "top");
    top.append(make("h2", "", "Keys"), button("×", "Close (Escape)", () => dialog.close(), "close-large"));
    dialog.append(top);
    for (const [heading, keys] of KEYS) {
      const list = make("dl", "facts");
      for (const [key, words] of keys) list.append(make("dt", "", key), make("dd", "", words));
      dialog.append(make("h3", "", heading), list);
    }
    if (Data.caveats.length) {
      const list = make("ul");
      list.append(...Data.caveats.map((caveat) => make("li", "", caveat)));
      dialog.append(make("h3", "", "Notes"), list);
    }
    const link = "The address of this page holds every choice: copy it to share this view.";
    dialog.append(make("p", "faint", link));
  };

  const open = () => {
    if (!dialog.open) dialog.showModal();
  };

  return { build, open };
})();
