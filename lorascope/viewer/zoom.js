// Zoom and pan of the large view: wheel and pinch keep the point under the pointer where it is.

const Zoom = (() => {
  const MOST = 32;
  let stage = null;
  let pan = null;
  let dragged = null; // where the pointer went down, and the shift then

  const begin = (stageNode, panNode) => {
    stage = stageNode;
    pan = panNode;
    stage.addEventListener("wheel", onWheel, { passive: false });
    stage.addEventListener("pointerdown", onDown);
    stage.addEventListener("pointermove", onMove);
    stage.addEventListener("pointerup", onUp);
    stage.addEventListener("pointercancel", onUp);
    stage.addEventListener("dblclick", () => (State.now.zoom.scale > 1 ? reset() : by(3)));
  };

  const show = () => {
    const { scale, x, y } = State.now.zoom;
    pan.style.transform = `translate(${x * 100}%, ${y * 100}%) scale(${scale})`;
    stage.classList.toggle("zoomed", scale > 1);
    const image = find("img", pan);
    const wide = image?.naturalWidth ? (stage.clientWidth / image.naturalWidth) * scale : 1;
    stage.classList.toggle("close", scale > 1 && wide > 4); // single pixels are looked at: show them
  };

  // Change the scale; `at` is the point that stays, from the middle of the stage, as a share of it.
  const by = (factor, at = [0, 0]) => {
    const before = State.now.zoom;
    const scale = Math.min(MOST, Math.max(1, before.scale * factor));
    const ratio = scale / before.scale;
    put({
      scale,
      x: at[0] - (at[0] - before.x) * ratio,
      y: at[1] - (at[1] - before.y) * ratio,
    });
  };

  const reset = () => put({ scale: 1, x: 0, y: 0 });

  // The picture never leaves the stage altogether.
  const put = ({ scale, x, y }) => {
    const most = (scale - 1) / 2;
    const held = (value) => Math.min(most, Math.max(-most, value));
    State.set({ zoom: { scale, x: held(x), y: held(y) } });
  };

  const point = (event) => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5];
  };

  const onWheel = (event) => {
    event.preventDefault();
    by(Math.exp(-event.deltaY * 0.0015), point(event));
  };

  const onDown = (event) => {
    if (event.button !== 0 || State.now.zoom.scale <= 1 || event.target.closest("button")) return;
    stage.setPointerCapture(event.pointerId);
    dragged = { from: point(event), zoom: State.now.zoom };
  };

  const onMove = (event) => {
    if (!dragged) return;
    const [x, y] = point(event);
    put({
      scale: dragged.zoom.scale,
      x: dragged.zoom.x + x - dragged.from[0],
      y: dragged.zoom.y + y - dragged.from[1],
    });
  };

  const onUp = () => {
    dragged = null;
  };

  return { begin, show, by, reset };
})();
