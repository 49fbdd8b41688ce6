// The reference page: its calls name the address it was asked for at.

{
  const address = endpointAddress("docs");
  const known = document.querySelector("main").dataset.base;
  for (const code of document.querySelectorAll("code")) code.textContent = code.textContent.replaceAll(known, address);
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    offerCopy(button, () => button.parentElement.querySelector("code").textContent);
  }
  for (const link of document.querySelectorAll("a[data-path]")) link.href = address + link.dataset.path;
}
