// The colour of a request: the same for as long as it lives, and on every page that shows it.

const HUES = 30;

/** FNV-1a, 32 bits. */
function hash(text) {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193) >>> 0;
  }
  // Ids often differ in their last letters only: let these reach all bits.
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d) >>> 0;
  return (value ^ (value >>> 13)) >>> 0;
}

/** A CSS colour that stands out from both themes' ground; hue and lightness come from the id. */
export function colourOf(requestId) {
  const value = hash(requestId);
  const hue = (value % HUES) * (360 / HUES);
  const lightness = [0.56, 0.66, 0.75][Math.floor(value / HUES) % 3];
  return `oklch(${lightness} 0.14 ${hue})`;
}
