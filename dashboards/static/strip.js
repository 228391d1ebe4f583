// One tile an epoch: its thumbnail, its fit as shape and colour, the pick starred, its equals bracketed.
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

const tile = (epoch, chosen, pictures) => {
  const button = make("button", `tile ${epoch.fit} ${epoch.inset}`);
  button.type = "button";
  button.dataset.epoch = epoch.epoch;
  button.title = epoch.title;
  button.setAttribute("aria-label", epoch.title);
  button.setAttribute("aria-pressed", String(epoch.epoch === chosen));
  if (epoch.url) {
    const image = make("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = "";
    image.src = epoch.url;
    button.append(image);
  } else if (pictures) {
    button.append(make("span", "blank", "·"));
  }
  if (epoch.best) button.append(make("span", "star", "★"));
  const label = make("span", "label");
  label.append(make("span", "number", String(epoch.epoch)), make("span", "shape", epoch.shape));
  button.append(label);
  if (epoch.dip) button.append(make("span", "dip", ""));
  button.append(make("span", "bracket"));
  return button;
};

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".root");
  const stamp = JSON.stringify(data.epochs);
  if (root.dataset.stamp !== stamp) {
    root.dataset.stamp = stamp;
    const row = make("div", "row");
    const pictures = data.epochs.some((epoch) => epoch.url);
    row.append(...data.epochs.map((epoch) => tile(epoch, data.chosen, pictures)));
    root.replaceChildren(row);
  }
  const row = root.querySelector(".row");
  const choose = (button) => button && setTriggerValue("chosen", Number(button.dataset.epoch));
  for (const button of row.children) {
    const pressed = Number(button.dataset.epoch) === data.chosen;
    button.setAttribute("aria-pressed", String(pressed));
    if (pressed && root.dataset.shown !== String(data.chosen)) {
      root.dataset.shown = String(data.chosen);
      row.scrollLeft = button.offsetLeft - row.clientWidth / 2 + button.offsetWidth / 2;
    }
  }
  row.onclick = (event) => choose(event.target.closest("button"));
  row.onkeydown = (event) => {
    const here = event.target.closest("button");
    const next = { ArrowRight: here?.nextElementSibling, ArrowLeft: here?.previousElementSibling }[event.key];
    if (!next) return;
    event.preventDefault();
    next.focus();
    choose(next);
  };
}
