// A field for each kind of input. A field has an element, `read` (its value; throws where it is none) and `fill`.

const MAX_PAD_SIDE = 64; // larger pictures are photographs: nobody draws them
const MAX_TYPED_NUMBERS = 5000; // more are a file
const MAX_OPTIONS = 200; // more are looked for by typing
const MAX_FIELDS = 40; // a row of more inputs is written as JSON
const SAFE_WHOLE = Number.MAX_SAFE_INTEGER; // beyond it this page could not tell neighbours apart

let numIds = 0;
const newId = () => `field-${++numIds}`;

/** The fields of a form. `changed` is called when a value is complete, for inputs that ask at once. */
function fieldsFor(inputs, hints, changed) {
  if (inputs.length > MAX_FIELDS) return [rowField(inputs, hints, changed)];
  return inputs.map((input) => fieldFor(input, hints[input.name] ?? {}, changed));
}

function fieldFor(input, hint, changed) {
  const picture = pictureOf(input.shape);
  if (input.dtype !== "string" && input.shape.length) {
    if (picture && picture.height > 1 && picture.width > 1) return pictureField(input, hint, picture, changed);
    if (input.shape.length === 1 && hint.sample_rate) return soundField(input, hint, changed);
    return arrayField(input, hint, changed);
  }
  if (input.shape.length || input.is_list) return textsField(input, hint, changed);
  if (input.dtype === "bool" || (hint.known?.length && hint.only_known && hint.known.length <= MAX_OPTIONS)) {
    return choiceField(input, hint, changed);
  }
  return input.dtype === "string" ? textField(input, hint, changed) : numberField(input, hint, changed);
}

/** A label, its control, and what is known about the value. */
function labelled(input, control, about, ...more) {
  control.id = newId();
  const note = make("span", { id: control.id + "-about", className: "quiet" }, about);
  control.setAttribute("aria-describedby", note.id);
  return make("div", { className: "field" },
    make("label", { htmlFor: control.id }, input.name), control, ...more, note);
}

/** A box that says there is no value, where an input may lack one. */
function missingBox(input, control) {
  if (!input.nullable) return { elements: [], isMissing: () => false, set() {} };
  const box = make("input", { type: "checkbox" });
  const set = (isMissing) => {
    box.checked = isMissing;
    control.disabled = isMissing;
  };
  box.addEventListener("change", () => set(box.checked));
  return {
    elements: [make("label", { className: "beside" }, box, ` ${input.name} has no value`)],
    isMissing: () => box.checked,
    set,
  };
}

function numberField(input, hint, changed) {
  const isWhole = WHOLE.test(input.dtype);
  const control = make("input", { type: "number", step: isWhole ? "1" : "any", required: true });
  if (isWhole) {
    const bits = Number(input.dtype.replace(/\D/g, "")), isSigned = !input.dtype.startsWith("u");
    control.min = String(Math.max(-SAFE_WHOLE, isSigned ? -(2 ** (bits - 1)) : 0));
    control.max = String(Math.min(SAFE_WHOLE, 2 ** (isSigned ? bits - 1 : bits) - 1));
  }
  const missing = missingBox(input, control);
  control.addEventListener("change", changed);
  let about = isWhole ? "whole number" : "number";
  if (hint.told_by === "fitted") about += `, ${figure(hint.low)} to ${figure(hint.high)} in training`;
  else if (typeof hint.typical === "number") about += `, around ${figure(hint.typical)} in training`;
  if (hint.known?.length) about += `; known are ${hint.known.slice(0, 10).join(", ")}`;
  const start = hint.known?.length || typeof hint.typical !== "number" ? hint.example ?? 0 : hint.typical;
  return {
    name: input.name,
    element: labelled(input, control, about, ...missing.elements),
    read: () => (missing.isMissing() ? null : Number(control.value)),
    fill() {
      missing.set(false);
      control.value = String(isWhole ? Math.round(start) : Number(start.toPrecision(4)));
    },
  };
}

function textField(input, hint, changed) {
  const control = hint.is_prose ? make("textarea", { rows: 4 }) : make("input", { type: "text", autocomplete: "off" });
  const parts = [];
  if (hint.known?.length && !hint.is_prose) {
    const list = make("datalist", { id: newId() }, ...hint.known.map((value) => make("option", { value })));
    control.setAttribute("list", list.id);
    parts.push(list);
  }
  const missing = missingBox(input, control);
  control.addEventListener("change", changed);
  return {
    name: input.name,
    element: labelled(input, control, hint.known?.length ? "text; known ones are offered" : "text",
      ...parts, ...missing.elements),
    read: () => (missing.isMissing() ? null : control.value),
    fill() {
      missing.set(false);
      control.value = hint.example ?? "";
    },
  };
}

