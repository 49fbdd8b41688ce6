"use strict";
// What both pages share: where the endpoint is, and the same request written for a shell and for Python.

const MAX_SHOWN_CHARS = 6000; // a longer body is a file beside the command

/** The endpoint's address without a trailing slash, whether or not the page was asked for with one. */
function endpointAddress(page) {
  const path = location.pathname;
  const below = page && path.endsWith("/" + page) ? path.slice(0, -page.length) : path;
  return location.origin + below.replace(/\/+$/, "");
}

function shellQuoted(text) {
  return "'" + text.replaceAll("'", "'\\''") + "'";
}

/** A JSON value as Python writes it, in one line. */
function pythonLiteral(value) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return "[" + value.map(pythonLiteral).join(", ") + "]";
  if (typeof value === "object") {
    return "{" + Object.entries(value).map(([k, v]) => pythonLiteral(k) + ": " + pythonLiteral(v)).join(", ") + "}";
  }
  return JSON.stringify(value); // of text: what JSON escapes, Python reads alike
}

/** A POST of a body. */
function curlCall(url, body, withKey) {
  const lines = ["curl -s " + shellQuoted(url)];
  if (withKey) lines.push('-H "authorization: Bearer $API_KEY"');
  const text = JSON.stringify(body);
  lines.push("-H 'content-type: application/json'");
  lines.push("-d " + (text.length > MAX_SHOWN_CHARS ? "@request.json" : shellQuoted(text)));
  return lines.join(" \\\n  ");
}

function pythonCall(url, body, withKey) {
  const isLong = JSON.stringify(body).length > MAX_SHOWN_CHARS;
  const headers = withKey ? 'headers={"authorization": "Bearer " + os.environ["API_KEY"]}, ' : "";
  return [
    ...(isLong ? ["import json"] : []),
    ...(withKey ? ["import os"] : []),
    ...(isLong || withKey ? [""] : []),
    "import requests",
    "",
    ...(isLong ? ['with open("request.json") as file:', "    body = json.load(file)"] : ["body = " + pythonLiteral(body)]),
    `answer = requests.post(${pythonLiteral(url)}, json=body, ${headers}timeout=30)`,
    "print(answer.json())",
  ].join("\n");
}

async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea"); // plain http from elsewhere: browsers offer no clipboard there
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function offerCopy(button, text) {
  button.addEventListener("click", async () => {
    const before = button.textContent;
    try {
      await copyText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select the text to copy it";
    }
    setTimeout(() => { button.textContent = before; }, 2000);
  });
}

/** An element with properties and children; text is never read as HTML. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
