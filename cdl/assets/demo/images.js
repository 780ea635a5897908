// Images as { width, height, data: RGB bytes, canvas }; the graph takes the bytes and resizes them itself.

/** Return the pixels of a picture, or of a part of it, without scaling; transparent ones are on white. */
function pixels(picture, left, top, width, height) {
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, left, top, width, height, 0, 0, width, height);
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
  const found = pixels(picture, 0, 0, picture.width, picture.height);
  picture.close();
  return found;
}

/** Return the central square of what the camera shows. */
export function fromCamera(video) {
  const { videoWidth: width, videoHeight: height } = video, side = Math.min(width, height);
  return pixels(video, (width - side) >> 1, (height - side) >> 1, side, side);
}
