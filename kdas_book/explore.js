// The sliders of explore.py. The picture's number is read off them from left to right, in mixed radix. Browsers keep a slider's place when
// a page is loaded again, so the picture is set at the start as well.
for (const box of document.querySelectorAll(".kdas-explore:not([data-live])")) {
  box.dataset.live = "";
  const inputs = [...box.querySelectorAll("input")], pictures = [...box.querySelectorAll("img")];
  const step = () => {
    let n = 0;
    for (const input of inputs) {
      if (input.type === "checkbox") { n = n * 2 + input.checked; continue; }
      const label = JSON.parse(input.dataset.labels)[input.value];
      n = n * (+input.max + 1) + +input.value;
      input.closest("div").parentNode.querySelector("output").textContent = label;
      input.setAttribute("aria-valuetext", label);
    }
    pictures.forEach((picture, i) => { picture.hidden = i !== n; });
  };
  const fetch = () => pictures.forEach((picture) => { picture.loading = "eager"; });
  let playing;
  const stop = () => {
    clearInterval(playing);
    for (const button of box.querySelectorAll("button")) button.textContent = "▶";
    playing = undefined;
  };
  box.addEventListener("click", (event) => {
    const button = event.target.closest("button[aria-label^=Play]"), was = button?.textContent;
    if (!button) return;
    stop();
    if (was !== "▶") return;
    const slider = button.parentNode.querySelector("input");
    const next = () => {
      slider.value = +slider.value + 1;
      step();
      if (slider.value === slider.max) stop();
    };
    button.textContent = "⏸";
    playing = setInterval(next, 900);
    if (slider.value !== slider.max) return next();
    slider.value = 0;
    step();
  });
  box.addEventListener("input", () => { stop(); step(); });
  for (const event of ["pointerenter", "focusin"]) box.addEventListener(event, fetch, {once: true});
  step();
}
