// The student in the reader's browser. onnxruntime-web and the network are files of this site, fetched at the first click; an image that the
// reader gives stays in the page.
const LONGEST = 1600;  // pixels of an image's longer side

const live = document.querySelector(".kdas-live[data-runtime]");
const said = live.querySelector(".said");
let session;

async function start() {
  const ort = await import(new URL(live.dataset.runtime, location));
  ort.env.wasm.numThreads = 1;  // threads need headers that a plain server does not send
  const network = await ort.InferenceSession.create(new URL(live.dataset.model, location).href, {executionProviders: ["wasm"]});
  return {ort, network};
}

// RGB without the alpha of a canvas, and the canvas itself.
function pixelsOf(picture) {
  const width = picture.naturalWidth ?? picture.width, height = picture.naturalHeight ?? picture.height;  // not as laid out
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  const rgb = new Uint8Array(canvas.width * canvas.height * 3);
  for (let i = 0, j = 0; i < data.length; i += 4) {
    rgb[j++] = data[i]; rgb[j++] = data[i + 1]; rgb[j++] = data[i + 2];
  }
  return {canvas, context, rgb};
}

// What the network takes for a polyp in amber, its edge opaque; returns the share of pixels.
function draw({canvas, context}, probability) {
  const {width, height} = canvas;
  const pixels = context.getImageData(0, 0, width, height);
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && probability[y * width + x] >= 0.5;
  let count = 0;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    if (!inside(x, y)) continue;
    count++;
    const edge = !(inside(x - 2, y) && inside(x + 2, y) && inside(x, y - 2) && inside(x, y + 2));
    const i = 4 * (y * width + x), share = edge ? 1 : 0.25;
    for (const [k, amber] of [230, 159, 0].entries()) pixels.data[i + k] += share * (amber - pixels.data[i + k]);
  }
  context.putImageData(pixels, 0, 0);
  return count / (width * height);
}

async function segment(picture) {
  live.setAttribute("aria-busy", "true");
  try {
    if (!session) said.textContent = "Loading the network …";
    const {ort, network} = await (session ??= start());
    const image = pixelsOf(picture), {width, height} = image.canvas;
    const began = performance.now();
    const input = new ort.Tensor("uint8", image.rgb, [1, height, width, 3]);
    const output = await network.run({[network.inputNames[0]]: input});
    const ms = Math.round(performance.now() - began);
    const share = draw(image, output[network.outputNames[0]].data);
    image.canvas.setAttribute("role", "img");
    image.canvas.setAttribute("aria-label", `The image, with ${(100 * share).toFixed(1)} % of it marked as polyp`);
    stage.replaceChildren(image.canvas);
    said.textContent = `${width} × ${height} pixels in ${ms} ms, in this browser: ${(100 * share).toFixed(1)} % of the image is polyp, says the network. Nothing left this page.`;
  } catch (error) {
    session = undefined;
    said.textContent = `The network did not run: ${error.message}`;
  } finally {
    live.removeAttribute("aria-busy");
  }
}

async function take(file) {
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    said.textContent = `“${file.name}” is no image that this browser can read.`;
    return;
  }
  await segment(picture);
}

const stage = document.createElement("div");
stage.className = "stage";
for (const shown of live.querySelectorAll("img")) {
  const button = document.createElement("button"), image = new Image();
  button.type = "button";
  image.src = shown.dataset.image;
  image.alt = shown.alt.replace(/ with .*/, "");
  image.width = shown.width;
  button.append(image);
  button.addEventListener("click", async () => { await image.decode(); await segment(image); });
  shown.replaceWith(button);
}
const label = document.createElement("label"), input = document.createElement("input");
input.type = "file";
input.accept = "image/*";
input.addEventListener("change", () => { if (input.files.length) take(input.files[0]); });
label.append("Or an image of your own, by this button or dropped here: ", input);
said.setAttribute("role", "status");
said.textContent = "Choose an image: the network runs in this page.";
live.append(label, stage, said);
live.addEventListener("dragover", (event) => event.preventDefault());
live.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});