function choiceField(input, hint, changed) {
  const values = input.dtype === "bool" ? [false, true] : hint.known;
  const control = make("select", {}, ...values.map((value, i) => make("option", { value: i }, String(value))));
  const missing = missingBox(input, control);
  control.addEventListener("change", changed);
  const about = input.dtype === "bool" ? "true or false" : `one of ${values.length}`;
  return {
    name: input.name,
    element: labelled(input, control, about, ...missing.elements),
    read: () => (missing.isMissing() ? null : values[Number(control.value)]),
    fill() {
      missing.set(false);
      control.value = String(Math.max(0, values.indexOf(hint.example)));
    },
  };
}

/** Numbers of a fixed count in a text area. */
function numbersArea(input, describe) {
  const area = make("textarea", { rows: 4, spellcheck: false, className: "numbers" });
  const wanted = sizeOf(input.shape);
  return {
    element: labelled({ name: `${input.name} as numbers` }, area, describe),
    area,
    read() {
      const flat = numbersIn(area.value, input.dtype);
      if (flat.length !== wanted) throw new Error(`${input.name}: found ${flat.length} numbers; expected ${wanted}`);
      return flat;
    },
    write(flat) { area.value = numbersText(flat, input.shape); },
  };
}

function arrayField(input, hint, changed) {
  const numbers = numbersArea(input, `${sizeOf(input.shape)} numbers, shape ${input.shape.join(" × ")}`);
  const { low } = rangeOf(input, hint);
  numbers.area.addEventListener("change", changed);
  return {
    name: input.name,
    element: numbers.element,
    read: () => nested(numbers.read(), input.shape),
    fill: () => numbers.write(new Array(sizeOf(input.shape)).fill(valueAt(0, low, low, input.dtype))),
  };
}

function textsField(input, hint, changed) {
  const control = make("textarea", { rows: 4, className: "numbers" });
  control.addEventListener("change", changed);
  return {
    name: input.name,
    element: labelled(input, control, input.is_list ? "JSON: a list of texts" : `JSON: texts of shape ${input.shape.join(" × ")}`),
    read: () => parsed(control.value, input.name),
    fill() { control.value = JSON.stringify(input.is_list ? [hint.example ?? ""].flat() : hint.example ?? nested(new Array(sizeOf(input.shape)).fill(""), input.shape)); },
  };
}

/** A whole row as JSON, where there are too many inputs for a form. */
function rowField(inputs, hints, changed) {
  const control = make("textarea", { rows: 16, className: "numbers", spellcheck: false });
  control.addEventListener("change", changed);
  return {
    name: null,
    element: labelled({ name: "The row" }, control, `JSON: an object with the ${inputs.length} inputs of the model`),
    read() {
      const row = parsed(control.value, "The row");
      if (row === null || typeof row !== "object" || Array.isArray(row)) throw new Error("The row must be an object");
      return row;
    },
    fill() {
      const row = inputs.map((input) => [input.name, hints[input.name]?.example ?? null]);
      control.value = JSON.stringify(Object.fromEntries(row), null, 1);
    },
  };
}

