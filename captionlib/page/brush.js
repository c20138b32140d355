// A brush that greys out parts of a picture, for mouse, finger, pen and keyboard.

class Brush {
  // `surface`: the element over which one paints. `changed` is called when a stroke
  // ends or pauses, `draw` whenever the picture has to be drawn again.
  constructor(surface, { changed, draw }) {
    Object.assign(this, { surface, changed, draw });
    this.strokes = []; // lists of discs, as greyOut takes them
    this.radius = 0.09;
    this.on = false;
    this.spot = { x: 0.5, y: 0.5 }; // of the keyboard
    surface.addEventListener("pointerdown", (event) => this.press(event));
    surface.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"])
      surface.addEventListener(end, () => this.release());
    surface.addEventListener("keydown", (event) => this.key(event));
  }

  get discs() {
    return this.strokes.flat();
  }

  clear() {
    this.strokes = [];
    this.draw();
  }

  undo() {
    this.strokes.pop();
    this.draw();
  }

  turn(on) {
    this.on = on;
    this.surface.tabIndex = on ? 0 : -1;
    this.surface.style.touchAction = on ? "none" : ""; // a finger paints, or scrolls
    this.draw();
  }

  dab({ x, y }) {
    this.strokes.at(-1).push({ x, y, radius: this.radius });
    this.draw();
    clearTimeout(this.pause);
    this.pause = setTimeout(this.changed, 150);
  }

  place(event) {
    const { left, top, width, height } = this.surface.getBoundingClientRect();
    return { x: (event.clientX - left) / width, y: (event.clientY - top) / height };
  }

  press(event) {
    if (!this.on || event.button > 0) return;
    event.preventDefault();
    this.surface.focus({ preventScroll: true });
    this.surface.setPointerCapture(event.pointerId);
    this.painting = true;
    this.strokes.push([]);
    this.dab(this.place(event));
  }

  move(event) {
    if (!this.painting) return;
    const to = this.place(event);
    const { x, y } = this.strokes.at(-1).at(-1);
    if (Math.hypot(to.x - x, to.y - y) > this.radius / 3) this.dab(to);
  }

  release() {
    this.painting = false;
  }

  // Arrows move the brush, the space bar paints, Backspace takes a stroke back.
  key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.on || !(event.key in way || [" ", "Backspace"].includes(event.key))) return;
    event.preventDefault();
    if (event.key in way) {
      const inside = (z) => Math.min(Math.max(z, 0), 1);
      const [right, down] = way[event.key];
      this.spot = { x: inside(this.spot.x + right / 20), y: inside(this.spot.y + down / 20) };
      this.draw();
    } else if (event.key === " ") {
      this.strokes.push([]);
      this.dab(this.spot);
    } else {
      this.undo();
      this.changed();
    }
  }

  // The grey discs, and a ring where the keyboard's brush is.
  paint(context) {
    const { width, height } = context.canvas;
    const longer = Math.max(width, height);
    const circle = ({ x, y, radius }) => {
      context.beginPath();
      context.arc(x * width, y * height, radius * longer, 0, 7);
    };
    context.fillStyle = "rgb(128, 128, 128)";
    for (const disc of this.discs) {
      circle(disc);
      context.fill();
    }
    if (!this.on || !this.surface.matches(":focus-visible")) return;
    for (const [colour, line] of [["black", 4], ["white", 2]]) {
      circle({ ...this.spot, radius: this.radius });
      [context.strokeStyle, context.lineWidth] = [colour, line];
      context.stroke();
    }
  }
}
