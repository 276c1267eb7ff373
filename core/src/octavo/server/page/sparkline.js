// A line of the last minute, without axes.

import { fitCanvas } from "./canvas.js";

/** Draws [{timeS, tokensPerS}] so that the newest is at the right edge. */
export function drawSparkline(canvas, history, lengthS) {
  const { context, width, height } = fitCanvas(canvas);
  context.clearRect(0, 0, width, height);
  if (history.length < 2) return;
  const end = history.at(-1).timeS;
  const most = Math.max(1, ...history.map(({ tokensPerS }) => tokensPerS));
  const points = history.map(({ timeS, tokensPerS }) => [
    width * (1 - (end - timeS) / lengthS),
    height - 1.5 - (tokensPerS / most) * (height - 3),
  ]);
  const style = getComputedStyle(canvas);
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.strokeStyle = style.color;
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(points.at(-1)[0], height);
  context.lineTo(points[0][0], height);
  context.globalAlpha = 0.12;
  context.fillStyle = style.color;
  context.fill();
  context.globalAlpha = 1;
}
