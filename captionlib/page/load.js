// Loading the captioner, when it is asked for. Its weights lie beside this script,
// as scripts that hand over a text: a page opened from disk may load nothing else.

const FOLDER = document.currentScript.src.replace(/[^/]*$/, "");
const handedOver = {};
window.captionlib = { take: (name, what) => { handedOver[name] = what; } };

// What the script of this name hands over.
function fetchScript(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${FOLDER}${name}.js`;
    script.onload = () => {
      script.remove();
      resolve(handedOver[name]);
      delete handedOver[name];
    };
    script.onerror = () => {
      script.remove();
      reject(new Error(`${name}.js can’t be loaded; is the page complete, and the network up?`));
    };
    document.head.append(script);
  });
}

// A Writer with all its weights. `progress` is told the share that has arrived.
async function loadWriter(progress) {
  const { code, model } = await fetchScript("model");
  const engine = await Engine.start(fromBase64(code), model).catch(() => {
    throw new Error("this browser is too old: it lacks SIMD in WebAssembly");
  });
  let arrived = 0;
  await Promise.all(Array.from({ length: model.parts }, async (_, part) => {
    engine.load(part, await fetchScript(`weights-${part}`));
    arrived += 1;
    progress(arrived / model.parts);
  }));
  return new Writer(engine);
}

// A file that the reader chose, as the captioner's pixels and as a canvas to look at.
// Upright, in its first frame, transparent parts white: as captionlib.io.images.
async function openPicture(blob) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  const pixels = shrink(width, height, (top, count) =>
    sketch(width, count, bitmap, 0, -top, width, height).getImageData(0, 0, width, count).data);
  // A strip a thousand times as long as wide would show as a line.
  const shape = Math.min(Math.max(width / height, 1 / 4), 4);
  const [wide, high] = shape > 1 ? [640, 640 / shape] : [640 * shape, 640];
  const view = sketch(Math.round(wide), Math.round(high), bitmap, 0, 0, wide, high).canvas;
  bitmap.close();
  return { pixels, view };
}

// A canvas's context, with a picture on white.
function sketch(width, height, ...picture) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(...picture);
  return context;
}
