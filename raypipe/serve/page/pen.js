// Drawing: strokes are kept as lines, so that they can be fitted to the frame before pixels are made of them.

const FINE = 8; // drawn pixels a pixel of the model, in each direction
const FRAMED_FROM = 17; // smaller pictures have no pixels to spare for a margin

/** How strokes become a picture of this size: MNIST's rule is a digit in 20 of 28 pixels, its mass in the middle. */
function frameOf({ height, width }) {
  const least = Math.min(height, width);
  const box = least >= FRAMED_FROM ? (least * 20) / 28 : least;
  return { box, line: Math.max(1.35, least * 0.082), byMass: least >= FRAMED_FROM };
}

/** Shares of ink, one a pixel; strokes are lists of [x, y] in widths of the frame. */
function inkOf(strokes, picture, isFitted) {
  const { height, width } = picture;
  const frame = frameOf(picture);
  let place = ([x, y]) => [x * width, y * width];
  if (isFitted && strokes.length) {
    const points = strokes.flat();
    const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
    const left = Math.min(...xs), top = Math.min(...ys);
    const wide = Math.max(...xs) - left, tall = Math.max(...ys) - top;
    const zoom = (frame.box - frame.line) / Math.max(wide, tall, 0.15);
    place = ([x, y]) => [width / 2 + (x - left - wide / 2) * zoom, height / 2 + (y - top - tall / 2) * zoom];
    if (frame.byMass) {
      const [massX, massY] = middleOf(pixelsOf(strokes, picture, frame.line, place), picture);
      const centred = place;
      place = (point) => {
        const [x, y] = centred(point);
        return [x + width / 2 - massX, y + height / 2 - massY];
      };
    }
  }
  return pixelsOf(strokes, picture, frame.line, place);
}

function middleOf(ink, { height, width }) {
  let mass = 0, x = 0, y = 0;
  ink.forEach((share, i) => {
    mass += share;
    x += share * ((i % width) + 0.5);
    y += share * (Math.floor(i / width) + 0.5);
  });
  return mass ? [x / mass, y / mass] : [width / 2, height / 2];
}

function pixelsOf(strokes, { height, width }, line, place) {
  const canvas = make("canvas", { width: width * FINE, height: height * FINE });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.scale(FINE, FINE);
  drawStrokes(context, strokes.map((stroke) => stroke.map(place)), line);
  const fine = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const ink = new Float64Array(width * height);
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      ink[Math.floor(y / FINE) * width + Math.floor(x / FINE)] += fine[4 * (y * canvas.width + x) + 3];
    }
  }
  return ink.map((sum) => sum / (255 * FINE * FINE));
}

function drawStrokes(context, strokes, line) {
  context.lineWidth = line;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point);
    if (stroke.length === 1) context.lineTo(stroke[0][0] + 1e-3, stroke[0][1]);
    context.stroke();
  }
}

/** A canvas to draw on with a mouse, a finger or keys. `changed` is called with the strokes after each one. */
class Pad {
  constructor(label, picture, changed) {
    this.picture = picture;
    this.changed = changed;
    this.strokes = [];
    this.pen = { x: 0.5, y: (0.5 * picture.height) / picture.width, isDown: false };
    this.status = make("span", { className: "quiet", role: "status" });
    this.canvas = make("canvas", {
      className: "pad", tabIndex: 0, role: "application", width: 560,
      height: Math.round((560 * picture.height) / picture.width),
      "aria-label": `Drawing area for ${label}. Arrow keys move the pen, space puts it down or lifts it, ` +
        "Delete clears, Enter asks the model. The same values can be typed as numbers below.",
    });
    this.canvas.addEventListener("pointerdown", (event) => this.#down(event));
    this.canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => this.#up());
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const turn of ["focus", "blur"]) this.canvas.addEventListener(turn, () => this.paint());
    this.paint();
  }

  clear() {
    this.strokes = [];
    this.pen.isDown = false;
    this.status.textContent = "";
    this.paint();
  }

  paint() {
    const { canvas } = this;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.strokeStyle = getComputedStyle(canvas).color;
    const scaled = this.strokes.map((stroke) => stroke.map(([x, y]) => [x * canvas.width, y * canvas.width]));
    drawStrokes(context, scaled, canvas.width * 0.075);
    if (document.activeElement === canvas && canvas.matches(":focus-visible")) {
      context.lineWidth = 4;
      context.strokeStyle = getComputedStyle(canvas).outlineColor;
      context.beginPath();
      context.arc(this.pen.x * canvas.width, this.pen.y * canvas.width, this.pen.isDown ? 12 : 22, 0, 7);
      context.stroke();
    }
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.width];
  }

  #down(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.strokes.push([this.#at(event)]);
    this.isDrawing = true;
    this.paint();
  }

  #move(event) {
    if (!this.isDrawing) return;
    const all = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const each of all.length ? all : [event]) this.strokes.at(-1).push(this.#at(each));
    this.paint();
  }

  #up() {
    if (!this.isDrawing) return;
    this.isDrawing = false;
    this.changed(this.strokes);
  }

  #key(event) {
    const drew = this.pen.isDown;
    const step = 1 / this.picture.width, { pen } = this, tall = this.picture.height / this.picture.width;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) {
      pen.x = Math.min(1, Math.max(0, pen.x + way[0] * step));
      pen.y = Math.min(tall, Math.max(0, pen.y + way[1] * step));
      if (pen.isDown) this.strokes.at(-1).push([pen.x, pen.y]);
    } else if (event.key === " ") {
      pen.isDown = !pen.isDown;
      if (pen.isDown) this.strokes.push([[pen.x, pen.y]]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else if (event.key === "Enter") {
      this.canvas.closest("form").requestSubmit();
    } else {
      return;
    }
    event.preventDefault();
    if (event.key !== "Enter") {
      const row = Math.floor(pen.y / step) + 1, column = Math.floor(pen.x / step) + 1;
      this.status.textContent = `Pen ${pen.isDown ? "down" : "up"} at row ${row}, column ${column}`;
      if (drew || pen.isDown || !this.strokes.length) this.changed(this.strokes);
    }
    this.paint();
  }
}
