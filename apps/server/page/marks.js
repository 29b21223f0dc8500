// What was found, drawn over the picture: as elements on the page, on a canvas for the file.

const COLOUR = '#ffb224';
const HALO = '#16130f';

/**
 * What an answer points at, as one list of boxes {x_min, y_min, x_max, y_max, confidence} and
 * points {x, y, confidence}: of detect and point their findings, of a query that thought first the
 * places it looked at. Fractions of the upright picture's width and height.
 */
export function findingsOf(answer) {
  if (!answer) return [];
  const looked = (answer.reasoning?.grounding ?? []).flatMap(({ points }) =>
    points.map(([x, y]) => ({ x, y })));
  return [...(answer.objects ?? []), ...(answer.points ?? []), ...looked];
}

const isBox = (finding) => 'x_min' in finding;

/** "cloud 0.96", or as much of it as there is. */
const caption = (finding, label) =>
  [label, finding.confidence?.toFixed(2)].filter(Boolean).join(' ');

const percent = (fraction) => `${fraction * 100}%`;

/**
 * Shows the findings in `layer`, which lies exactly over the picture. Places are in per cent, so
 * they stay right at any size without being drawn again.
 */
export function showMarks(layer, findings, label) {
  layer.replaceChildren(...findings.map((finding) => markOf(finding, label)));
}

function markOf(finding, label) {
  const mark = document.createElement('div');
  mark.className = isBox(finding) ? 'mark box' : 'mark point';
  if (isBox(finding)) {
    mark.style.left = percent(finding.x_min);
    mark.style.top = percent(finding.y_min);
    mark.style.width = percent(finding.x_max - finding.x_min);
    mark.style.height = percent(finding.y_max - finding.y_min);
  } else {
    mark.style.left = percent(finding.x);
    mark.style.top = percent(finding.y);
  }
  const text = caption(finding, label);
  if (text) {
    const tag = document.createElement('span');
    tag.textContent = text;
    // Away from the edges of the picture.
    const left = isBox(finding) ? finding.x_min : finding.x;
    const top = isBox(finding) ? finding.y_min : finding.y;
    tag.classList.toggle('leftwards', left > 0.72);
    tag.classList.toggle('below', top < 0.07);
    mark.append(tag);
  }
  return mark;
}

/** Brings one finding out and lets the others step back; null for all alike. */
export function highlight(layer, index) {
  layer.classList.toggle('chosen', index !== null);
  [...layer.children].forEach((mark, i) => mark.classList.toggle('on', i === index));
}

/** Draws the findings on a canvas that holds the picture; lines and letters grow with the picture. */
export function drawMarks(context, findings, label) {
  const { width, height } = context.canvas;
  const line = Math.max(2, Math.round(Math.max(width, height) / 400));
  context.font = `600 ${line * 7}px system-ui, sans-serif`;
  context.textBaseline = 'top';
  for (const finding of findings) {
    // On whole pixels lines are crisp.
    const x = Math.round((finding.x_min ?? finding.x) * width);
    const y = Math.round((finding.y_min ?? finding.y) * height);
    const path = new Path2D();
    if (isBox(finding)) {
      path.rect(x, y, Math.round(finding.x_max * width) - x, Math.round(finding.y_max * height) - y);
    } else {
      path.arc(x, y, line * 4, 0, 2 * Math.PI);
    }
    context.lineWidth = line * 2;
    context.strokeStyle = HALO;
    context.stroke(path);
    context.lineWidth = line;
    context.strokeStyle = COLOUR;
    context.stroke(path);
    drawTag(context, caption(finding, label), x, y, line, isBox(finding) ? 0 : line * 6);
  }
}

function drawTag(context, text, x, y, line, aside) {
  if (!text) return;
  const { width, height } = context.canvas;
  const w = context.measureText(text).width + line * 4;
  const h = line * 9;
  const left = Math.max(0, Math.min(aside && x + aside + w > width ? x - aside - w : x + aside, width - w));
  const top = Math.max(0, Math.min(aside ? y - h / 2 : y < h ? y : y - h, height - h));
  context.fillStyle = HALO;
  context.fillRect(left, top, w, h);
  context.fillStyle = COLOUR;
  context.fillText(text, left + line * 2, top + line * 1.2);
}
