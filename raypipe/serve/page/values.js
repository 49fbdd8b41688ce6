// Numbers of a model's input: their range, their nesting, and pictures made of them.

const WHOLE = /^u?int/;

/** Where values of an input begin and end, by what the model told, else by its type. */
function rangeOf(input, hint) {
  const low = hint.low ?? 0;
  const high = hint.high ?? (input.dtype === "uint8" ? 255 : 1);
  return { low, high, from: hint.told_by ?? "dtype" };
}

function sizeOf(shape) {
  return shape.reduce((product, size) => product * size, 1);
}

/** [a, b, c, d] as rows and columns of a shape. */
function nested(flat, shape) {
  if (shape.length <= 1) return Array.from(flat);
  const step = flat.length / shape[0];
  return Array.from({ length: shape[0] }, (_, i) => nested(flat.slice(i * step, (i + 1) * step), shape.slice(1)));
}

/** Height, width, channels of a picture and where the channels are; null where the shape is none. */
function pictureOf(shape) {
  if (shape.length === 2) return { height: shape[0], width: shape[1], channels: 1, first: false };
  if (shape.length !== 3) return null;
  if ([1, 3, 4].includes(shape[2])) return { height: shape[0], width: shape[1], channels: shape[2], first: false };
  if ([1, 3, 4].includes(shape[0])) return { height: shape[1], width: shape[2], channels: shape[0], first: true };
  return null;
}

/** A fraction in [0, 1] as a value of the input. */
function valueAt(share, low, high, dtype) {
  const value = low + share * (high - low);
  if (dtype === "bool") return value >= 0.5;
  return WHOLE.test(dtype) ? Math.round(value) : Number(value.toFixed(5));
}

/** Numbers written in any way: JSON of any nesting, or separated by blanks and commas. */
function numbersIn(text, dtype) {
  const words = text.split(/[\s,;[\]]+/).filter(Boolean);
  return words.map((word) => {
    if (dtype === "bool" && (word === "true" || word === "false")) return word === "true";
    const value = Number(word);
    if (!Number.isFinite(value)) throw new Error(`“${word.slice(0, 40)}” is no number`);
    return dtype === "bool" ? value !== 0 : value;
  });
}

/** The values as text, a line a row of the picture. */
function numbersText(flat, shape) {
  const inRow = shape.length ? shape[shape.length - 1] : 1;
  const lines = [];
  for (let i = 0; i < flat.length; i += inRow) lines.push(Array.from(flat.slice(i, i + inRow)).join(" "));
  return lines.join("\n");
}

/** Paint what the model is given, pixel for pixel. */
function showPixels(canvas, flat, picture, low, high) {
  const { height, width, channels, first } = picture;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      const channel = channels === 1 ? 0 : c;
      const value = Number(flat[first ? channel * width * height + i : i * channels + channel] ?? low);
      pixels.data[4 * i + c] = high === low ? 0 : (255 * (value - low)) / (high - low);
    }
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}
