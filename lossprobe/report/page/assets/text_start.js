// Starts when the page is read. A browser that is too old for the data still has the table.

async function startTextView() {
  const root = document.getElementById("lp-text");
  if (!root) return;
  if (typeof DecompressionStream === "undefined") {
    root.querySelector(".lp-status").textContent = "This browser cannot unpack the text: the table below still holds.";
    return;
  }
  const view = new TextView(await readText(), root);
  root.querySelector(".lp-live").hidden = false;
  view.start();
  requestAnimationFrame(() => performance.mark("lossprobe-text-shown"));
}

startTextView().catch((error) => {
  document.querySelector("#lp-text .lp-status").textContent = `The text could not be shown: ${error.message}`;
  throw error;
});
