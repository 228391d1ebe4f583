// Two pictures on top of each other; the slider draws the border between them.
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".root");
  const stamp = JSON.stringify(data);
  if (root.dataset.stamp === stamp) return;
  root.dataset.stamp = stamp;
  const stage = make("div", "stage");
  const [under, over] = [data.left, data.right].map((side, i) => {
    const image = make("img", i ? "over" : "under");
    image.src = side.url;
    image.alt = side.label;
    return image;
  });
  const border = make("div", "border");
  stage.append(under, over, border, make("span", "tag left", data.left.label), make("span", "tag right", data.right.label));
  const slider = make("input", "slider");
  slider.type = "range";
  slider.min = 0;
  slider.max = 100;
  slider.value = 50;
  slider.setAttribute("aria-label", `${data.left.label} against ${data.right.label}`);
  slider.oninput = () => stage.style.setProperty("--at", `${slider.value}%`);
  stage.append(slider);
  root.replaceChildren(stage);
}
