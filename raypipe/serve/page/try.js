// The page to try a model: ask what is known of its inputs, make the form, send rows, show answers and the same calls.

{
  let model = JSON.parse(document.getElementById("model").textContent); // null where it is told to holders of a key alone
  const address = endpointAddress("");
  const form = document.getElementById("form");
  const place = document.getElementById("answer");
  const keyField = document.getElementById("key-field");
  const keyInput = document.getElementById("key");
  let fields = [], key = "", turn = 0, later = 0, isAsked = false, body = null;

  for (const link of document.querySelectorAll("a[data-path]")) link.href = address + link.dataset.path;

  const headers = (more) => (key ? { ...more, authorization: "Bearer " + key } : more);

  /** Ask for the key; it is kept in this page alone, and forgotten with it. */
  const askForKey = (message) => {
    keyField.hidden = false;
    showProblem(place, message, key ? "Check the key." : "Type the key into the field above the button.");
    keyInput.focus();
  };

  /** What the page shows of the model, out of its metadata. */
  const named = ({ model, version, signature }) => {
    document.title = `Try ${model} ${version}`;
    document.getElementById("title").replaceChildren(model, " ", make("small", {}, `version ${version}`));
    return { ...signature, model, version };
  };

  /** Whether what is known of the inputs was handed out. */
  const begin = async () => {
    let hints = {}, isKnown = false;
    try {
      const answer = await fetch(address + "/metadata", { headers: headers({}) });
      isKnown = answer.ok;
      if (isKnown) {
        const known = await answer.json();
        hints = known.inputs;
        model ??= named(known);
      } else if (answer.status === 401 || answer.status === 403) {
        askForKey(refusalOf(answer.status, await answer.text()).message);
      }
    } catch { /* the form works without: ranges come from the types then */ }
    if (model === null) return false;
    fields = fieldsFor(model.inputs, hints, changed);
    document.getElementById("fields").replaceChildren(...fields.map((field) => field.element));
    for (const field of fields) field.fill();
    document.getElementById("buttons").hidden = false;
    showCalls();
    return isKnown;
  };

  const row = () => {
    if (fields.length === 1 && fields[0].name === null) return fields[0].read();
    return Object.fromEntries(fields.map((field) => [field.name, field.read()]));
  };

  const showCalls = () => {
    try {
      body = { instances: [row()] };
    } catch {
      body = null;
      return; // told when the model is asked
    }
    const withKey = !keyField.hidden;
    document.getElementById("curl").textContent = curlCall(address + "/predict", body, withKey);
    document.getElementById("python").textContent = pythonCall(address + "/predict", body, withKey);
    document.getElementById("body-file").hidden = JSON.stringify(body).length <= MAX_SHOWN_CHARS;
  };

  const changed = () => {
    showCalls();
    clearTimeout(later);
    // Drawings and files are answered at once; of a table, once it has been asked about.
    if (isAsked || fields.some((field) => field.asksAtOnce)) later = setTimeout(ask, 150);
  };

  const ask = async () => {
    const mine = ++turn;
    let answer, text;
    showCalls();
    if (body === null) {
      try {
        row();
      } catch (error) {
        showProblem(place, error.message);
      }
      return;
    }
    place.setAttribute("aria-busy", "true");
    try {
      answer = await fetch(address + "/predict", {
        method: "POST", body: JSON.stringify(body), headers: headers({ "content-type": "application/json" }),
      });
      text = await answer.text();
    } catch {
      answer = null;
    }
    if (mine !== turn) return; // a newer question is on its way
    place.setAttribute("aria-busy", "false");
    if (answer === null) return showProblem(place, "The endpoint does not answer.", "Is it still running?");
    if (answer.ok) {
      isAsked = true;
      return showAnswer(place, model, JSON.parse(text).predictions[0], answer.headers.get("x-raypipe-model"));
    }
    const { message, hint } = refusalOf(answer.status, text);
    if (answer.status === 401) return askForKey(message);
    showProblem(place, message, hint);
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(later);
    ask();
  });
  document.getElementById("use-key").addEventListener("click", async () => {
    key = keyInput.value.trim();
    place.replaceChildren();
    if (await begin()) place.replaceChildren(make("p", { className: "quiet" }, "The key is accepted."));
  });
  keyInput.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    document.getElementById("use-key").click();
  });
  document.getElementById("body-file").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([JSON.stringify(body)], { type: "application/json" }));
    make("a", { href: url, download: "request.json" }).click();
    URL.revokeObjectURL(url);
  });
  for (const button of document.querySelectorAll("button.copy")) {
    offerCopy(button, () => button.parentElement.querySelector("code").textContent);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const field of fields) field.redraw?.();
  });
  begin();
}
