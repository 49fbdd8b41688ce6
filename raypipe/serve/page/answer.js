// An answer of the model, or the reason why there is none, in words; the bars only repeat them.

const MAX_BARS = 12; // of more classes the most probable are shown

function figure(value) {
  return String(Number(value.toPrecision(6)));
}

function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  if (share < 1 && share > 0.9995) return "> 99.9 %";
  return (100 * share).toFixed(1) + " %";
}

function showAnswer(place, model, prediction, version) {
  const parts = [];
  if (typeof prediction === "number") {
    parts.push(make("p", { className: "verdict" }, `${model.target}: `, make("strong", {}, figure(prediction))));
  } else if (model.task === "regression") {
    for (const [name, value] of Object.entries(prediction)) {
      parts.push(make("p", { className: "verdict" }, `${name}: `, make("strong", {}, figure(value))));
    }
  } else if (model.task === "multi_label") {
    const labels = prediction.labels.join(", ") || "no label";
    parts.push(make("p", { className: "verdict" }, make("strong", {}, labels)));
    parts.push(bars(model.classes, prediction));
  } else if ("text" in prediction) {
    parts.push(make("p", { className: "verdict" }, `${model.target}: `,
      make("strong", {}, prediction.text), ` (${percent(prediction.probability)})`));
  } else if ("perplexity" in prediction) {
    parts.push(make("p", { className: "verdict" }, "perplexity: ",
      make("strong", {}, figure(prediction.perplexity)), ` over ${prediction.num_tokens} characters`));
  } else {
    parts.push(make("p", { className: "verdict" }, `${model.target}: `,
      make("strong", {}, String(prediction.label)), ` (${percent(prediction.probability)})`));
    parts.push(bars(model.classes, prediction));
  }
  parts.push(make("p", { className: "quiet" }, `Answered by ${version}.`));
  if (version !== `${model.model}@${model.version}`) {
    parts.push(make("p", { className: "quiet" }, "Another version than this page was made for: load it again."));
  }
  place.replaceChildren(...parts);
}

function bars(classes, { probabilities }) {
  let shown = classes.map((label, i) => ({ label, share: probabilities[i] }));
  if (shown.length > MAX_BARS) shown = shown.sort((a, b) => b.share - a.share).slice(0, MAX_BARS);
  const most = Math.max(...probabilities);
  const list = make("ul", { className: "bars" }, ...shown.map(({ label, share }) => {
    const bar = make("span", { className: "bar", "aria-hidden": "true" }, make("span"));
    bar.firstChild.style.width = 100 * share + "%";
    const item = make("li", {}, make("span", { className: "label" }, String(label)), bar,
      make("span", { className: "share" }, percent(share)));
    if (share === most) item.className = "best";
    return item;
  }));
  const left = classes.length - shown.length;
  const title = left ? `The ${shown.length} most probable of ${classes.length} classes` : "Probability of each class";
  return make("div", {}, make("h3", {}, title), list);
}

function showProblem(place, message, hint) {
  const parts = [make("p", { className: "wrong" }, message)];
  if (hint) parts.push(make("p", { className: "quiet" }, hint));
  place.replaceChildren(...parts);
}

/** The words of a refusal, whoever on the way wrote it. */
function refusalOf(status, text) {
  try {
    const { error } = JSON.parse(text);
    if (error && error.message) return { message: error.message, hint: error.hint };
  } catch { /* it is no JSON: a proxy wrote it */ }
  return { message: `The endpoint answers HTTP ${status}.`, hint: text.slice(0, 200) };
}
