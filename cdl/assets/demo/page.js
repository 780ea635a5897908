// The page of `cdl demo`: classify images, teach classes, undo, download.

import { fromCamera, fromFile } from "./images.js";
import { checkName } from "./names.js";
import { Student } from "./student.js";

const TOP = 5, PICTURES = 10, PAUSE = 150, SMALL = 80; // ms between pictures of the camera; width of a small picture
const byId = (id) => document.getElementById(id);
const made = (kind, ...inside) => { const found = document.createElement(kind); found.append(...inside); return found; };

const plural = (n) => `${n} image${n === 1 ? "" : "s"}`;

export const opened = Student.open();
let student, busy = Promise.resolve(), shown = null, stream = null, examples = [], seconds = 0; // the features of examples, and the time to compute them

/** Do one thing after another, since all use the student; an error is shown in a place. */
function then(place, action) {
  busy = busy.then(async () => {
    byId(place).textContent = "";
    try {
      await action();
    } catch (error) {
      byId(place).textContent = error.message;
    }
    describe();
  });
  return busy;
}

/** Show the classes, and which buttons can be used. */
function describe() {
  if (!student) return;
  byId("count").textContent = `${student.classes.length} classes:`;
  byId("classes").textContent = student.classes.join(", ");
  const teaches = student.learns && window.isSecureContext;
  byId("image").disabled = false;
  byId("camera").disabled = !navigator.mediaDevices;
  byId("files").disabled = !teaches;
  byId("take").disabled = !teaches || !stream;
  byId("go").disabled = !teaches || !examples.length;
  byId("clear").disabled = !examples.length;
  byId("undo").disabled = !student.undoes || !window.isSecureContext;
  byId("download").disabled = false;
  if (!student.learns) byId("state").textContent = "This student cannot learn: it was exported without memory.safetensors; its card says why.";
  else if (!teaches) byId("state").textContent = "Browsers allow the camera and teaching only to pages of https or of this machine.";
}

/** Classify an image and show the best classes. */
async function classify(image) {
  const begin = performance.now(), { best, score } = await student.best(image, TOP), took = performance.now() - begin;
  byId("best").replaceChildren(...best.map(({ name, probability }) => {
    const meter = Object.assign(made("meter"), { value: probability, ariaLabel: name }), head = Object.assign(made("th", name), { scope: "row" });
    return made("tr", head, made("td", meter), made("td", `${(100 * probability).toFixed(1)} %`));
  }));
  byId("none").textContent = score && score.score < score.threshold ? `None of these: score ${score.score.toFixed(3)}, below ${score.threshold.toFixed(3)}` : "";
  byId("took").textContent = `${took.toFixed(1)} ms in this browser`;
}

function choose(file) {
  stopCamera();
  return then("predict-error", async () => {
    shown = null;
    byId("shown").hidden = true;
    byId("best").replaceChildren();
    byId("none").textContent = byId("took").textContent = "";
    const image = await fromFile(file);
    URL.revokeObjectURL(byId("shown").src);
    Object.assign(byId("shown"), { src: URL.createObjectURL(file), alt: file.name, hidden: false });
    shown = image;
    await classify(image);
  });
}

async function startCamera() {
  stream = await navigator.mediaDevices.getUserMedia({ video: true });
  Object.assign(byId("video"), { srcObject: stream, hidden: false });
  byId("shown").hidden = true;
  byId("camera").textContent = "Stop the camera";
  byId("answer").ariaLive = "off"; // it changes several times per second
  await byId("video").play();
  shown = null;
  requestAnimationFrame(watch);
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  Object.assign(byId("video"), { srcObject: null, hidden: true });
  byId("camera").textContent = "Start the camera";
  byId("answer").ariaLive = "polite";
}

/** Classify what the camera shows, again and again. */
async function watch() {
  if (stream) await then("predict-error", async () => { if (stream) await classify(fromCamera(byId("video"))); });
  if (stream) requestAnimationFrame(watch);
}

/** Add the features of an image to the examples, and show a small picture of it. */
async function add(image) {
  const small = Object.assign(made("canvas"), { width: SMALL, height: SMALL }), begin = performance.now();
  examples.push(await student.features(image));
  seconds += (performance.now() - begin) / 1e3;
  small.getContext("2d").drawImage(image.canvas, 0, 0, SMALL, SMALL);
  byId("examples").append(small);
  byId("examples").ariaLabel = plural(examples.length);
}

function clear() {
  [examples, seconds] = [[], 0];
  byId("examples").replaceChildren();
  byId("examples").ariaLabel = "no images";
}

function addFiles(files) {
  return then("learn-error", async () => { for (const file of files) await add(await fromFile(file)); });
}

function takePictures() {
  return then("learn-error", async () => {
    for (let i = 0; i < PICTURES && stream; i++) {
      await add(fromCamera(byId("video")));
      await new Promise((done) => setTimeout(done, PAUSE));
    }
  });
}

function teach() {
  return then("learn-error", async () => {
    const field = byId("learn").elements.class, name = checkName(field.value);
    byId("state").textContent = `Learning ${name} ...`;
    await new Promise((done) => setTimeout(done, 50)); // the browser shows it first
    try {
      const { known, milliseconds, bytes, flips } = await student.learn(name, examples);
      byId("state").textContent = `${known ? "Learnt more of" : "Learnt"} ${name} from ${plural(examples.length)}: ` +
        `${((1e3 * seconds) / examples.length).toFixed(1)} ms per image, heads in ${milliseconds.toFixed(0)} ms; the state has ${(bytes / 1e6).toFixed(2)} MB.` +
        (flips[1] ? ` Negative flips: ${flips[0]} of ${flips[1]} examples of earlier classes were right and are wrong now.` : "");
    } catch (error) {
      byId("state").textContent = "";
      throw error;
    }
    field.value = "";
    clear();
    if (shown) await classify(shown);
  });
}

function undo() {
  return then("learn-error", async () => {
    const before = student.classes;
    await student.undo();
    const gone = before.filter((name) => !student.classes.includes(name));
    byId("state").textContent = gone.length ? `Removed ${gone.join(", ")}.` : "Removed the last images.";
    if (shown) await classify(shown);
  });
}

function download() {
  return then("learn-error", async () => {
    const link = Object.assign(made("a"), { href: URL.createObjectURL(await student.archive()), download: "student.zip" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

for (const [id, use] of [["image", ([file]) => file && choose(file)], ["files", addFiles]]) {
  byId(id).addEventListener("change", ({ target }) => { use([...target.files]); target.value = ""; });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    byId(`${id}-drop`).addEventListener(kind, (event) => {
      event.preventDefault();
      byId(`${id}-drop`).classList.toggle("over", kind === "dragover");
      if (kind === "drop" && !byId(id).disabled) use([...event.dataTransfer.files]);
    });
  }
}
byId("camera").addEventListener("click", () => then("predict-error", stream ? stopCamera : startCamera));
byId("take").addEventListener("click", takePictures);
byId("clear").addEventListener("click", () => then("learn-error", clear));
byId("learn").addEventListener("submit", (event) => { event.preventDefault(); teach(); });
byId("undo").addEventListener("click", undo);
byId("download").addEventListener("click", download);
then("predict-error", async () => {
  try {
    student = await opened;
  } catch (error) {
    byId("count").textContent = "";
    throw new Error(`the student cannot be loaded: ${error.message}`);
  }
});
