// Images as { width, height, data: RGB bytes, canvas }; the graph takes the bytes and resizes them itself.

// The limits of Python: of a file, except that a JPEG may be larger, and of the pixels that it is made smaller to (see decoding.py and images.py).
const LARGEST_PIXELS = 2 ** 24, LARGEST_SIDE = 2 ** 14, MOST_PIXELS = 2 ** 22;

/** Return the pixels of a picture, or of a part of it, at 1 / scale of its sides; transparent ones are on white. */
function pixels(picture, left, top, fullWidth, fullHeight, scale = 1) {
  const width = Math.ceil(fullWidth / scale), height = Math.ceil(fullHeight / scale);
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, left, top, fullWidth, fullHeight, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height), found = new Uint8Array(3 * width * height);
  for (let i = 0, at = 0; at < found.length; i += 4) {
    for (let channel = 0; channel < 3; channel++) found[at++] = data[i + channel];
  }
  return { width, height, data: found, canvas };
}

/** Return the image in a file, upright as in Python; throw an error if the browser cannot read it. */
export async function fromFile(file) {
  let picture;
  try {
    picture = await createImageBitmap(file, { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name}: is not an image that this browser can read`);
  }
  const { width, height } = picture, start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const larger = (n, most) => width * height > most * n * n || Math.max(width, height) > LARGEST_SIDE * n;
  let scale = 1;
  while (scale < 8 && larger(scale, MOST_PIXELS)) scale *= 2;
  try {
    if (!larger(start[0] === 0xff && start[1] === 0xd8 ? scale : 1, LARGEST_PIXELS)) return pixels(picture, 0, 0, width, height, scale);
  } finally {
    picture.close();
  }
  throw new Error(`${file.name}: has ${width} x ${height} pixels; expected at most ${LARGEST_PIXELS} and sides up to ${LARGEST_SIDE}; store it smaller, or as JPEG`);
}

/** Return the central square of what the camera shows. */
export function fromCamera(video) {
  const { videoWidth: width, videoHeight: height } = video, side = Math.min(width, height);
  return pixels(video, (width - side) >> 1, (height - side) >> 1, side, side);
}
