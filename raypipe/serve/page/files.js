// Pictures and sounds from files, as the values of an input.

/** A file by a button or by dropping it on `zone`; `taken` gets the file and says in words what it made of it. */
function fileChooser(zone, label, accept, taken) {
  const chooser = make("input", { type: "file", accept });
  const status = make("span", { className: "quiet", role: "status" });
  const read = async (file) => {
    if (!file) return;
    status.className = "quiet";
    try {
      status.textContent = await taken(file);
    } catch (error) {
      status.className = "wrong";
      status.textContent = `${file.name}: ${error.message}`;
    }
  };
  chooser.addEventListener("change", () => read(chooser.files[0]));
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    read(event.dataTransfer.files[0]);
  });
  return make("p", {}, make("label", {}, label + " ", chooser), " ", status);
}

/** Shares of light in [0, 1], in the order of the input's values, and the size the file had. */
async function pictureShares(file, { height, width, channels, first }) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("is no picture that this browser reads");
  }
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // what is transparent has no colour
  if (channels !== 4) context.fillRect(0, 0, width, height);
  context.drawImage(halved(bitmap, width, height), 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height).data;
  const shares = new Float64Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const [red, green, blue, alpha] = pixels.slice(4 * i, 4 * i + 4);
    const light = (299 * red + 587 * green + 114 * blue) / 1000; // as Pillow's mode L weighs them
    const values = channels === 1 ? [light] : [red, green, blue, alpha].slice(0, channels);
    values.forEach((value, c) => { shares[first ? c * height * width + i : i * channels + c] = value / 255; });
  }
  return { shares, height: bitmap.height, width: bitmap.width };
}

/** The picture at half its size, again and again, while that is still twice too large: no pixel is skipped. */
function halved(bitmap, width, height) {
  let source = bitmap;
  while (source.width >= 2 * width && source.height >= 2 * height && source.width > 2 && source.height > 2) {
    const next = make("canvas", { width: Math.ceil(source.width / 2), height: Math.ceil(source.height / 2) });
    next.getContext("2d").drawImage(source, 0, 0, next.width, next.height);
    source = next;
  }
  return source;
}

/** Whether the edge of a picture is light. */
function edgeIsLight(shares, { height, width }) {
  const edge = [];
  shares.forEach((share, i) => {
    const x = i % width, y = Math.floor(i / width);
    if (x === 0 || y === 0 || x === width - 1 || y === height - 1) edge.push(share);
  });
  return edge.reduce((sum, share) => sum + share, 0) > edge.length / 2;
}

/** Samples in [-1, 1] at the rate of the model, channels averaged: the beginning of the sound, then silence. */
async function soundSamples(file, numSamples, rate) {
  let sound;
  try {
    const decoder = new OfflineAudioContext(1, Math.max(1, numSamples), rate);
    sound = await decoder.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error("is no sound that this browser reads");
  }
  const samples = new Float64Array(numSamples);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).slice(0, numSamples).forEach((value, i) => {
      samples[i] += value / sound.numberOfChannels;
    });
  }
  return { samples, duration: sound.duration };
}

/** Paint a sound: its loudest value in each column. */
function showWave(canvas, samples) {
  canvas.width = 560;
  canvas.height = 120;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(canvas).color;
  for (let x = 0; x < canvas.width; x++) {
    const start = Math.floor((x * samples.length) / canvas.width);
    const stop = Math.max(start + 1, Math.floor(((x + 1) * samples.length) / canvas.width));
    let most = 0;
    for (let i = start; i < stop; i++) most = Math.max(most, Math.abs(samples[i] ?? 0));
    const tall = Math.max(1, Math.min(1, most) * canvas.height);
    context.fillRect(x, (canvas.height - tall) / 2, 1, tall);
  }
}