function parsed(text, what) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${what}: is not valid JSON (${error.message})`);
  }
}

/** A picture: drawn where it is small and has one channel, from a file, or as numbers. */
function pictureField(input, hint, picture, changed) {
  const { low, high, from } = rangeOf(input, hint);
  const { height, width, channels } = picture;
  const isPad = channels === 1 && height <= MAX_PAD_SIDE && width <= MAX_PAD_SIDE;
  const ground = make("input", { type: "number", step: "any", value: hint.is_light ? high : low });
  const ink = make("input", { type: "number", step: "any", value: hint.is_light ? low : high });
  const fits = make("input", { type: "checkbox", checked: true });
  const seen = make("canvas", { className: "seen", "aria-hidden": "true" });
  const isTyped = sizeOf(input.shape) <= MAX_TYPED_NUMBERS;
  const sources = { scale: "what the model scales to 0 … 1", fitted: "seen in training", guessed: "guessed from the " +
    "mean in training", dtype: `guessed from the type ${input.dtype}` };
  let flat = null, shares = null;

  const numbers = numbersArea(input, `${height} rows of ${width} pixels${channels > 1 ? `, ${channels} numbers each` : ""}`);
  const show = () => {
    if (isTyped) numbers.write(flat);
    showPixels(seen, flat, picture, Math.min(low, high), Math.max(low, high));
  };
  const fromShares = (next) => {
    shares = next;
    flat = Array.from(shares, (share) => valueAt(share, Number(ground.value), Number(ink.value), input.dtype));
    show();
  };
  const pad = isPad ? new Pad(input.name, picture, (strokes) => {
    fromShares(inkOf(strokes, picture, fits.checked));
    changed();
  }) : null;
  const again = () => {
    if (pad?.strokes.length) fromShares(inkOf(pad.strokes, picture, fits.checked));
    else if (shares) fromShares(shares);
    changed();
  };
  for (const control of [ground, ink, fits]) control.addEventListener("change", again);
  numbers.area.addEventListener("change", () => {
    try {
      flat = numbers.read();
    } catch {
      return; // told when the model is asked
    }
    pad?.clear();
    shares = null;
    showPixels(seen, flat, picture, low, high);
    changed();
  });

  const zone = make("div", { className: "zone" });
  const file = fileChooser(zone, "or a picture:", "image/*", async (chosen) => {
    const found = await pictureShares(chosen, picture);
    pad?.clear();
    let says = `${found.width} × ${found.height} pixels`;
    const isSized = found.width !== width || found.height !== height;
    if (isSized) says += `, resized to ${width} × ${height}`;
    if (isPad && isSized && edgeIsLight(found.shares, picture) !== (Number(ground.value) > Number(ink.value))) {
      found.shares = found.shares.map((share) => 1 - share); // dark on light, and the model knows light on dark
      says += "; light and dark were exchanged";
    }
    // Light is the ink of a dark ground, and the ground of a light one.
    fromShares(Number(ground.value) > Number(ink.value) ? found.shares.map((share) => 1 - share) : found.shares);
    changed();
    return says;
  });
  const clear = make("button", { type: "button" }, "Clear");
  clear.addEventListener("click", () => { fill(); changed(); });

  const fill = () => {
    pad?.clear();
    fromShares(new Float64Array(sizeOf(input.shape)));
    shares = null;
  };
  const beside = (control, text) => make("label", { className: "beside" }, control, " " + text);
  const settings = make("details", {}, make("summary", {}, "Values of the pixels"),
    make("p", { className: "quiet" }, `${low} to ${high}: ${sources[from]}.`),
    make("p", {}, make("label", { className: "beside" }, isPad ? "Ground " : "Dark ", ground),
      make("label", { className: "beside" }, isPad ? "Ink " : "Light ", ink)),
    ...(isPad ? [make("p", {}, beside(fits, "Fit the drawing to the frame, centred"))] : []),
    ...(isTyped ? [numbers.element] : []));
  if (pad) zone.append(pad.canvas);
  zone.append(make("figure", {}, seen, make("figcaption", { className: "quiet" }, "What the model sees")));
  const title = isPad ? `Draw ${input.name}` : input.name;
  const element = make("fieldset", { className: "field" }, make("legend", {}, title), zone,
    ...(pad ? [make("p", {}, clear, " ", pad.status)] : []), file, settings);
  return {
    name: input.name,
    asksAtOnce: true,
    element,
    read() {
      if (isTyped) flat = numbers.read();
      return nested(flat, input.shape);
    },
    fill,
    redraw: () => pad?.paint(),
  };
}

function soundField(input, hint, changed) {
  const rate = hint.sample_rate, numSamples = input.shape[0];
  const wave = make("canvas", { className: "wave", "aria-hidden": "true" });
  const zone = make("div", { className: "zone" }, wave);
  let samples = new Float64Array(numSamples);
  const show = () => showWave(wave, samples);
  const file = fileChooser(zone, "Sound:", "audio/*,.wav", async (chosen) => {
    const found = await soundSamples(chosen, numSamples, rate);
    samples = found.samples;
    show();
    changed();
    const wanted = numSamples / rate;
    const cut = found.duration > wanted ? `; the first ${figure(wanted)} s are read` : "";
    return `${figure(found.duration)} s${cut}`;
  });
  const about = `${figure(numSamples / rate)} s at ${rate} samples a second, from −1 to 1; channels are averaged`;
  return {
    name: input.name,
    asksAtOnce: true,
    element: make("fieldset", { className: "field" }, make("legend", {}, input.name), zone, file,
      make("p", { className: "quiet" }, about)),
    read: () => Array.from(samples, (value) => Number(value.toPrecision(7))),
    fill() {
      samples = new Float64Array(numSamples);
      show();
    },
    redraw: show,
  };
}
